// Package clean frees a server of messages that an archive provably holds.
//
// Nobody else asks a source to delete. The order of things is: read the archived
// octets back (mail.Prove), ask the server again, record the intent, send the
// order, record the result. What is not known in between is settled by the next
// listing.
package clean

import (
	"context"
	"io"
	"iter"
	"time"

	"mailhaul/mail"
)

// Source is what Run needs of the server.
type Source interface {
	Account() string
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)
	List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error]
	Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
	Deleter
}

// Deleter is a source that can delete single messages for good or move them to
// the trash.
type Deleter interface {
	// CanDelete says how messages are deleted at this server when mode is asked
	// for: mode itself, or the one the server needs (Gmail: ModeTrash). It is a
	// *mail.Error of KindLacking, with a hint, if it cannot be done without
	// touching what others marked, or if deletion is known to be ignored.
	CanDelete(ctx context.Context, mode string) (string, error)

	// Delete deletes what the order proves. The server is asked again first, in
	// the session that deletes: UIDVALIDITY and UID (or UIDL), size, header digest
	// and, where it has them, INTERNALDATE and flags; what differs stays and is
	// settled so. A message with \Deleted that Allow does not let pass stays
	// untouched. Only UID EXPUNGE of these UIDs (RFC 4315), MOVE (RFC 6851) or
	// DELE ended by an answered QUIT (RFC 1939 section 6) is ever sent.
	Delete(ctx context.Context, mb mail.Mailbox, o mail.DeleteOrder) error
}

// QuotaSource is a source that knows its quota (RFC 9208).
type QuotaSource interface {
	// Quota returns octets used and the limit; limit 0 means that there is none.
	Quota(ctx context.Context) (used, limit int64, err error)
}

// Archive is what Run needs of the archive.
type Archive interface {
	Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)
}

// Ledger is what Run needs to know and to record.
type Ledger interface {
	Claims(ctx context.Context, account, mailbox string, yield func(mail.Claim) error) error
	Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error
	Message(ctx context.Context, id int64) (mail.Held, error)
	Record(ctx context.Context, c mail.Change) error
	IntendDeletions(ctx context.Context, list []mail.Doomed, rule, mode string) (ids []int64, err error)
	SettleDeletions(ctx context.Context, results []mail.DeletionResult) error
	OpenDeletions(ctx context.Context, account, mailbox string) ([]mail.Deletion, error)
	// Backup keeps a checked copy of the ledger.
	Backup(ctx context.Context) error
}

// Options says what Run is to do.
type Options struct {
	Source    Source
	Archive   Archive
	Ledger    Ledger
	Selection mail.Selection
	// Only, if not nil, narrows the rule to the messages it returns true for.
	Only func(in mail.Info) bool
	// Keep, if not nil, says why a message that the ledger has stays all the same,
	// "" if it may go.
	Keep func(in mail.Info, message int64) (why string)
	// IncludeFlagged lets flagged messages go; else they stay.
	IncludeFlagged bool
	// Free, if not 0, stops when so many octets are to go, oldest first.
	Free int64
	// UntilQuota, if not 0, stops when at most so many percent of the quota are
	// used, oldest first.
	UntilQuota int
	Mode       string // mail.ModeExpunge or mail.ModeTrash
	Rule       string // as a person wrote it, for the ledger
	// Confirm sees the plan before anything is deleted; an error ends the run.
	Confirm func(*Plan) error
	DryRun  bool
	// Copies says of a dry run that what the archive lacks would be copied first.
	Copies bool
	Notify mail.Notify
	Now    func() time.Time // nil means time.Now
}

// Result is what a run did.
type Result struct {
	Plan    *Plan
	Listed  int64 // selected by the rule
	Deleted int64
	Skipped int64 // stayed, and why stands in Stayed
	Failed  int64 // damaged in the archive, or refused by the server; not those of which it is unknown whether they went
	Octets  int64 // freed, as the server counts
	Stayed  map[string]int64
}
