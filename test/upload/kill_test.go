package upload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/archive/maildir"
	"mailhaul/fetch"
	fetchimap "mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/durable"
	"mailhaul/internal/relay"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/upload"
	"mailhaul/upload/imap"
)

const orderEnv = "MAILHAUL_UPLOAD_ORDER"

// order is what a child process is to do, and at which of its steps it is to kill
// itself: a step is a line on the wire, in either direction, or one of the ledger.
type order struct {
	Work work
	Step int
}

// work is one upload: an archive, and where it goes.
type work struct {
	Dir, User string
	Port      int

	trace io.Writer
	hook  func(string)
}

func openVault(dir string, hook func(string)) (*vault.Vault, error) {
	return vault.Open(context.Background(), filepath.Join(dir, "archive"), vault.Options{
		Create: true, Hook: hook, Format: "maildir", StateDir: filepath.Join(dir, "state"),
		Formats: map[string]vault.Constructor{"maildir": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
			return maildir.New(fsys, a, maildir.Options{Host: "host"})
		}},
	})
}

func (w work) server() dial.Server {
	s := dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: w.Port, Security: dial.Cleartext, Timeout: 5 * time.Second}
	if w.trace != nil {
		s.Trace = &dial.Trace{W: w.trace}
	}
	return s
}

func (w work) run() (c upload.Counts, err error) {
	v, err := openVault(w.Dir, w.hook)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	d := imap.New(imap.Config{Server: w.server(), Credentials: auth.Credentials{User: w.User, Password: dovecot.Password}, Connections: 1})
	defer func() { err = errors.Join(err, d.Close()) }()
	res, err := upload.Run(context.Background(), upload.Options{
		Destination: d, Messages: upload.FromArchive(v.Ledger, v.Archive), Ledger: v.Ledger, Pause: time.Millisecond,
		Subscribe: true, SendRepaired: true,
	})
	return res.Counts, err
}

// steps kills the process at one of them.
type steps struct {
	mu    sync.Mutex
	n, at int
}

func (s *steps) step(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n++; s.n != s.at {
		return
	}
	fmt.Println(what)
	self, _ := os.FindProcess(os.Getpid())
	_ = self.Kill()
	select {}
}

// Write takes the lines of a trace.
func (s *steps) Write(b []byte) (int, error) {
	s.step(strings.TrimSpace(string(b)))
	return len(b), nil
}

func child(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	s := &steps{at: o.Step}
	o.Work.trace, o.Work.hook = s, s.step
	if _, err := o.Work.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(s.n)
	return 0
}

// kill runs a child. It tells where it was killed; if it ended before its step,
// killed is false and where is the number of its steps.
func kill(t *testing.T, w work, at int) (where string, killed bool) {
	t.Helper()
	text, err := json.Marshal(order{w, at})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	switch code := cmd.ProcessState.ExitCode(); {
	case ctx.Err() != nil:
		t.Fatalf("step %d: no end", at)
	case code > 0:
		t.Fatalf("step %d: exit %d (%v): %s", at, code, err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), cmd.ProcessState.ExitCode() != 0
}

// all tells whether every step is to be tried.
func all() bool { return os.Getenv("MAILHAUL_CRASH") == "all" }

// sample returns which of n steps to try, at most so many.
func sample(n, most int) (list []int) {
	stride := 1
	if !all() {
		stride = max(1, n/most)
	}
	for i := n; i >= 1; i -= stride {
		list = append(list, i)
	}
	return list
}

// source is an account with what is awkward to send once: two equal mails, two with
// one Message-ID, one that is refused and repaired.
func source(t *testing.T, s *dovecot.Server) {
	t.Helper()
	all := letters(6)
	twin := all[4]
	twin.Octets = []byte(strings.Replace(string(twin.Octets), "body", "BODY", 1))
	all = append(all, all[3], twin, dovecot.Message{Date: all[0].Date, Flags: []string{`\Flagged`, "custom"}, Octets: []byte(strings.Repeat("line of a long one\r\n", 3000))})
	must(t, s.Append("source", "INBOX", all...))
	must(t, s.Append("source", "Archive/2022", letters(3)...))
}

// template is an archive of that account; copy it for each run.
func template(t *testing.T, s *dovecot.Server) string {
	t.Helper()
	dir := memoryDir(t)
	v, err := openVault(dir, nil)
	must(t, err)
	w := work{Port: s.IMAP}
	src := fetchimap.New(fetchimap.Config{Server: w.server(), Credentials: auth.Credentials{User: "source", Password: dovecot.Password}})
	_, err = fetch.Run(t.Context(), fetch.Options{Source: src, Archive: v.Archive, Ledger: v.Ledger})
	must(t, errors.Join(err, src.Close(), v.Close()))
	return dir
}

// memoryDir is a directory that needs no disk, if there is one.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "mailhaul-upload-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func fresh(t *testing.T, from string, s *dovecot.Server, user string) work {
	t.Helper()
	dir := memoryDir(t)
	must(t, os.RemoveAll(dir))
	must(t, os.CopyFS(dir, os.DirFS(from)))
	// Partly filled by hand.
	must(t, s.Append(user, "INBOX", letters(2)...))
	return work{Dir: dir, User: user, Port: s.IMAP}
}

// complete runs on and wants every message once.
func (w work) complete(t *testing.T, s *dovecot.Server, when string) {
	t.Helper()
	var err error
	for range 3 {
		if _, err = w.run(); err == nil {
			break
		}
		if mail.KindOf(err) != mail.KindTemporary {
			t.Fatalf("%s: %v", when, err)
		}
	}
	must(t, err)
	for _, mailbox := range []string{"INBOX", "Archive/2022"} {
		want := copies(t, s, "source", mailbox)
		if got := copies(t, s, w.User, mailbox); !slices.Equal(got, want) {
			t.Fatalf("%s: %s holds %d messages, want %d:\n%s\n%s", when, mailbox, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if c, err := w.run(); err != nil || c.Uploaded+c.Adopted+c.Failed != 0 {
		t.Fatalf("%s: a further run: %+v %v", when, c, err)
	}
	must(t, os.RemoveAll(w.Dir))
}

// servers are destinations of different manners.
var servers = map[string]dovecot.Options{
	"MULTIAPPEND":     {},
	"one by one":      {Extra: "protocol imap {\n  imap_capability = IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE LITERAL+ UIDPLUS NAMESPACE UNSELECT\n}\n"},
	"without UIDPLUS": {Extra: "protocol imap {\n  imap_capability = IMAP4rev1 LITERAL+ NAMESPACE\n}\n"},
	"in lockstep":     {Extra: "protocol imap {\n  imap_capability = IMAP4rev1 UIDPLUS\n}\n"},
}

// The process is killed (SIGKILL) at each line on the wire and each step of the
// ledger.
func TestKilledAtEveryStep(t *testing.T) {
	for name, o := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot.Start(t, o)
			source(t, s)
			from := template(t, s)
			count, _ := kill(t, fresh(t, from, s, "u0"), 0)
			total, err := strconv.Atoi(count)
			must(t, err)
			tried := 0
			for _, n := range sample(total, 5) {
				w := fresh(t, from, s, fmt.Sprint("u", n))
				where, killed := kill(t, w, n)
				if killed {
					tried++
				}
				w.complete(t, s, fmt.Sprintf("killed at step %d (%s)", n, where))
			}
			if tried == 0 {
				t.Error("no run was killed")
			}
			t.Logf("%d kills in %d steps", tried, total)
		})
	}
}

// The connection is cut after so many octets, up and down.
func TestCutAnywhere(t *testing.T) {
	for name, o := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot.Start(t, o)
			source(t, s)
			from := template(t, s)
			measure := func(user string, o relay.Options) (up, down int64) {
				r, err := relay.Start(s.Addr(s.IMAP), o)
				must(t, err)
				defer r.Close()
				w := fresh(t, from, s, user)
				w.Port = r.Port()
				if _, err := w.run(); err != nil && mail.KindOf(err) != mail.KindTemporary {
					t.Errorf("%+v: %v", o, err)
				}
				up, down = r.Octets()
				w.Port = s.IMAP
				w.complete(t, s, fmt.Sprintf("%+v", o))
				return up, down
			}
			up, down := measure("whole", relay.Options{})
			tried := 0
			for _, at := range sample(int(up), 2) {
				tried++
				measure(fmt.Sprint("up", at), relay.Options{CutUp: int64(at), Broken: int64(1 + at%3), Reset: at%2 == 0})
			}
			for _, at := range sample(int(down), 3) {
				tried++
				measure(fmt.Sprint("down", at), relay.Options{CutDown: int64(at), Broken: int64(1 + at%3), Reset: at%2 == 0})
			}
			t.Logf("%d cuts in %d octets up and %d down", tried, up, down)
		})
	}
}
