package mail

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Claim says that a message of an account, under this UID (or UIDL), is held by
// a message of the archive.
type Claim struct {
	ID          int64
	UIDValidity uint32
	UID         string
	Message     int64     // ledger id of the archived message
	Size        int64     // octets as the server listed them
	Flags       Flags     // as last seen at the server
	Fetched     bool      // the octets came to us under this very UID; else adopted by content
	Gone        time.Time // since when the server lacks it; zero while it is there
	GoneBy      string    // "" while it is there, else "server" or "us": who took it away
	Missing     bool      // the archive has lost the message: fetch it again while it is there
}

// SizeDoubt words the suspicion that a message's length is not what was listed;
// a second fetch with the same octets clears it.
func SizeDoubt(listed, sent int64) string {
	return fmt.Sprintf("%s%d octets and sent %d", sizeDoubt, listed, sent)
}

const sizeDoubt = "the server lists "

// IsSizeDoubt tells whether a suspicion is one that SizeDoubt worded.
func IsSizeDoubt(suspicious string) bool { return strings.HasPrefix(suspicious, sizeDoubt) }

// OtherMessage is the Size of a claim that turned out to be on another message than
// the server has under its UID: the message is to be fetched as a whole, and no size
// that is listed fits it.
const OtherMessage = math.MaxInt64

// Held is an archived message as the ledger has it.
type Held struct {
	Message    int64 // ledger id
	Receipt    Receipt
	Suspicious string // why it may not be what the server should have sent; "" if nothing is odd
}

// Change is one step of a run, recorded in one transaction: all of it or nothing.
// Everything in it is already true when it is recorded.
type Change struct {
	Archived []Archived        // durable messages, each with a new claim
	Adopted  []Adoption        // claims on messages the archive already had
	Gone     []int64           // claims the server no longer shows
	Fetched  []int64           // adopted claims whose octets were fetched since, and are the archived ones
	Wrong    []int64           // claims that are on another message than the server has: see OtherMessage
	Cleared  []int64           // messages no longer suspicious: a second fetch gave the same octets
	Returned []int64           // claims that were gone and are back
	Undone   []int64           // deletions (their IDs) whose message is at the server again
	Flags    []FlagChange      // flags that changed at the server
	Cursors  []Cursor          // mailboxes that were completed
	Anchors  map[string]Anchor // mailboxes on disk, by name
}

// Archived is a new message and the claim on it.
type Archived struct {
	Receipt    Receipt
	UID        string // overrides Receipt.Info.Ref.UID if not ""
	Suspicious string
	// Copied says that the octets are those of another message of the archive, which
	// the server says is the same one: they did not come under this very UID.
	Copied bool
}

// Adoption is a claim on a message that is already in the archive. It replaces
// Takes, a claim of the same account that is gone, if that is not 0. An
// INTERNALDATE of the server replaces a date that was only guessed.
type Adoption struct {
	Info    Info // Ref, Size and Flags count
	Message int64
	Takes   int64
	Fetched bool   // its octets were fetched under this UID and compared
	Place   string // new place of the message, "" if its flags did not move it
	// Confirmed says that a second, separate fetch gave the same octets: the
	// message is no longer suspicious.
	Confirmed bool
}

// FlagChange is a claim whose flags at the server changed.
type FlagChange struct {
	Claim   int64
	Message int64
	Flags   Flags
	Place   string // new place of the message, "" if it did not move
}

// Cursor is the state of a mailbox at a server when it was last completed,
// without selection and with nothing failed or pending; State "" means that
// nothing can be concluded.
type Cursor struct {
	Account, Mailbox string
	State            string
}

// Anchor is the ledger's record of a mailbox on disk, by which a run recognises
// what an earlier one left.
type Anchor struct {
	// Open is durable before the first append of a run and taken back when the
	// run ends: an Open anchor at the start says that a run was killed.
	Open bool
	// Length is the recorded length of an mbox in octets, 0 for Maildir.
	Length int64
	// ModTime is the mtime of an mbox at that length, in UTC; zero for Maildir.
	ModTime time.Time
}

// Group is what one Commit of an archive made durable.
type Group struct {
	Receipts []Receipt         // Info as given to Append
	Anchors  map[string]Anchor // new record of each mailbox touched
}
