package imap_test

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/auth"
	"mailhaul/internal/corpus"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
	"mailhaul/upload"
	"mailhaul/upload/imap"
)

// mannered starts a scripted server and returns a destination on it.
func mannered(t *testing.T, s *testserver.IMAP) *imap.Destination {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	d := imap.New(imap.Config{
		Server:      dial.Server{Host: "127.0.0.1", Port: s.Port(), Security: dial.Cleartext, Timeout: 10 * time.Second},
		Credentials: auth.Credentials{User: "grace", Password: auth.Secret(dovecot.Password)},
	})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// wires are the octets a mailbox holds, sorted.
func wires(s *testserver.IMAP, mailbox string) (all []string) {
	for _, m := range s.Held(mailbox) {
		all = append(all, m.Octets)
	}
	slices.Sort(all)
	return all
}

func sameWires(t *testing.T, s *testserver.IMAP, mailbox string, letters []letter) {
	t.Helper()
	var want []string
	for _, l := range letters {
		want = append(want, string(l.wire))
	}
	slices.Sort(want)
	if got := wires(s, mailbox); !slices.Equal(got, want) {
		t.Errorf("%s holds %d messages, want %d", mailbox, len(got), len(want))
	}
}

// sentVerbs counts the commands that begin so.
func sentVerbs(s *testserver.IMAP, prefix string) (n int) {
	for _, cmd := range s.Sent() {
		if strings.HasPrefix(strings.ToUpper(cmd), prefix) {
			n++
		}
	}
	return n
}

// Courier has neither LITERAL+ nor MULTIAPPEND, drops what is sent behind a login
// without waiting, and has "." and INBOX. for names.
func TestCourier(t *testing.T) {
	t.Parallel()
	s := &testserver.IMAP{Capabilities: "IMAP4rev1 UIDPLUS CHILDREN NAMESPACE IDLE"}
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		verb, rest, _ := strings.Cut(strings.ToUpper(cmd), " ")
		switch verb {
		case "LOGIN":
			_, _ = c.R.Discard(c.R.Buffered())
			c.OK("LOGIN Ok.")
		case "NAMESPACE":
			c.Send("* NAMESPACE ((\"INBOX.\" \".\")) ((\"user.\" \".\")) ((\"shared.\" \".\"))\r\n")
			c.OK("NAMESPACE completed.")
		case "LIST":
			names := []string{"INBOX"}
			for name := range map[string]bool{"INBOX.Sent": true, "INBOX.Archive.2023": true, "INBOX.a_b": true} {
				if len(s.Held(name)) > 0 {
					names = append(names, name)
				}
			}
			for _, name := range names {
				c.Send("* LIST (\\HasNoChildren) \".\" \"" + name + "\"\r\n")
			}
			c.OK("LIST completed")
		case "CREATE":
			if !strings.HasPrefix(rest, "INBOX.") && !strings.HasPrefix(rest, `"INBOX.`) {
				c.NO("Invalid mailbox name.")
				return true
			}
			return false
		default:
			return false
		}
		return true
	}
	d := mannered(t, s)
	letters := append(texts(30, "INBOX"), text(1, "Sent", `\Seen`), text(2, "Archive/2023"), text(3, "a.b"))
	v := archiveOf(t, letters...)
	if c := run(t, options(v, d)); c.Uploaded != 33 || c.Failed != 0 {
		t.Fatalf("%+v", c)
	}
	sameWires(t, s, "INBOX", letters[:30])
	sameWires(t, s, "INBOX.Sent", letters[30:31])
	sameWires(t, s, "INBOX.Archive.2023", letters[31:32])
	sameWires(t, s, "INBOX.a_b", letters[32:])
	if n := sentVerbs(s, "APPEND"); n != 33 {
		t.Errorf("%d APPENDs", n)
	}
	if c := run(t, options(v, d)); c.Skipped != 33 {
		t.Errorf("second run: %+v", c)
	}
}

// cyrus refuses what Cyrus refuses.
func cyrus(octets string) string {
	switch head, _, _ := strings.Cut("\r\n"+octets, "\r\n\r\n"); {
	case strings.ContainsRune(octets, 0):
		return "Message contains NUL characters"
	case strings.Count(octets, "\n") != strings.Count(octets, "\r\n"):
		return "Message contains bare newlines"
	case octets == "":
		return "Message has no header/body separator"
	default:
		for line := range strings.SplitSeq(head, "\r\n") {
			if name, _, ok := strings.Cut(line, ":"); line != "" && line[0] != ' ' && line[0] != '\t' && (!ok || strings.ContainsAny(name, " \x00")) {
				return "Message contains invalid header"
			}
		}
	}
	return ""
}

// Cyrus refuses NUL, bare LF and broken headers; a bare LF never goes out, and
// repaired copies are taken. All of the corpus arrives, or is named.
func TestCyrus(t *testing.T) {
	t.Parallel()
	for name, caps := range map[string]string{
		"MULTIAPPEND": "IMAP4rev1 LITERAL+ MULTIAPPEND UIDPLUS", "one by one": "IMAP4rev1 LITERAL+ UIDPLUS",
	} {
		t.Run(name, func(t *testing.T) {
			s := &testserver.IMAP{Capabilities: caps}
			s.Appended = func(c *testserver.IMAPConn, _ string, octets []string) bool {
				for _, o := range octets {
					if why := cyrus(o); why != "" {
						c.NO(why)
						return true
					}
				}
				return false
			}
			d := mannered(t, s)
			var letters []letter
			refused := 0
			for i, h := range corpus.Hazards() {
				l := letter{mailbox: "INBOX", wire: h.Octets, date: date.Add(time.Duration(i) * time.Hour)}
				letters = append(letters, l)
				// What goes out has CRLF for every line end.
				if cyrus(strings.ReplaceAll(canonical(t, l.wire), "\n", "\r\n")) != "" {
					refused++
				}
			}
			v := archiveOf(t, letters...)
			o := options(v, d)
			var told []string
			o.Notify = func(e mail.Event) {
				if e.Kind == mail.EventFailed {
					told = append(told, e.Err.Error())
				}
			}
			c := run(t, o)
			if c.Failed != int64(refused) || refused == 0 || c.Uploaded != int64(len(letters)-refused) || len(told) != refused {
				t.Fatalf("%d refused, %+v, %d told", refused, c, len(told))
			}
			for _, text := range told {
				if !strings.Contains(text, "NO Message ") {
					t.Errorf("without the server's words: %s", text)
				}
			}
			o.SendRepaired, o.Notify = true, func(e mail.Event) {
				if e.Kind == mail.EventFailed {
					t.Error(e.Err)
				}
			}
			if c := run(t, o); c.Failed != 0 || c.Repaired != int64(refused) {
				t.Errorf("repaired: %+v", c)
			}
			if c := run(t, o); c.Skipped != int64(len(letters)) {
				t.Errorf("third run: %+v", c)
			}
			if n := len(s.Held("INBOX")); n != len(letters) {
				t.Errorf("%d messages, want %d", n, len(letters))
			}
		})
	}
}

// Exchange takes messages one by one, forgets \Flagged, adds header lines, asks for
// patience, refuses long lines with a BAD, and ends the connection after ten of them.
func TestExchange(t *testing.T) {
	t.Parallel()
	s := &testserver.IMAP{Capabilities: "IMAP4rev1 LITERAL+ UIDPLUS CHILDREN IDLE NAMESPACE"}
	var appends, bad atomic.Int32
	s.Appended = func(c *testserver.IMAPConn, mailbox string, octets []string) bool {
		long := slices.ContainsFunc(strings.Split(octets[0], "\r\n"), func(l string) bool { return len(l) > 9900 })
		switch {
		case long:
			c.Send(c.Tag + " BAD Command Argument Error. 11\r\n")
			if bad.Add(1)%10 == 0 {
				c.Send("* BYE Connection closed. 14\r\n")
				_ = c.Close()
			}
		case appends.Add(1)%15 == 0:
			c.Send(c.Tag + " BAD Request is throttled. Suggested Backoff Time: 3 milliseconds\r\n")
		default:
			uid := s.Store(mailbox, testserver.IMAPMessage{Octets: "X-MS-Exchange-Organization: x\r\n" + octets[0]})
			c.OK(s.APPENDUID(uid, 1) + "APPEND completed.")
		}
		return true
	}
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		if strings.HasPrefix(strings.ToUpper(cmd), "CREATE") {
			if strings.Contains(cmd, "Files") {
				c.NO("Folder name is reserved.")
				return true
			}
		}
		return false
	}
	d := mannered(t, s)
	letters := append(texts(60, "INBOX"), text(61, "INBOX", `\Flagged`, `\Seen`), text(62, "Files"))
	for i := range 25 {
		l := text(100+i, "INBOX")
		l.wire = append(l.wire, strings.Repeat("x", 10500)+"\r\n"...)
		letters = append(letters, l)
	}
	v := archiveOf(t, letters...)
	o := options(v, d)
	var waits, named atomic.Int32
	o.Notify = func(e mail.Event) {
		switch {
		case e.Kind == mail.EventWaiting && strings.HasPrefix(e.Waiting, "the server asks"):
			waits.Add(1)
		case e.Kind == mail.EventFailed && strings.Contains(e.Err.Error(), "BAD Command Argument Error. 11"):
			named.Add(1)
		}
	}
	c := run(t, o)
	if c.Uploaded != 62 || c.Failed != 25 || c.Altered != 62 || named.Load() != 25 || waits.Load() == 0 {
		t.Fatalf("%+v, %d named, %d waits", c, named.Load(), waits.Load())
	}
	if n := len(s.Held("INBOX")); n != 61 {
		t.Errorf("%d messages", n)
	}
	flagged := 0
	for _, m := range s.Held("INBOX") {
		if strings.Contains(m.Flags, `\Flagged`) && strings.Contains(m.Flags, `\Seen`) {
			flagged++
		}
	}
	if flagged != 1 {
		t.Errorf("%d flagged messages", flagged)
	}
	// What it altered is known; what it refused is tried again.
	if c := run(t, o); c.Skipped != 62 || c.Failed != 25 {
		t.Errorf("second run: %+v", c)
	}
	o.SendRepaired = true
	if c := run(t, o); c.Repaired != 25 || c.Failed != 0 {
		t.Errorf("repaired: %+v", c)
	}
}

// A LIMIT that one message is beyond is a refusal of that message: nothing waits, the
// others arrive.
func TestLimitOfOneMessage(t *testing.T) {
	t.Parallel()
	s := &testserver.IMAP{Capabilities: "IMAP4rev1 LITERAL+ UIDPLUS"}
	s.Appended = func(c *testserver.IMAPConn, mailbox string, octets []string) bool {
		if !strings.Contains(octets[0], "beyond") {
			return false
		}
		c.NO("[LIMIT] Too many user flags in mailbox")
		return true
	}
	d := mannered(t, s)
	beyond := text(9, "INBOX")
	beyond.wire = append(beyond.wire, "beyond\r\n"...)
	v := archiveOf(t, append(texts(5, "INBOX"), beyond)...)
	o := options(v, d)
	var waits atomic.Int32
	var words string
	o.Notify = func(e mail.Event) {
		switch e.Kind {
		case mail.EventWaiting:
			waits.Add(1)
		case mail.EventFailed:
			words = e.Err.Error()
		}
	}
	if c := run(t, o); c.Uploaded != 5 || c.Failed != 1 || waits.Load() != 0 || !strings.Contains(words, "Too many user flags") {
		t.Errorf("%+v, %d waits, %q", c, waits.Load(), words)
	}
}

// Without UIDPLUS the destination is looked at from the old UIDNEXT on.
func TestWithoutUIDPLUS(t *testing.T) {
	t.Parallel()
	s := &testserver.IMAP{Capabilities: "IMAP4rev1 LITERAL+"}
	d := mannered(t, s)
	for i := range 500 {
		s.Store("INBOX", testserver.IMAPMessage{Octets: fmt.Sprintf("Subject: old %d\r\n\r\nold\r\n", i)})
	}
	letters := texts(20, "INBOX")
	v := archiveOf(t, letters...)
	if c := run(t, options(v, d)); c.Uploaded != 20 {
		t.Fatalf("%+v", c)
	}
	looked := false
	for _, cmd := range s.Sent() {
		looked = looked || strings.HasPrefix(cmd, "UID FETCH 501:* ")
	}
	if !looked {
		t.Errorf("%q", s.Sent())
	}
	if c := run(t, options(v, d)); c.Skipped != 20 {
		t.Errorf("second run: %+v", c)
	}
}

// The destination's space and limit are asked for.
func TestSpace(t *testing.T) {
	t.Parallel()
	s := &testserver.IMAP{Capabilities: "IMAP4rev1 LITERAL+ QUOTA APPENDLIMIT"}
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		switch {
		case strings.HasPrefix(cmd, "GETQUOTAROOT"):
			c.Send("* QUOTAROOT INBOX \"a\" \"b\"\r\n* QUOTA \"a\" (STORAGE 10 100 MESSAGE 3 10)\r\n* QUOTA \"b\" (STORAGE 70 100)\r\n")
			c.OK("done")
		case strings.HasPrefix(cmd, "STATUS INBOX (APPENDLIMIT"):
			c.Send("* STATUS INBOX (APPENDLIMIT 5000)\r\n")
			c.OK("done")
		default:
			return false
		}
		return true
	}
	d := mannered(t, s)
	if _, err := d.Mailboxes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Space(t.Context()); err != nil || got != (upload.Space{Octets: 30 << 10, Messages: 7}) || d.MaxMessage() != 5000 {
		t.Errorf("%+v, %v; %d", got, err, d.MaxMessage())
	}
}

// NUL goes by literal8 where BINARY is offered (RFC 3516).
func TestLiteral8(t *testing.T) {
	t.Parallel()
	for _, binary := range []bool{true, false} {
		s := &testserver.IMAP{Capabilities: "IMAP4rev1 UIDPLUS"}
		if binary {
			s.Capabilities += " BINARY"
		}
		d := mannered(t, s)
		l := text(1, "INBOX")
		l.wire = append(l.wire, "a\x00b\r\n"...)
		if c := run(t, options(archiveOf(t, l, text(2, "INBOX")), d)); c.Uploaded != 2 {
			t.Fatalf("%+v", c)
		}
		literal8 := 0
		for _, cmd := range s.Sent() {
			if strings.HasPrefix(cmd, "APPEND") && strings.Contains(cmd, "~{") {
				literal8++
			}
		}
		if want := map[bool]int{true: 1}[binary]; literal8 != want {
			t.Errorf("BINARY %v: %d literal8, want %d", binary, literal8, want)
		}
	}
}

// A full account is not sent a whole group, one refused message after the other.
func TestFullAccountOneByOne(t *testing.T) {
	t.Parallel()
	s := &testserver.IMAP{Capabilities: "IMAP4rev1 UIDPLUS"}
	var appends atomic.Int64
	s.Appended = func(c *testserver.IMAPConn, _ string, _ []string) bool {
		if appends.Add(1) <= 5 {
			return false
		}
		c.NO("[OVERQUOTA] Quota exceeded")
		return true
	}
	d := mannered(t, s)
	v := archiveOf(t, texts(30, "INBOX")...)
	if c := run(t, options(v, d)); c.Uploaded != 5 || c.Failed != 25 || appends.Load() != 8 {
		t.Errorf("%+v after %d APPENDs", c, appends.Load())
	}
	s.Appended = nil
	if c := run(t, options(v, d)); c.Uploaded != 25 || c.Skipped != 5 {
		t.Errorf("with room again: %+v", c)
	}
}
