// Package imap reads an account over IMAP (RFC 3501 and 9051).
//
// Listings are one streamed FETCH; messages come in sets of some hundred UIDs, the
// next sets already asked for while one is read, over several connections where
// there is enough to do. Mailboxes are opened read-only and bodies asked for with
// PEEK, so nothing changes at the server.
package imap

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"mailhaul/fetch"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// Config says which account is read, and how.
type Config struct {
	Server      dial.Server
	Credentials auth.Credentials

	// Connections is the largest number at a time; 0 means 4. Fewer are used where
	// there is little to do or the server objects.
	Connections int
	// MaxMessage is the largest message accepted, in octets; 0 means 4 GiB.
	MaxMessage int64
	// Pause is the first wait before a lost connection is made again, or a busy
	// server is asked again; it doubles. 0 means one second.
	Pause time.Duration
	// Patience is how long a run waits in all, while nothing comes, where the server
	// wants pauses; 0 means 15 minutes.
	Patience time.Duration
	// Notify is told about such pauses (mail.EventWaiting); nil for nobody.
	Notify mail.Notify
	// Compress says when connections are compressed.
	Compress Compression
	// Version of the program, told to servers that offer ID.
	Version string
}

// Source is an account at an IMAP server. All methods may be called concurrently.
type Source struct {
	selection mail.Selection // see Select
	gmailMu   sync.Mutex
	gmail     labels // of All Mail's messages that are elsewhere, too; nil where all are listed

	cfg     Config
	account string
	pool    *pool
	gov     *governor

	compress atomic.Int32 // a Compression; CompressAuto until it is known
}

var (
	_ fetch.Source       = (*Source)(nil)
	_ fetch.HeaderSource = (*Source)(nil)
)

// New returns the account without connecting yet.
func New(cfg Config) *Source {
	cfg.Server.Protocol = "imap"
	if cfg.Connections <= 0 {
		cfg.Connections = 4
	}
	if cfg.Pause <= 0 {
		cfg.Pause = time.Second
	}
	s := &Source{cfg: cfg, account: mail.AccountKey("imap", cfg.Credentials.User, cfg.Server.Host)}
	s.gov = newGovernor(s.account, cfg.Pause, cfg.Patience, cfg.Notify)
	s.pool = newPool(cfg.Connections, cfg.Pause, s.gov, func(ctx context.Context) (*imapconn.Conn, error) {
		c, err := imapconn.Dial(ctx, imapconn.Config{
			Server: cfg.Server, Credentials: cfg.Credentials, Version: cfg.Version, MaxMessage: cfg.MaxMessage,
		})
		if err != nil {
			return nil, err
		}
		if err := s.compressAtOnce(ctx, c); err != nil {
			s.noteInflation(err)
			_ = c.Close()
			return nil, err
		}
		return c, nil
	})
	s.compress.Store(int32(cfg.Compress))
	return s
}

// Account returns the mail.AccountKey of the account.
func (s *Source) Account() string { return s.account }

// Mailboxes lists the mailboxes that can hold messages, with their states.
func (s *Source) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	var all []mail.Mailbox
	err := s.retry(ctx, func() error {
		c, err := s.pool.get(ctx, "")
		if err != nil {
			return err
		}
		defer s.pool.put(c)
		all, err = c.Mailboxes(ctx)
		if err == nil && c.Has("X-GM-EXT-1") {
			var shown labels
			all, shown = withoutDoubles(all, s.selection)
			s.gmailMu.Lock()
			s.gmail = shown
			s.gmailMu.Unlock()
		}
		return err
	})
	return all, err
}

// Mailbox opens a mailbox of which the name is known, whether or not the server lists
// it: some leave out for a moment what was just made. It is called after Mailboxes.
func (s *Source) Mailbox(ctx context.Context, name string) (mb mail.Mailbox, there bool, err error) {
	err = s.retry(ctx, func() error {
		c, err := s.pool.get(ctx, "")
		if err != nil {
			return err
		}
		defer s.pool.put(c)
		if c.Names().Delim == 0 { // another connection than that of Mailboxes
			if _, err := c.Mailboxes(ctx); err != nil {
				return err
			}
		}
		raw, ok := c.Names().Raw(name)
		if !ok {
			return nil
		}
		sel, _, err := c.Examine(ctx, raw)
		if r, refused := errors.AsType[*imapconn.Refused](err); refused {
			switch r.Kind() {
			case mail.KindOther, mail.KindLacking:
				return nil // there is none
			}
		}
		if err == nil {
			there = true
			mb = mail.Mailbox{Name: name, Raw: raw, UIDValidity: sel.UIDValidity, Messages: sel.Exists, Octets: -1}
		}
		return err
	})
	return mb, there, s.at(err, mail.Mailbox{Name: name}, "open mailbox")
}

// Subscribed lists the mailboxes that the account's owner has subscribed to. It is
// called after Mailboxes.
func (s *Source) Subscribed(ctx context.Context) ([]string, error) {
	var names []string
	err := s.retry(ctx, func() error {
		c, err := s.pool.get(ctx, "")
		if err != nil {
			return err
		}
		defer s.pool.put(c)
		if c.Names().Delim == 0 { // another connection than that of Mailboxes
			if _, err := c.Mailboxes(ctx); err != nil {
				return err
			}
		}
		names, err = c.Subscribed(ctx)
		return err
	})
	return names, err
}

// Close ends the connections; it does not wait for the server.
func (s *Source) Close() error {
	s.pool.close()
	return nil
}

// attempts is how often something is tried that fails only for now.
const attempts = 3

// heed obeys an error that is a server's word to wait, and tells whether it is one.
// The wait itself comes before the next connection is lent.
func (s *Source) heed(err error) bool {
	s.noteInflation(err)
	l, words, ok := imapconn.LimitOf(err)
	if ok && !isGivenUp(err) {
		s.limited(l, words)
	}
	return ok && !isGivenUp(err)
}

// limited obeys a server's word to wait.
func (s *Source) limited(l imapconn.Limit, words string) {
	if s.gov.said(l, words) && l.Kind != imapconn.LimitInUse {
		s.pool.shrink(l.Kind)
	}
}

// retry runs f again when a connection was lost in it, or the server wanted a
// pause.
func (s *Source) retry(ctx context.Context, f func() error) error {
	wait := s.cfg.Pause
	for i := 1; ; i++ {
		err := f()
		if ctx.Err() == nil && s.heed(err) {
			i--
			continue
		}
		if err == nil {
			s.gov.came()
		}
		if err == nil || i >= attempts || mail.KindOf(err) != mail.KindTemporary || isGivenUp(err) || ctx.Err() != nil {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
}

// sleep waits for d, spread by a quarter, so that many clients do not come back at
// the same moment.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d + jitter(d/4))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// at adds the mailbox to an error.
func (s *Source) at(err error, mb mail.Mailbox, op string) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if r, ok := errors.AsType[*imapconn.Refused](err); ok {
		if _, already := errors.AsType[*mail.Error](err); !already {
			kind := r.Kind()
			if kind == mail.KindOther { // this mailbox only
				kind = mail.KindPartial
			}
			err = &mail.Error{Kind: kind, Op: op, Server: r.Words(), Err: err}
		}
	}
	me, ok := err.(*mail.Error)
	if !ok {
		return &mail.Error{Ref: mail.Ref{Account: s.account, Mailbox: mb.Name}, Op: op, Err: err}
	}
	e := *me
	if e.Ref.Mailbox == "" {
		e.Ref = mail.Ref{Account: s.account, Mailbox: mb.Name, UIDValidity: mb.UIDValidity}
	}
	return &e
}
