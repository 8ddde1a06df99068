package hostile

import (
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/testserver"
)

// pop3 starts a server with messages and faults.
func pop3(msgs []string, f testserver.POP3Faults) func(t *testing.T) target {
	return func(t *testing.T) target {
		t.Helper()
		o := testserver.POP3Options{User: user, Password: password, Faults: f}
		for _, m := range msgs {
			o.Messages = append(o.Messages, testserver.POP3Message{Octets: []byte(m)})
		}
		s, err := testserver.NewPOP3(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		srv := pop3Target(s, msgs)
		srv.good = func(t *testing.T) target { return pop3(msgs, testserver.POP3Faults{})(t) }
		return srv
	}
}

func pop3Target(s *testserver.POP3, msgs []string) target {
	return target{
		place:   fmt.Sprintf("pop3+insecure://%s@127.0.0.1:%d", user, s.Port()),
		genuine: func() []string { return msgs },
		left: func() (all []string) {
			for _, m := range s.Messages() {
				all = append(all, string(m.Octets))
			}
			return all
		},
	}
}

// scripted starts a server that follows a script; it has no mail.
func scripted(scheme string, steps ...testserver.Step) func(t *testing.T) target {
	return func(t *testing.T) target {
		t.Helper()
		s, err := testserver.NewScript(steps)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return target{place: fmt.Sprintf("%s://%s@127.0.0.1:%d", scheme, user, s.Port()), check: func(t *testing.T, _ int) {
			for _, err := range s.Errs() {
				t.Error(err)
			}
		}, good: func(t *testing.T) target {
			if strings.HasPrefix(scheme, "imap") {
				return imap(letters(3), nil)(t)
			}
			return pop3(letters(3), testserver.POP3Faults{})(t)
		}}
	}
}

// millions is a listing of two million messages.
var millions = sync.OnceValue(func() string {
	b := make([]byte, 0, 26<<20)
	for i := range int64(2_000_000) {
		b = append(strconv.AppendInt(b, i+1, 10), " 100\r\n"...)
	}
	return string(b)
})

// size is the line of LIST for a letter.
func size(i int) string { return fmt.Sprint(i, " ", len(letter(i))) }

func each(lines ...string) func(int) string { return func(i int) string { return lines[i] } }

// instead answers a command with octets of its own.
func instead(cmd, octets string) func(net.Conn, int, string) bool {
	return func(c net.Conn, _ int, got string) bool {
		if got != cmd {
			return false
		}
		write(c, octets)
		return true
	}
}

// dropAt closes the connection at a command.
func dropAt(cmd string) func(net.Conn, int, string) bool {
	return func(c net.Conn, _ int, got string) bool {
		if strings.HasPrefix(got, cmd) {
			c.Close()
			return true
		}
		return false
	}
}

func write(c net.Conn, octets string) { _, _ = io.WriteString(c, octets) }

// flood writes octets again and again, n of them in all, and then says nothing more.
func flood(c net.Conn, octets string, n int) {
	_ = c.SetWriteDeadline(time.Now().Add(30 * time.Second))
	piece := strings.Repeat(octets, 64<<10/len(octets)+1)
	for sent := 0; sent < n; sent += len(piece) {
		if _, err := io.WriteString(c, piece); err != nil {
			return
		}
	}
}

// short is a silence that a run notices soon.
var (
	brief = []string{"--timeout", "4s"}
	short = []string{"--timeout", "4s", "--max-time", "8s"}
)

func TestPOP3(t *testing.T) {
	t.Parallel()
	for _, a := range pop3Attacks() {
		t.Run(a.name, a.play)
	}
}

// pop3Attacks are POP3 servers that attack who reads from them.
func pop3Attacks() []attack {
	three, five := letters(3), letters(5)
	long := strings.Repeat("u", 200)
	stuffed := "Subject: forged\r\n\r\nbefore\r\n.\r\n+OK deleted\r\n+OK bye\r\nSubject: not a message\r\n\r\nafter\r\n"
	forged := append(letters(5), stuffed)
	odd := []string{
		"Subject: LF only\n\nbody\nline\r\n", "Subject: NUL\r\n\r\na\x00b\r\n", "Subject: bare CR\r\n\r\na\rb\r\n",
		"Subject: 8-bit\r\n\r\n\xff\xfe\x80\r\n", "Subject: no end\r\n\r\nno line end", "no header at all\r\n", "\r\n",
	}
	var times atomic.Int32
	return []attack{
		// What is said before the login.
		{name: "1 greeting of garbage", start: scripted("pop3+insecure", testserver.Send("hello there\r\n"), testserver.Hold()), exit: 1, again: 1, says: "POP3"},
		{name: "1 greeting of HTTP", start: scripted("pop3+insecure", testserver.Send("HTTP/1.1 400 Bad Request\r\n\r\n"), testserver.Hold()), exit: 1, again: 1},
		{name: "1 greeting without end", start: scripted("pop3+insecure", testserver.Flood("aaaaaaaaaaaaaaaa", 1<<16), testserver.Hold()), exit: 1, again: 1},
		{name: "1 greeting that refuses", start: scripted("pop3+insecure", testserver.Send("-ERR too many connections\r\n"), testserver.Hold()), exit: 75, again: 75, says: "too many connections"},
		{name: "1 greeting with escapes", start: scripted("pop3+insecure", testserver.Send("-ERR \x1b]0;owned\x07\x1b[31m\xc2\x9b2J \xe2\x80\xae\r\n"), testserver.Hold()), exit: 75, again: 75},
		{name: "3 plain text behind STLS", start: scripted("pop3", testserver.Send("+OK\r\n"), testserver.Answer("STLS", "+OK go\r\n+OK injected\r\n"), testserver.Hold()), exit: 77, again: 77},
		{name: "4 silence behind STLS", start: scripted("pop3", testserver.Send("+OK\r\n"), testserver.Answer("STLS", "+OK go\r\n"), testserver.Hold()), args: short, exit: 75, again: 75},
		{name: "4 plain text instead of a handshake", start: scripted("pop3", testserver.Send("+OK\r\n"), testserver.Answer("STLS", "+OK go\r\n"), testserver.SendAfter(200*time.Millisecond, "+OK no TLS here\r\n"), testserver.Hold()), exit: 77, again: 77},
		{name: "6 STLS not offered", start: scripted("pop3", testserver.Send("+OK\r\n"), testserver.Answer("STLS", "-ERR unknown command\r\n"), testserver.Hold()), exit: 69, again: 69},
		{name: "7 APOP challenge", start: pop3(three, testserver.POP3Faults{Greeting: "+OK ready <1896.697170952@example.org>"}), held: 3},
		{name: "43 login refused with the password in it", start: pop3(three, testserver.POP3Faults{Login: "-ERR [AUTH] \x1b[1mno such password: " + password + " \xff"}), exit: 77, again: 77, left: 3, says: "***"},
		{name: "43 refusals with the password in it", start: pop3(three, testserver.POP3Faults{Refuse: map[int]string{2: "-ERR \x1b[2J " + password + " \xff\u202e"}}), exit: 3, held: 2, again: 3, left: 1, says: "***"},
		{name: "45 challenges without end", start: scripted("pop3+insecure", testserver.Send("+OK\r\n"), testserver.Answer("CAPA", "+OK\r\nSASL PLAIN\r\n.\r\n"), testserver.Answer("^AUTH PLAIN ", "+ \r\n"), testserver.Again(testserver.Answer(`^\*$`, "+ \r\n"))), exit: 77, again: 77},
		{name: "45 challenges in a flood", start: scripted("pop3+insecure", testserver.Send("+OK\r\n"), testserver.Answer("CAPA", "+OK\r\nSASL PLAIN\r\n.\r\n"), testserver.Answer("^AUTH PLAIN ", "+ \r\n"), testserver.Flood("+ \r\n", 1<<20), testserver.Hold()), exit: 77, again: 77},

		// Bodies.
		{name: "11 body without end", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 2" {
				return false
			}
			write(c, "+OK\r\nSubject: endless\r\n\r\n")
			flood(c, "all work and no play makes Jack a dull boy\r\n", 24<<20)
			_, _ = io.Copy(io.Discard, c)
			return true
		}}), args: brief, exit: 3, held: 2, again: 3, left: 1},
		{name: "11 one line without end", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 2" {
				return false
			}
			write(c, "+OK\r\nSubject: endless")
			flood(c, "a", 24<<20)
			_, _ = io.Copy(io.Discard, c)
			return true
		}}), args: brief, exit: 3, held: 2, again: 3, left: 1},
		{name: "11 200,000 header lines", start: pop3([]string{letter(1), strings.Repeat("X-Header: value\r\n", 200_000) + "\r\nbody\r\n"}, testserver.POP3Faults{}), held: 2},
		{name: "11 status line without end", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 2" {
				return false
			}
			write(c, "+OK ")
			flood(c, "a", 24<<20)
			return true
		}}), exit: 3, held: 2, again: 3, left: 1},

		// Listings.
		{name: "12 LIST of two million lines", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "LIST" {
				return false
			}
			write(c, "+OK\r\n"+millions()+".\r\n")
			return true
		}}), exit: 1, again: 1, left: 3},
		{name: "12 CAPA without end", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "CAPA" {
				return false
			}
			write(c, "+OK\r\n")
			flood(c, "X-CAPABILITY\r\n", 24<<20)
			return true
		}}), held: 3},
		{name: "12 UIDL without end", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "UIDL" {
				return false
			}
			write(c, "+OK\r\n")
			flood(c, "1 aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n", 24<<20)
			return true
		}}), exit: 1, again: 1, left: 3},
		{name: "12 UIDL cut by FIN", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "UIDL" {
				return false
			}
			write(c, "+OK\r\n1 a\r\n2 b\r\n")
			c.Close()
			return true
		}}), exit: 75, again: 75, left: 3},
		{name: "13 numbers doubled, 0, negative, huge", start: pop3(five, testserver.POP3Faults{List: each("0 10", "-1 10", size(3)+"\r\n"+size(3), "4294967297 10", size(5))}), held: 5},
		{name: "13 numbers swapped", start: pop3(three, testserver.POP3Faults{List: each(size(2), size(1), size(3))}), held: 3},
		{name: "13 sizes negative, huge, blank", start: pop3(five, testserver.POP3Faults{List: each("1 -5", "2 9223372036854775807", "3 ", "4 1000000000", "5 99999999999999999999999")}), held: 5, exit: 3},
		{name: "13 sizes counted with LF", start: pop3(three, testserver.POP3Faults{List: func(i int) string {
			return fmt.Sprint(i+1, " ", len(strings.ReplaceAll(letter(i+1), "\r", "")))
		}}), held: 3},
		{name: "14 STAT of fewer", start: pop3(five, testserver.POP3Faults{Answer: instead("STAT", "+OK 2 100\r\n")}), held: 2, again: 69, left: 5},
		{name: "14 STAT of more", start: pop3(five, testserver.POP3Faults{Answer: instead("STAT", "+OK 7 100\r\n")}), exit: 3, held: 5, again: 69, left: 5},
		{name: "14 STAT of two thousand millions", start: pop3(five, testserver.POP3Faults{Answer: instead("STAT", "+OK 2000000000 100\r\n")}), exit: 1, again: 1, left: 5},
		{name: "14 UIDL longer than LIST", start: pop3(five, testserver.POP3Faults{UIDL: each("1 a", "2 b", "3 c", "4 d", "5 e\r\n6 f\r\n7 g")}), held: 5, again: 69, left: 5},

		// UIDLs.
		{name: "15 doubled", start: pop3(three, testserver.POP3Faults{UIDL: each("1 a", "2 a", "3 b")}), held: 3, again: 69, left: 3},
		{name: "15 all equal", start: pop3(three, testserver.POP3Faults{UIDL: each("1 a", "2 a", "3 a")}), held: 3, again: 69, left: 3},
		{name: "15 new each time", start: pop3(three, testserver.POP3Faults{UIDL: func(i int) string { return fmt.Sprint(i+1, " u", times.Add(1)) }}), held: 3, left: 3},
		{name: "15 missing lines", start: pop3(three, testserver.POP3Faults{UIDL: each("1 a", "", "3 c")}), held: 3, again: 69, left: 3},
		{name: "15 blank", start: pop3(three, testserver.POP3Faults{UIDL: each("1 a", "2 ", "3")}), held: 3, again: 69, left: 3},
		{name: "15 of 5,000 characters", start: pop3(three, testserver.POP3Faults{UIDL: each("1 "+strings.Repeat("u", 5000), "2 b", "3 c")}), held: 3, again: 69, left: 3},
		{name: "15 equal in the first 200 characters", start: pop3(three, testserver.POP3Faults{UIDL: each("1 "+long+"1", "2 "+long+"2", "3 "+long+"3")}), held: 3},
		{name: "15 different in case only", start: pop3(three, testserver.POP3Faults{UIDL: each("1 abc", "2 ABC", "3 Abc")}), held: 3},
		{name: "15 that look like paths", start: pop3(five, testserver.POP3Faults{UIDL: each("1 ../../x", "2 /", "3 ..", "4 \"'`$(x)\\", "5 a\x1b[2Jb")}), held: 5, again: 69, left: 5},
		{name: "15 with NUL", start: pop3(three, testserver.POP3Faults{UIDL: each("1 a\x00b", "2 a", "3 c")}), held: 3, again: 69, left: 3},
		{name: "15 reused for other mail", start: pop3(three, testserver.POP3Faults{UIDL: each("1 a", "2 b", "3 c"), Answer: func(c net.Conn, session int, cmd string) bool {
			if session == 0 || cmd != "RETR 2" && cmd != "TOP 2 0" {
				return false
			}
			write(c, "+OK\r\n"+strings.Replace(letter(2), "letter 2", "letter X", 1)+".\r\n")
			return true
		}}), held: 3, left: 1},

		// Out of step.
		{name: "16 +OK forged inside a body", start: pop3(forged, testserver.POP3Faults{NoStuffing: true}), held: 5, exit: 3, again: 3, left: 1},
		{name: "17 one status line too many", start: pop3(five, testserver.POP3Faults{Rewrite: map[int]string{2: letter(2) + ".\r\n+OK one too many\r\n"}}), held: 5},
		{name: "17 one status line too many at DELE", start: pop3(five, testserver.POP3Faults{Answer: instead("DELE 2", "+OK\r\n+OK one too many\r\n")}), held: 5, again: 3, left: -1}, // it is noticed before QUIT or behind it
		{name: "18 another message each time", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 2" && !strings.HasPrefix(cmd, "TOP 2") {
				return false
			}
			write(c, "+OK\r\n"+strings.Replace(letter(2), "letter 2", "letter 2"+strings.Repeat("+", 20+int(times.Add(1))), 1)+".\r\n")
			return true
		}}), held: 3, exit: 3, left: 1, altered: 2},
		{name: "18 other octets of the same length each time", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 2" {
				return false
			}
			write(c, "+OK\r\n"+strings.Replace(letter(2), "body 2", fmt.Sprint("body ", times.Add(1)%10), 1)+".\r\n")
			return true
		}}), held: 3, altered: 2}, // nothing gives it away: what is archived is what it said
		{name: "18 empty", start: pop3(three, testserver.POP3Faults{Rewrite: map[int]string{2: ".\r\n"}}), held: 3, exit: 3, left: 1, altered: 2},
		{name: "18 cut, but terminated, elsewhere each time", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 2" {
				return false
			}
			write(c, "+OK\r\n"+letter(2)[:60+times.Add(1)%8]+"\r\n.\r\n")
			return true
		}}), held: 3, exit: 3, left: 1, altered: 2},
		{name: "19 TOP differs from RETR", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if !strings.HasPrefix(cmd, "TOP") {
				return false
			}
			write(c, "+OK\r\nSubject: something else\r\n\r\n.\r\n")
			return true
		}}), held: 3, left: 3},
		{name: "20 odd octets", start: pop3(odd, testserver.POP3Faults{}), held: 7},
		{name: "21 EXPIRE 0", start: pop3(three, testserver.POP3Faults{Expire0: true}), held: 3},

		// Faults of the line and of the server (section 3).
		{name: "fault 2 silence instead of a greeting", start: scripted("pop3+insecure", testserver.Hold()), args: short, exit: 75, again: 75},
		{name: "fault 5 terminator missing", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 3" {
				return false
			}
			write(c, "+OK\r\n"+letter(3)+".\r")
			c.Close()
			return true
		}}), exit: 3, held: 2, again: 3, left: 1},
		{name: "fault 6 stall inside a body", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 3" {
				return false
			}
			write(c, "+OK\r\n"+letter(3)[:50])
			_, _ = io.Copy(io.Discard, c)
			return true
		}}), args: brief, exit: 3, held: 2, again: 3, left: 1},
		{name: "fault 7 one octet at a time", start: pop3(three, testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
			if cmd != "RETR 3" {
				return false
			}
			for _, o := range []byte("+OK\r\n" + letter(3) + ".\r\n") {
				if _, err := c.Write([]byte{o}); err != nil {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			return true
		}}), args: []string{"--max-time", "3s"}, exit: 75, held: 2, again: 75, left: 3},
		{name: "fault 9 cut at DELE", start: pop3(three, testserver.POP3Faults{Answer: dropAt("DELE")}), held: 3, again: 75, left: 3},
		{name: "fault 9 cut at QUIT, nothing removed", start: pop3(three, testserver.POP3Faults{Answer: dropAt("QUIT")}), held: 3, again: 3, left: 3},
		{name: "fault 10 QUIT refused", start: pop3(three, testserver.POP3Faults{Answer: instead("QUIT", "-ERR some messages were not removed\r\n")}), held: 3, again: 3, left: 3},
		{name: "fault 18 in use", start: pop3(three, testserver.POP3Faults{Login: "-ERR [IN-USE] locked by another session"}), exit: 75, again: 75, left: 3, says: "IN-USE"},
		{name: "fault 19 wrong password", start: pop3(three, testserver.POP3Faults{Login: "-ERR [AUTH] wrong"}), exit: 77, again: 77, left: 3},
		{name: "fault 23 message vanishes", start: pop3(three, testserver.POP3Faults{Refuse: map[int]string{2: "-ERR no such message"}}), exit: 3, held: 2, again: 3, left: 1},
		{name: "fault 27 one refused for ever", start: pop3(three, testserver.POP3Faults{Refuse: map[int]string{2: "-ERR message is corrupt"}}), exit: 3, held: 2, again: 3, left: 1, says: "corrupt"},
		{name: "fault 28 every one refused", start: pop3(three, testserver.POP3Faults{Refuse: map[int]string{1: "-ERR no", 2: "-ERR no", 3: "-ERR no"}}), exit: 3, again: 3, left: 3},
		{name: "fault 33 one ends the connection", start: pop3(three, testserver.POP3Faults{DropAt: map[int]bool{2: true}}), exit: 3, held: 2, again: 3, left: 1},
	}
}

// TestIgnoredDELE has a server that says it deletes and does not: the next run says
// so, whichever verb it is, and nothing is fetched twice.
func TestIgnoredDELE(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	srv := pop3(letters(4), testserver.POP3Faults{Answer: func(c net.Conn, _ int, cmd string) bool {
		if !strings.HasPrefix(cmd, "DELE ") {
			return false
		}
		write(c, "+OK deleted\r\n")
		return true
	}})(t)
	h.fill(srv)
	held := h.held()
	clean := []string{"clean", srv.place, h.archive(), "--older-than", "0d", "--yes"}
	if r := h.run(clean...); r.code != 0 || !strings.Contains(r.stdout, "deleted at the server, 0 stayed, 0 failed") {
		t.Fatalf("nothing shows it yet: %v", r)
	}
	for _, args := range [][]string{clean, clean, {"backup", "--delete", srv.place, h.archive()}} {
		r := h.run(args...)
		if r.code != 69 || !strings.Contains(r.stderr, "the server ignores DELE") {
			t.Errorf("%v", r)
		}
	}
	if !maps.Equal(held, h.held()) || len(srv.left()) != 4 {
		t.Errorf("%d left at the server; the archive held %v, now %v", len(srv.left()), held, h.held())
	}
}
