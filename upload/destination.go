package upload

import (
	"context"
	"errors"
	"io"
	"time"

	"mailhaul/mail"
)

// Destination is an account at a server that messages can be added to.
//
// Mailbox names are in archive form. A driver reconnects on its own, but it never
// sends a message a second time. Errors are *mail.Error with account, mailbox and
// the server's words. All methods may be called concurrently. Nothing at the
// destination is ever changed or removed but by Create, Append and the flags of
// Flagger.
type Destination interface {
	// Account returns the mail.AccountKey of the account.
	Account() string

	// Mailboxes lists the mailboxes that can hold messages, each once.
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)

	// Fit returns the name nearest to name that a mailbox can have at this server:
	// name itself wherever possible. It is valid after Mailboxes.
	Fit(name string) string

	// Create makes a mailbox; one that is there already is no error.
	Create(ctx context.Context, name string) error

	// Open returns the state of a mailbox as it is now.
	Open(ctx context.Context, name string) (Box, error)

	// Append sends messages, in order, in as few round trips as the server allows.
	// It returns what is known of each of them, in order; without an error that is
	// something about every one, but if the account is out of space: then answers may
	// end early, and the rest was not sent. After an error (the connection was lost, or the
	// server is busy) messages with the zero Answer are in doubt, and those beyond
	// the end were not sent.
	Append(ctx context.Context, box Box, msgs []Message) ([]Answer, error)

	// List yields the messages of a mailbox from the UID from on, by ascending UID:
	// Ref, Size and Flags. An error means that the listing is not complete. A UIDVALIDITY
	// that is not the box's is ErrUIDValidity.
	List(ctx context.Context, box Box, from uint32, yield func(mail.Info) error) error

	// Read reads messages back, or only their headers, and tells what they are, in
	// any order, one at a time. Messages that are gone are left out.
	Read(ctx context.Context, box Box, uids []uint32, header bool, take func(uid uint32, s mail.Sums)) error

	// Close ends the connections.
	Close() error
}

// ErrUIDValidity says that a mailbox is not the one it was: its UIDs mean nothing
// any more.
var ErrUIDValidity = errors.New("the mailbox has another UIDVALIDITY now")

// Box is the state of a mailbox at a destination.
type Box struct {
	Name        string
	UIDValidity uint32
	UIDNext     uint32 // what is added from now on has this UID or a higher one
	Messages    int64
	Permanent   mail.Flags // flags that can be stored
	AnyKeyword  bool       // so can new keywords
	AllFlags    bool       // the server does not say what can be stored
}

// Storable returns the flags of f that the mailbox can store, never \Deleted.
func (b Box) Storable(f mail.Flags) mail.Flags {
	f = f.Without(mail.Deleted)
	if b.AllFlags {
		return f
	}
	var keep []string
	for _, flag := range f.List() {
		if b.Permanent.Has(flag) || b.AnyKeyword && flag[0] != '\\' {
			keep = append(keep, flag)
		}
	}
	return mail.NewFlags(keep...)
}

// Message is one message to be appended.
type Message struct {
	Flags        mail.Flags
	InternalDate time.Time // zero if unknown
	Wire         int64     // octets on the wire: the canonical ones with CRLF for LF
	NUL          bool      // there are NULs in it
	// Open opens the canonical octets, which Append reads once and closes.
	Open func() (io.ReadCloser, error)
}

// Answer is what is known of a message that Append was given.
type Answer struct {
	Stored bool   // the server says that it has the message
	UID    uint32 // 0 where the server does not tell
	// Refused is a *mail.Error with the server's words: it does not want the
	// message, or one of its Group.
	Refused error
	// Group tells that the refusal means all messages that were sent in one
	// command, not this one.
	Group bool
	// Unsent is why the message could not be read: nothing was stored.
	Unsent error
}

// Limiter is a Destination that says what it takes.
type Limiter interface {
	// MaxMessage returns the most octets of one message, 0 if it is not known. It is
	// valid after Mailboxes.
	MaxMessage() int64
}

// Subscriber is a Destination with subscriptions.
type Subscriber interface {
	Subscribe(ctx context.Context, name string) error
}

// Flagger is a Destination where flags can be changed.
type Flagger interface {
	// SetFlags changes flags of messages; messages that are gone are no error.
	SetFlags(ctx context.Context, box Box, changes []FlagChange) error
}

// FlagChange is what changes at one message.
type FlagChange struct {
	UID         uint32
	Add, Remove mail.Flags
}

// ErrOverQuota is found (errors.Is) in a refusal for lack of space.
var ErrOverQuota = errors.New("over quota")

// Throttled is found (errors.As) in an error that asks the account to wait.
type Throttled struct {
	Wait time.Duration // 0 if the server does not say how long
	Err  error
}

func (t *Throttled) Error() string { return t.Err.Error() }

func (t *Throttled) Unwrap() error { return t.Err }
