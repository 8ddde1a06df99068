package mail

import "time"

// Sending is a group of messages about to be sent to a destination, with what the
// destination said of the mailbox before: what of it arrived lies at UIDNext or
// above.
type Sending struct {
	Account, Mailbox string // the destination
	UIDValidity      uint32
	UIDNext          uint32 // 0: nothing is sent, the messages were found there
	Messages         []Outgoing
}

// Outgoing is one message of a Sending.
type Outgoing struct {
	Message int64  // ledger id
	Digest  Digest // of the canonical octets that are sent
}

// Upload is a recorded intent to send a message, and what came of it.
type Upload struct {
	ID          int64
	Group       int64 // equal for what was recorded together
	Message     int64
	Digest      Digest // of what was sent
	UIDValidity uint32
	UIDNext     uint32 // when it was about to be sent; 0: it was found there
	UID         string // at the destination; "" while unknown
	Altered     Digest // of what the destination made of it; zero if it is as sent
	At          time.Time
}

// Uploaded is what came of an intent.
type Uploaded struct {
	ID int64 // of the Upload
	// Arrived says that the destination has the message; else it is known not to.
	Arrived bool
	// Info is the message at the destination: UIDValidity, UID, Size and Flags
	// count. An empty UID means that the destination did not tell.
	Info Info
	// Altered is the digest of what the destination made of the octets; zero if
	// they are as sent.
	Altered Digest
	// Undoes are the deletions (their IDs) that this takes back if it arrived.
	Undoes []int64
}
