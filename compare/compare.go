// Package compare proves that one place holds the messages of another: it lists
// both, digests the octets of every message, and names what is missing, what there
// is besides and what was altered. It changes nothing on either side.
//
// The left side is what must be complete (an archive, or the source of a
// migration), the right side is where its messages must be.
package compare

import (
	"context"
	"time"

	"mailhaul/internal/headline"
	"mailhaul/mail"
)

// Side is one of the two places. Its methods are called from one goroutine at a
// time.
type Side interface {
	// Account returns the mail.AccountKey of a server, or the path of an archive.
	Account() string
	// Mailboxes lists the mailboxes that can hold messages.
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)
	// List yields every message of a mailbox. An error means that the listing is
	// not complete.
	List(ctx context.Context, mb mail.Mailbox, yield func(Item) error) error
	// Look reads messages and calls take once for each, one at a time; what it says
	// nothing about could not be had. It returns an error only if no more can be
	// read at all.
	Look(ctx context.Context, mb mail.Mailbox, wants []mail.Want, depth Depth, take func(Look)) error
}

// Finder is a Side that can tell of one mailbox, listed or not, whether it is there.
type Finder interface {
	Find(ctx context.Context, name string) (mb mail.Mailbox, there bool, err error)
}

// Depth is how much of a message is looked at.
type Depth int

const (
	Header Depth = iota // only the header
	Whole               // digest of all octets
	Deep                // besides, what tells a message that a server altered
)

// Need says whether a message of the left side must be on the right side, and if
// not, why.
type Need uint8

const (
	Needed      Need = iota
	DeletedByUs      // we deleted it there
	GoneBefore       // an earlier run recorded that it was removed there
	NotOurs          // it never came from there
)

// Item is one message of a listing.
type Item struct {
	Want   mail.Want   // Size is that of the wire form
	Digest mail.Digest // of the canonical octets where it is on record; else zero
	Date   time.Time   // INTERNALDATE; zero if unknown
	Flags  mail.Flags
	Need   Need
}

// Look is what was read of one message.
type Look struct {
	I    int // index into the wants
	Err  error
	Sums mail.Sums
	Head headline.Headline // not with Whole
	form form              // with Deep
}

// Options says what Run compares.
type Options struct {
	Left, Right Side
	// Selection narrows the left side; of the right side only what it selects is
	// held to be extra.
	Selection mail.Selection
	// Map tells to which mailbox of the right side each one of the left side
	// belongs; nil means that of the same name.
	Map func(left, right []mail.Mailbox) []string
	// Share of the messages whose octets are compared, above 0 and at most 1. The
	// listings are always compared as a whole.
	Share float64
	// Both says that the left side must hold all messages of the right side, too,
	// as an archive those of its source.
	Both bool
	// Only, if not nil, tells which mailboxes the right side can have; others are
	// not compared.
	Only func(right string) bool
	// Matched, if not nil, is told each pair of equal messages.
	Matched func(left, right mail.Ref, d mail.Digest)
	// Found is told each finding, mailbox by mailbox.
	Found  func(Finding)
	Notify mail.Notify
}

// Kind sorts findings.
type Kind string

const (
	Missing    Kind = "missing"    // on the left, not on the right
	Extra      Kind = "extra"      // on the right, not on the left: no error
	Unarchived Kind = "unarchived" // likewise, where the left side must have it (Both)
	Altered    Kind = "altered"    // on the right with other octets
	Known      Kind = "known"      // on the right as servers are known to alter it
	Moved      Kind = "moved"      // on the right in another mailbox
	Unreadable Kind = "unreadable" // listed, but not to be read
)

// Finding is one message that is not on both sides as it should.
type Finding struct {
	Kind  Kind
	Ref   mail.Ref // at the side that has it; the left one where both do
	Other mail.Ref // at the right side: Altered, Known, Moved
	Size  int64    // of the wire form; -1 unknown
	Date  time.Time
	// Digest of the canonical octets; zero if they were not read.
	Digest mail.Digest
	From   string
	// Subject and From are there for the first NamedInFull findings only.
	Subject string
	What    string // what was altered, or why it is unreadable
}

// NamedInFull is how many findings are given sender and subject.
const NamedInFull = 2000

// Sum is a number of messages and the octets of their wire forms.
type Sum struct{ Messages, Octets int64 }

func (s *Sum) add(size int64) {
	s.Messages++
	s.Octets += max(size, 0)
}

func (s *Sum) addSum(o Sum) { s.Messages, s.Octets = s.Messages+o.Messages, s.Octets+o.Octets }

// Counts is what a comparison found. Each message of the left side that is selected
// is one of Compared, Unsampled, Vanished or Unreadable; each compared one is one
// of Same, Known, Altered, Moved, Missing or Explained.
type Counts struct {
	Left, Right Sum   // as listed
	Compared    int64 // of the left side
	Unsampled   int64 // of the left side: left out by Share
	Same        int64 // equal by digest
	Octets      int64 // of the wire form of those
	Known       int64
	Altered     int64
	Moved       int64
	Missing     int64
	Explained   int64 // of the left side, need not be on the right: deleted by us, gone before, not from there
	Deleted     int64 // part of Explained: deleted there by us
	Extra       int64
	Unarchived  int64
	Unreadable  int64 // of either side
	Vanished    int64 // went while they were compared
}

func (c *Counts) add(o Counts) {
	c.Left.addSum(o.Left)
	c.Right.addSum(o.Right)
	c.Compared += o.Compared
	c.Unsampled += o.Unsampled
	c.Same += o.Same
	c.Octets += o.Octets
	c.Known += o.Known
	c.Altered += o.Altered
	c.Moved += o.Moved
	c.Missing += o.Missing
	c.Explained += o.Explained
	c.Deleted += o.Deleted
	c.Extra += o.Extra
	c.Unarchived += o.Unarchived
	c.Unreadable += o.Unreadable
	c.Vanished += o.Vanished
}

// Complete tells that nothing is missing or altered, so far as it could be read.
func (c Counts) Complete() bool { return c.Missing+c.Altered+c.Unarchived == 0 }

// Mailbox is the part of one mailbox of the right side.
type Mailbox struct {
	Left  []string // mailboxes whose messages belong there; none if only the right side has it
	Right string
	Here  bool // the right side has the mailbox
	Counts
}

// Result is what Run found.
type Result struct {
	Counts
	Mailboxes []Mailbox // in the order of their names
}
