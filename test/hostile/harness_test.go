package hostile

import (
	"bytes"
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.uber.org/goleak"

	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

const (
	user     = "ada"
	password = "Geheim+4711/x"
	// memoryLimit is the most a run may ever have resident, in KiB.
	memoryLimit = 256 << 10
	// hangs is when a run counts as one that never ends; runs have --max-time far
	// below it where they meet what never ends.
	hangs = 2 * time.Minute
)

var (
	bin       string
	authority *testserver.CA
)

func TestMain(m *testing.M) {
	code := func() int {
		flag.Parse()
		// Cases wait for deadlines more than they work.
		if err := flag.Set("test.parallel", "24"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		dir, err := os.MkdirTemp("", "mailhaul-hostile")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if bin, err = rig.Build(dir); err == nil {
			authority, err = testserver.NewCA()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if code := m.Run(); code != 0 {
			return code
		}
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}()
	os.Exit(code)
}

// target is a server under attack's point of view: where it is, what it really has.
type target struct {
	place   string                       // as on the command line
	genuine func() []string              // octets of every message it ever had, wire form
	left    func() []string              // of those it has now
	good    func(t *testing.T) target    // the same account with the same mail at a server that behaves
	check   func(t *testing.T, runs int) // more to hold after a run; may be nil
}

// attack is one case.
type attack struct {
	name    string // begins with the number of its group
	start   func(t *testing.T) target
	args    []string // more of them, for both runs
	exit    int      // of backup
	held    int      // messages archived by it
	says    string   // on stderr
	again   int      // exit code of backup --delete afterwards
	left    int      // messages left at the server then; those that are not archived are always among them; -1: however many
	once    bool     // no run with --delete: the pauses between tries take long
	altered int      // this message, from 1, never comes as the server meant it
}

// house is a user's computer.
type house struct {
	t    *testing.T
	user rig.User

	secrets    map[string]string // more of them than the password, by what they are
	keeps      []string          // where secrets may stand, by directory in the home, in files of mode 0600
	configured bool              // there is a configuration
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, user: rig.User{Bin: bin, Home: t.TempDir(), Password: password}}
	var err error
	if h.user.CAFile, err = authority.WriteFile(h.user.Home); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) archive() string { return filepath.Join(h.user.Home, "archive") }

// result is how a run ended.
type result struct {
	args           []string
	code           int
	stdout, stderr string
	kib            int
}

func (r result) String() string {
	return fmt.Sprintf("mailhaul %s: exit %d, %d KiB\nstdout: %.2000s\nstderr: %.4000s", r.args[0], r.code, r.kib, r.stdout, r.stderr)
}

// run runs mailhaul and checks what must hold for every run.
func (h *house) run(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	cmd := h.user.Command(ctx, args...)
	return h.finish(ctx, cmd)
}

func (h *house) finish(ctx context.Context, cmd *exec.Cmd) result {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	peak := make(chan int)
	go func() { peak <- watch(cmd.Process.Pid) }()
	_ = cmd.Wait() // the exit code tells
	r := result{args: cmd.Args[1:], code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), kib: <-peak}
	if ctx.Err() != nil {
		h.t.Fatalf("it hangs: %v", r)
	}
	if r.code < 0 || strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "goroutine ") {
		h.t.Fatalf("it died: %v", r)
	}
	if r.kib > memoryLimit {
		h.t.Errorf("%d KiB of memory: %v", r.kib, r)
	}
	harmless(h.t, r)
	h.contained()
	return r
}

// harmless checks that nothing a terminal would obey and no secret is in the output.
func harmless(t *testing.T, r result) {
	t.Helper()
	all := r.stdout + r.stderr
	for _, c := range all {
		if c != '\n' && (unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == unicode.ReplacementChar) {
			t.Errorf("the output holds %q: %q", c, all)
			break
		}
	}
	for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password)), base64.StdEncoding.EncodeToString([]byte(password))} {
		if strings.Contains(all, secret) {
			t.Errorf("the output holds the password: %v", r)
		}
	}
}

// contained checks that nothing was written but the archive and the state.
func (h *house) contained() {
	h.t.Helper()
	entries, err := os.ReadDir(h.user.Home)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "archive", "state", "ca.pem", "source":
			continue
		case "config":
			if h.configured {
				continue
			}
		}
		h.t.Errorf("%s was written", e.Name())
	}
}

// held counts what is archived, by mailbox and digest; half messages and leftovers
// fail the test.
func (h *house) held() rig.Multiset {
	h.t.Helper()
	if _, err := os.Stat(h.archive()); os.IsNotExist(err) {
		return rig.Multiset{}
	}
	m, err := rig.Held("maildir", h.archive())
	if err != nil {
		h.t.Errorf("the archive: %v", err)
	}
	return m.Plain()
}

// digests counts octets by the digests of their canonical form.
func digests(wire []string) map[string]int {
	m := make(map[string]int)
	for _, w := range wire {
		m[rig.Digest(rig.Canonical([]byte(w)))]++
	}
	return m
}

// genuine checks that only what the server really had is archived, and no more
// often than it had it.
func genuine(t *testing.T, held rig.Multiset, had []string) {
	t.Helper()
	real := digests(had)
	got := make(map[string]int)
	for m, n := range held {
		got[m.Digest] += n
	}
	for d, n := range got {
		if n > real[d] {
			t.Errorf("%s is archived %d times, the server had it %d times", d, n, real[d])
		}
	}
}

// nothingLost checks that each message is archived or still at the server.
func nothingLost(t *testing.T, held rig.Multiset, had, left []string) {
	t.Helper()
	safe := digests(left)
	for m, n := range held {
		safe[m.Digest] += n
	}
	for d := range digests(had) {
		if safe[d] == 0 {
			t.Errorf("LOST: %s is neither archived nor at the server", d)
		}
	}
}

// play runs backup, and backup --delete behind it, against one server.
func (a attack) play(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	srv := a.start(t)
	args := append([]string{srv.place, h.archive(), "--timeout", "20s", "--max-time", "60s"}, a.args...)
	first := h.run(append([]string{"backup"}, args...)...)
	if first.code != a.exit {
		t.Errorf("want exit %d: %v", a.exit, first)
	}
	if first.code != 0 && !strings.Contains(first.stderr, "error:") && !strings.Contains(first.stderr, " failed") && !strings.Contains(first.stderr, "suspicious") {
		t.Errorf("it does not say what went wrong: %v", first)
	}
	if !strings.Contains(first.stderr, a.says) {
		t.Errorf("it should say %q: %v", a.says, first)
	}
	held := h.held()
	if held.Size() != a.held {
		t.Errorf("%d messages are archived, want %d: %v", held.Size(), a.held, first)
	}
	a.hold(t, srv, held, 1)

	if a.once {
		return
	}
	if a.again == 0 { // a machine that is busy must not turn it into 75
		args = append(args, "--max-time", "60s")
	}
	second := h.run(append([]string{"backup", "--delete"}, args...)...)
	if second.code != a.again {
		t.Errorf("with --delete: want exit %d: %v", a.again, second)
	}
	a.hold(t, srv, h.held(), 2)
	if srv.left != nil {
		if n := len(srv.left()); n != a.left && a.left >= 0 {
			t.Errorf("%d messages are left at the server, want %d: %v", n, a.left, second)
		}
	}
	if len(held) > 0 {
		if r := h.run("verify", h.archive()); r.code != 0 {
			t.Errorf("verify: %v", r)
		}
	}
}

func (a attack) hold(t *testing.T, srv target, held rig.Multiset, runs int) {
	t.Helper()
	if srv.genuine != nil {
		had := srv.genuine()
		if a.altered > 0 {
			had = slices.Delete(slices.Clone(had), a.altered-1, a.altered)
		} else {
			genuine(t, held, had)
		}
		nothingLost(t, held, had, srv.left())
	}
	if srv.check != nil {
		srv.check(t, runs)
	}
}

// letter is message i of a mailbox, wire form; each has a length of its own, since
// what is as long as a message that is not archived is not deleted.
func letter(i int) string {
	return fmt.Sprintf("From: ada@example.org\r\nDate: Mon, 1 Jan 2024 10:00:%02d +0000\r\nMessage-ID: <%d@example.org>\r\nSubject: letter %d\r\n\r\nbody %d%s\r\n", i%60, i, i, i, strings.Repeat(".", i%100))
}

func letters(n int) (all []string) {
	for i := range n {
		all = append(all, letter(i+1))
	}
	return all
}
