package hostile

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/testserver"
)

// capable is what servers here can do; without UIDPLUS nothing is deleted.
const capable = "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+ UIDPLUS"

// imap starts a server with the messages in INBOX, changed by edit.
func imap(msgs []string, edit func(*testserver.IMAP)) func(t *testing.T) target {
	return func(t *testing.T) target {
		t.Helper()
		s := &testserver.IMAP{Capabilities: capable}
		for i, m := range msgs {
			s.Messages = append(s.Messages, testserver.IMAPMessage{UID: uint32(i + 1), Octets: m, Flags: `\Seen`})
		}
		if edit != nil {
			edit(s)
		}
		var had []string
		for _, m := range s.Messages {
			had = append(had, m.Octets)
		}
		for _, box := range s.Boxes {
			for _, m := range box {
				had = append(had, m.Octets)
			}
		}
		good := &testserver.IMAP{Capabilities: capable, Messages: slices.Clone(s.Messages), Boxes: maps.Clone(s.Boxes)}
		srv := imapTarget(t, s, had)
		srv.good = func(t *testing.T) target {
			for i := range good.Messages {
				good.Messages[i].Flags, good.Messages[i].Date = `\Seen`, ""
			}
			return imapTarget(t, good, had)
		}
		return srv
	}
}

func imapTarget(t *testing.T, s *testserver.IMAP, had []string) target {
	t.Helper()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return target{
		place:   imapPlace("imap+insecure", s),
		genuine: func() []string { return had },
		left: func() (all []string) {
			for _, name := range append([]string{"INBOX"}, boxes(s)...) {
				for _, m := range s.Held(name) {
					all = append(all, m.Octets)
				}
			}
			return all
		},
		check: func(t *testing.T, _ int) { onlyOurs(t, s) },
	}
}

func imapPlace(scheme string, s *testserver.IMAP) string {
	return fmt.Sprintf("%s://%s@127.0.0.1:%d", scheme, user, s.Port())
}

func boxes(s *testserver.IMAP) (names []string) {
	for name := range s.Boxes { // their names stay
		names = append(names, name)
	}
	return names
}

var forbidden = regexp.MustCompile(`(?i)^(EXPUNGE|CLOSE|UID EXPUNGE *$|UID SEARCH|SEARCH|UID COPY|DELETE|RENAME)\b`)

// onlyOurs checks that nothing was sent that removes or reads more than was named.
func onlyOurs(t *testing.T, s *testserver.IMAP) {
	t.Helper()
	for _, cmd := range s.Sent() {
		if forbidden.MatchString(cmd) || strings.Contains(cmd, "BODYSTRUCTURE") || strings.Contains(cmd, "ENVELOPE") {
			t.Errorf("sent %q", cmd)
		}
	}
}

// line is a FETCH response with all that is asked for.
func line(seq int, m testserver.IMAPMessage) string {
	return fmt.Sprintf("* %d FETCH (%s BODY[] %s)\r\n", seq, m.Meta(), testserver.Literal(m.Octets))
}

// answer lets a function answer some commands.
func answer(f func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool) func(*testserver.IMAP) {
	return func(s *testserver.IMAP) {
		s.Answer = func(c *testserver.IMAPConn, cmd string) bool { return f(s, c, cmd) }
	}
}

// reply answers commands that begin so with untagged text and a tagged condition.
func reply(verb, untagged, condition string) func(*testserver.IMAP) {
	return answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if !strings.HasPrefix(cmd, verb) {
			return false
		}
		c.Send(untagged + c.Tag + " " + condition + "\r\n")
		return true
	})
}

// before sends text in front of the right answer to commands that begin so.
func before(verb, text string) func(*testserver.IMAP) {
	return answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if strings.HasPrefix(cmd, verb) {
			c.Send(text)
		}
		return false
	})
}

// asked tells whether a command asks for octets of the message with a UID, which
// is also its number.
func asked(cmd string, uid uint32) bool {
	words := strings.Fields(cmd)
	switch {
	case !strings.Contains(cmd, "BODY.PEEK["):
		return false
	case words[0] == "UID":
		return testserver.InSet(words[2], uid)
	}
	return words[0] == "FETCH" && testserver.InSet(words[1], uid)
}

// second answers whatever asks for message 2 by octets of its own; the connection
// is closed behind them if last is set. The others of the command come first.
func second(text string, last bool) func(*testserver.IMAP) {
	return answer(func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if !asked(cmd, 2) {
			return false
		}
		for i, m := range s.Held("INBOX") {
			if m.UID != 2 && asked(cmd, m.UID) {
				c.Send(line(i+1, m))
			}
		}
		c.Send(text)
		if last {
			c.Close()
			return true
		}
		c.OK("done")
		return true
	})
}

// named puts each name into a mailbox of its own, with one message.
func named(names ...string) func(*testserver.IMAP) {
	return func(s *testserver.IMAP) {
		s.Boxes = make(map[string][]testserver.IMAPMessage)
		for i, name := range names {
			s.Boxes[name] = []testserver.IMAPMessage{{UID: 1, Octets: letter(100 + i), Flags: `\Seen`}}
		}
	}
}

// listed answers LIST with lines as they are; whatever name is selected is INBOX.
func listed(lines string) func(*testserver.IMAP) {
	return reply("LIST", strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\r\n")+"\r\n", "OK done")
}

func twice(a, b func(*testserver.IMAP)) func(*testserver.IMAP) {
	return func(s *testserver.IMAP) { a(s); b(s) }
}

func with(caps string) func(*testserver.IMAP) {
	return func(s *testserver.IMAP) { s.Capabilities = caps }
}

func greeting(text string) func(*testserver.IMAP) {
	return func(s *testserver.IMAP) { s.Greeting = text }
}

// over sets the scheme of a target.
func over(scheme string, start func(*testing.T) target) func(*testing.T) target {
	return func(t *testing.T) target {
		srv := start(t)
		srv.place = strings.Replace(srv.place, "imap+insecure", scheme, 1)
		return srv
	}
}

func TestIMAP(t *testing.T) {
	t.Parallel()
	for _, a := range imapAttacks() {
		t.Run(a.name, a.play)
	}
}

// imapAttacks are IMAP servers that attack who reads from them.
func imapAttacks() []attack {
	three := letters(3)
	m2 := testserver.IMAPMessage{UID: 2, Octets: letter(2), Flags: `\Seen`}
	meta := m2.Meta()
	var times atomic.Int32
	starttls := "IMAP4rev1 STARTTLS AUTH=PLAIN"
	return []attack{
		// What is said before the login.
		{name: "1 greeting of garbage", start: imap(three, greeting("\x1b]0;x\x07 hello")), exit: 1, again: 1, left: 3},
		{name: "1 greeting of HTTP", start: imap(three, greeting("HTTP/1.1 400 Bad Request")), exit: 1, again: 1, left: 3},
		{name: "1 greeting without end", start: imap(three, greeting("* OK "+strings.Repeat("x", 24<<20))), exit: 75, again: 75, left: 3},
		{name: "1 greeting that refuses", start: imap(three, greeting("* BYE [UNAVAILABLE] too busy \x1b[31m\u202e")), exit: 75, again: 75, left: 3, says: "too busy"},
		{name: "2 PREAUTH in clear", start: over("imap", imap(three, greeting("* PREAUTH [CAPABILITY IMAP4rev1] welcome"))), exit: 77, again: 77, left: 3},
		{name: "3 plain text behind STARTTLS", start: over("imap", imap(three, twice(with(starttls), answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			c.Send(c.Tag + " OK go\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n")
			return true
		})))), exit: 77, again: 77, left: 3},
		{name: "4 silence behind STARTTLS", start: over("imap", imap(three, twice(with(starttls), answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			c.OK("go")
			_, _ = io.Copy(io.Discard, c.R)
			return true
		})))), args: short, exit: 75, again: 75, left: 3},
		{name: "4 plain text instead of a handshake", start: over("imap", imap(three, twice(with(starttls), answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			c.OK("go")
			_, _ = c.R.ReadByte()
			c.Send("* OK no TLS here\r\n")
			c.Close()
			return true
		})))), exit: 77, again: 77, left: 3},
		{name: "5 referral at the login", start: imap(three, reply("AUTHENTICATE", "", "NO [REFERRAL imap://ada@evil.example.org/] go there")), exit: 77, again: 77, left: 3},
		{name: "5 referral at the mailbox", start: imap(three, reply("EXAMINE", "", "NO [REFERRAL imap://evil.example.org/INBOX] go there")), exit: 3, again: 3, left: 3},
		{name: "6 LOGINDISABLED", start: imap(three, with("IMAP4rev1 LOGINDISABLED AUTH=GSSAPI")), exit: 69, again: 69, left: 3},
		{name: "6 STARTTLS not offered", start: over("imap", imap(three, with("IMAP4rev1 AUTH=PLAIN"))), exit: 69, again: 69, left: 3},
		{name: "43 login refused with the password in it", start: imap(three, reply("AUTHENTICATE", "* OK [ALERT] \x1b[2J your password \xff"+password+" \xe9\r\n", "NO [AUTHENTICATIONFAILED] no "+password)), exit: 77, again: 77, left: 3},
		{name: "43 alerts with escapes", start: imap(three, before("EXAMINE", "* OK [ALERT] \x1b]0;x\x07\xc2\x9b2J quota \u202e almost \xe9xceeded\r\n")), held: 3},
		{name: "43 refusals with the password in it", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if asked(cmd, 2) {
				c.Send("* NO " + password + " \x1b[2J\r\n")
				c.NO("\x1b[2J " + password + " \xff\u202e")
				return true
			}
			return false
		})), exit: 3, held: 2, again: 3, left: 1, says: "***"},
		{name: "45 challenges without end", start: imap(three, twice(with("IMAP4rev1 AUTH=PLAIN"), answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "AUTHENTICATE") {
				c.Send("+ \r\n")
				for range 1000 {
					if _, err := c.Line(); err != nil {
						return true
					}
					c.Send("+ \r\n")
				}
				return true
			}
			return false
		}))), exit: 77, again: 77, left: 3},

		// Literals and bodies.
		{name: "8 literal of 2^32-1 octets", start: imap(three, second("* 2 FETCH (UID 2 BODY[] {4294967295}\r\nx", true)), exit: 3, held: 2, once: true},
		{name: "8 literal of 2^63-1 octets", start: imap(three, second("* 2 FETCH (UID 2 BODY[] {9223372036854775807}\r\nx", true)), exit: 3, held: 2, once: true},
		{name: "8 literal of 10^23 octets", start: imap(three, second("* 2 FETCH (UID 2 BODY[] {99999999999999999999999}\r\nx", false)), exit: 3, held: 2, once: true},
		{name: "8 literal of -1 octets", start: imap(three, second("* 2 FETCH (UID 2 BODY[] {-1}\r\nx)\r\n", false)), exit: 3, held: 2, once: true},
		{name: "8 literals of +5, 0x10 and no octets", start: imap(three, second("* 2 FETCH (UID 2 BODY[] {+5}\r\nx)\r\n* 2 FETCH (UID 2 BODY[] {0x10}\r\nx)\r\n* 2 FETCH (UID 2 BODY[] {}\r\nx)\r\n", false)), exit: 3, held: 2, once: true},
		{name: "9 literal shorter than announced", start: imap(three, second(fmt.Sprintf("* 2 FETCH (%s BODY[] {%d}\r\n%s)\r\n", meta, len(letter(2))+40, letter(2)), false)), args: brief, exit: 3, held: 2, once: true},
		{name: "9 literal longer than announced", start: imap(three, second(fmt.Sprintf("* 2 FETCH (%s BODY[] {20}\r\n%s)\r\n", meta, letter(2)), false)), exit: 3, held: 2, once: true},
		{name: "10 BYE inside a literal", start: imap(three, second(fmt.Sprintf("* 2 FETCH (%s BODY[] {500}\r\n%s)\r\n* BYE going down\r\n", meta, letter(2)), true)), exit: 3, held: 2, once: true},
		{name: "11 body without end", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !asked(cmd, 2) {
				return false
			}
			c.Send("* 2 FETCH (UID 2 BODY[] {4000000000}\r\n")
			flood(c, "all work and no play makes Jack a dull boy\r\n", 24<<20)
			_, _ = io.Copy(io.Discard, c.R)
			return true
		})), args: brief, exit: 3, held: 2, once: true},
		{name: "11 one line without end", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !asked(cmd, 2) {
				return false
			}
			c.Send("* 2 FETCH (UID 2 FLAGS (")
			flood(c, "x", 24<<20)
			return true
		})), exit: 3, held: 2, once: true},
		{name: "11 200,000 header lines", start: imap([]string{letter(1), strings.Repeat("X-Header: value\r\n", 200_000) + "\r\nbody\r\n"}, nil), held: 2},

		// Names of mailboxes.
		{name: "22 names that lead elsewhere", start: imap(nil, named("../x", "..", ".", "/etc/passwd", "//x", `C:\x`, `\\host\share`, "~/x", "%2e%2e", "&AC8-", "&AC4ALg-", "a/../../b")), held: 12},
		{name: "23 names with control characters", start: imap(nil, named("a\x00b", "a\rb", "a\nb\r\nc", "\x1b[2Jx", "\u009bx", "\u202ex", "<script>alert(1)</script>")), exit: 3, held: 6, again: 3, left: 1},
		{name: "24 names that are almost equal", start: imap(nil, named("Case", "case", "CASE", "\u00e9", "e\u0301", "&AOk-", "&AOk", "a&b", "Entw\xfcrfe", "Entw&APw-rfe", "Entw\u00fcrfe")), held: 11},
		{name: "25 names no file system likes", start: imap(nil, named("CON", "nul.txt", "dot.", "space ", ":", "*", `\`, "-rf", "=cmd", "a|b", "?", "\"")), held: 12},
		{name: "26 names of our own files", start: imap(nil, named("cur", "new", "tmp", ".lock", ".mailhaul", "ledger.sqlite", "a", "a.mbox", "a/cur", "INBOX.mbox", "INBOX/cur")), held: 11},
		{name: "27 names that are too long", start: imap(nil, named(strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("n", 257), strings.Repeat("\u00e9", 200), strings.Repeat("d/", 100)+"x")), held: 5},
		{name: "27 names of 5,000 octets and 2,000 levels", start: imap(three, listed("* LIST () \"/\" INBOX\n* LIST () \"/\" "+strings.Repeat("n", 5000)+"\n* LIST () \"/\" "+strings.Repeat("d/", 2000)+"x")), args: []string{"--mailbox", "INBOX"}, held: 3},
		{name: "27 name of a million octets", start: imap(three, listed("* LIST () \"/\" INBOX\n* LIST () \"/\" "+strings.Repeat("n", 1<<20))), exit: 75, again: 75, left: 3},
		{name: "27 5,000 mailboxes", start: imap(three, func(s *testserver.IMAP) {
			var b strings.Builder
			b.WriteString("* LIST () \"/\" INBOX\n")
			for i := range 5000 {
				fmt.Fprintf(&b, "* LIST () \"/\" box%d\n", i)
			}
			listed(b.String())(s)
		}), args: []string{"--mailbox", "INBOX"}, held: 3},
		{name: "27 a million mailboxes", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !strings.HasPrefix(cmd, "LIST") {
				return false
			}
			for i := range 1000 {
				var b strings.Builder
				for k := range 1000 {
					fmt.Fprintf(&b, "* LIST () \"/\" box%d\r\n", i*1000+k)
				}
				if _, err := io.WriteString(c, b.String()); err != nil {
					return true
				}
			}
			c.OK("done")
			return true
		})), exit: 1, again: 1, left: 3},
		{name: "28 delimiters", start: imap(three, listed("* LIST () NIL INBOX\n* LIST (\\Noselect) \".\" a.b\n* LIST (\\Noselect) \"\\\\\" \"c\\\\d\"\n* LIST (\\Noselect) \"%\" e%f\n* LIST (\\Noselect) \"\\\"\" g\n* LIST (\\Noselect) \"//\" h\n* LIST (\\Noselect) \"\x00\" i")), held: 3},
		{name: "29 the same mailbox again and again", start: imap(three, listed("* LIST () \"/\" INBOX\n* LIST () \"/\" inbox\n* LIST () \"/\" Inbox\n* LIST () \"/\" INBOX\n* LIST (\\Noselect) \"/\" no\n* LIST (\\NonExistent) \"/\" none")), held: 3},
		{name: "30 broken lines of LIST", start: imap(three, listed("* LIST (\\x \"/\" a\n* LIST\n* LIST ((((\n* LIST () \"/\" \"a\n* LIST "+strings.Repeat("(", 10_000)+"\n* LIST () \"/\" INBOX")), held: 3},

		{name: "30 LIST with a literal of -1", start: imap(three, listed("* LIST () \"/\" {-1}\n* LIST () \"/\" INBOX")), args: []string{"--max-time", "20s"}, exit: 75, again: 75, left: 3},

		// Numbers.
		{name: "31 UIDVALIDITY 0", start: imap(three, func(s *testserver.IMAP) { s.UIDValidity = "0" }), held: 3, again: 69, left: 3},
		{name: "31 UIDVALIDITY that is no number", start: imap(three, func(s *testserver.IMAP) { s.UIDValidity = "abc" }), held: 3, again: 69, left: 3},
		{name: "31 UIDVALIDITY beyond 2^32", start: imap(three, func(s *testserver.IMAP) { s.UIDValidity = "4294967299" }), held: 3, again: 69, left: 3},
		{name: "31 UIDVALIDITY missing", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			switch {
			case strings.HasPrefix(cmd, "EXAMINE"), strings.HasPrefix(cmd, "SELECT"):
				c.Send("* 3 EXISTS\r\n")
			case strings.HasPrefix(cmd, "STATUS"):
				c.Send("* STATUS INBOX (MESSAGES 3)\r\n")
			default:
				return false
			}
			c.OK("done")
			return true
		})), held: 3, again: 69, left: 3},
		{name: "31 UIDVALIDITY new each time", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !strings.HasPrefix(cmd, "EXAMINE") && !strings.HasPrefix(cmd, "SELECT") && !strings.HasPrefix(cmd, "STATUS") {
				return false
			}
			v := 1000 + times.Add(1)
			if strings.HasPrefix(cmd, "STATUS") {
				c.Send(fmt.Sprintf("* STATUS INBOX (MESSAGES 3 UIDNEXT 4 UIDVALIDITY %d)\r\n", v))
			} else {
				c.Send(fmt.Sprintf("* 3 EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\n* OK [UIDNEXT 4] ok\r\n", v))
			}
			c.OK("done")
			return true
		})), exit: 75, again: 75, left: 3},
		{name: "31 UIDNEXT 1, UIDNOTSTICKY", start: imap(three, before("EXAMINE", "* OK [UIDNEXT 1] ok\r\n* NO [UIDNOTSTICKY] not sticky\r\n")), held: 3, again: 69, left: 3},
		{name: "32 UIDs 0, 2^32-1, doubled, descending", start: imap(three, before("UID FETCH 1:*", "* 9 FETCH (UID 0 RFC822.SIZE 9)\r\n* 3 FETCH (UID 3 RFC822.SIZE "+fmt.Sprint(len(letter(3)))+")\r\n* 3 FETCH (UID 3)\r\n* 8 FETCH (UID 4294967295 RFC822.SIZE 9)\r\n* 7 FETCH (UID 99999999999)\r\n")), held: 3},
		{name: "32 UIDs used again for other mail", start: imap(three, func(s *testserver.IMAP) {
			var n atomic.Int32
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if strings.HasPrefix(cmd, "LOGOUT") && n.Add(1) == 1 {
					s.Change("INBOX", func(m *testserver.IMAPMessage) bool {
						if m.UID == 2 {
							m.Octets = strings.Replace(m.Octets, "letter 2", "letter X", 1)
						}
						return true
					})
				}
				return false
			}
		}), held: 3, left: 1, altered: 2},
		{name: "33 EXISTS too many", start: imap(three, before("EXAMINE", "* 4294967295 EXISTS\r\n")), held: 3},
		{name: "33 EXISTS too many, last", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !strings.HasPrefix(cmd, "EXAMINE") {
				return false
			}
			c.Send("* OK [UIDVALIDITY 1] ok\r\n* 4000000000 EXISTS\r\n")
			c.OK("done")
			return true
		})), exit: 75, held: 3, again: 75, left: 3, says: "counts 4000000000"},
		{name: "33 EXISTS too few", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !strings.HasPrefix(cmd, "EXAMINE") {
				return false
			}
			c.Send("* OK [UIDVALIDITY 1] ok\r\n* 1 EXISTS\r\n")
			c.OK("done")
			return true
		})), held: 3},
		{name: "33 STATUS says 0", start: imap(three, reply("STATUS", "* STATUS INBOX (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 1)\r\n", "OK done")), held: 3},

		// Answers.
		{name: "34 EXPUNGE during FETCH", start: imap(three, before("UID FETCH", "* 1 EXPUNGE\r\n* 1 EXPUNGE\r\n* 9 EXPUNGE\r\n")), held: 3},
		{name: "34 bombs of sets", start: imap(three, before("UID FETCH", "* VANISHED 1:4294967295\r\n* VANISHED (EARLIER) 1:4294967295\r\n* ESEARCH (TAG \"x\") UID ALL 1:4294967295\r\n* SEARCH 0 1 2  3 \r\n* OK [COPYUID 1 1:4294967295 1:4294967295] x\r\n* OK [APPENDUID 1 1:4294967295] x\r\n")), held: 3},
		{name: "35 answers without octets", start: imap(three, second("* 2 FETCH (UID 2 FLAGS ())\r\n", false)), exit: 3, held: 2, again: 3, left: 1},
		{name: "35 answers doubled, split, unsolicited", start: imap(three, answer(func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !strings.Contains(cmd, "BODY.PEEK[]") {
				return false
			}
			for i, m := range s.Held("INBOX") {
				if asked(cmd, m.UID) {
					c.Send(fmt.Sprintf("* %d FETCH (FLAGS (\\Seen))\r\n* 77 FETCH (UID 77 BODY[] {2}\r\nno)\r\n* %d FETCH (%s)\r\n* %d FETCH (UID %d BODY[] %s)\r\n%s", i+1, i+1, m.Meta(), i+1, m.UID, testserver.Literal(m.Octets), line(i+1, m)))
				}
			}
			c.OK("done")
			return true
		})), held: 3},
		{name: "35 answers with another UID", start: imap(three, second("* 2 FETCH (UID 3 BODY[] "+testserver.Literal(letter(2))+")\r\n", false)), exit: 3, held: 2, again: 3, left: 1},
		{name: "36 tags unknown and from the future, stray +", start: imap(three, before("UID FETCH", "A99 OK future\r\nT2 OK future\r\nx OK y\r\n* OK\r\n+ go\r\n+\r\n\r\n")), held: 3},
		{name: "37 untagged flood", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "EXAMINE") {
				flood(c, "* OK still here\r\n", 24<<20)
			}
			return false
		})), exit: 75, again: 75, left: 3},
		{name: "37 parentheses without end", start: imap(three, before("UID FETCH", "* 1 FETCH (X "+strings.Repeat("(", 200_000)+"\r\n")), held: 3},
		{name: "37 FLAGS of 60,000 parentheses", start: imap(three, before("UID FETCH", "* 1 FETCH (FLAGS "+strings.Repeat("(", 60_000)+strings.Repeat(")", 60_000)+")\r\n")), held: 3},
		{name: "37 3,000 keywords, flags like paths", start: imap(three, func(s *testserver.IMAP) {
			for i := range 3000 {
				s.Messages[1].Flags += fmt.Sprint(" k", i)
			}
			s.Messages[2].Flags = `\Seen ../../x $Junk k]q \X-y`
		}), held: 3},
		{name: "38 dates of no calendar", start: imap(letters(6), func(s *testserver.IMAP) {
			for i, d := range []string{"00-Jan-0000 00:00:00 GMT", "x", "31-Dec-9999 23:59:60 +0000", "01-Jan-23 00:00:00 +0000", "Mon, 1 Jan 2024 10:00:00 +0000", "14-Nov-2023 22:13:20"} {
				s.Messages[i].Date = d
			}
		}), held: 6},

		// Deletions.
		{name: "39 STORE does nothing", start: imap(three, reply("UID STORE", "", "OK done")), held: 3, again: 3, left: 3},
		{name: "39 STORE refused", start: imap(three, reply("UID STORE", "", "NO [NOPERM] no")), held: 3, again: 3, left: 3},
		{name: "39 EXPUNGE refused", start: imap(three, reply("UID EXPUNGE", "", "NO not today")), held: 3, again: 3, left: 3},
		{name: "39 EXPUNGE does nothing", start: imap(three, reply("UID EXPUNGE", "", "OK done")), held: 3, again: 3, left: 3},
		{name: "39 marked by another, no UIDPLUS", start: imap(three, func(s *testserver.IMAP) {
			s.Capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN"
			s.Messages[0].Flags = `\Deleted`
		}), held: 3, again: 69, left: 3},
		{name: "39 marked by another", start: imap(three, func(s *testserver.IMAP) { s.Messages[0].Flags = `\Deleted` }), held: 3, left: 1},
		{name: "39 connection lost at EXPUNGE", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "UID EXPUNGE") {
				c.Close()
				return true
			}
			return false
		})), held: 3, again: 75, left: 3},
		{name: "41 SEARCH that lies is not asked", start: imap(three, reply("UID SEARCH", "* SEARCH\r\n", "OK done")), held: 3},

		// Faults of the server (section 3).
		{name: "fault 2 silence instead of a greeting", start: scripted("imap+insecure", testserver.Hold()), args: short, exit: 75, again: 75},
		{name: "fault 6 stall inside a body", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !asked(cmd, 2) {
				return false
			}
			c.Send(line(2, m2)[:len(line(2, m2))-40])
			_, _ = io.Copy(io.Discard, c.R)
			return true
		})), args: brief, exit: 3, held: 2, once: true},
		{name: "fault 7 one octet at a time", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !asked(cmd, 2) {
				return false
			}
			for _, o := range []byte(line(2, m2)) {
				if _, err := c.Write([]byte{o}); err != nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			return true
		})), args: []string{"--max-time", "3s"}, exit: 75, again: 75, left: 3},
		{name: "fault 17 throttled", start: imap(three, func(s *testserver.IMAP) {
			var n atomic.Int32
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if strings.Contains(cmd, "BODY.PEEK[]") && n.Add(1)%2 == 1 {
					c.NO("Request is throttled. Suggested Backoff Time: 50 milliseconds")
					return true
				}
				return false
			}
		}), held: 3},
		{name: "fault 18 in use", start: imap(three, reply("EXAMINE", "", "NO [INUSE] locked by another session")), args: []string{"--max-time", "3s"}, exit: 75, again: 75, left: 3},
		{name: "fault 19 wrong password", start: imap(three, reply("AUTHENTICATE", "", "NO [AUTHENTICATIONFAILED] wrong")), exit: 77, again: 77, left: 3},
		{name: "fault 22 BYE between commands", start: imap(three, func(s *testserver.IMAP) {
			var n atomic.Int32
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if strings.HasPrefix(cmd, "UID FETCH") && n.Add(1) == 2 {
					c.Send("* BYE session expired\r\n")
					c.Close()
					return true
				}
				return false
			}
		}), held: 3},
		{name: "fault 23 message vanishes", start: imap(three, answer(func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if strings.Contains(cmd, "BODY.PEEK[]") {
				s.Change("INBOX", func(m *testserver.IMAPMessage) bool { return m.UID != 2 })
			}
			return false
		})), held: 2, altered: 2},
		{name: "fault 24 message arrives meanwhile", start: imap(three, func(s *testserver.IMAP) {
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if strings.Contains(cmd, "BODY.PEEK[]") {
					c.Send("* 4 EXISTS\r\n* 1 RECENT\r\n")
				}
				return false
			}
		}), held: 3},
		{name: "fault 27 one refused for ever", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if asked(cmd, 2) {
				c.NO("[SERVERBUG] message is corrupt")
				return true
			}
			return false
		})), exit: 3, held: 2, again: 3, left: 1, says: "corrupt"},
		{name: "fault 28 OK without data", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if strings.Contains(cmd, "BODY.PEEK[") {
				c.OK("done")
				return true
			}
			return false
		})), exit: 3, again: 3, left: 3},
		{name: "fault 29 read-only mailbox", start: imap(three, reply("SELECT", "* 3 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 4] ok\r\n* OK [PERMANENTFLAGS ()] none\r\n", "OK [READ-ONLY] done")), held: 3, again: 3, left: 3},
	}
}
