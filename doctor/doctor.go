// Package doctor looks at an account and says in plain words what its server can
// do, what it gets wrong, and what that means for backup, clean and upload. It
// changes nothing there: it lists, reads a few small messages without marking them,
// searches, and logs in a few times.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"mailhaul/mail"
)

// Source is what is needed of a driver.
type Source interface {
	Account() string
	Examine(ctx context.Context) (mail.ServerFacts, error)
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)
	List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error]
	Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
	Close() error
}

// QuotaSource is a Source that knows its quota.
type QuotaSource interface {
	Quota(ctx context.Context) (used, limit int64, err error)
}

// Searcher is a Source that can check whether SEARCH tells the truth.
type Searcher interface {
	CheckSearch(ctx context.Context, mb mail.Mailbox, known []mail.Info) (wrong string, err error)
}

// Peeker is a Source whose Fetch may mark messages as read, and that can do
// without.
type Peeker interface {
	Peek(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
}

// Options says what is looked at.
type Options struct {
	Protocol string // "imap" or "pop3"
	// Open makes a Source with a login of its own; nothing is connected yet. Each is
	// closed.
	Open func() (Source, error)
	// Connections is how many logins at a time are tried at most; 0 tries none.
	Connections int
	Now         time.Time
}

// Level says how a finding is.
type Level string

const (
	OK      Level = "ok"
	Notice  Level = "notice"  // good to know
	Warning Level = "warning" // something does not work, or not as it should
)

// Check is one thing that was looked at.
type Check struct {
	Name  string // short and stable: for programs
	Level Level
	Text  string // for a person
}

// Advice is what it means for a verb.
type Advice struct{ Verb, Text string }

// Report is what was found.
type Report struct {
	Account     string
	Facts       mail.ServerFacts
	Used, Limit int64 // quota in octets; Limit 0 where there is none
	Mailboxes   []mail.Mailbox
	Checks      []Check
	Advice      []Advice
}

const (
	looked     = 2000    // messages of a mailbox that are looked at, at most
	readBack   = 5       // messages that are read
	readOctets = 1 << 20 // larger ones are not
)

// Examine looks at an account. An error means that there is no report: nobody
// could log in.
func Examine(ctx context.Context, o Options) (*Report, error) {
	src, err := o.Open()
	if err != nil {
		return nil, err
	}
	d := &doctor{Options: o, src: src, r: &Report{Account: src.Account()}}
	err = d.examine(ctx)
	return d.r, errors.Join(err, d.close())
}

type doctor struct {
	Options
	src   Source
	once  sync.Once
	r     *Report
	first []mail.Info // of the mailbox that is looked at
	mb    mail.Mailbox
}

func (d *doctor) close() (err error) {
	d.once.Do(func() { err = d.src.Close() })
	return err
}

func (d *doctor) say(name string, level Level, format string, args ...any) {
	d.r.Checks = append(d.r.Checks, Check{name, level, fmt.Sprintf(format, args...)})
}

func (d *doctor) examine(ctx context.Context) error {
	var err error
	if d.r.Facts, err = d.src.Examine(ctx); err != nil {
		return err
	}
	if d.r.Mailboxes, err = d.src.Mailboxes(ctx); err != nil {
		return err
	}
	d.certificate()
	d.login()
	d.quota(ctx)
	d.abilities()
	if err := d.sample(ctx); err != nil {
		return err
	}
	if err := d.weigh(ctx); err != nil {
		return err
	}
	if err := d.close(); err != nil { // POP3 serves one session at a time
		d.say("close", Notice, "the session did not end well: %v", err)
	}
	d.again(ctx)
	d.ceiling(ctx)
	d.advise()
	return ctx.Err()
}

func (d *doctor) certificate() {
	f := d.r.Facts
	switch {
	case !f.Secure:
		d.say("tls", Warning, "no TLS: whoever is on the way can read password and mail")
	case len(f.Certificates) == 0:
		d.say("tls", OK, "%s", f.TLS)
	default:
		c := f.Certificates[0]
		left := c.Until.Sub(d.Now)
		switch {
		case left < 0:
			d.say("certificate", Warning, "the certificate ran out on %s", c.Until.Format(time.DateOnly))
		case left < 14*24*time.Hour:
			d.say("certificate", Warning, "the certificate runs out on %s", c.Until.Format(time.DateOnly))
		default:
			d.say("certificate", OK, "%s; the certificate is good until %s", f.TLS, c.Until.Format(time.DateOnly))
		}
	}
}

func (d *doctor) login() {
	if f := d.r.Facts; f.Login != "" {
		d.say("login", OK, "logged in with %s", f.Login)
	}
	if d.r.Facts.Alert != "" {
		d.say("alert", Notice, "the server wants you to know: %s", d.r.Facts.Alert)
	}
}

func (d *doctor) quota(ctx context.Context) {
	q, ok := d.src.(QuotaSource)
	if !ok {
		return
	}
	used, limit, err := q.Quota(ctx)
	switch {
	case err != nil:
		d.say("quota", Notice, "the server does not tell its quota: %v", err)
	case limit == 0:
		d.say("quota", OK, "no quota is stated")
	default:
		d.r.Used, d.r.Limit = used, limit
		level := OK
		if used*100 >= limit*90 {
			level = Warning
		}
		d.say("quota", level, "%d%% of the quota is used", used*100/limit)
	}
}

// abilities are what the server says it can do.
func (d *doctor) abilities() {
	f := d.r.Facts
	if d.Protocol == "pop3" {
		if f.Has("UIDL") {
			d.say("uidl", OK, "UIDL: messages are known again")
		}
		if f.Expire {
			d.say("expire", Warning, "the server may delete messages once they were read (EXPIRE 0): they are archived one by one")
		}
		if f.LoginDelay > 0 {
			d.say("login-delay", Notice, "the server wants %s between logins", f.LoginDelay)
		}
		if !f.Has("PIPELINING") {
			d.say("pipelining", Notice, "no PIPELINING is stated: over a slow line reading takes longer")
		}
		if !f.Has("TOP") {
			d.say("top", Notice, "no TOP is stated: what is to be deleted is read once more first")
		}
		return
	}
	switch {
	case f.DeletesOne:
		d.say("uidplus", OK, "UIDPLUS: single messages can be deleted")
	case f.Moves:
		d.say("uidplus", Warning, "no UIDPLUS: nothing can be deleted for good, only moved to the trash")
	default:
		d.say("uidplus", Warning, "neither UIDPLUS nor MOVE: nothing can be deleted safely")
	}
	if f.AppendLimit > 0 {
		d.say("appendlimit", Notice, "messages of more than %d octets are not taken (APPENDLIMIT)", f.AppendLimit)
	}
	if !f.Has("CONDSTORE") {
		d.say("condstore", Notice, "no CONDSTORE: changed flags are found by listing everything")
	}
}

// ceiling logs in several times at once, one after the other, up to a small number,
// and stops at the first refusal.
func (d *doctor) ceiling(ctx context.Context) {
	if d.Connections == 0 || d.r.Facts.LoginDelay > 0 || ctx.Err() != nil {
		return
	}
	var open []Source
	defer func() {
		for _, s := range open {
			_ = s.Close() // nothing was done there
		}
	}()
	for len(open) < d.Connections {
		src, err := d.Open()
		if err != nil {
			break
		}
		limited, cancel := context.WithTimeout(ctx, 20*time.Second)
		_, err = src.Examine(limited)
		cancel()
		if err != nil {
			_ = src.Close()
			if ctx.Err() == nil {
				d.say("connections", Notice, "%d connections at a time work, one more was refused: %s", len(open), words(err))
			}
			return
		}
		open = append(open, src)
	}
	d.say("connections", OK, "%d connections at a time work; more were not tried", len(open))
}

func (d *doctor) has(name string, level Level) bool {
	return slices.ContainsFunc(d.r.Checks, func(c Check) bool { return c.Name == name && c.Level == level })
}

// advise says what it all means.
func (d *doctor) advise() {
	tell := func(verb, format string, args ...any) {
		d.r.Advice = append(d.r.Advice, Advice{verb, fmt.Sprintf(format, args...)})
	}
	f := d.r.Facts
	stable := !d.has("stable", Warning) && !d.has("identifiers", Warning)
	switch {
	case d.Protocol == "pop3":
		tell("backup", "works. POP3 shows the INBOX only, without flags; if the server also speaks IMAP, imaps:// sees all mailboxes.")
	default:
		tell("backup", "works: %d mailboxes, with their flags.", len(d.r.Mailboxes))
	}
	if !stable {
		tell("backup", "is slower: what is known already is recognised by content.")
	}
	switch {
	case !f.DeletesOne && !f.Moves:
		tell("clean", "does not work here: the server cannot delete single messages.")
	case !f.DeletesOne:
		tell("clean", "works with --trash only; space comes back when the trash is emptied.")
	case !stable:
		tell("clean", "leaves alone what has no lasting identifier.")
	case f.Expire:
		tell("clean", "works, but the server may delete what was read by itself.")
	default:
		tell("clean", "works: it deletes single messages, and only what the archive provably holds.")
	}
	switch {
	case !f.Appends:
		tell("upload", "does not work over POP3; use imaps://.")
	case d.has("quota", Warning):
		tell("upload", "may not fit: the quota is nearly used up.")
	case f.AppendLimit > 0:
		tell("upload", "works for messages of up to %d octets.", f.AppendLimit)
	default:
		tell("upload", "works.")
	}
}

// words are the server's own, where it said any.
func words(err error) string {
	if e, ok := errors.AsType[*mail.Error](err); ok && e.Server != "" {
		return e.Server
	}
	return err.Error()
}
