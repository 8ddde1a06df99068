// Package archive says what a local archive is: the contract that every format
// fulfils (archive/archivetest is its suite), and the reversible way from mailbox
// names to file names.
package archive

import (
	"context"
	"io"
	"iter"
	"time"

	"mailhaul/mail"
)

// Archive is a folder of archived messages in one format.
//
// It only ever grows: nothing is removed or overwritten because a server lacks
// it. It knows nothing of servers; the Info it is given is noted and handed back
// in receipts. Errors of the disk are *mail.Error of KindDisk that name the path.
type Archive interface {
	// Append writes the message's canonical octets, read from r to io.EOF. What
	// it wrote is not durable before Commit. Any error (r's own, the disk's)
	// leaves nothing of this message behind. Several goroutines may call it at
	// once. in.Ref.Mailbox says into which mailbox, in.InternalDate must be set.
	Append(ctx context.Context, in mail.Info, r mail.Octets) error

	// Commit makes durable what was appended before it was called: octets synced,
	// in their final place, every directory above synced. Receipts it returns are
	// durable even if it also returns an error; messages without a receipt are
	// not archived, and nothing of them is left in a final place. Appends may go
	// on meanwhile; they belong to the next group. Calls to Commit do not overlap.
	Commit(ctx context.Context) (Group, error)

	// Mailboxes lists the mailboxes found on disk, sorted by name.
	Mailboxes(ctx context.Context) ([]string, error)

	// Recover brings what is on disk in one mailbox together with what the ledger
	// has on record; see Found. It sweeps what a killed run left half-written.
	// known tells whether the ledger has a message at this place. It is called
	// before any Append of the run.
	Recover(ctx context.Context, mailbox string, anchor Anchor, known func(place string) bool) (Found, error)

	// Receipts reads every message of a mailbox on disk and computes its digest.
	// Info holds what content can tell: mailbox, flags of the file name,
	// INTERNALDATE (mtime or From_ line).
	Receipts(ctx context.Context, mailbox string) iter.Seq2[mail.Receipt, error]

	// Open opens the canonical octets of a message by a new descriptor. A message
	// that a mail reader has moved or re-flagged since is found. A missing one is
	// an error for which errors.Is(err, fs.ErrNotExist) holds.
	Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)

	// Close releases descriptors and locks. What was not committed is dropped.
	Close() error
}

// Group is what one Commit made durable.
type Group = mail.Group

// Anchor is the ledger's record of a mailbox on disk.
type Anchor = mail.Anchor

// Anchors is where an archive keeps its anchors (the ledger). Open must be
// durable when MarkOpen returns.
type Anchors interface {
	MarkOpen(mailbox string, a Anchor) error
}

// Found is the outcome of Recover.
type Found struct {
	// Receipts are durable messages the ledger does not know at their place.
	Receipts []mail.Receipt
	// All says that Receipts lists every message of the mailbox, because the file
	// was changed by somebody else: places on record are no longer good, messages
	// are found again by digest.
	All bool
	// Anchor is what the ledger should record from now on.
	Anchor Anchor
}

// Flagger is an Archive that keeps flags and INTERNALDATE in a place mail readers see.
type Flagger interface {
	// SetFlags merges three ways (mail.MergeFlags): what changed between base and
	// now, both as seen at the server, is applied to the flags on disk. It returns
	// the receipt with its new place.
	SetFlags(ctx context.Context, rc mail.Receipt, base, now mail.Flags) (mail.Receipt, error)
	// SetDate sets the INTERNALDATE of a message. A missing one is an error for which
	// errors.Is(err, fs.ErrNotExist) holds.
	SetDate(ctx context.Context, rc mail.Receipt, date time.Time) error
}

// Opener is an Archive that opens many messages faster together than one by one.
type Opener interface {
	// Together returns a way to open messages as Open does, for several goroutines
	// at once. Descriptors may be shared by messages read at one time; close is
	// called when all of them were closed.
	Together() (open func(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error), close func() error)
}

// Remover is an Archive that can take a single message away (an mbox cannot).
type Remover interface {
	// Remove removes a message's file for good. It is for damaged messages only,
	// once what is left of them was kept elsewhere.
	Remove(ctx context.Context, rc mail.Receipt) error
}

// Strayer is an Archive that can tell its own messages from what other programs put
// there, also those that the ledger lacks.
type Strayer interface {
	// Strays returns messages that an Append of any run made and that are at no place
	// the ledger knows: the ledger is older than they are. They are durable. Where the
	// mailbox has surely not been written to after since, nothing is looked for. It
	// may be called at any time before the first Append to the mailbox.
	Strays(ctx context.Context, mailbox string, since time.Time, known func(place string) bool) ([]mail.Receipt, error)
}
