package move

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sides "mailhaul/compare"
	fetchimap "mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/ledger"
	"mailhaul/internal/testserver"
	"mailhaul/migrate"
	"mailhaul/upload"
	destimap "mailhaul/upload/imap"
)

// fault makes a server answer otherwise; true tells that it has answered.
type fault func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool

// once has a fault happen the first n times it applies.
func once(n int64, f fault) fault {
	var done atomic.Int64
	return func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if done.Load() >= n || !f(s, c, cmd) {
			return false
		}
		done.Add(1)
		return true
	}
}

func isLogin(cmd string) bool {
	return strings.HasPrefix(cmd, "LOGIN") || strings.HasPrefix(cmd, "AUTHENTICATE")
}

// refuse answers commands that begin so.
func refuse(start, answer string) fault {
	return func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if !strings.HasPrefix(cmd, start) {
			return false
		}
		if bye, is := strings.CutPrefix(answer, "BYE"); is {
			c.Send("* BYE" + bye + "\r\n")
			_ = c.Close()
			return true
		}
		c.NO(answer)
		return true
	}
}

// before is how many connections a server had when a run began.
var before sync.Map

// crowded lets so many connections of a run in.
func crowded(n int, answer string) fault {
	return func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		from, _ := before.Load(s)
		earlier, _ := from.(int)
		return c.No >= earlier+n && isLogin(cmd) && refuse("", answer)(s, c, cmd)
	}
}

// unlisted leaves a mailbox out of the list.
func unlisted(name string) fault {
	return func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if !strings.HasPrefix(cmd, "LIST") {
			return false
		}
		c.Send("* LIST () \"/\" INBOX\r\n")
		for box := range s.Boxes {
			if box != name {
				c.Send("* LIST () \"/\" " + box + "\r\n")
			}
		}
		c.OK("done")
		return true
	}
}

// stale shows a mailbox as it was when it was empty.
func stale(verb, name string) fault {
	return func(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if !strings.HasPrefix(cmd, verb+" ") || !strings.Contains(cmd, name) {
			return false
		}
		if verb == "STATUS" {
			c.Send("* STATUS " + name + " (MESSAGES 0 UIDNEXT 1 UIDVALIDITY 1)\r\n")
			c.OK("done")
			return true
		}
		c.Send("* 0 EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 1] ok\r\n")
		c.OK("done")
		// What is asked for behind it finds nothing.
		line, err := c.Line()
		if err != nil {
			return true
		}
		c.Tag, _, _ = strings.Cut(line, " ")
		c.OK("nothing")
		return true
	}
}

// torn ends the connection in the middle of the messages it is asked for.
func torn(s *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
	if !strings.HasPrefix(cmd, "UID FETCH") || !strings.Contains(cmd, "BODY.PEEK[]") {
		return false
	}
	m := s.Held("Junk")[0]
	c.Send(fmt.Sprintf("* 1 FETCH (%s BODY[] {%d}\r\n%s", m.Meta(), len(m.Octets), m.Octets[:len(m.Octets)/2]))
	_ = c.Close()
	return true
}

// stand is two servers and what is kept between the passes.
type stand struct {
	t        *testing.T
	from, to *testserver.IMAP
	dir      string
}

const perBox = 24

func newStand(t *testing.T) *stand {
	s := &stand{t: t, dir: t.TempDir(),
		from: &testserver.IMAP{}, to: &testserver.IMAP{Capabilities: "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+ UIDPLUS MULTIAPPEND UNSELECT"}}
	for _, server := range []*testserver.IMAP{s.from, s.to} {
		server.Boxes = map[string][]testserver.IMAPMessage{}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = server.Close() })
	}
	for b, box := range []string{"INBOX", "Sent", "Junk", "Trash"} {
		for k := range perBox {
			s.from.Store(box, testserver.IMAPMessage{Octets: fmt.Sprintf("Subject: %d\r\nMessage-ID: <%d@%s>\r\n\r\n%s\r\n", k, k, box, strings.Repeat("text ", 10*b+k))})
		}
	}
	return s
}

func (s *stand) source(port int) *fetchimap.Source {
	src := fetchimap.New(fetchimap.Config{Server: at(port), Credentials: auth.Credentials{User: "ada", Password: "secret"},
		Connections: 4, Pause: time.Millisecond, Patience: 20 * time.Millisecond})
	s.t.Cleanup(func() { _ = src.Close() })
	return src
}

// begin notes that a run begins.
func (s *stand) begin() {
	for _, server := range []*testserver.IMAP{s.from, s.to} {
		before.Store(server, server.Connections())
	}
}

// pass migrates once.
func (s *stand) pass() (migrate.Result, error) {
	s.t.Helper()
	s.begin()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	l, err := ledger.Open(s.dir, ledger.Options{Format: "maildir"})
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	if err := l.Rebuilt(ctx); err != nil {
		s.t.Fatal(err)
	}
	src := s.source(s.from.Port())
	defer src.Close()
	d := destimap.New(destimap.Config{Server: at(s.to.Port()), Credentials: auth.Credentials{User: "ada", Password: "secret"}, Connections: 4})
	defer d.Close()
	return migrate.Run(ctx, migrate.Options{
		Source: src, Destination: d, Ledger: l, Dir: s.dir, Parallel: 4,
		Upload: upload.Options{Account: migrate.AccountOf(d.Account()), Parallel: 4, Pause: time.Millisecond},
	})
}

// lacking returns what the destination has not, and what it has twice.
func (s *stand) lacking() (lacks, doubles []string) {
	for _, box := range []string{"INBOX", "Sent", "Junk", "Trash"} {
		have := map[string]int{}
		for _, m := range s.to.Held(box) {
			have[m.Octets]++
		}
		for _, m := range s.from.Held(box) {
			switch n := have[m.Octets]; {
			case n == 0:
				lacks = append(lacks, fmt.Sprint(box, m.UID))
			case n > 1:
				doubles = append(doubles, fmt.Sprint(box, m.UID))
			}
		}
	}
	return lacks, doubles
}

// verify compares the two; missing is how many messages it names as missing.
func (s *stand) verify() (missing int64, err error) {
	s.begin()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	left, right := s.source(s.from.Port()), s.source(s.to.Port())
	defer left.Close()
	defer right.Close()
	res, err := sides.Run(ctx, sides.Options{Left: sides.Server(left), Right: sides.Server(right)})
	return res.Missing, err
}

// Whatever one of the servers refuses, cuts off or does not show for a moment, a run
// without an error has brought everything over, each message once, and what is there
// is not called missing.
func TestMomentaryTrouble(t *testing.T) {
	t.Parallel()
	limits := "[LIMIT] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=1)"
	faults := map[string]func() fault{
		"none":                         func() fault { return nil },
		"one connection":               func() fault { return crowded(1, limits) },
		"two connections":              func() fault { return crowded(2, limits) },
		"one connection, wrong words":  func() fault { return crowded(1, "[AUTHENTICATIONFAILED] Authentication failed") },
		"one connection, then cut off": func() fault { return crowded(1, "BYE too many") },
		"first login fails":            func() fault { return once(1, crowded(0, "[UNAVAILABLE] try again later")) },
		"list lacks it":                func() fault { return once(1, unlisted("Junk")) },
		"status is stale":              func() fault { return once(1, stale("STATUS", "Junk")) },
		"examine is stale":             func() fault { return once(1, stale("EXAMINE", "Junk")) },
		"examine is refused":           func() fault { return once(2, refuse("EXAMINE Junk", "[INUSE] timeout while waiting for lock")) },
		"examine ends the connection":  func() fault { return once(2, refuse("EXAMINE Junk", "BYE server is shutting down")) },
		"select is refused":            func() fault { return once(2, refuse("SELECT Junk", "[INUSE] timeout while waiting for lock")) },
		"select ends the connection":   func() fault { return once(2, refuse("SELECT Junk", "BYE server is shutting down")) },
		"create is refused":            func() fault { return once(1, refuse("CREATE", "[UNAVAILABLE] later")) },
		"messages are refused":         func() fault { return once(3, refuse("UID FETCH", "[LIMIT] too many requests")) },
		"messages end the connection":  func() fault { return once(3, refuse("UID FETCH", "BYE server is shutting down")) },
		"torn":                         func() fault { return once(2, torn) },
		"append is cut off":            func() fault { return once(2, refuse("APPEND Junk", "BYE server is shutting down")) },
		"status is refused":            func() fault { return once(4, refuse("STATUS", "[SERVERBUG] internal error")) },
	}
	for name, make := range faults {
		for _, side := range []string{"source", "destination"} {
			if name == "list lacks it" && side == "source" {
				continue // nothing else says that it is there
			}
			t.Run(name+" at the "+side, func(t *testing.T) {
				t.Parallel()
				s := newStand(t)
				faulty := map[string]*testserver.IMAP{"source": s.from, "destination": s.to}[side]
				var now atomic.Pointer[fault]
				set := func() {
					f := make()
					now.Store(&f)
				}
				set()
				faulty.Answer = func(c *testserver.IMAPConn, cmd string) bool {
					f := *now.Load()
					return f != nil && f(faulty, c, cmd)
				}
				for try := 1; ; try++ {
					res, err := s.pass()
					lacks, doubles := s.lacking()
					if len(doubles) > 0 {
						t.Fatalf("pass %d, %v: twice there: %v", try, err, doubles)
					}
					if err == nil && res.Failed == 0 {
						if len(lacks) > 0 {
							t.Fatalf("pass %d ended well, and %d messages are not there: %v\n%+v", try, len(lacks), lacks, res)
						}
						break
					}
					t.Logf("pass %d: %v", try, err)
					if try == 8 {
						t.Fatal("no end of it")
					}
				}
				set()
				for try := 1; ; try++ {
					missing, err := s.verify()
					if missing > 0 {
						t.Fatalf("%d messages are called missing: %v", missing, err)
					}
					if err == nil {
						break
					}
					t.Logf("verify: %v", err)
					if try == 8 {
						t.Fatal("no end of it")
					}
				}
			})
		}
	}
}

// A mailbox that is there and not listed is neither filled twice nor called missing.
func TestUnlistedMailbox(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	hide := unlisted("Junk")
	var hidden atomic.Bool
	s.to.Answer = func(c *testserver.IMAPConn, cmd string) bool { return hidden.Load() && hide(s.to, c, cmd) }
	if _, err := s.pass(); err != nil {
		t.Fatal(err)
	}
	hidden.Store(true)
	for _, lost := range []bool{false, true} { // the ledger
		if lost {
			s.dir = t.TempDir()
		}
		res, err := s.pass()
		lacks, doubles := s.lacking()
		if err != nil || len(lacks)+len(doubles) > 0 {
			t.Errorf("ledger lost %v: %v, lacking %v, twice %v, %+v", lost, err, lacks, doubles, res)
		}
	}
	missing, err := s.verify()
	if err != nil || missing > 0 {
		t.Errorf("verify: %d missing, %v", missing, err)
	}
	if !slices.ContainsFunc(s.to.Sent(), func(cmd string) bool { return strings.HasPrefix(cmd, "EXAMINE") && strings.Contains(cmd, "Junk") }) {
		t.Error("the mailbox was not opened")
	}
	s.to.Change("Junk", func(m *testserver.IMAPMessage) bool { return m.UID > 2 })
	if missing, err := s.verify(); err != nil || missing != 2 {
		t.Errorf("verify: %d missing of 2, %v", missing, err)
	}
}
