package fetch

import (
	"context"
	"errors"
	"iter"

	"mailhaul/mail"
)

// ErrIncomplete is the error of a listing that lacks messages the server counts.
// What it yielded is there and can be fetched.
var ErrIncomplete = errors.New("the listing is incomplete")

// Source is an account at a server that messages can be read from.
//
// A driver may reconnect on its own; what it returns as an error has survived
// that. Errors are *mail.Error with account, mailbox and the server's words.
// Mailboxes, List and Fetch may be called concurrently for different mailboxes;
// a driver that has one session only (POP3) serialises them. Nothing a Source
// does changes anything at the server: \Seen is never set.
type Source interface {
	// Account returns the mail.AccountKey of the account.
	Account() string

	// Mailboxes lists all mailboxes that can hold messages, each once, with
	// their State where the server tells it without selecting them.
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)

	// List yields every message of the mailbox once, in the server's order. An
	// error ends the sequence and means that the listing is not complete: nothing
	// may be concluded from what is missing in it; what came is good only where the
	// error is ErrIncomplete. If mb.UIDValidity is not 0 and
	// the server shows another one, that is an error.
	List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error]

	// Fetch gets the octets of messages listed in this session, many per round
	// trip, in any order, and calls deliver once for each, possibly from several
	// goroutines at once; again only for a message whose reader failed. It returns an error only if the session is lost
	// and could not be replaced; messages not delivered then were not asked about.
	// If deliver returns an error, Fetch stops and returns it.
	Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver Deliver) error

	// Close ends the sessions (LOGOUT, QUIT). It waits no longer than the
	// connection's own timeout.
	Close() error
}

// Deliver takes one message; see mail.Deliver.
type Deliver = mail.Deliver

// HeaderSource is a Source that can give headers without bodies (POP3 TOP, IMAP
// BODY.PEEK[HEADER]); it saves downloads when messages are to be recognised.
type HeaderSource interface {
	// Headers is like Fetch, but r reads only the header, in wire form.
	Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver Deliver) error
}

// ChangeSource is a Source that can tell what changed in a mailbox since it had a
// State (RFC 7162), without listing the rest.
type ChangeSource interface {
	// Changes returns every message that came since the mailbox had the state since,
	// as List shows it, and every other one whose flags may have changed (UID and
	// Flags only, Size -1), each once. exists is how many messages the mailbox has; where that
	// is more or less than those known then and those that came, the caller lists. ok
	// is false where the server cannot tell: nothing may be concluded then.
	Changes(ctx context.Context, mb mail.Mailbox, since string) (changed []mail.Info, exists int64, ok bool, err error)
}

// Consumer is a Source where reading a message may use it up (RFC 2449 EXPIRE 0,
// Gmail over POP3): each message must be durable before the next is asked for.
type Consumer interface {
	// Consumes tells whether that is so at this server. It is valid after
	// Mailboxes.
	Consumes() bool
	// Abandon ends the session so that the server does not take what was read
	// for delivered (no QUIT).
	Abandon()
}

// Expecter is a Source that can save a round trip where everything is going to be
// fetched.
type Expecter interface {
	// ExpectAll tells so, before anything is asked of the Source. It is a hint only.
	ExpectAll()
}
