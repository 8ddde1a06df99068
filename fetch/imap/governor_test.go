package imap_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/fetch/imap"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

// waits collects what a source tells while it waits.
type waits struct {
	mu  sync.Mutex
	all []string
}

func (w *waits) listen(cfg *imap.Config) {
	cfg.Notify = func(e mail.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if e.Kind == mail.EventWaiting {
			w.all = append(w.all, e.Waiting)
		}
	}
}

func (w *waits) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

// sent counts the commands that begin so.
func sent(srv *testserver.IMAP, verb string) int {
	n := 0
	for _, cmd := range srv.Sent() {
		if strings.HasPrefix(cmd, verb) {
			n++
		}
	}
	return n
}

// What servers say of limits is obeyed: the run waits and goes on, and no message
// fails for it.
func TestLimits(t *testing.T) {
	msgs := three()
	for _, refusal := range []string{
		"NO [THROTTLED] slow down", "NO [LIMIT] enough", "NO [INUSE] busy", "BYE Request is throttled.",
		"BAD Request is throttled. Suggested Backoff Time: 20 milliseconds",
		"NO [ALERT] Too many simultaneous connections. (Failure)", "BYE Too many simultaneous connections",
		"BYE [UNAVAILABLE] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
	} {
		for _, at := range []string{"AUTHENTICATE", "LIST", "EXAMINE", "UID FETCH 1:*", "UID FETCH 3", "UID FETCH 4"} {
			t.Run(at+" "+refusal, func(t *testing.T) {
				t.Parallel()
				refusals := 0
				var mu sync.Mutex
				srv := &testserver.IMAP{Messages: msgs}
				srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
					mu.Lock()
					defer mu.Unlock()
					if refusals >= 2 {
						return false
					}
					switch {
					case strings.HasPrefix(cmd, "UID FETCH") && at == "UID FETCH 4" && !strings.Contains(cmd, "1:*"):
						// after the first message of the set
						if strings.Contains(cmd, "BODY") && testserver.InSet(strings.Fields(cmd)[2], 3) {
							c.Send(line(1, msgs[0]))
						}
					case !strings.HasPrefix(cmd, at):
						return false
					}
					refusals++
					if strings.HasPrefix(refusal, "BYE") {
						c.Send("* " + refusal + "\r\n")
						c.Close()
					} else {
						c.Send(c.Tag + " " + refusal + "\r\n")
					}
					return true
				}
				var w waits
				c, err := fetched(t, serve(t, srv, w.listen))
				if err != nil {
					t.Fatal(err)
				}
				complete(t, c, msgs)
				if n := w.count(); n != 2 {
					t.Errorf("told of %d pauses: %q", n, w.all)
				}
				if n := sent(srv, "AUTHENTICATE"); n > 3 {
					t.Errorf("%d logins", n)
				}
			})
		}
	}
}

// A server that wants longer pauses than a run may wait ends it, with the time to
// come back, and not message by message.
func TestLimitsExceeded(t *testing.T) {
	for name, tc := range map[string]struct {
		at, refusal string
		ctx         time.Duration
	}{
		"throttled for ever":     {at: "UID FETCH 3", refusal: "NO [THROTTLED] slow down"},
		"traffic":                {at: "UID FETCH 3", refusal: "NO [OVERQUOTA] Account exceeded command or bandwidth limits."},
		"BYE for ever":           {at: "UID FETCH 3", refusal: "BYE [OVERQUOTA] Account exceeded command or bandwidth limits."},
		"an hour":                {at: "UID FETCH 3", refusal: "NO Request is throttled. Suggested Backoff Time: 3600000 milliseconds"},
		"more than is left":      {at: "UID FETCH 3", refusal: "NO Request is throttled. Suggested Backoff Time: 3600000 milliseconds", ctx: time.Minute},
		"listing":                {at: "UID FETCH 1:*", refusal: "NO [THROTTLED] slow down"},
		"login":                  {at: "AUTHENTICATE", refusal: "NO [ALERT] Too many simultaneous connections. (Failure)"},
		"login and wrong kind":   {at: "AUTHENTICATE", refusal: "NO [AUTHENTICATIONFAILED] Too many simultaneous connections. (Failure)"},
		"greeting":               {at: "greeting", refusal: "BYE Too many simultaneous connections"},
		"one message at a time":  {at: "UID FETCH 4", refusal: "NO [THROTTLED] slow down"},
		"backoff of nothing":     {at: "UID FETCH 3", refusal: "NO Request is throttled. Suggested Backoff Time: 0 milliseconds"},
		"backoff of next to nil": {at: "UID FETCH 3", refusal: "NO Request is throttled. Suggested Backoff Time: 1 milliseconds"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			msgs := three()
			srv := &testserver.IMAP{Messages: msgs}
			if tc.at == "greeting" {
				srv.Greeting = "* " + tc.refusal
			}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if !strings.HasPrefix(cmd, tc.at) {
					return false
				}
				if strings.HasPrefix(tc.refusal, "BYE") {
					c.Send("* " + tc.refusal + "\r\n")
					c.Close()
				} else {
					c.Send(c.Tag + " " + tc.refusal + "\r\n")
				}
				return true
			}
			s := serve(t, srv, func(cfg *imap.Config) {
				cfg.Patience = 100 * time.Millisecond
				if tc.ctx > 0 {
					cfg.Patience = 10 * time.Hour
				}
			})
			ctx := t.Context()
			if tc.ctx > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, tc.ctx)
				defer cancel()
			}
			var c collector
			err := func() error {
				all, err := s.Mailboxes(ctx)
				if err != nil {
					return err
				}
				for _, err := range s.List(ctx, all[0]) {
					if err != nil {
						return err
					}
				}
				wants := []mail.Want{{UID: "3"}, {UID: "4"}, {UID: "9"}}
				if name == "one message at a time" {
					wants = wants[1:2]
				}
				return s.Fetch(ctx, all[0], wants, c.deliver)
			}()
			if mail.KindOf(err) != mail.KindTemporary || !strings.Contains(mail.HintOf(err), " after ") {
				t.Errorf("%v; hint %q", err, mail.HintOf(err))
			}
			if err != nil && !strings.Contains(err.Error(), "imits") && !strings.Contains(err.Error(), "slow down") &&
				!strings.Contains(err.Error(), "connections") && !strings.Contains(err.Error(), "throttled") {
				t.Errorf("not the server's words: %v", err)
			}
			for uid, g := range c.all {
				if g.err != nil {
					t.Errorf("UID %s failed: %v", uid, g.err)
				}
			}
			if n := len(srv.Sent()); n > 60 {
				t.Errorf("%d commands", n)
			}
		})
	}
}

// A login that was refused is not tried again.
func TestOneLogin(t *testing.T) {
	for refusal, kind := range map[string]mail.Kind{
		"NO [AUTHENTICATIONFAILED] Invalid credentials":      mail.KindAuth,
		"NO authentication failed":                           mail.KindAuth,
		"NO [UNAVAILABLE] Temporary authentication failure.": mail.KindTemporary,
		"NO too many failed logins, try again later":         mail.KindTemporary,
		"*drop": mail.KindTemporary,
		"NO [ALERT] account is locked, see https://example.org": mail.KindAuth,
	} {
		t.Run(refusal, func(t *testing.T) {
			srv := &testserver.IMAP{Capabilities: "IMAP4rev1 AUTH=PLAIN AUTH=LOGIN SASL-IR"}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if strings.HasPrefix(cmd, "AUTH") || strings.HasPrefix(cmd, "LOGIN") {
					if refusal == "*drop" {
						c.Close()
						return true
					}
					c.Send(c.Tag + " " + refusal + "\r\n")
					return true
				}
				return false
			}
			s := serve(t, srv)
			if _, err := s.Mailboxes(t.Context()); mail.KindOf(err) != kind {
				t.Errorf("kind %d: %v", mail.KindOf(err), err)
			}
			if n := sent(srv, "AUTH") + sent(srv, "LOGIN "); n != 1 {
				t.Errorf("%d logins: %q", n, srv.Sent())
			}
		})
	}
}

// A server that is too busy for every message does not have them fail one by one.
func TestBusyForAll(t *testing.T) {
	srv := &testserver.IMAP{}
	for i := range 40 {
		srv.Messages = append(srv.Messages, testserver.IMAPMessage{UID: uint32(i + 1), Octets: "Subject: x\r\n\r\n"})
	}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		if strings.Contains(cmd, "BODY") {
			c.NO("[UNAVAILABLE] UID FETCH Server error - Please try again later")
			return true
		}
		return false
	}
	c, err := fetched(t, serve(t, srv))
	if mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("%v", err)
	}
	if len(c.all) > 6 {
		t.Errorf("%d messages failed", len(c.all))
	}
}

// A server that throttles a fetch over several connections gets fewer, and all
// messages come.
func TestFewerConnections(t *testing.T) {
	srv := &testserver.IMAP{}
	for i := range 9000 {
		srv.Messages = append(srv.Messages, testserver.IMAPMessage{UID: uint32(i + 1), Octets: fmt.Sprintf("Subject: %d\r\n\r\n", i)})
	}
	var mu sync.Mutex
	n := 0
	srv.Answer = bodies(func(c *testserver.IMAPConn, set string) {
		mu.Lock()
		n++
		throttle := n%7 == 0
		mu.Unlock()
		if throttle {
			c.NO("[THROTTLED] slow down")
			return
		}
		sendSet(c, set, srv.Messages)
	})
	c, err := fetched(t, serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	complete(t, c, srv.Messages)
	if srv.Connections() > 8 {
		t.Errorf("%d connections made", srv.Connections())
	}
}

// A server that cannot be reached at first is tried again; a host that does not
// exist is not.
func TestFirstConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	tries := make(chan int, 1)
	go func() {
		n := 0
		for {
			c, err := ln.Accept()
			if err != nil {
				tries <- n
				return
			}
			n++
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	srv := &testserver.IMAP{}
	s := serve(t, srv, func(cfg *imap.Config) { cfg.Server.Port = ln.Addr().(*net.TCPAddr).Port })
	if _, err := s.Mailboxes(t.Context()); mail.KindOf(err) != mail.KindTemporary {
		t.Error(err)
	}
	ln.Close()
	if n := <-tries; n != 3 {
		t.Errorf("%d connections tried", n)
	}
}
