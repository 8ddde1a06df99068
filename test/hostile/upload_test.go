package hostile

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/testserver"
)

// sending is one case of upload: a destination that misbehaves, and behaves again.
type sending struct {
	name  string
	caps  string
	bad   func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool      // a command, while it misbehaves
	end   func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool // an APPEND whose octets have come
	start func(s *testserver.IMAP)
	args  []string
	exit  int           // while it misbehaves
	says  string        // on stderr
	there int           // messages at the destination then; -1 where that hangs on the moment
	pause time.Duration // before the next run
	again int           // exit code when it behaves again
	final int           // messages there then; 0 for each of the archive exactly once
}

// slow is how long an answer takes that comes too late for hasty.
const slow = 3 * time.Second

var hasty = []string{"--timeout", "2s"}

func is(verb string, f func(s *testserver.IMAP, c *testserver.IMAPConn)) func(*testserver.IMAP, *testserver.IMAPConn, string) bool {
	return func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if !strings.HasPrefix(cmd, verb) {
			return false
		}
		f(s, c)
		return true
	}
}

// stored keeps messages as they came and returns the response code for them.
func stored(s *testserver.IMAP, octets []string) string {
	var msgs []testserver.IMAPMessage
	for _, o := range octets {
		msgs = append(msgs, testserver.IMAPMessage{Octets: o})
	}
	return s.APPENDUID(s.Store("INBOX", msgs...), len(msgs))
}

// syncing is a destination that asks for each literal.
const syncing = "IMAP4rev1 SASL-IR AUTH=PLAIN UIDPLUS"

func TestUpload(t *testing.T) {
	t.Parallel()
	for _, c := range sendings() {
		t.Run(c.name, c.play)
	}
}

// sendings are IMAP servers that attack who sends to them.
func sendings() []sending {
	var n atomic.Int32
	return []sending{
		{name: "good"},
		{name: "good, without UIDPLUS", caps: "IMAP4rev1 SASL-IR AUTH=PLAIN"},
		{name: "40 no + for the literal", caps: syncing, args: brief, exit: 75, bad: is("APPEND", func(_ *testserver.IMAP, c *testserver.IMAPConn) { _, _ = io.Copy(io.Discard, c.R) })},
		{name: "40 NO before the literal", caps: syncing, exit: 3, says: "not this one", bad: is("APPEND", func(_ *testserver.IMAP, c *testserver.IMAPConn) { c.NO("not this one") })},
		{name: "40 cut at the literal", caps: syncing, exit: 75, bad: is("APPEND", func(_ *testserver.IMAP, c *testserver.IMAPConn) { c.Close() })},
		{name: "40 cut in the literal", exit: 75, bad: is("APPEND", func(_ *testserver.IMAP, c *testserver.IMAPConn) {
			_, _ = io.CopyN(io.Discard, c.R, 50)
			c.Close()
		})},
		{name: "40 cut behind the literal, lost", exit: 75, end: func(_ *testserver.IMAP, c *testserver.IMAPConn, _ []string) bool { c.Close(); return true }},
		{name: "40 cut behind the literal, stored", there: 3, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			stored(s, octets)
			c.Close()
			return true
		}},
		{name: "40 cut behind the literal, stored, no UIDPLUS", caps: "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+", there: 3, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			stored(s, octets)
			c.Close()
			return true
		}},
		{name: "40 NO, but stored", there: 3, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			stored(s, octets)
			c.NO("I think I did not")
			return true
		}},
		{name: "40 OK, but thrown away", exit: 65, end: func(s *testserver.IMAP, c *testserver.IMAPConn, _ []string) bool {
			c.OK("[APPENDUID 1 77] stored")
			return true
		}},
		{name: "40 OK, but thrown away, no UIDPLUS", caps: "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+", exit: 65, end: func(s *testserver.IMAP, c *testserver.IMAPConn, _ []string) bool {
			c.OK("stored")
			return true
		}},
		{name: "40 truncated", exit: 65, there: 3, final: 3, says: "a part only", end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			c.OK(stored(s, []string{octets[0][:60]}) + "stored")
			return true
		}},
		{name: "40 rewritten", there: 3, final: 3, says: "changed the octets", end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			c.OK(stored(s, []string{"X-Added: by the server\r\n" + octets[0]}) + "stored")
			return true
		}},
		{name: "40 stored twice", there: 6, final: 6, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			stored(s, octets)
			c.OK(stored(s, octets) + "stored")
			return true
		}},
		{name: "40 APPENDUID of another mailbox", there: 3, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			stored(s, octets)
			c.OK("[APPENDUID 99 1:4294967295] stored")
			return true
		}},
		{name: "40 APPENDUID of another message", there: 3, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			stored(s, octets)
			c.OK("[APPENDUID 1 4711] stored")
			return true
		}},
		{name: "40 OK that comes late", args: hasty, exit: 75, there: -1, pause: 4 * slow, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			code := stored(s, octets)
			time.Sleep(slow)
			c.OK(code + "stored")
			return true
		}},
		{name: "40 TRYCREATE for ever", exit: 3, bad: is("APPEND", func(_ *testserver.IMAP, c *testserver.IMAPConn) { c.NO("[TRYCREATE] no such mailbox") }), caps: syncing},
		{name: "40 LIMIT", args: []string{"--max-time", "3s"}, exit: 75, caps: syncing, bad: is("APPEND", func(_ *testserver.IMAP, c *testserver.IMAPConn) { c.NO("[LIMIT] slow down") })},
		{name: "40 OVERQUOTA after one", exit: 3, there: 1, says: "quota", end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			if len(s.Held("INBOX")) == 0 {
				return false
			}
			c.NO("[OVERQUOTA] mailbox is full")
			return true
		}},
		{name: "fault 15 one too big", exit: 3, there: 2, says: "too big", end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			if strings.Contains(octets[0], "letter 2") {
				c.NO("[TOOBIG] message is too big")
				return true
			}
			return false
		}},
		{name: "fault 16 mailbox refused", exit: 3, args: []string{"--prefix", "Old"}, bad: is("CREATE", func(_ *testserver.IMAP, c *testserver.IMAPConn) { c.NO("[CANNOT] no such name here") }), final: -1},
		{name: "fault 17 throttled at every other command", caps: syncing, there: 3, bad: func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "APPEND") && n.Add(1)%2 == 1 {
				c.NO("Request is throttled. Suggested Backoff Time: 50 milliseconds")
				return true
			}
			return false
		}},
		{name: "fault 19 wrong password", exit: 77, bad: is("AUTHENTICATE", func(_ *testserver.IMAP, c *testserver.IMAPConn) { c.NO("[AUTHENTICATIONFAILED] no " + password) })},
		{name: "43 refusals with escapes", caps: syncing, exit: 3, bad: is("APPEND", func(_ *testserver.IMAP, c *testserver.IMAPConn) { c.NO("\x1b[2J\u202e no \xff " + password) })},
		{name: "34 bombs in answers", there: 3, end: func(s *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			code := stored(s, octets)
			c.Send("* VANISHED 1:4294967295\r\n* OK [COPYUID 1 1:4294967295 1:4294967295] x\r\n* SEARCH 0\r\n* 4294967295 EXISTS\r\n")
			c.OK(code + "stored")
			return true
		}},
		{name: "37 untagged flood", exit: 75, end: func(_ *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			flood(c, "* OK still here\r\n", 24<<20)
			return true
		}},
		{name: "8 literal of 2^63-1 octets read back", there: 3, bad: func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !strings.Contains(cmd, "BODY.PEEK[") {
				return false
			}
			c.Send("* 1 FETCH (UID 1 BODY[] {9223372036854775807}\r\nx")
			return true
		}},
	}
}

// moody is a server that misbehaves until it is good.
type moody struct {
	*testserver.IMAP
	good atomic.Bool
}

// server starts the destination.
func (c sending) server(t *testing.T) *moody {
	t.Helper()
	s := &moody{IMAP: &testserver.IMAP{Capabilities: capable, Boxes: map[string][]testserver.IMAPMessage{}}}
	if c.caps != "" {
		s.Capabilities = c.caps
	}
	s.Answer = func(conn *testserver.IMAPConn, cmd string) bool {
		return c.bad != nil && !s.good.Load() && c.bad(s.IMAP, conn, cmd)
	}
	s.Appended = func(conn *testserver.IMAPConn, _ string, octets []string) bool {
		return c.end != nil && !s.good.Load() && c.end(s.IMAP, conn, octets)
	}
	if c.start != nil {
		c.start(s.IMAP)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// rest waits until the server is good.
func (c sending) rest(s *moody) {
	time.Sleep(c.pause)
	s.good.Store(true)
}

// play fills an archive, sends it to a bad server, and again when it is good.
func (c sending) play(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	three := letters(3)
	from := imap(three, nil)(t)
	if r := h.run("backup", from.place, h.archive()); r.code != 0 {
		t.Fatal(r)
	}
	s := c.server(t)
	args := append([]string{"upload", h.archive(), destination(s.IMAP), "--timeout", "20s", "--max-time", "60s"}, c.args...)
	first := h.run(args...)
	if first.code != c.exit || !strings.Contains(first.stderr, c.says) {
		t.Errorf("want exit %d and %q: %v", c.exit, c.says, first)
	}
	want := c.there
	if c.exit == 0 && want == 0 {
		want = len(three)
	}
	if n := len(s.Held("INBOX")); want >= 0 && n != want {
		t.Errorf("%d messages are there, want %d: %v", n, want, first)
	}
	c.rest(s)
	second := h.run(args...)
	if second.code != c.again {
		t.Errorf("when it is good again: want exit %d: %v", c.again, second)
	}
	there := arrived(s.IMAP)
	got := digests(there)
	for d := range digests(three) {
		if got[d] != 1 && c.final == 0 && c.again == 0 {
			t.Errorf("%s is there %d times: %v", d, got[d], second)
		}
	}
	if c.final > 0 && len(there) != c.final || c.final == 0 && c.again == 0 && len(there) != len(three) {
		t.Errorf("%d messages are there in the end: %v", len(there), second)
	}
	if r := h.run(args...); r.code != c.again || len(s.Held("INBOX")) > len(there) {
		t.Errorf("once more: %v", r)
	}
	onlyOurs(t, s.IMAP)
	if held := h.held(); fmt.Sprint(held.Size()) != "3" {
		t.Errorf("%d messages archived", held.Size())
	}
}
