//go:build unix

package hostile

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

// What a person writes down is never read as a command by a server.
func TestOurInputs(t *testing.T) {
	t.Parallel()
	for _, caps := range []string{capable, "IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS LITERAL+"} {
		s := &testserver.IMAP{Capabilities: caps, Boxes: map[string][]testserver.IMAPMessage{}}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		h := newHouse(t)
		h.user.Password = `"pass\word` + "\u00e9"
		odd := fmt.Sprintf(`imap+insecure://a%%22b\c%%20d@127.0.0.1:%d`, s.Port())
		if r := h.run("backup", odd, h.archive()); r.code != 0 {
			t.Errorf("%s: %v", caps, r)
		}
		place := imapPlace("imap+insecure", s)
		for _, glob := range []string{"INBOX\r\nA1 DELETE INBOX", "a\x00b", `x" (MESSAGES)`} {
			if !strings.Contains(glob, "\x00") { // no argument of a process holds one
				if r := h.run("backup", place, h.archive()+"/../source", "--mailbox", glob); r.code != 64 {
					t.Errorf("--mailbox %q: %v", glob, r)
				}
			}
		}
		// Names that come from mail and from the map go to a server, too.
		from := imap(letters(1), nil)(t)
		if r := h.run("backup", from.place, h.archive(), "--merge"); r.code != 0 {
			t.Error(r)
		}
		for _, name := range []string{"x\r\nA1 DELETE INBOX", `q"uo\te {5}`, "a\nb"} {
			r := h.run("upload", h.archive(), strings.Replace(place, user+"@", "grace@", 1), "--map", "INBOX="+name)
			if r.code != 0 && r.code != 3 && r.code != 64 {
				t.Errorf("--map INBOX=%q: %v", name, r)
			}
		}
		for _, cmd := range s.Sent() {
			verb, _, _ := strings.Cut(strings.ToUpper(cmd), " ")
			known := []string{"LOGIN", "AUTHENTICATE", "CAPABILITY", "LIST", "STATUS", "EXAMINE", "SELECT", "UID", "APPEND", "CREATE", "LOGOUT", "NAMESPACE", "UNSELECT", "NOOP", "ID"}
			if !slices.Contains(known, verb) {
				t.Errorf("%s: sent %q", caps, cmd)
			}
		}
		s.Close()
	}
}

// A line that repeats a piece brings nothing into the archive that the server did
// not send; TLS notices.
func TestRepeatedSegment(t *testing.T) {
	t.Parallel()
	cfg, err := authority.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	msgs := letters(50)
	o := testserver.POP3Options{User: user, Password: password, TLS: cfg, Implicit: true}
	for _, m := range msgs {
		o.Messages = append(o.Messages, testserver.POP3Message{Octets: []byte(m)})
	}
	s, err := testserver.NewPOP3(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := newHouse(t)
	place := func(port int) string { return fmt.Sprintf("pop3s://%s@127.0.0.1:%d", user, port) }
	for _, at := range []int{1000, 2500, 4000, 6000, 9000} {
		port := repeater(t, s.Addr(), at)
		if r := h.run("backup", place(port), h.archive(), "--max-time", "3s", "--timeout", "1s"); r.code == 0 {
			t.Errorf("a piece behind octet %d came twice: %v", at, r)
		}
		genuine(t, h.held(), msgs)
	}
	if r := h.run("backup", place(s.Port()), h.archive()); r.code != 0 || h.held().Size() != len(msgs) {
		t.Errorf("%d messages: %v", h.held().Size(), r)
	}
}

// repeater passes connections on and sends a piece behind so many octets twice.
func repeater(t *testing.T, target string, at int) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", target)
			if err != nil {
				c.Close()
				return
			}
			wg.Go(func() { _, _ = io.Copy(s, c); s.Close() })
			wg.Go(func() {
				defer c.Close()
				defer s.Close()
				if _, err := io.CopyN(c, s, int64(at)); err != nil {
					return
				}
				piece := make([]byte, 200)
				n, _ := io.ReadAtLeast(s, piece, 1)
				_, _ = c.Write(slices.Concat(piece[:n], piece[:n]))
				_, _ = io.Copy(c, s)
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// A connection that ends without TLS's own farewell, inside a body or between
// answers, is a connection that broke off.
func TestNoFarewell(t *testing.T) {
	t.Parallel()
	cfg, err := authority.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := testserver.NewPOP3(testserver.POP3Options{User: user, Password: password, TLS: cfg, Implicit: true,
		Messages: []testserver.POP3Message{{Octets: []byte(letter(1))}, {Octets: []byte(letter(2))}},
		Faults: testserver.POP3Faults{Answer: func(c net.Conn, session int, cmd string) bool {
			raw, ok := c.(interface{ NetConn() net.Conn })
			if !ok || cmd != "RETR 2" || session > 0 {
				return false
			}
			write(c, "+OK\r\n"+letter(2))
			raw.NetConn().Close() // FIN, and no close_notify
			return true
		}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := newHouse(t)
	if r := h.run("backup", fmt.Sprintf("pop3s://%s@127.0.0.1:%d", user, s.Port()), h.archive()); r.code != 0 || h.held().Size() != 2 {
		t.Errorf("%d messages: %v", h.held().Size(), r)
	}
	genuine(t, h.held(), letters(2))
}

// The program needs no terminal, no input, no home, no locale, and nobody who
// reads what it says.
func TestStreams(t *testing.T) {
	t.Parallel()
	srv := imap(letters(3), nil)(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		full = nil // not on this system
	} else {
		defer full.Close()
	}
	for name, change := range map[string]func(cmd *exec.Cmd){
		"as usual":                   func(*exec.Cmd) {},
		"nothing in the environment": func(cmd *exec.Cmd) { cmd.Env = []string{"MAILHAUL_PASSWORD=" + password} },
		"closed output": func(cmd *exec.Cmd) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			t.Cleanup(func() { w.Close() })
			cmd.Stdout, cmd.Stderr = w, w
		},
		"no descriptors at all": func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"/bin/sh", "-c", `exec "$@" <&- >&- 2>&-`, "sh"}, cmd.Args...)
			cmd.Path = "/bin/sh"
		},
		"full disk for the log": func(cmd *exec.Cmd) {
			if full != nil {
				cmd.Stdout, cmd.Stderr = full, full
			}
		},
	} {
		h := newHouse(t)
		ctx, cancel := context.WithTimeout(context.Background(), hangs)
		cmd := h.user.Command(ctx, "backup", srv.place, h.archive(), "-v")
		change(cmd)
		err := cmd.Run()
		cancel()
		if err != nil && !strings.Contains(name, "output") && !strings.Contains(name, "log") && !strings.Contains(name, "descriptors") {
			t.Errorf("%s: %v", name, err)
		}
		if n := h.held().Size(); n != 3 {
			t.Errorf("%s: %d messages archived (%v)", name, n, err)
		}
	}
}

// A run that is stopped for longer than its timeout ends when it goes on, and the
// next one completes.
func TestStopped(t *testing.T) {
	t.Parallel()
	msgs := letters(40)
	begun := make(chan struct{}, 1)
	srv := imap(msgs, before("UID FETCH", ""))(t)
	slowly := imap(msgs, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
		if strings.Contains(cmd, "BODY.PEEK[]") {
			select {
			case begun <- struct{}{}:
			default:
			}
			time.Sleep(100 * time.Millisecond)
		}
		return false
	}))(t)
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	cmd := h.user.Command(ctx, "backup", slowly.place, h.archive(), "--timeout", "1s")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-begun
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code tells
	if code := cmd.ProcessState.ExitCode(); code != 0 && code != 75 {
		t.Errorf("exit %d: %s", code, out.String())
	}
	genuine(t, h.held(), msgs)
	if r := h.run("backup", srv.place, h.archive()); r.code != 0 || h.held().Size() != len(msgs) {
		t.Errorf("%d messages: %v", h.held().Size(), r)
	}
}

// Twenty accounts at once, five of them broken in different ways: the others are
// done, each broken one is named, the worst is the exit code, and the one that
// hangs does not hold up the others.
func TestManyAccounts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	var config strings.Builder
	fmt.Fprintf(&config, "accounts-at-once = 20\n")
	add := func(name, place string) {
		fmt.Fprintf(&config, "[account.%s]\nserver = %q\npassword-file = \"secret\"\narchive = %q\nmax-time = \"5s\"\n", name, place, filepath.Join(h.user.Home, "archive", name))
	}
	for i := range 15 {
		add(fmt.Sprint("good", i), imap(letters(i+1), nil)(t).place)
	}
	add("refused", imap(nil, reply("AUTHENTICATE", "", "NO [AUTHENTICATIONFAILED] wrong"))(t).place)
	add("hangs", scripted("imap+insecure", testserver.Hold())(t).place)
	add("garbage", scripted("imap+insecure", testserver.Send("hello\r\n"), testserver.Hold())(t).place)
	add("gone", "imap+insecure://ada@127.0.0.1:1")
	add("partial", imap(letters(3), second("", false))(t).place)
	state := filepath.Join(h.user.Home, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.archive(), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(state, "config.toml")
	for name, octets := range map[string]string{file: config.String(), filepath.Join(state, "secret"): password + "\n"} {
		if err := os.WriteFile(name, []byte(octets), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.user.Password = ""
	r := h.run("backup", "--all", "--config", file, "--timeout", "3s")
	if r.code != 77 {
		t.Errorf("want the worst, 77: %v", r)
	}
	for _, name := range []string{"refused", "hangs", "garbage", "gone", "partial"} {
		if !strings.Contains(r.stderr+r.stdout, name) {
			t.Errorf("%s is not named: %v", name, r)
		}
	}
	for i := range 15 {
		m, err := rig.Held("maildir", filepath.Join(h.archive(), fmt.Sprint("good", i)))
		if err != nil || m.Size() != i+1 {
			t.Errorf("account %d: %d messages, %v", i, m.Size(), err)
		}
	}
}
