package mail

import (
	"io"
	"time"
)

// Deliver takes one message from a source. in is the message's Info as the server
// gives it with the octets (with flags and dates). r reads the wire form, exactly,
// and is only valid until Deliver returns; an error of r, io.ErrUnexpectedEOF
// among them, means that the message was not received: Deliver returns nil and
// drops it, and the driver asks for it again or delivers an error. Deliver need
// not read r to its end.
//
// If err is not nil, r is nil and this one message could not be had:
// ErrVanished if it is gone, else an *Error with the server's words. The others
// go on.
type Deliver func(in Info, r io.Reader, err error) error

// How a message is deleted at a server.
const (
	ModeExpunge = "expunge" // for good
	ModeTrash   = "trash"   // moved to the server's \Trash mailbox
)

// Why a message stays, in the words of a Deleter.
const (
	WhyVanished = "no longer at the server"
	WhyChanged  = "changed at the server since it was archived"
)

// DeleteOrder asks a source to delete messages of one mailbox.
type DeleteOrder struct {
	// Proofs says what may go. Receipt.Info.Ref is the message at the server,
	// Receipt.Info.Size its listed size, Receipt.Header the digest its header must
	// have. A zero Proof is refused.
	Proofs []Proof
	// Mode is ModeExpunge or ModeTrash.
	Mode string
	// Allow applies the rule again to what the server says of Proofs[i] now. It
	// returns "" or why the message stays. InternalDate is zero where the server
	// was not asked for it again.
	Allow func(i int, in Info) (why string)
	// Intend is called with the messages (indexes into Proofs) that the server
	// still shows as they were proven, before the first order to delete one of
	// them is sent; they are on record when it returns. An error ends the order.
	Intend func(passed []int) error
	// Settle is called at most once for each message when it is known whether the
	// server has it: gone, or still there and why. What passed Intend and is not
	// settled when Delete returns is unknown.
	Settle func(i int, gone bool, why string)
	// Moved, if not nil, is called before Settle for a message that went to the
	// trash, where the server told under which UID it lies there: to has that, with
	// mailbox and UIDVALIDITY, and size and flags.
	Moved func(i int, to Info)
}

// Doomed is a message about to be deleted at a server: the claim that says where
// it is there, and the proof that the archive holds it.
type Doomed struct {
	Claim int64
	Proof Proof
}

// Deletion is a recorded intent to delete a message at a server, and what came of
// it as far as that is known.
type Deletion struct {
	ID      int64
	Account string
	Mailbox string // at the account
	Claim   Claim  // as it is now
	Held    Held
	Rule    string // as a person wrote it
	Mode    string // ModeExpunge or ModeTrash
	At      time.Time
	Open    bool // it is not known what came of it
}

// DeletionResult is what came of an intent.
type DeletionResult struct {
	ID   int64 // of the Deletion
	Gone bool  // the server no longer has the message; else it is known to be there
	// Moved is the message where it lies now, in the trash of the same account, if
	// the server told: it is claimed there. The zero Info if not.
	Moved Info
}
