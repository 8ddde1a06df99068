package imap_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/fetch/fetchtest"
	"mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

// serve starts a server and a source that reads it in clear text over loopback.
func serve(t *testing.T, srv *testserver.IMAP, change ...func(*imap.Config)) *imap.Source {
	t.Helper()
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	cfg := imap.Config{
		Server:      dial.Server{Host: "127.0.0.1", Port: srv.Port(), Security: dial.Cleartext, Timeout: 10 * time.Second},
		Credentials: auth.Credentials{User: "ada", Password: "secret"},
		Pause:       time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	s := imap.New(cfg)
	t.Cleanup(func() {
		s.Close()
		srv.Close()
	})
	return s
}

// three is a mailbox of three messages.
func three() []testserver.IMAPMessage {
	var all []testserver.IMAPMessage
	for i, uid := range []uint32{3, 4, 9} {
		all = append(all, testserver.IMAPMessage{UID: uid, Octets: fmt.Sprintf("Subject: %d\r\n\r\nbody %d\r\n", uid, i), Flags: `\Seen`})
	}
	return all
}

// fetched reads INBOX from end to end.
func fetched(t *testing.T, s *imap.Source) (*collector, error) {
	t.Helper()
	mb := inbox(t, s, "INBOX")
	_, wants := listAll(t, s, mb)
	c := new(collector)
	return c, s.Fetch(context.Background(), mb, wants, c.deliver)
}

// line is a FETCH response with the octets of m.
func line(seq int, m testserver.IMAPMessage) string {
	return fmt.Sprintf("* %d FETCH (%s BODY[] %s)\r\n", seq, m.Meta(), testserver.Literal(m.Octets))
}

// sendSet sends the messages of a set, as a server should.
func sendSet(c *testserver.IMAPConn, set string, msgs []testserver.IMAPMessage) {
	for i, m := range msgs {
		if testserver.InSet(set, m.UID) {
			c.Send(line(i+1, m))
		}
	}
	c.OK("done")
}

// bodies answers only commands that ask for whole messages.
func bodies(answer func(c *testserver.IMAPConn, set string)) func(*testserver.IMAPConn, string) bool {
	return func(c *testserver.IMAPConn, cmd string) bool {
		words := strings.Fields(cmd)
		if !strings.Contains(cmd, "BODY.PEEK[]") || words[0] != "UID" {
			return false
		}
		answer(c, words[2])
		return true
	}
}

// Whatever shape answers have, every message arrives once and whole.
func TestShapes(t *testing.T) {
	msgs := three()
	meta := func(i int) string { return msgs[i].Meta() }
	lit := func(i int) string { return testserver.Literal(msgs[i].Octets) }
	uid := func(i int) string { return fmt.Sprintf("UID %d", msgs[i].UID) }
	afterUID := func(i int) string { _, a, _ := strings.Cut(meta(i), uid(i)+" "); return a }
	for name, shape := range map[string]func(i int) string{
		"as asked":  func(i int) string { return "(" + meta(i) + " BODY[] " + lit(i) + ")" },
		"UID last":  func(i int) string { return "(" + afterUID(i) + " BODY[] " + lit(i) + " " + uid(i) + ")" },
		"all after": func(i int) string { return "(BODY[] " + lit(i) + " " + meta(i) + ")" },
		"lower case": func(i int) string {
			return "(" + strings.ToLower(uid(i)) + " body[] " + lit(i) + " " + afterUID(i) + ")"
		},
		"spaces":   func(i int) string { return " ( " + meta(i) + "  BODY[]  " + lit(i) + " )" },
		"literal8": func(i int) string { return "(" + meta(i) + " BODY[] ~" + lit(i) + ")" },
		"origin":   func(i int) string { return "(" + meta(i) + " BODY[]<0> " + lit(i) + ")" },
		"RFC822":   func(i int) string { return "(" + meta(i) + " RFC822 " + lit(i) + ")" },
		"unknown items": func(i int) string {
			return `(X-GM-LABELS ("a" \Sent (x "y)")) ` + meta(i) + ` EMAILID (M1) XLIT {3}` + "\r\n))) BODY[] " + lit(i) + " MODSEQ (12))"
		},
		"split": func(i int) string {
			return fmt.Sprintf("(%s)\r\n* %d FETCH (%s BODY[] %s)", meta(i), i+1, uid(i), lit(i))
		},
		"split without UID": func(i int) string { return fmt.Sprintf("(%s)\r\n* %d FETCH (BODY[] %s)", meta(i), i+1, lit(i)) },
		"twice": func(i int) string {
			return fmt.Sprintf("(%s BODY[] %s)\r\n* %d FETCH (%s BODY[] {2}\r\nno)", meta(i), lit(i), i+1, uid(i))
		},
		"other first": func(i int) string {
			return fmt.Sprintf("(UID 77 BODY[] {2}\r\nno)\r\n* %d FETCH (%s BODY[] %s)", i+1, meta(i), lit(i))
		},
		"unsolicited": func(i int) string {
			return fmt.Sprintf("(FLAGS (\\Seen))\r\n* XFOO bar\r\n* VANISHED 1:4294967295\r\n\r\n+ idling\r\n* OK [ALERT] x\r\nA1 OK future\r\n* %d FETCH (%s BODY[] %s)", i+1, meta(i), lit(i))
		},
		"other sections": func(i int) string {
			return "(" + meta(i) + " BODY[HEADER.FIELDS (DATE FROM)] {2}\r\n\r\n BODY[] " + lit(i) + " BODY[1] NIL)"
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: msgs}
			srv.Answer = bodies(func(c *testserver.IMAPConn, set string) {
				for i, m := range msgs {
					if testserver.InSet(set, m.UID) {
						c.Send(fmt.Sprintf("* %d FETCH %s\r\n", i+1, shape(i)))
					}
				}
				c.OK("done")
			})
			c, err := fetched(t, serve(t, srv))
			if err != nil {
				t.Fatal(err)
			}
			complete(t, c, msgs)
			for _, m := range msgs {
				if g := c.all[fmt.Sprint(m.UID)]; g.in.Flags != mail.Seen || g.in.Size != int64(len(m.Octets)) || g.in.InternalDate.IsZero() {
					t.Errorf("%+v", g.in)
				}
			}
			if srv.Connections() != 1 {
				t.Errorf("%d connections", srv.Connections())
			}
		})
	}
}

// complete checks that exactly these messages came, whole.
func complete(t *testing.T, c *collector, msgs []testserver.IMAPMessage) {
	t.Helper()
	for _, m := range msgs {
		if g := c.all[fmt.Sprint(m.UID)]; g.err != nil || string(g.octets) != m.Octets {
			t.Errorf("UID %d: %q, %v", m.UID, g.octets, g.err)
		}
	}
	if len(c.all) != len(msgs) || len(c.dup) > 0 {
		t.Errorf("%d messages, doubled %v", len(c.all), c.dup)
	}
}

// A message the server does not give in a set is had another way, or named.
func TestLadder(t *testing.T) {
	msgs := three()
	refuse := func(c *testserver.IMAPConn) { c.NO("[SERVERBUG] message is broken") }
	for name, tc := range map[string]struct {
		answer func(c *testserver.IMAPConn, cmd string) bool // commands that name UID 4 or sequence number 2
		want   string                                        // error of UID 4; "" if it is had
	}{
		"NIL everywhere": {answer: data(msgs[1], "NIL"), want: "without the message"},
		"nil everywhere": {answer: data(msgs[1], "nil"), want: "without the message"},
		"empty":          {answer: data(msgs[1], "{0}\r\n"), want: "without the message"},
		"empty quoted":   {answer: data(msgs[1], `""`), want: "without the message"},
		"no data":        {answer: data(msgs[1], ""), want: "without the message"},
		"refused for ever": {want: "broken", answer: func(c *testserver.IMAPConn, cmd string) bool {
			refuse(c)
			return true
		}},
		"vanished": {want: mail.ErrVanished.Error(), answer: func(c *testserver.IMAPConn, cmd string) bool {
			c.OK("done")
			return true
		}},
		"only alone": {answer: func(c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "UID FETCH 4 ") {
				return false
			}
			refuse(c)
			return true
		}},
		"only by number": {answer: func(c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "FETCH 2 ") || !strings.Contains(cmd, "BODY") {
				return false
			}
			refuse(c)
			return true
		}},
		"only in halves": {answer: func(c *testserver.IMAPConn, cmd string) bool {
			if !strings.Contains(cmd, "BODY.PEEK[]") {
				return false
			}
			refuse(c)
			return true
		}},
		"other UID": {want: "without the message", answer: func(c *testserver.IMAPConn, cmd string) bool {
			if !strings.Contains(cmd, "BODY") {
				return false
			}
			c.Send("* 2 FETCH (UID 5 BODY[] {2}\r\nno BODY[HEADER] {2}\r\nno BODY[TEXT] {2}\r\nno)\r\n")
			c.OK("done")
			return true
		}},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: msgs}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				words := strings.Fields(cmd)
				switch {
				case words[0] == "UID" && words[2] == "1:*", words[0] != "UID" && words[0] != "FETCH":
					return false
				case words[0] == "UID" && !testserver.InSet(words[2], 4):
					return false
				case words[0] == "UID" && words[2] != "4": // the set
					for i, m := range msgs {
						if m.UID != 4 {
							c.Send(line(i+1, m))
						}
					}
					if name == "vanished" {
						c.OK("done")
					} else {
						c.NO("some messages could not be read")
					}
					return true
				}
				return tc.answer(c, cmd)
			}
			c, err := fetched(t, serve(t, srv))
			if err != nil {
				t.Fatal(err)
			}
			if tc.want == "" {
				complete(t, c, msgs)
				return
			}
			if g := c.all["4"]; g.err == nil || !strings.Contains(g.err.Error(), tc.want) {
				t.Errorf("UID 4: %q, %v", g.octets, g.err)
			}
			if name == "vanished" && !errors.Is(c.all["4"].err, mail.ErrVanished) {
				t.Error("not told as vanished")
			}
			delete(c.all, "4")
			complete(t, c, []testserver.IMAPMessage{msgs[0], msgs[2]})
			for _, cmd := range srv.Sent() {
				if strings.Contains(cmd, "BODY[") {
					t.Errorf("sent %q, which sets \\Seen", cmd)
				}
			}
		})
	}
}

// data answers every request for octets of a message with the same.
func data(m testserver.IMAPMessage, octets string) func(*testserver.IMAPConn, string) bool {
	return func(c *testserver.IMAPConn, cmd string) bool {
		if !strings.Contains(cmd, "BODY") {
			return false
		}
		_, section, _ := strings.Cut(cmd, "BODY.PEEK[")
		section, _, _ = strings.Cut(section, "]")
		item := " BODY[" + section + "] " + octets
		if octets == "" {
			item = ""
		}
		c.Send(fmt.Sprintf("* 2 FETCH (%s%s)\r\n", m.Meta(), item))
		c.OK("done")
		return true
	}
}

// A connection lost anywhere in an answer costs nothing but another connection.
func TestLost(t *testing.T) {
	msgs := three()
	whole := line(1, msgs[0]) + line(2, msgs[1]) + line(3, msgs[2])
	for cut := 0; cut <= len(whole); cut += 7 {
		srv := &testserver.IMAP{Messages: msgs}
		srv.Answer = bodies(func(c *testserver.IMAPConn, set string) {
			if c.No == 0 {
				c.Send(whole[:cut])
				c.Close()
				return
			}
			sendSet(c, set, msgs)
		})
		s := serve(t, srv)
		c, err := fetched(t, s)
		if err != nil {
			t.Fatalf("cut after %d: %v", cut, err)
		}
		complete(t, c, msgs)
		s.Close()
		srv.Close()
	}
}

// What is no proper answer is not mail: neither swallowed protocol text nor a part.
func TestWrongSize(t *testing.T) {
	msgs := three()
	for name, answer := range map[string]string{
		"too short":    fmt.Sprintf("* 1 FETCH (%s BODY[] {4}\r\n%s)\r\n", msgs[0].Meta(), msgs[0].Octets),
		"too long":     fmt.Sprintf("* 1 FETCH (%s BODY[] {%d}\r\n%s)\r\n* 2 FETCH (UID 4)\r\n* OK x\r\n* OK x\r\n* OK x\r\n", msgs[0].Meta(), len(msgs[0].Octets)+9, msgs[0].Octets),
		"huge":         "* 1 FETCH (UID 3 BODY[] {4294967299}\r\nx",
		"overflow":     "* 1 FETCH (UID 3 BODY[] {99999999999999999999999}\r\nx",
		"negative":     "* 1 FETCH (UID 3 BODY[] {-1}\r\nx",
		"hexadecimal":  "* 1 FETCH (UID 3 BODY[] {0x10}\r\nx",
		"BYE inside":   fmt.Sprintf("* 1 FETCH (%s BODY[] {500}\r\n%s)\r\n* BYE going down\r\n", msgs[0].Meta(), msgs[0].Octets),
		"endless line": "* 1 FETCH (UID 3 " + strings.Repeat("x", 3<<20) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: msgs}
			srv.Answer = bodies(func(c *testserver.IMAPConn, set string) {
				if c.No == 0 {
					c.Send(answer)
					c.Close()
					return
				}
				sendSet(c, set, msgs)
			})
			c, err := fetched(t, serve(t, srv))
			if err != nil {
				t.Fatal(err)
			}
			complete(t, c, msgs)
		})
	}
}

// A message at which the server always dies does not keep the others.
func TestPoison(t *testing.T) {
	msgs := three()
	srv := &testserver.IMAP{Messages: msgs}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		words := strings.Fields(cmd)
		if words[0] == "UID" && words[2] != "1:*" && testserver.InSet(words[2], 4) || words[0] == "FETCH" {
			if words[2] != "4" {
				c.Send(line(1, msgs[0]))
			}
			c.Send("* BYE internal error\r\n")
			c.Close()
			return true
		}
		return false
	}
	c, err := fetched(t, serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	if g := c.all["4"]; g.err == nil || !strings.Contains(g.err.Error(), "lost again and again over this message") || mail.KindOf(g.err) != mail.KindPartial {
		t.Errorf("UID 4: %q %v", g.octets, g.err)
	}
	delete(c.all, "4")
	complete(t, c, []testserver.IMAPMessage{msgs[0], msgs[2]})
}

// Large messages are streamed, whatever comes first.
func TestLarge(t *testing.T) {
	m := testserver.IMAPMessage{UID: 5, Octets: "Subject: big\r\n\r\n" + strings.Repeat("0123456789\r\n", 60_000)}
	for name, answer := range map[string]string{
		"UID first":   line(1, m),
		"UID last":    fmt.Sprintf("* 1 FETCH (BODY[] %s UID 5)\r\n", testserver.Literal(m.Octets)),
		"flags after": fmt.Sprintf("* 1 FETCH (UID 5 BODY[] %s FLAGS ())\r\n", testserver.Literal(m.Octets)),
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: []testserver.IMAPMessage{m}}
			srv.Answer = bodies(func(c *testserver.IMAPConn, _ string) {
				c.Send(answer)
				c.OK("done")
			})
			c, err := fetched(t, serve(t, srv))
			if err != nil {
				t.Fatal(err)
			}
			complete(t, c, srv.Messages)
			if in := c.all["5"].in; in.InternalDate.IsZero() || in.Size != int64(len(m.Octets)) {
				t.Errorf("%+v", in)
			}
		})
	}
}

// A large message whose connection ends in the middle is asked for again, a few
// times; then it is named, and the others come.
func TestLargeCut(t *testing.T) {
	msgs := three()
	msgs[1].Octets = "Subject: big\r\n\r\n" + strings.Repeat("0123456789\r\n", 60_000)
	short := strings.Replace(line(2, msgs[1]), "{", "{1", 1)
	for name, tc := range map[string]struct {
		answer string // instead of the large message
		times  int    // on the first connections
		lost   bool   // it never comes
	}{
		"in the octets":     {answer: line(2, msgs[1])[:500_000], times: 1},
		"at their end":      {answer: strings.TrimSuffix(line(2, msgs[1]), ")\r\n"), times: 2},
		"announced shorter": {answer: strings.Replace(line(2, msgs[1]), fmt.Sprintf("BODY[] {%d}", len(msgs[1].Octets)), "BODY[] {400000}", 1), times: 1},
		"announced longer":  {answer: short, times: 1},
		"always":            {answer: line(2, msgs[1])[:400_000], times: 1000, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: msgs}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				words := strings.Fields(cmd)
				if !strings.Contains(cmd, "BODY.PEEK[]") || c.No >= tc.times {
					return false
				}
				for i, m := range msgs {
					switch {
					case words[0] == "UID" && !testserver.InSet(words[2], m.UID), words[0] == "FETCH" && words[1] != fmt.Sprint(i+1):
					case i == 1:
						c.Send(tc.answer)
						c.Close()
						return true
					default:
						c.Send(line(i+1, m))
					}
				}
				c.OK("done")
				return true
			}
			c, err := fetched(t, serve(t, srv))
			if err != nil {
				t.Fatal(err)
			}
			if tc.lost {
				if g := c.all["4"]; mail.KindOf(g.err) != mail.KindPartial || c.cut < 2 || c.cut > 6 {
					t.Errorf("%d octets, %v, after %d cuts", len(g.octets), g.err, c.cut)
				}
				delete(c.all, "4")
				complete(t, c, []testserver.IMAPMessage{msgs[0], msgs[2]})
				return
			}
			complete(t, c, msgs)
			if c.cut != tc.times {
				t.Errorf("delivered %d times in vain, want %d", c.cut, tc.times)
			}
		})
	}
}

func TestListing(t *testing.T) {
	meta := func(i int) string { return three()[i].Meta() }
	all := func(c *testserver.IMAPConn, seqs ...int) {
		for _, i := range seqs {
			c.Send(fmt.Sprintf("* %d FETCH (%s)\r\n", i+1, meta(i)))
		}
	}
	for name, tc := range map[string]struct {
		uidValidity string
		answer      func(c *testserver.IMAPConn, cmd string)
		want        string // UIDs, or sequence numbers as #n
		fails       string
	}{
		"plain":      {answer: func(c *testserver.IMAPConn, _ string) { all(c, 0, 1, 2); c.OK("x") }, want: "3 4 9"},
		"descending": {answer: func(c *testserver.IMAPConn, _ string) { all(c, 2, 1, 0); c.OK("x") }, want: "9 4 3"},
		"doubled":    {answer: func(c *testserver.IMAPConn, _ string) { all(c, 0, 0, 1, 0, 2, 1); c.OK("x") }, want: "3 4 9"},
		"one never":  {answer: func(c *testserver.IMAPConn, _ string) { all(c, 0, 2); c.NO("broken") }, want: "3 9 #2"},
		"UID 0": {answer: func(c *testserver.IMAPConn, _ string) {
			all(c, 0, 2)
			c.Send("* 2 FETCH (UID 0 RFC822.SIZE 1)\r\n")
			c.OK("x")
		}, want: "3 9 #2"},
		"expunged": {answer: func(c *testserver.IMAPConn, _ string) { c.Send("* 2 EXPUNGE\r\n"); all(c, 0, 2); c.OK("x") }, want: "3 9"},
		"in second": {answer: func(c *testserver.IMAPConn, cmd string) {
			all(c, 0)
			if strings.HasPrefix(cmd, "FETCH") {
				all(c, 1, 2)
			}
			c.OK("x")
		}, want: "3 4 9"},
		"broken line": {answer: func(c *testserver.IMAPConn, _ string) {
			all(c, 0)
			c.Send("* 2 FETCH ((((((\r\n* 2 FETCH (UID 4 FLAGS (\r\n")
			all(c, 2)
			c.OK("x")
		}, want: "3 9 #2"},
		"deep": {answer: func(c *testserver.IMAPConn, _ string) {
			c.Send("* 1 FETCH (X " + strings.Repeat("(", 60000) + ")\r\n")
			all(c, 0, 1, 2)
			c.OK("x")
		}, want: "3 4 9"},
		"no UIDVALIDITY": {uidValidity: "abc", answer: func(c *testserver.IMAPConn, _ string) { all(c, 0, 1, 2); c.OK("x") }, want: "#1 #2 #3"},
		"lost once": {answer: func(c *testserver.IMAPConn, _ string) {
			all(c, 0, 1)
			if c.No == 0 {
				c.Close()
			}
			all(c, 2)
			c.OK("x")
		}, want: "3 4 9"},
		"lost always": {answer: func(c *testserver.IMAPConn, _ string) { c.Close() }, fails: "closed the connection"},
		"dates": {answer: func(c *testserver.IMAPConn, _ string) {
			for i, d := range []string{"NIL", `"00-Jan-0000 00:00:00 GMT"`, `"x"`} {
				c.Send(fmt.Sprintf("* %d FETCH (UID %d INTERNALDATE %s FLAGS NIL RFC822.SIZE NIL)\r\n", i+1, i+1, d))
			}
			c.OK("x")
		}, want: "1 2 3"},
		"NIL MODSEQ, odd flags": {answer: func(c *testserver.IMAPConn, _ string) {
			c.Send("* 1 FETCH (UID 1 FLAGS (foo]bar \"a b\" \xc3\x80 {2}\r\nxy) RFC822.SIZE 5)\r\n* 2 FETCH (UID 2 RFC822.SIZE -5 INTERNALDATE \"01-Jan-1970 00:00:00 +0000\")\r\n")
			all(c, 2)
			c.OK("x")
		}, want: "1 2 9"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: three(), UIDValidity: tc.uidValidity}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if !strings.Contains(cmd, "FETCH") {
					return false
				}
				tc.answer(c, cmd)
				return true
			}
			s := serve(t, srv)
			var uids []string
			var failed error
			for in, err := range s.List(context.Background(), inbox(t, s, "INBOX")) {
				switch {
				case err != nil:
					failed = err
				case in.Ref.UID != "":
					uids = append(uids, in.Ref.UID)
				default:
					uids = append(uids, fmt.Sprint("#", in.Seq))
				}
			}
			if got := strings.Join(uids, " "); got != tc.want {
				t.Errorf("listed %q, want %q", got, tc.want)
			}
			if tc.fails == "" && failed != nil || tc.fails != "" && (failed == nil || !strings.Contains(failed.Error(), tc.fails)) {
				t.Errorf("error %v, want %q", failed, tc.fails)
			}
		})
	}
}

// Messages without a lasting UID are had by their number, and what is no UID is
// named.
func TestWithoutUID(t *testing.T) {
	srv := &testserver.IMAP{Messages: three(), UIDValidity: "0"}
	c, err := fetched(t, serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range srv.Messages {
		if g := c.all[fmt.Sprint("#", i+1)]; g.err != nil || string(g.octets) != m.Octets {
			t.Errorf("message %d: %q %v", i+1, g.octets, g.err)
		}
	}
	srv = &testserver.IMAP{Messages: three()}
	s := serve(t, srv)
	mb := inbox(t, s, "INBOX")
	c = new(collector)
	if err := s.Fetch(context.Background(), mb, []mail.Want{{UID: "x"}, {UID: "4"}, {UID: "0"}}, c.deliver); err != nil {
		t.Fatal(err)
	}
	if c.all["x"].err == nil || c.all["0"].err == nil {
		t.Error("delivered what is no UID")
	}
	delete(c.all, "x")
	delete(c.all, "0")
	complete(t, c, srv.Messages[1:2])
}

func TestUIDValidityChanged(t *testing.T) {
	srv := &testserver.IMAP{Messages: three()}
	s := serve(t, srv)
	mb := inbox(t, s, "INBOX")
	mb.UIDValidity = 7
	for _, err := range s.List(context.Background(), mb) {
		if err == nil || !strings.Contains(err.Error(), "UIDVALIDITY") {
			t.Fatal(err)
		}
	}
	var c collector
	if err := s.Fetch(context.Background(), mb, []mail.Want{{UID: "3"}}, c.deliver); err == nil || len(c.all) != 0 {
		t.Errorf("fetched %v, %v", c.all, err)
	}
}

// A server that allows one connection only is read over one.
func TestTooManyConnections(t *testing.T) {
	for _, refusal := range []string{"NO [LIMIT] too many connections", "NO [AUTHENTICATIONFAILED] wrong password", "BYE too many", "*drop"} {
		t.Run(refusal, func(t *testing.T) {
			srv := &testserver.IMAP{}
			for i := range 9000 {
				srv.Messages = append(srv.Messages, testserver.IMAPMessage{UID: uint32(i + 1), Octets: fmt.Sprintf("Subject: %d\r\n\r\n", i)})
			}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if c.No == 0 || !strings.HasPrefix(cmd, "AUTHENTICATE") {
					return false
				}
				switch {
				case refusal == "*drop":
					c.Close()
				case strings.HasPrefix(refusal, "BYE"):
					c.Send("* " + refusal + "\r\n")
					c.Close()
				default:
					c.Send(c.Tag + " " + refusal + "\r\n")
				}
				return true
			}
			c, err := fetched(t, serve(t, srv))
			if err != nil {
				t.Fatal(err)
			}
			complete(t, c, srv.Messages)
			if srv.Connections() < 2 || srv.Connections() > 4 {
				t.Errorf("%d connections tried", srv.Connections())
			}
		})
	}
}

// A busy server is asked again.
func TestBusy(t *testing.T) {
	msgs := three()
	n := 0
	srv := &testserver.IMAP{Messages: msgs}
	srv.Answer = bodies(func(c *testserver.IMAPConn, set string) {
		if n++; n < 3 {
			c.NO("[UNAVAILABLE] Server error - Please try again later")
			return
		}
		sendSet(c, set, msgs)
	})
	c, err := fetched(t, serve(t, srv))
	if err != nil {
		t.Fatal(err)
	}
	complete(t, c, msgs)
}

// Nothing that is sent may change anything at the server.
func TestOnlyReads(t *testing.T) {
	srv := &testserver.IMAP{Messages: three()}
	s := serve(t, srv)
	if _, err := fetched(t, s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	for _, cmd := range srv.Sent() {
		verb, _, _ := strings.Cut(cmd, " ")
		if !slices.Contains([]string{"AUTHENTICATE", "LIST", "STATUS", "EXAMINE", "UID", "LOGOUT"}, verb) {
			t.Errorf("sent %q", cmd)
		}
	}
}

func TestSource(t *testing.T) {
	t.Run("clear", func(t *testing.T) { testSource(t) })
	t.Run("compressed", func(t *testing.T) { testSource(t, always) })
}

func testSource(t *testing.T, change ...func(*imap.Config)) {
	fetchtest.Run(t, func(t *testing.T, messages []fetchtest.Message) fetchtest.Account {
		srv := &testserver.IMAP{Capabilities: compressing}
		refused := make(map[uint32]bool)
		for i, m := range messages {
			srv.Messages = append(srv.Messages, testserver.IMAPMessage{UID: uint32(i + 10), Octets: string(m.Octets)})
			refused[uint32(i+10)] = m.Refused
		}
		srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
			if compress(t, c, cmd) {
				return true
			}
			words := strings.Fields(cmd)
			for uid, no := range refused {
				set := words[min(2, len(words)-1)]
				if words[0] == "FETCH" {
					set = ""
					if testserver.InSet(words[1], uid-9) {
						set = fmt.Sprint(uid)
					}
				}
				if no && strings.Contains(cmd, "BODY.PEEK") && testserver.InSet(set, uid) {
					c.NO("cannot read this message")
					return true
				}
			}
			return false
		}
		return fetchtest.Account{Source: serve(t, srv, change...), Mailbox: "INBOX", CanRefuse: true}
	})
}

func TestSourceDovecot(t *testing.T) {
	server := dovecot.Start(t, dovecot.Options{})
	n := 0
	fetchtest.Run(t, func(t *testing.T, messages []fetchtest.Message) fetchtest.Account {
		n++
		user := fmt.Sprint("user", n)
		var list []dovecot.Message
		for _, m := range messages {
			list = append(list, dovecot.Message{Octets: m.Octets, Date: time.Unix(1700000000, 0)})
		}
		if err := server.Append(user, "INBOX", list...); err != nil {
			t.Fatal(err)
		}
		held, err := server.Messages(user, "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range held {
			messages[i].Octets = m.Octets // as Dovecot keeps them
		}
		s := sourceOf(server, user, server.IMAPS)
		t.Cleanup(func() { s.Close() })
		return fetchtest.Account{Source: s, Mailbox: "INBOX", Snapshot: func() string {
			all, err := server.Messages(user, "INBOX")
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(all)
		}}
	})
}
