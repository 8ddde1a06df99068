package imap_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

// wire is a trace to look at.
type wire struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *wire) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func tracedSource(s *dovecot.Server, user string, w io.Writer) *imap.Source {
	return imap.New(imap.Config{
		Server:      dial.Server{Host: s.Host, Port: s.IMAPS, CAFile: s.CAFile, Timeout: 20 * time.Second, Trace: &dial.Trace{W: w}},
		Credentials: auth.Credentials{User: user, Password: dovecot.Password}, Pause: 10 * time.Millisecond,
	})
}

// proofs fetches everything and proves it from memory.
func proofs(t *testing.T, src *imap.Source, mb mail.Mailbox) []mail.Proof {
	t.Helper()
	infos, wants := listAll(t, src, mb)
	var c collector
	if err := src.Fetch(context.Background(), mb, wants, c.deliver); err != nil {
		t.Fatal(err)
	}
	var out []mail.Proof
	for _, in := range infos {
		canonical, sums := mail.CanonicalInPlace(bytes.Clone(c.all[in.Ref.UID].octets))
		p, err := mail.Prove(mail.Receipt{Info: in, Place: in.Ref.UID, Sums: sums}, bytes.NewReader(canonical))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// order notes what a Delete says.
type order struct {
	mail.DeleteOrder
	intended []int
	gone     []int
	stayed   map[int]string
	moved    map[int]mail.Info
}

func newOrder(p []mail.Proof, mode string) *order {
	o := &order{stayed: make(map[int]string), moved: make(map[int]mail.Info)}
	o.DeleteOrder = mail.DeleteOrder{
		Proofs: p, Mode: mode,
		Allow: func(_ int, in mail.Info) string {
			for _, flag := range []string{mail.Deleted, mail.Flagged} {
				if in.Flags.Has(flag) {
					return flag
				}
			}
			return ""
		},
		Moved:  func(i int, to mail.Info) { o.moved[i] = to },
		Intend: func(passed []int) error { o.intended = slices.Clone(passed); return nil },
		Settle: func(i int, gone bool, why string) {
			if slices.Contains(o.gone, i) || o.stayed[i] != "" {
				panic("settled twice")
			}
			if gone {
				o.gone = append(o.gone, i)
			} else {
				o.stayed[i] = why
			}
		},
	}
	return o
}

// safeWire fails if a command was sent that removes what was not named.
func safeWire(t *testing.T, lines []string) {
	t.Helper()
	bad := regexp.MustCompile(`(?i)^(EXPUNGE|CLOSE|UID EXPUNGE\s*$|UID COPY)`)
	for _, l := range lines {
		if bad.MatchString(l) {
			t.Errorf("sent: %s", l)
		}
	}
}

// commands returns what was sent by a trace, without tags.
func commands(trace string) []string {
	var out []string
	sent := regexp.MustCompile(`(?m)(?:C:|>) *\S+ (.*)$`)
	for _, m := range sent.FindAllStringSubmatch(trace, -1) {
		out = append(out, strings.TrimSpace(m[1]))
	}
	return out
}

func TestDelete(t *testing.T) {
	srv := dovecot.Start(t, dovecot.Options{})
	otherValidity := func(t *testing.T, user string) {
		if err := srv.SetUIDValidity(user, "INBOX", 4711); err != nil {
			t.Fatal(err)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		mode   string
		change func(t *testing.T, user string)
		prove  func(t *testing.T, p []mail.Proof)
		gone   int
		why    map[int]string
		left   int // in INBOX, of 6
	}{
		{name: "expunge", gone: 5, left: 1},
		{name: "trash", mode: mail.ModeTrash, gone: 5, left: 1},
		{name: "marked by another", gone: 4, left: 2, why: map[int]string{1: mail.Deleted}, change: func(t *testing.T, user string) {
			check(srv.Store(user, "INBOX", "2,6", "+FLAGS", `\Deleted`))
		}},
		{name: "flagged meanwhile", gone: 3, left: 3, why: map[int]string{0: mail.Flagged, 2: mail.Flagged}, change: func(t *testing.T, user string) {
			check(srv.Store(user, "INBOX", "1,3", "+FLAGS", `\Flagged`))
		}},
		{name: "read meanwhile", gone: 5, left: 1, change: func(t *testing.T, user string) {
			check(srv.Store(user, "INBOX", "2:4", "+FLAGS", `\Seen`))
		}},
		{name: "vanished", gone: 4, left: 1, why: map[int]string{3: mail.WhyVanished}, change: func(t *testing.T, user string) {
			check(srv.Expunge(user, "INBOX", "4"))
		}},
		{name: "new UIDVALIDITY", gone: 0, left: 6, change: otherValidity},
		{name: "another header", gone: 4, left: 2, why: map[int]string{2: mail.WhyChanged}, prove: func(t *testing.T, p []mail.Proof) {
			p[2] = forged(t, p[2], func(rc *mail.Receipt) { rc.Header[0]++ })
		}},
		{name: "another size", gone: 4, left: 2, why: map[int]string{2: mail.WhyChanged}, prove: func(t *testing.T, p []mail.Proof) {
			p[2] = forged(t, p[2], func(rc *mail.Receipt) { rc.Info.Size++ })
		}},
		{name: "another date", gone: 4, left: 2, why: map[int]string{2: mail.WhyChanged}, prove: func(t *testing.T, p []mail.Proof) {
			p[2] = forged(t, p[2], func(rc *mail.Receipt) { rc.Info.InternalDate = rc.Info.InternalDate.Add(time.Second) })
		}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			user := fmt.Sprint("user", i)
			check(srv.Append(user, "INBOX", made(6)...))
			check(srv.Append(user, "Trash"))
			w := &wire{}
			src := tracedSource(srv, user, w)
			defer src.Close()
			if tt.mode == "" {
				tt.mode = mail.ModeExpunge
			}
			if mode, err := src.CanDelete(context.Background(), tt.mode); err != nil || mode != tt.mode {
				t.Fatal(mode, err)
			}
			mb := inbox(t, src, "INBOX")
			p := proofs(t, src, mb)[:5]
			if tt.change != nil {
				tt.change(t, user)
			}
			if tt.prove != nil {
				tt.prove(t, p)
			}
			slices.Reverse(p[:2]) // the order of the proofs does not count
			o := newOrder(p, tt.mode)
			if err := src.Delete(context.Background(), mb, o.DeleteOrder); err != nil {
				t.Fatal(err)
			}
			slices.Sort(o.gone)
			slices.Sort(o.intended)
			if len(o.gone) != tt.gone || !slices.Equal(o.gone, o.intended) || len(o.stayed) != 5-tt.gone {
				t.Errorf("gone %v, intended %v, stayed %v", o.gone, o.intended, o.stayed)
			}
			for at, why := range tt.why {
				if at < 2 {
					at = 1 - at
				}
				if o.stayed[at] != why {
					t.Errorf("%d stayed: %q, want %q", at, o.stayed[at], why)
				}
			}
			left, err := srv.Count(user, "INBOX")
			if err != nil || left != tt.left {
				t.Errorf("%d left, want %d (%v)", left, tt.left, err)
			}
			if n, err := srv.Count(user, "Trash"); err != nil || tt.mode == mail.ModeTrash && n != tt.gone || tt.mode != mail.ModeTrash && n != 0 {
				t.Errorf("%d in the trash: %v", n, err)
			}
			if tt.mode == mail.ModeTrash {
				trashHas(t, src, o, p)
			} else if len(o.moved) > 0 {
				t.Errorf("moved: %v", o.moved)
			}
			sent := commands(w.String())
			if len(sent) < 3 {
				t.Fatalf("no commands in the trace:\n%s", w.String())
			}
			safeWire(t, sent)
			for _, l := range sent {
				if strings.HasPrefix(l, "UID STORE") && !strings.Contains(l, "UNCHANGEDSINCE") {
					t.Errorf("without condition: %s", l)
				}
			}
		})
	}
}

// trashHas checks that what is said of moved messages is so.
func trashHas(t *testing.T, src *imap.Source, o *order, p []mail.Proof) {
	t.Helper()
	mb := inbox(t, src, "Trash")
	for _, q := range proofs(t, src, mb) {
		rc, _ := q.Receipt()
		i := slices.IndexFunc(p, func(p mail.Proof) bool { was, _ := p.Receipt(); return was.Digest == rc.Digest })
		if to := o.moved[i]; i < 0 || to.Ref != rc.Info.Ref || to.Size != rc.Info.Size || to.Flags != rc.Info.Flags {
			t.Errorf("%d lies at %+v, is said to at %+v", i, rc.Info, to)
		}
	}
	if len(o.moved) != len(o.gone) {
		t.Errorf("%d places of %d", len(o.moved), len(o.gone))
	}
}

// forged is a proof of a receipt that was altered in what Prove does not compare.
func forged(t *testing.T, p mail.Proof, change func(*mail.Receipt)) mail.Proof {
	t.Helper()
	rc, _ := p.Receipt()
	canonical, sums := mail.CanonicalInPlace(bytes.Repeat([]byte("x\r\n"), 10))
	header := rc.Header
	rc.Sums = sums
	rc.Header = header
	change(&rc)
	q, err := mail.Prove(rc, bytes.NewReader(canonical))
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestDeleteManyRoundTrips(t *testing.T) {
	srv := dovecot.Start(t, dovecot.Options{})
	var msgs []dovecot.Message
	for i := range 2000 {
		msgs = append(msgs, dovecot.Message{Octets: fmt.Appendf(nil, "Subject: %d\r\n\r\n%d\r\n", i, i)})
	}
	if err := srv.Append("ada", "INBOX", msgs...); err != nil {
		t.Fatal(err)
	}
	// Only every other UID, so that no ranges form.
	var odd []string
	for i := 1; i < 2000; i += 2 {
		odd = append(odd, fmt.Sprint(i))
	}
	if err := srv.Expunge("ada", "INBOX", strings.Join(odd, ",")); err != nil {
		t.Fatal(err)
	}
	w := &wire{}
	src := tracedSource(srv, "ada", w)
	defer src.Close()
	mb := inbox(t, src, "INBOX")
	p := proofs(t, src, mb)
	before := len(commands(w.String()))
	o := newOrder(p, mail.ModeExpunge)
	if err := src.Delete(context.Background(), mb, o.DeleteOrder); err != nil {
		t.Fatal(err)
	}
	if len(o.gone) != 1000 {
		t.Errorf("%d gone", len(o.gone))
	}
	if n := len(commands(w.String())) - before; n > 5 {
		t.Errorf("%d commands for one batch", n)
	}
	if n, err := srv.Count("ada", "INBOX"); err != nil || n != 0 {
		t.Errorf("%d left, %v", n, err)
	}
}

// The intent is on record before anything is marked or moved; without it nothing is.
func TestNoOrderWithoutIntent(t *testing.T) {
	for _, mode := range []string{mail.ModeExpunge, mail.ModeTrash} {
		srv, src := scripted(t, "UIDPLUS MOVE", func(c *testserver.IMAPConn, cmd string) bool {
			if !strings.HasPrefix(cmd, "LIST") {
				return false
			}
			c.Send("* LIST () \"/\" INBOX\r\n* LIST (\\Trash) \"/\" Bin\r\n")
			c.OK("done")
			return true
		})
		mb := inbox(t, src, "INBOX")
		o := newOrder(proofs(t, src, mb), mode)
		broken := errors.New("disk full")
		asked := false
		o.Intend = func([]int) error { asked = true; return broken }
		if err := src.Delete(context.Background(), mb, o.DeleteOrder); !errors.Is(err, broken) || !asked {
			t.Errorf("%s: %v", mode, err)
		}
		for _, l := range srv.Sent() {
			if strings.HasPrefix(l, "UID STORE") || strings.HasPrefix(l, "UID EXPUNGE") || strings.HasPrefix(l, "UID MOVE") {
				t.Errorf("%s: sent %s", mode, l)
			}
		}
		if len(o.gone)+len(o.stayed) > 0 {
			t.Errorf("%s: settled %v %v", mode, o.gone, o.stayed)
		}
	}
}

// UIDs that do not last name nothing that could be deleted by them (RFC 4315 section 2).
func TestDeleteUIDNotSticky(t *testing.T) {
	srv, src := scripted(t, "UIDPLUS", func(c *testserver.IMAPConn, cmd string) bool {
		if !strings.HasPrefix(cmd, "SELECT") {
			return false
		}
		c.Send("* 3 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* NO [UIDNOTSTICKY] they change\r\n")
		c.OK("[READ-WRITE] selected")
		return true
	})
	mb := inbox(t, src, "INBOX")
	o := newOrder(proofs(t, src, mb), mail.ModeExpunge)
	if err := src.Delete(context.Background(), mb, o.DeleteOrder); err != nil {
		t.Fatal(err)
	}
	if len(o.gone) != 0 || len(o.stayed) != 3 || o.intended != nil {
		t.Errorf("gone %v, stayed %v, intended %v", o.gone, o.stayed, o.intended)
	}
	for _, l := range srv.Sent() {
		if strings.HasPrefix(l, "UID STORE") {
			t.Errorf("sent %s", l)
		}
	}
}

func TestDeleteReadOnly(t *testing.T) {
	srv, src := scripted(t, "UIDPLUS", func(c *testserver.IMAPConn, cmd string) bool {
		if !strings.HasPrefix(cmd, "SELECT") {
			return false
		}
		c.Send("* 3 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n")
		c.OK("[READ-ONLY] selected")
		return true
	})
	mb := inbox(t, src, "INBOX")
	o := newOrder(proofs(t, src, mb), mail.ModeExpunge)
	if err := src.Delete(context.Background(), mb, o.DeleteOrder); err != nil {
		t.Fatal(err)
	}
	if len(o.gone) != 0 || len(o.stayed) != 3 || o.stayed[0] != "the mailbox is read-only" || o.intended != nil {
		t.Errorf("gone %v, stayed %v, intended %v", o.gone, o.stayed, o.intended)
	}
	for _, l := range srv.Sent() {
		if strings.HasPrefix(l, "UID STORE") {
			t.Errorf("sent %s", l)
		}
	}
}

func TestQuota(t *testing.T) {
	srv := dovecot.Start(t, dovecot.Options{Quota: "10M"})
	if err := srv.Append("ada", "INBOX", made(100)...); err != nil {
		t.Fatal(err)
	}
	src := sourceOf(srv, "ada", srv.IMAPS)
	defer src.Close()
	used, limit, err := src.Quota(context.Background())
	if err != nil || limit != 10<<20 || used < 300_000 || used > 800_000 {
		t.Errorf("used %d of %d, %v", used, limit, err)
	}
	none := dovecot.Start(t, dovecot.Options{})
	src = sourceOf(none, "ada", none.IMAPS)
	defer src.Close()
	if used, limit, err := src.Quota(context.Background()); used != 0 || limit != 0 || err != nil {
		t.Error(used, limit, err)
	}
}

// scripted serves three messages and lets a test answer.
func scripted(t *testing.T, caps string, answer func(c *testserver.IMAPConn, cmd string) bool) (*testserver.IMAP, *imap.Source) {
	t.Helper()
	srv := &testserver.IMAP{Capabilities: "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+ " + caps, Answer: answer}
	for uid := range uint32(3) {
		srv.Messages = append(srv.Messages, testserver.IMAPMessage{UID: uid + 1, Octets: fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", uid)})
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	src := imap.New(imap.Config{
		Server:      dial.Server{Host: "127.0.0.1", Port: srv.Port(), Security: dial.Cleartext, Timeout: 5 * time.Second},
		Credentials: auth.Credentials{User: "ada", Password: "secret"}, Pause: time.Millisecond,
	})
	t.Cleanup(func() { src.Close() })
	return srv, src
}

func TestCanDelete(t *testing.T) {
	list := func(trash string) func(c *testserver.IMAPConn, cmd string) bool {
		return func(c *testserver.IMAPConn, cmd string) bool {
			if !strings.HasPrefix(cmd, "LIST") {
				return false
			}
			c.Send("* LIST () \"/\" INBOX\r\n* LIST (" + trash + ") \"/\" Bin\r\n")
			c.OK("done")
			return true
		}
	}
	for _, tt := range []struct {
		caps, trash, ask, mode, hint string
	}{
		{caps: "UIDPLUS", ask: mail.ModeExpunge, mode: mail.ModeExpunge},
		{caps: "", ask: mail.ModeExpunge, hint: "POP3"},
		{caps: "MOVE", ask: mail.ModeExpunge, hint: "--trash"},
		{caps: "MOVE", trash: `\Trash`, ask: mail.ModeTrash, mode: mail.ModeTrash},
		{caps: "MOVE UIDPLUS", ask: mail.ModeTrash, hint: "trash"},
		{caps: "UIDPLUS", trash: `\Trash`, ask: mail.ModeTrash, hint: "--trash"},
		{caps: "MOVE UIDPLUS X-GM-EXT-1", trash: `\Trash`, ask: mail.ModeExpunge, mode: mail.ModeTrash},
	} {
		srv, src := scripted(t, tt.caps, list(tt.trash))
		mode, err := src.CanDelete(context.Background(), tt.ask)
		switch {
		case tt.hint == "" && (err != nil || mode != tt.mode):
			t.Errorf("%+v: %s %v", tt, mode, err)
		case tt.hint != "" && (mail.KindOf(err) != mail.KindLacking || !strings.Contains(mail.HintOf(err), tt.hint)):
			t.Errorf("%+v: %v, hint %q", tt, err, mail.HintOf(err))
		}
		for _, l := range srv.Sent() {
			if strings.HasPrefix(l, "UID STORE") || strings.HasPrefix(l, "SELECT") {
				t.Errorf("%+v sent %s", tt, l)
			}
		}
	}
}

// What the server does at STORE, EXPUNGE and MOVE, and what is made of it.
func TestDeleteAgainstOddServers(t *testing.T) {
	type reply func(c *testserver.IMAPConn)
	no := func(text string) reply { return func(c *testserver.IMAPConn) { c.NO(text) } }
	ok := func(c *testserver.IMAPConn) { c.OK("done") }
	left := func(flags string, uids ...int) reply {
		return func(c *testserver.IMAPConn) {
			for _, uid := range uids {
				c.Send(fmt.Sprintf("* %d FETCH (UID %d FLAGS (%s))\r\n", uid, uid, flags))
			}
			c.OK("done")
		}
	}
	drop := func(c *testserver.IMAPConn) { c.Close() }
	for _, tt := range []struct {
		name                        string
		caps, mode                  string
		store, expunge, move, after reply
		gone                        int
		why                         string // of the others
		moved                       int    // places told
		unmark                      string // set of UIDs
		lost                        bool
		not                         string // never sent
	}{
		{name: "good", store: ok, expunge: ok, after: left(""), gone: 3},
		{name: "EXPUNGE NO", store: ok, expunge: no("not today"), after: left(`\Deleted`, 1, 2, 3), why: "not today", unmark: "1:3"},
		{name: "EXPUNGE NO after one", store: ok, expunge: no("not today"), after: left(`\Deleted`, 2, 3), gone: 1, why: "not today", unmark: "2:3"},
		{name: "EXPUNGE does nothing", store: ok, expunge: ok, after: left(`\Deleted`, 1, 2, 3), why: "did not remove", unmark: "1:3"},
		{name: "STORE NO", store: no("read the manual"), after: left("", 1, 2, 3), why: "read the manual", not: "UID EXPUNGE"},
		{name: "STORE NO after two", store: no("full"), after: left(`\Deleted`, 1, 2, 3), why: "full", unmark: "1:3", not: "UID EXPUNGE"},
		{name: "lost at STORE", store: drop, lost: true, not: "UID EXPUNGE"},
		{name: "lost at EXPUNGE", store: ok, expunge: drop, lost: true},
		{name: "no answer about what is left", store: ok, expunge: ok, after: no("busy"), lost: true},
		{name: "MODIFIED", caps: "CONDSTORE", store: func(c *testserver.IMAPConn) { c.OK("[MODIFIED 2] conditional STORE failed") },
			expunge: ok, after: left(`\Deleted`, 2), gone: 2, why: mail.WhyChanged, not: "UID EXPUNGE 1:3"},
		{name: "MODIFIED NO", caps: "CONDSTORE", store: func(c *testserver.IMAPConn) { c.NO("[MODIFIED 1:2] conditional STORE failed") },
			expunge: ok, after: left("", 2), gone: 1, not: "UID EXPUNGE 1"},
		{name: "moved", mode: mail.ModeTrash, move: ok, after: left(""), gone: 3, not: "UID STORE"},
		{name: "moved, untagged COPYUID", mode: mail.ModeTrash, move: func(c *testserver.IMAPConn) {
			c.Send("* OK [COPYUID 9 1:3 21:23] moved\r\n")
			c.OK("done")
		}, after: left(""), gone: 3, moved: 3},
		{name: "moved, tagged COPYUID", mode: mail.ModeTrash, move: func(c *testserver.IMAPConn) { c.OK("[COPYUID 9 1,3 22,21] moved") },
			after: left("", 2), gone: 2, moved: 2},
		{name: "moved, COPYUID of another kind", mode: mail.ModeTrash, move: func(c *testserver.IMAPConn) { c.OK("[COPYUID 9 1:3 21:22] moved") },
			after: left(""), gone: 3},
		{name: "MOVE NO", mode: mail.ModeTrash, move: no("[OVERQUOTA] trash is full"), after: left("", 2, 3), gone: 1, why: "trash is full", not: "UID STORE"},
		{name: "lost at MOVE", mode: mail.ModeTrash, move: drop, lost: true, not: "UID STORE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			deleting := false
			srv, src := scripted(t, "UIDPLUS MOVE "+tt.caps, func(c *testserver.IMAPConn, cmd string) bool {
				var r reply
				switch {
				case strings.HasPrefix(cmd, "LIST"):
					c.Send("* LIST () \"/\" INBOX\r\n* LIST (\\Trash) \"/\" Bin\r\n")
					r = ok
				case strings.HasPrefix(cmd, "UID STORE") && strings.Contains(cmd, "-FLAGS"):
					r = ok
				case strings.HasPrefix(cmd, "UID STORE"):
					deleting, r = true, tt.store
				case strings.HasPrefix(cmd, "UID EXPUNGE"):
					r = tt.expunge
				case strings.HasPrefix(cmd, "UID MOVE"):
					deleting, r = true, tt.move
				case deleting && strings.HasPrefix(cmd, "UID FETCH"):
					r = tt.after
				default:
					return false
				}
				r(c)
				return true
			})
			mb := inbox(t, src, "INBOX")
			p := proofs(t, src, mb)
			o := newOrder(p, tt.mode)
			if tt.mode == "" {
				o.Mode = mail.ModeExpunge
			}
			err := src.Delete(context.Background(), mb, o.DeleteOrder)
			if tt.lost != (err != nil) {
				t.Fatalf("err %v", err)
			}
			if len(o.intended) != 3 {
				t.Errorf("intended %v, stayed %v", o.intended, o.stayed)
			}
			if tt.lost {
				if len(o.gone)+len(o.stayed) != 0 || mail.KindOf(err) != mail.KindTemporary {
					t.Errorf("settled what is not known: %v %v (%v)", o.gone, o.stayed, err)
				}
			} else if len(o.gone) != tt.gone || len(o.gone)+len(o.stayed) != 3 {
				t.Errorf("gone %v, stayed %v", o.gone, o.stayed)
			}
			if len(o.moved) != tt.moved {
				t.Errorf("moved %v", o.moved)
			}
			for i, to := range o.moved {
				if uid := []string{"21", "22", "23"}[i]; tt.moved == 3 && to.Ref.UID != uid || to.Ref.UIDValidity != 9 || to.Ref.Mailbox != "Bin" {
					t.Errorf("%d moved to %+v", i, to.Ref)
				}
			}
			for _, why := range o.stayed {
				if !strings.Contains(why, tt.why) {
					t.Errorf("stayed: %q, want %q", why, tt.why)
				}
			}
			safeWire(t, srv.Sent())
			unmarked := ""
			for _, l := range srv.Sent() {
				if strings.HasPrefix(l, "UID STORE") && strings.Contains(l, "-FLAGS") {
					unmarked = strings.Fields(l)[2]
				}
				if tt.not != "" && (l == tt.not || strings.HasPrefix(l, tt.not+" ")) {
					t.Errorf("sent %s", l)
				}
			}
			if unmarked != tt.unmark {
				t.Errorf("took the mark off %q, want %q", unmarked, tt.unmark)
			}
		})
	}
}

// A server that gives another message under a known UID keeps it.
func TestDeleteUIDReuse(t *testing.T) {
	srv, src := scripted(t, "UIDPLUS", nil)
	mb := inbox(t, src, "INBOX")
	p := proofs(t, src, mb)
	same := len(srv.Messages[1].Octets)
	srv.Messages[1].Octets = "Subject: Z\r\n\r\n" + strings.Repeat("z", same-16) + "\r\n"
	o := newOrder(p, mail.ModeExpunge)
	_ = src.Delete(context.Background(), mb, o.DeleteOrder) // this server knows no STORE
	if o.stayed[1] != mail.WhyChanged || !slices.Equal(o.intended, []int{0, 2}) {
		t.Errorf("intended %v, stayed %v", o.intended, o.stayed)
	}
}

func TestDeleteRefusesZeroProofs(t *testing.T) {
	srv, src := scripted(t, "UIDPLUS", nil)
	o := newOrder(make([]mail.Proof, 1), mail.ModeExpunge)
	if err := src.Delete(context.Background(), mail.Mailbox{Raw: "INBOX"}, o.DeleteOrder); err == nil || o.intended != nil {
		t.Errorf("%v, intended %v", err, o.intended)
	}
	if srv.Connections() != 0 {
		t.Error("it even connected")
	}
}
