// Package pop3 reads an account over POP3 (RFC 1939, 2449, 2595, 5034).
//
// knadh/go-pop3 holds the conversation: greeting, STLS, CAPA, login, STAT, QUIT.
// Lists and messages go over the same connection by code of our own: RETR is
// pipelined (RFC 2449 section 6.6), bodies are read exactly, and answers that do
// not belong to the commands are noticed.
package pop3

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"mailhaul/fetch"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// Inbox is the one mailbox of a POP3 account.
const Inbox = "INBOX"

// Config says which account is read, and how.
type Config struct {
	Server      dial.Server
	Credentials auth.Credentials

	// MaxMessage is the largest message accepted, in octets; 0 means 4 GiB.
	MaxMessage int64
	// Window is how many octets are asked for ahead; 0 means 32 MiB.
	Window int64
	// Pause is the first wait before a lost connection is made again; it doubles
	// from one fruitless attempt to the next. 0 means one second.
	Pause time.Duration
	// Notify is told when the source waits (mail.EventWaiting); nil for nobody.
	Notify mail.Notify
}

// attempts is how many connections in a row may fail without a message received.
const attempts = 3

// Source is an account at a POP3 server. It holds one session, made when it is
// first needed; calls wait for one another.
type Source struct {
	cfg     Config
	account string

	turn    chan struct{} // holds a token while somebody uses what follows
	cur     *session
	gen     int  // sessions made so far
	listed  int  // the session that List last showed
	greeted bool // a server has said something
	noCAPA  bool
	fenced  bool      // the server's sizes do not tell where messages end
	careful bool      // its answers got out of step: one command at a time
	began   time.Time // last login
	delay   time.Duration

	live      atomic.Pointer[dial.Conn] // connection in use, for Abandon
	consumes  atomic.Bool
	closed    atomic.Bool
	expectAll atomic.Bool
}

var (
	_ fetch.Source       = (*Source)(nil)
	_ fetch.HeaderSource = (*Source)(nil)
	_ fetch.Consumer     = (*Source)(nil)
	_ fetch.Expecter     = (*Source)(nil)
)

// New returns the account without connecting yet.
func New(cfg Config) *Source {
	cfg.Server.Protocol = "pop3"
	if cfg.Window <= 0 {
		cfg.Window = 32 << 20
	}
	if cfg.MaxMessage <= 0 {
		cfg.MaxMessage = 4 << 30
	}
	if cfg.Pause <= 0 {
		cfg.Pause = time.Second
	}
	if cfg.Notify == nil {
		cfg.Notify = func(mail.Event) {}
	}
	s := &Source{
		cfg:     cfg,
		account: mail.AccountKey("pop3", cfg.Credentials.User, cfg.Server.Host),
		turn:    make(chan struct{}, 1),
	}
	s.consumes.Store(isGmail(cfg.Server.Host))
	return s
}

// isGmail knows the hosts where RETR may hide a message from later sessions,
// whatever CAPA says.
func isGmail(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "pop.gmail.com" || host == "pop.googlemail.com"
}

// ExpectAll implements fetch.Expecter: sizes are asked for along with the UIDLs.
func (s *Source) ExpectAll() { s.expectAll.Store(true) }

// Account returns the key of the account.
func (s *Source) Account() string { return s.account }

// Mailboxes returns INBOX. Its State is the digest of STAT and UIDL, if every
// message has a UIDL of its own.
func (s *Source) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	l, err := s.listing(ctx, false)
	if err != nil {
		return nil, err
	}
	return []mail.Mailbox{{Name: Inbox, Raw: Inbox, Messages: int64(l.count), Octets: l.octets, State: l.state()}}, nil
}

// List yields the messages by number. A message whose UIDL cannot be used has
// none; Seq then names it until the session ends.
func (s *Source) List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		l, err := s.listing(ctx, true)
		if err != nil {
			yield(mail.Info{}, err)
			return
		}
		for i := range l.count {
			if ctx.Err() != nil {
				yield(mail.Info{}, context.Cause(ctx))
				return
			}
			if !yield(s.info(l, uint32(i+1)), nil) {
				return
			}
		}
	}
}

func (s *Source) info(l *listing, seq uint32) mail.Info {
	return mail.Info{Ref: mail.Ref{Account: s.account, Mailbox: Inbox, UID: l.uid(seq)}, Seq: seq, Size: l.size(seq)}
}

// listing returns the listing of the session, which is made if there is none.
func (s *Source) listing(ctx context.Context, sizes bool) (*listing, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.unlock()
	var l *listing
	err := s.retry(ctx, "list messages", func(ss *session) error {
		l = ss.list
		s.listed = ss.gen
		return s.ask(ss, true, sizes)
	})
	return l, err
}

// retry runs f on a session and, when the connection is lost, on another one.
func (s *Source) retry(ctx context.Context, op string, f func(*session) error) error {
	for failed := 0; ; {
		ss, err := s.session(ctx, &failed)
		if err != nil {
			return err
		}
		err = s.under(ctx, ss, f)
		if err == nil {
			return nil
		}
		lost := isLost(err)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		} else {
			err = s.name(ss.failed(op, err))
		}
		s.drop()
		if failed++; !lost || failed >= attempts || ctx.Err() != nil {
			return err
		}
	}
}

// failed tells a person about an error that ended the session.
func (ss *session) failed(op string, err error) error {
	if errors.Is(err, errOutOfStep) || errors.Is(err, errLineTooLong) {
		return &mail.Error{Kind: mail.KindOther, Op: op, Err: err, Hint: "the server breaks the protocol; --trace FILE shows how"}
	}
	return ss.conn.Fail(op, err)
}

// under runs f while the connection is bound to ctx.
func (s *Source) under(ctx context.Context, ss *session, f func(*session) error) error {
	release := ss.conn.Bind(ctx)
	err := f(ss)
	if !release() {
		s.drop()
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	return err
}

// session returns the current session or makes one, with pauses between failed
// attempts, which it counts. What is no matter of the network is not tried again.
func (s *Source) session(ctx context.Context, failed *int) (*session, error) {
	began := time.Now()
	for {
		if s.closed.Load() {
			return nil, s.name(&mail.Error{Kind: mail.KindOther, Op: "connect", Err: net.ErrClosed})
		}
		if s.cur != nil {
			return s.cur, nil
		}
		if err := s.wait(ctx, *failed); err != nil {
			return nil, err
		}
		ss, err := s.open(ctx)
		if err == nil {
			s.adopt(ss)
			return ss, nil
		}
		if errors.Is(err, errNoCAPA) && !s.noCAPA {
			s.noCAPA = true
			continue
		}
		*failed++
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		first := s.gen == 0
		if *failed >= attempts || !transient(err) || first && (s.greeted || time.Since(began) > firstPatience) {
			return nil, err
		}
	}
}

// transient tells errors of the network from refusals: only after the former is
// it worth connecting again soon.
func transient(err error) bool {
	e, ok := errors.AsType[*mail.Error](err)
	return ok && dial.Fleeting(err) && (e.Server == "" || strings.HasPrefix(e.Server, "[IN-USE]"))
}

// firstPatience is how long the first connection of all is tried for.
const firstPatience = 10 * time.Second

func (s *Source) adopt(ss *session) {
	s.gen++
	ss.gen = s.gen
	s.cur = ss
	s.began = ss.began
	s.delay = ss.caps.loginDelay
	s.live.Store(ss.conn)
	if ss.caps.expire0 {
		s.consumes.Store(true)
	}
	if s.closed.Load() {
		ss.conn.Close()
	}
}

// maxDelay is the longest LOGIN-DELAY that is waited for.
const maxDelay = 2 * time.Minute

// wait pauses before a connection is made again.
func (s *Source) wait(ctx context.Context, failed int) error {
	pause := time.Duration(0)
	if failed > 0 {
		pause = s.cfg.Pause << min(failed-1, 6)
		pause += rand.N(pause/4 + 1)
	}
	if owed := time.Until(s.began.Add(s.delay)); owed > pause { // RFC 2449 section 6.5
		if owed > maxDelay {
			kind, hint := reply{text: "[LOGIN-DELAY]"}.classify(mail.KindTemporary)
			return s.name(&mail.Error{Kind: kind, Op: "connect again", Err: errors.New("the connection was lost, and the server allows the next login only later"), Hint: hint})
		}
		pause = owed
	}
	if pause <= 0 {
		return nil
	}
	if pause >= time.Second {
		s.cfg.Notify(mail.Event{Kind: mail.EventWaiting, Ref: mail.Ref{Account: s.account}, Waiting: "connecting again in " + pause.Round(time.Second).String()})
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drop ends the session without QUIT.
func (s *Source) drop() {
	if s.cur != nil {
		s.cur.conn.Close()
		s.cur = nil
		s.live.Store(nil)
	}
}

func (s *Source) lock(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Source) unlock() { <-s.turn }

// Consumes tells whether RETR may use a message up: EXPIRE 0, or Gmail.
func (s *Source) Consumes() bool { return s.consumes.Load() }

// Abandon closes the connection without QUIT. The Source is of no more use.
func (s *Source) Abandon() {
	s.closed.Store(true)
	if c := s.live.Load(); c != nil {
		c.Close()
	}
}

// Close ends the session with QUIT if it is in step, and waits no longer than the
// server's timeout. Only the first call does anything.
func (s *Source) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	patience := s.cfg.Server.Timeout
	if patience <= 0 {
		patience = dial.DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.lock(ctx); err != nil {
		if c := s.live.Load(); c != nil {
			c.Close()
		}
		return nil
	}
	defer s.unlock()
	ss := s.cur
	if ss == nil {
		return nil
	}
	defer s.drop()
	release := ss.conn.Bind(ctx)
	defer release()
	if err := ss.lend(); err != nil {
		return nil // out of step: closing without QUIT loses nothing
	}
	if len(ss.read) == 0 {
		// Nothing was read and nothing marked, so the answer tells nothing.
		_, _ = ss.conn.Write([]byte("QUIT\r\n"))
		return nil
	}
	_ = ss.lib.Quit() // whatever it says or if it fails: nothing was asked to be removed
	return nil
}

// name puts the account into an error that lacks it.
func (s *Source) name(err error) error {
	if e, ok := err.(*mail.Error); ok && e.Ref.Account == "" {
		c := *e
		c.Ref.Account = s.account
		return &c
	}
	return err
}
