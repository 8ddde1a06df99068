package imapconn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// Dial connects, secures and logs in. A token that is refused is replaced once.
// Errors are *mail.Error.
func Dial(ctx context.Context, cfg Config) (*Conn, error) {
	var err error
	if cfg.Credentials, _, err = cfg.Credentials.Fresh(ctx, false); err != nil {
		return nil, err
	}
	c, err := attempt(ctx, cfg)
	if !refusedLogin(err) {
		return c, err
	}
	fresh, ok, ferr := cfg.Credentials.Fresh(ctx, true)
	switch {
	case ferr != nil:
		return nil, ferr
	case !ok:
		return nil, err
	}
	cfg.Credentials = fresh
	return attempt(ctx, cfg) // the old connection may still be in the middle of the login
}

func refusedLogin(err error) bool {
	e, ok := errors.AsType[*mail.Error](err)
	return ok && e.Kind == mail.KindAuth && e.Op == OpLogin
}

func attempt(ctx context.Context, cfg Config) (*Conn, error) {
	nc, err := dial.Dial(ctx, cfg.Server)
	if err != nil {
		return nil, err
	}
	c := newConn(nc, cfg)
	release := nc.Bind(ctx)
	err = c.begin(ctx)
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func newConn(nc *dial.Conn, cfg Config) *Conn {
	if cfg.MaxMessage <= 0 {
		cfg.MaxMessage = maxBodyDflt
	}
	c := &Conn{cfg: cfg, nc: nc, scan: newScanner(nc, cfg.MaxMessage), greet: true, library: make(map[string]bool)}
	c.parser = newFetchParser(c.scan)
	c.cond = sync.NewCond(&c.mu)
	c.prefix = rand.Text()[:6]
	if nc.Tracing() {
		nc.Redact(cfg.Credentials.Redact)
		nc.Quiet(true) // lines are traced one by one, without octets of messages
		c.scan.consumed = func() { nc.TraceLine(false, traceable(c.scan.line)) }
	}
	c.client = imapclient.New(libraryConn{c}, nil)
	return c
}

// traceable cuts message octets off a line.
func traceable(line []byte) string {
	s := string(line)
	if i := strings.Index(s, `] "`); i >= 0 && strings.Contains(s, " FETCH (") {
		return s[:i+1] + " ..."
	}
	return s
}

func (c *Conn) begin(ctx context.Context) error {
	if err := c.client.WaitGreeting(); err != nil {
		return c.fail("read greeting", err)
	}
	preauth := c.client.State() == imap.ConnStateAuthenticated
	if c.cfg.Server.Security == dial.StartTLS {
		if preauth {
			return &mail.Error{
				Kind: mail.KindAuth, Ref: c.cfg.ref(), Op: "secure the connection",
				Err:  errors.New("server says PREAUTH in clear text, so the connection could never be secured"),
				Hint: "use imaps:// if the server has it",
			}
		}
		if err := c.startTLS(ctx); err != nil {
			return err
		}
	}
	if err := c.askCaps(); err != nil {
		return err
	}
	if preauth {
		return nil
	}
	if err := c.login(); err != nil {
		return err
	}
	if err := c.askCaps(); err != nil {
		return err
	}
	return c.sendID()
}

// askCaps asks for capabilities that are not known.
func (c *Conn) askCaps() error {
	if c.caps != nil {
		return nil
	}
	err := c.letLibrary(func() error {
		_, err := c.client.Capability().Wait()
		return err
	})
	if err != nil {
		return c.fail("ask for capabilities", err)
	}
	if c.caps == nil {
		c.caps = make(map[string]bool)
	}
	return nil
}

// startTLS is RFC 9051 section 6.2.1. What the server said before is forgotten.
func (c *Conn) startTLS(ctx context.Context) error {
	if err := c.askCaps(); err != nil {
		return err
	}
	if !c.Has("STARTTLS") {
		return &mail.Error{
			Kind: mail.KindLacking, Ref: c.cfg.ref(), Op: "secure the connection",
			Err:  errors.New("server offers no STARTTLS"),
			Hint: "use imaps:// if the server has it; nothing was sent in clear text",
		}
	}
	res, err := c.Exec(ctx, nil, "STARTTLS")
	if err != nil {
		return err
	}
	if !res.OK() {
		return c.refused("secure the connection", res, mail.KindLacking, "use imaps:// if the server has it; nothing was sent in clear text")
	}
	if n := c.scan.br.Buffered(); n > 0 {
		return &mail.Error{
			Kind: mail.KindAuth, Ref: c.cfg.ref(), Op: "secure the connection",
			Err: fmt.Errorf("%d octets in clear text after the server agreed to TLS: somebody on the way may be injecting them", n),
		}
	}
	if err := c.nc.StartTLS(ctx); err != nil {
		return err
	}
	c.caps = nil // RFC 9051 section 6.2.1: discard what was known
	return nil
}

func (c *Conn) login() error {
	offer := auth.Offer{Plain: !c.Has("LOGINDISABLED"), Host: c.cfg.Server.Host, Port: c.cfg.Server.Port}
	if st, ok := c.nc.ConnectionState(); ok {
		offer.TLS = &st
	}
	for name := range c.caps {
		if mech, ok := strings.CutPrefix(name, "AUTH="); ok {
			offer.Mechanisms = append(offer.Mechanisms, mech)
		}
	}
	slices.Sort(offer.Mechanisms)
	c.offered = offer.Mechanisms
	l, err := auth.Choose(c.cfg.Credentials, offer)
	c.method = l.Name
	if err != nil {
		return c.withRef(err)
	}
	c.caps = nil
	c.last = Result{}
	began := time.Now()
	err = c.letLibrary(func() error {
		if l.Client == nil {
			return c.client.Login(c.cfg.Credentials.LoginName(), c.cfg.Credentials.Password.Reveal()).Wait()
		}
		return c.client.Authenticate(l.Client)
	})
	c.trip = time.Since(began)
	if err == nil {
		return c.withRef(l.Confirm())
	}
	if c.last.Condition == "NO" || c.last.Condition == "BAD" {
		return c.loginRefused(c.last, l)
	}
	if c.readError() == nil { // the exchange itself failed
		return &mail.Error{
			Kind: mail.KindAuth, Ref: c.cfg.ref(), Op: "log in with " + l.Name,
			Err: errors.New(c.cfg.Credentials.Redact(err.Error())), Hint: "the server breaks the rules of this login, or somebody poses as the server",
		}
	}
	return c.fail(OpLogin, err)
}

// OpLogin is the Op of a *mail.Error about a login, refused or cut off: it may have
// been seen by the server.
const OpLogin = "log in"

// loginRefused is never followed by another attempt: some servers lock accounts.
func (c *Conn) loginRefused(res Result, l auth.Login) error {
	kind, hint := res.Kind(), l.Hint
	switch {
	case auth.ConnectionLimit(strings.ToLower(res.Text)):
		kind, hint = mail.KindTemporary, "the server does not want more connections now; try again later"
	case res.Busy() || kind == mail.KindTemporary:
		kind, hint = mail.KindTemporary, "the server has trouble of its own, or wants a pause: run the same command again later"
	case kind == mail.KindLacking:
		hint = "the server wants a secured connection or another way to log in"
	default:
		kind = mail.KindAuth
	}
	return c.refused(OpLogin, res, kind, hint)
}

// sendID tells servers that ask for it what we are; the answer is not waited for.
// Some (NetEase) select no mailbox without it.
func (c *Conn) sendID() error {
	if !c.Has("ID") || c.cfg.Version == "" {
		return nil
	}
	cmd := c.client.ID(&imap.IDData{Name: "mailhaul", Version: plain(c.cfg.Version)})
	c.later = append(c.later, func() error {
		_, err := cmd.Wait()
		return ignoreRefusal(err)
	})
	return nil
}

// ignoreRefusal is for commands that do not matter.
func ignoreRefusal(err error) error {
	if _, ok := errors.AsType[*imap.Error](err); ok {
		return nil
	}
	return err
}

// settle waits for commands of the library that were sent and left alone.
func (c *Conn) settle() error {
	for len(c.later) > 0 {
		wait := c.later[0]
		c.later = c.later[1:]
		if err := c.letLibrary(wait); err != nil {
			return c.fail("talk to the server", err)
		}
	}
	return nil
}
