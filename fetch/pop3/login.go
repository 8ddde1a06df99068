package pop3

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	gopop3 "github.com/knadh/go-pop3"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/mail"
)

func (s *Source) connect(ctx context.Context, c auth.Credentials) (*session, error) {
	conn, err := dial.Dial(ctx, s.cfg.Server)
	if err != nil {
		return nil, s.name(err)
	}
	conn.Redact(s.cfg.Credentials.Redact)
	release := conn.Bind(ctx)
	ss := &session{conn: conn, credentials: c, wire: &wire{Conn: conn, redact: s.cfg.Credentials.Redact, status: true}, rd: newReader(conn), scratch: make([]byte, 32<<10), read: make(map[uint32]bool)}
	err = s.begin(ctx, ss)
	if err == nil && ss.caps.pipelining { // stat has asked
		if err = s.answer(ss, uidlCommand(ss.list)); err == nil && s.expectAll.Load() {
			err = s.answer(ss, sizeCommand(ss.list))
		}
		if err != nil {
			err = ss.failed("list messages", err)
		}
	}
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if errors.Is(err, errNoCAPA) {
		conn.Close()
		return nil, err
	}
	if err != nil {
		conn.Close()
		return nil, s.name(conn.Fail("log in at "+s.cfg.Server.Addr(), err))
	}
	ss.began = time.Now()
	return ss, nil
}

// begin does greeting, STLS, CAPA, login and STAT.
func (s *Source) begin(ctx context.Context, ss *session) error {
	if err := s.greet(ss); err != nil {
		return err
	}
	if s.cfg.Server.Security == dial.StartTLS {
		if err := s.startTLS(ctx, ss); err != nil {
			return err
		}
	}
	if err := s.askCapabilities(ss); err != nil {
		return err
	}
	if err := s.login(ss); err != nil {
		return err
	}
	if ss.caps.perUser {
		if err := s.askCapabilities(ss); err != nil {
			return err
		}
	}
	return s.stat(ss)
}

func (s *Source) greet(ss *session) error {
	ss.conn.Lines(true)
	ss.conn.Budget(answerBudget)
	defer ss.takeBack()
	lib, err := gopop3.New(gopop3.Opt{Host: s.cfg.Server.Host, Port: 1, Dialer: dialer{ss.wire}}).NewConn()
	s.greeted = s.greeted || !ss.wire.status || ss.wire.err != nil
	if ss.wire.err != nil {
		return &mail.Error{
			Kind: mail.KindOther,
			Op:   "greeting of " + s.cfg.Server.Addr(),
			Err:  ss.wire.err,
			Hint: "this is no POP3 server: check host and port",
		}
	}
	if err != nil {
		if ss.wire.status || ss.wire.last.ok {
			return err
		}
		return s.refused("greeting of "+s.cfg.Server.Addr(), ss.wire.last, mail.KindTemporary)
	}
	ss.lib = lib
	return nil
}

// startTLS is RFC 2595 section 4. What the server said in clear text counts for
// nothing afterwards; it is not even asked for its capabilities before.
func (s *Source) startTLS(ctx context.Context, ss *session) error {
	if err := ss.lend(); err != nil {
		return err
	}
	_, cmdErr := ss.lib.Cmd("STLS", false)
	r, _, err := ss.result(nullBuffer{}, cmdErr)
	if err != nil {
		ss.takeBack()
		return err
	}
	if !r.ok {
		ss.takeBack()
		e := s.refused("STLS", r, mail.KindLacking)
		if e.Kind == mail.KindLacking {
			e.Hint = "this server has no STLS on that port: try pop3s:// (port 995)"
		}
		return e
	}
	if err := ss.conn.StartTLS(ctx); err != nil {
		return err
	}
	ss.takeBack()
	return nil
}

type nullBuffer struct{}

func (nullBuffer) String() string { return "" }

// errNoCAPA says that the connection was lost over CAPA, as some old servers do.
var errNoCAPA = errors.New("connection lost over CAPA")

func (s *Source) askCapabilities(ss *session) error {
	if s.noCAPA {
		return nil
	}
	r, text, err := ss.command(true, "CAPA")
	switch {
	case err != nil && !ss.caps.known && isLost(err):
		return fmt.Errorf("%w: %w", errNoCAPA, err)
	case err != nil:
		return err
	case r.ok:
		ss.caps = parseCapabilities(text)
	}
	return nil
}

// login tries one way once: servers lock accounts after a few failures.
func (s *Source) login(ss *session) error {
	offer := auth.Offer{
		Mechanisms: ss.caps.sasl,
		Plain:      ss.caps.user || len(ss.caps.sasl) == 0,
		Host:       s.cfg.Server.Host,
		Port:       s.cfg.Server.Port,
	}
	if st, ok := ss.conn.ConnectionState(); ok {
		offer.TLS = &st
	}
	ss.offered = offer.Mechanisms
	if ss.caps.user {
		ss.offered = append(slices.Clone(ss.offered), "USER")
	}
	l, err := auth.Choose(ss.credentials, offer)
	if err != nil {
		return err
	}
	ss.method = l.Name
	var r reply
	if l.Client == nil {
		if r, _, err = ss.command(false, "USER", ss.credentials.LoginName()); err == nil && r.ok {
			r, _, err = ss.command(false, "PASS", ss.credentials.Password.Reveal())
		}
	} else {
		r, err = ss.authenticate(l)
	}
	if err != nil {
		return err
	}
	if !r.ok {
		e := s.refused(opLogin, r, mail.KindAuth)
		if e.Kind == mail.KindAuth && !strings.HasPrefix(r.code(), "SYS/") {
			e.Hint = l.Hint
		}
		return e
	}
	return l.Confirm()
}

// opLogin is the Op of an error about a login the server refused.
const opLogin = "log in"

func refusedLogin(err error) bool {
	e, ok := errors.AsType[*mail.Error](err)
	return ok && e.Kind == mail.KindAuth && e.Op == opLogin
}

// maxChallenges ends an exchange with a server that never has enough.
const maxChallenges = 8

// authenticate is RFC 5034.
func (ss *session) authenticate(l auth.Login) (reply, error) {
	mech, first, err := l.Client.Start()
	if err != nil {
		return reply{}, err
	}
	line := mech
	pending := first != nil
	if enc := encodeSASL(first); pending && len("AUTH  \r\n")+len(mech)+len(enc) <= 255 {
		line, pending = mech+" "+enc, false
	}
	r, _, err := ss.command(false, "AUTH", line)
	for range maxChallenges {
		if err != nil || !ss.wire.more {
			return r, err
		}
		answer, broken := "", error(nil)
		if pending {
			answer, pending = base64.StdEncoding.EncodeToString(first), false
		} else {
			answer, broken = answerTo(r.text, l)
		}
		r, _, err = ss.command(false, answer)
		if broken != nil {
			return r, &mail.Error{
				Kind: mail.KindAuth, Op: "log in with " + l.Name, Err: errors.New(ss.credentials.Redact(broken.Error())),
				Hint: "the server breaks the rules of this login, or somebody poses as the server",
			}
		}
	}
	if err == nil && ss.wire.more {
		err = fmt.Errorf("%w: challenges without end", errOutOfStep)
	}
	return r, err
}

// answerTo answers a challenge; with an error the answer says that we give up (RFC
// 5034 section 4).
func answerTo(text string, l auth.Login) (string, error) {
	challenge, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "*", errors.New("a challenge that is no base64")
	}
	out, err := l.Client.Next(challenge)
	if err != nil {
		return "*", err
	}
	return base64.StdEncoding.EncodeToString(out), nil
}

// encodeSASL encodes an initial response; an empty one is "=".
func encodeSASL(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}
