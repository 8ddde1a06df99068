package mail

import (
	"errors"
	"strings"
)

// Kind sorts errors by what a person or a script has to do about them. The
// command line turns it into an exit code, and nobody else does.
type Kind int

const (
	KindOther     Kind = iota // none of the others
	KindUsage                 // wrong flags, places, names
	KindIntegrity             // octets differ from what was archived or sent, or are missing
	KindLacking               // a server lacks what the verb needs
	KindDisk                  // local disk: full, read-only, unmounted, I/O error
	KindTemporary             // network, server busy, throttled, lock held: try again later
	KindAuth                  // login refused, no password to be had, or a connection not to be trusted
	KindConfig                // configuration wrong, archive of an unknown version
	KindPartial               // one message or one account failed, the rest is safe
)

// ErrSilent is the cause where a server did not answer in time. It may still carry
// out what it was told.
var ErrSilent = errors.New("no answer in time")

// Error is an error a person must act on. Account, mailbox and message stand in
// Ref as far as they are known.
type Error struct {
	Kind   Kind
	Ref    Ref
	Op     string // what was being done, as a verb phrase: "select mailbox", "write INBOX/tmp/..."
	Server string // the server's own words, unescaped; "" if it said nothing
	Hint   string // what to do about it; "" if there is nothing to say
	Err    error  // the cause; may be nil where Server says it all
}

// Error returns one sentence. Server text in it is not escaped; whatever prints
// it must do so.
func (e *Error) Error() string {
	var b strings.Builder
	add := func(s string) {
		if s == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(s)
	}
	add(e.Ref.String())
	add(e.Op)
	if e.Err != nil && !(e.Server != "" && repeats(e.Err)) {
		add(e.Err.Error())
	}
	if e.Server != "" {
		add("server said: " + e.Server)
	}
	return b.String()
}

// repeats tells of a cause that is nothing but an answer of the server.
func repeats(err error) bool {
	_, ok := err.(interface{ Words() string })
	return ok
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf finds the kind of the outermost Error in the chain; KindOther if there
// is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return KindOther
}

// HintOf finds the first hint in the chain of err.
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// ErrVanished says that a message was listed and is gone from the server: not a
// failure of the run.
var ErrVanished = errors.New("no longer at the server")

// ErrSkipped may be returned by the reader given to an archive's Append: the
// message is not wanted after all, nothing of it is kept, and Append returns an
// error for which errors.Is(err, ErrSkipped) holds.
var ErrSkipped = errors.New("message not wanted")
