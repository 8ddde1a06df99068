package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"mailhaul/internal/corpus"
	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

const password = "correct horse"

var bin string

func TestMain(m *testing.M) {
	code := func() int {
		dir, err := os.MkdirTemp("", "mailhaul-disk")
		if err == nil {
			defer os.RemoveAll(dir)
			bin, err = rig.Build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}()
	os.Exit(code)
}

// need skips without a program, or fails where nothing may be skipped.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	skip(t, "%s is not installed", program)
}

// skip skips what this machine cannot do, or fails where nothing may be skipped.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("MAILHAUL_TEST_REQUIRE") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
}

// command runs a tool of the system.
func command(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// account is mail at a POP3 server, and somebody whose mail it is.
type account struct {
	t      *testing.T
	user   rig.User
	server *testserver.POP3
	port   int
	want   rig.Multiset
}

// newAccount puts n messages, some of them awkward, one long, at a server.
func newAccount(t *testing.T, n int) *account {
	t.Helper()
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	a := &account{t: t, user: rig.User{Bin: bin, Home: t.TempDir(), Password: password}, want: rig.Multiset{}}
	if a.user.CAFile, err = ca.WriteFile(a.user.Home); err != nil {
		t.Fatal(err)
	}
	o := testserver.POP3Options{User: "ada", Password: password, Implicit: true}
	if o.TLS, err = ca.TLS(testserver.Leaf{}); err != nil {
		t.Fatal(err)
	}
	hazards := corpus.Hazards()
	for i := range n {
		octets := corpus.Generate(corpus.Small, i).Octets
		if i%8 == 3 {
			octets = hazards[i%len(hazards)].Octets
		}
		if i == n/2 {
			octets = []byte("Subject: long\r\n\r\n" + strings.Repeat("From here\r\n"+strings.Repeat("0123456789", 99)+"\r\n", 1100))
		}
		o.Messages = append(o.Messages, testserver.POP3Message{Octets: octets, UIDL: fmt.Sprint("uidl-", i)})
		a.want[rig.Message{Mailbox: "INBOX", Digest: rig.Digest(rig.Canonical(octets))}]++
	}
	if a.server, err = testserver.NewPOP3(o); err != nil {
		t.Fatal(err)
	}
	a.port = a.server.Port()
	t.Cleanup(func() {
		if err := a.server.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *account) place(port int) string { return fmt.Sprintf("pop3s://ada@127.0.0.1:%d", port) }

// result is how a run ended.
type result struct {
	code int
	text string // all it printed
}

// ran judges the end of a command: no crash of the program, no secret.
func (a *account) ran(cmd *exec.Cmd, out *bytes.Buffer, err error) result {
	a.t.Helper()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		a.t.Fatal(err)
	}
	r := result{cmd.ProcessState.ExitCode(), out.String()}
	if strings.Contains(r.text, "panic:") || strings.Contains(r.text, "goroutine ") || strings.Contains(r.text, password) {
		a.t.Fatalf("exit %d: %s", r.code, r.text)
	}
	return r
}

// limited is as long as a run may take.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// wrapped runs mailhaul under other programs: wrap is the beginning of the command.
func (a *account) wrapped(wrap []string, args ...string) result {
	a.t.Helper()
	cmd := a.user.Command(limited(a.t), args...)
	if len(wrap) > 0 {
		path, err := exec.LookPath(wrap[0])
		if err != nil {
			a.t.Fatal(err)
		}
		cmd.Path, cmd.Args = path, append(append([]string(nil), wrap...), cmd.Args...)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	return a.ran(cmd, &out, cmd.Run())
}

func (a *account) backup(archive, format string) result {
	a.t.Helper()
	return a.wrapped(nil, "backup", a.place(a.port), archive, "--format", format)
}

// completes runs a backup in which nothing goes wrong any more: every message is
// there exactly once, verify agrees, and one more run changes nothing.
func (a *account) completes(archive, format, when string) {
	a.t.Helper()
	if r := a.backup(archive, format); r.code != 0 && !(r.code == 3 && strings.Contains(r.text, "0 failed")) {
		a.t.Errorf("%s: the next run: exit %d: %s", when, r.code, r.text)
		return
	}
	a.exactlyOnce(archive, format, when)
	before, err := rig.Tree(archive)
	if err != nil {
		a.t.Fatal(err)
	}
	if r := a.backup(archive, format); r.code != 0 {
		a.t.Errorf("%s: once more: exit %d: %s", when, r.code, r.text)
	}
	after, err := rig.Tree(archive)
	if d := gocmp.Diff(before, after); d != "" || err != nil {
		a.t.Errorf("%s: once more: %v %s", when, err, d)
	}
}

// exactlyOnce checks that each message is archived exactly once, and that verify
// agrees.
func (a *account) exactlyOnce(archive, format, when string) {
	a.t.Helper()
	got, err := rig.Held(format, archive)
	if err != nil {
		a.t.Errorf("%s: %v", when, err)
	}
	if d := gocmp.Diff(a.want, got.Plain()); d != "" {
		a.t.Errorf("%s: %s", when, d)
	}
	if r := a.wrapped(nil, "verify", archive); r.code != 0 {
		a.t.Errorf("%s: verify: exit %d: %s", when, r.code, r.text)
	}
}

// recorded returns how many messages are on record, all of which verify.
func (a *account) recorded(archive, when string) int {
	a.t.Helper()
	r := a.wrapped(nil, "verify", "--json", archive)
	if r.code != 0 {
		a.t.Errorf("%s: verify: exit %d: %s", when, r.code, r.text)
	}
	lines := strings.Split(strings.TrimSpace(r.text), "\n")
	var s struct{ Messages, Verified, Listed int }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil {
		a.t.Fatalf("%v in %s", err, r.text)
	}
	return max(s.Messages, s.Verified, s.Listed)
}

// gate passes a connection on, and holds it after so many octets from the server
// until it is opened.
type gate struct {
	l      net.Listener
	after  int64
	held   chan struct{} // closed when it holds
	opened chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

func newGate(t *testing.T, target int, after int64) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{l: l, after: after, held: make(chan struct{}), opened: make(chan struct{})}
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.serve(c, target) })
		}
	})
	t.Cleanup(func() {
		g.open()
		_ = l.Close()
		g.wg.Wait()
	})
	return g
}

func (g *gate) port() int { return g.l.Addr().(*net.TCPAddr).Port }

var opening sync.Mutex

func (g *gate) open() {
	opening.Lock()
	defer opening.Unlock()
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

func (g *gate) serve(client net.Conn, target int) {
	defer client.Close()
	server, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", target))
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { pass(server, client, func(int64) {}) })
	pass(client, server, func(passed int64) {
		if passed >= g.after {
			g.once.Do(func() { close(g.held) })
			<-g.opened
		}
	})
	_, _ = client.Close(), server.Close()
	wg.Wait()
}

// pass copies until either side ends; before each chunk it asks.
func pass(to, from net.Conn, ask func(passed int64)) {
	buf := make([]byte, 8<<10)
	for passed := int64(0); ; {
		n, err := from.Read(buf)
		ask(passed)
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				break
			}
			passed += int64(n)
		}
		if err != nil {
			break
		}
	}
	if c, ok := to.(*net.TCPConn); ok {
		_ = c.CloseWrite()
	}
}

// during starts a backup, does something while it is held after so many octets, and
// lets it go on to its end.
func (a *account) during(archive, format string, after int64, something func()) result {
	a.t.Helper()
	g := newGate(a.t, a.port, after)
	cmd := a.user.Command(limited(a.t), "backup", a.place(g.port()), archive, "--format", format, "--max-time", "20s")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	select {
	case <-g.held:
	case <-limited(a.t).Done():
		a.t.Fatal("nothing came")
	}
	something()
	g.open()
	return a.ran(cmd, &out, cmd.Wait())
}

func join(parts ...string) string { return filepath.Join(parts...) }
