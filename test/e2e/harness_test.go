package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
)

// shared is the server most tests use, each with users of its own. When the tests run
// again (-count), they get a new one.
var shared struct {
	mu     sync.Mutex
	server *dovecot.Server
	tests  map[string]bool // that use it
}

var (
	buildDir string
	plain    = sync.OnceValues(func() (string, error) { return build("mailhaul") })
	raced    = sync.OnceValues(func() (string, error) { return build("mailhaul-race", "-race") })
)

func TestMain(m *testing.M) {
	code := func() int {
		dir, err := os.MkdirTemp("", "mailhaul-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		buildDir = dir
		code := m.Run()
		if s := shared.server; s != nil && code != 0 {
			fmt.Fprintf(os.Stderr, "dovecot log, last lines:\n%s", tail(s.Log(), 40))
		}
		if err := stopShared(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		return code
	}()
	os.Exit(code)
}

func tail(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

func build(name string, flags ...string) (string, error) {
	bin := filepath.Join(buildDir, name)
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	cmd := exec.Command("go", append(append([]string{"build"}, flags...), "-o", bin, "mailhaul/cmd/mailhaul")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
}

func stopShared() error {
	s := shared.server
	shared.server = nil
	if s == nil {
		return nil
	}
	s.Stop()
	return os.RemoveAll(s.Dir)
}

// server returns the shared server, or skips as dovecot.Start does. A test asks once.
func server(t *testing.T) *dovecot.Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.tests[t.Name()] {
		if err := stopShared(); err != nil {
			t.Fatal(err)
		}
	}
	if shared.server == nil {
		s, err := dovecot.Run("", dovecot.Options{})
		switch {
		case errors.Is(err, dovecot.ErrMissing) && os.Getenv(dovecot.RequireEnv) != "1":
			t.Skip(err)
		case err != nil:
			t.Fatal(err)
		}
		shared.server, shared.tests = s, make(map[string]bool)
	}
	shared.tests[t.Name()] = true
	return shared.server
}

// missing skips for want of a program, or fails where nothing may be skipped.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv(dovecot.RequireEnv) == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// host is one user's computer: a home, a state directory, a password.
type host struct {
	t        *testing.T
	home     string
	password string
	bin      string
	caFile   string
}

func newHost(t *testing.T, s *dovecot.Server) *host {
	t.Helper()
	bin, err := raced()
	if errors.Is(err, exec.ErrNotFound) || err != nil && strings.Contains(err.Error(), "-race") {
		bin, err = plain() // no C compiler here
	}
	if err != nil {
		t.Fatal(err)
	}
	return &host{t: t, home: t.TempDir(), password: dovecot.Password, bin: bin, caFile: s.CAFile}
}

// result is how a run ended.
type result struct {
	args           []string
	code           int
	stdout, stderr string
	took           time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("mailhaul %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// command prepares a run: no terminal, no input, nothing of the caller's
// environment that a configuration could come from.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	if h.caFile != "" {
		args = append(args, "--ca-file", h.caFile)
	}
	cmd := exec.CommandContext(ctx, h.bin, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + h.home, "TMPDIR=" + os.TempDir(),
		"XDG_CONFIG_HOME=" + filepath.Join(h.home, "config"),
		"XDG_STATE_HOME=" + filepath.Join(h.home, "state"),
		"XDG_CACHE_HOME=" + filepath.Join(h.home, "cache"),
		"GORACE=halt_on_error=1 exitcode=66",
	}
	if h.password != "" {
		cmd.Env = append(cmd.Env, "MAILHAUL_PASSWORD="+h.password)
	}
	cmd.Dir = h.home
	return cmd
}

// run runs mailhaul to its end. A run longer than two minutes fails the test.
func (h *host) run(args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return h.finish(h.command(ctx, args...))
}

func (h *host) finish(cmd *exec.Cmd) result {
	h.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return h.wait(cmd, &stdout, &stderr, begin)
}

func (h *host) wait(cmd *exec.Cmd, stdout, stderr *bytes.Buffer, begin time.Time) result {
	h.t.Helper()
	err := cmd.Wait()
	r := result{args: cmd.Args[1:], code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), took: time.Since(begin)}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		h.t.Fatalf("%v\n%v", err, r)
	}
	if strings.Contains(r.stderr, "DATA RACE") || strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "goroutine ") {
		h.t.Fatal(r)
	}
	if h.password != "" && (strings.Contains(r.stdout, h.password) || strings.Contains(r.stderr, h.password)) {
		h.t.Errorf("the password is in the output of %v", r)
	}
	return r
}

// must runs and wants an exit code.
func (h *host) must(code int, args ...string) result {
	h.t.Helper()
	r := h.run(args...)
	if r.code != code {
		h.t.Fatalf("want exit %d: %v", code, r)
	}
	return r
}

// summary is the last line of --json.
type summary struct {
	Type, Command, Source, Archive                                                string
	Listed, Archived, Adopted, Deleted, Skipped, Failed, Suspicious, Octets, Exit int64
	Seconds                                                                       float64
}

// backup runs backup with --json, and checks that its numbers add up and agree
// with the exit code.
func (h *host) backup(source, archive string, more ...string) (summary, result) {
	h.t.Helper()
	r := h.run(append([]string{"backup", "--json", source, archive}, more...)...)
	return h.summary(r), r
}

func (h *host) summary(r result) summary {
	h.t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var s summary
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil || s.Type != "summary" {
		h.t.Fatalf("no summary (%v): %v", err, r)
	}
	if s.Exit != int64(r.code) {
		h.t.Errorf("the summary says exit %d: %v", s.Exit, r)
	}
	if r.code == 0 && (s.Failed > 0 || s.Suspicious > 0) {
		h.t.Errorf("exit 0 with failures: %v", r)
	}
	if r.code == 0 || r.code == 3 {
		if s.Listed != s.Archived+s.Adopted+s.Skipped+s.Failed {
			h.t.Errorf("the sum does not add up: %v", r)
		}
	}
	return s
}

// complete is backup for a run in which nothing may fail.
func (h *host) complete(source, archive string, more ...string) summary {
	h.t.Helper()
	s, r := h.backup(source, archive, more...)
	if r.code != 0 {
		h.t.Fatalf("want exit 0: %v", r)
	}
	return s
}

// place writes a server for the command line.
func place(scheme string, s *dovecot.Server, user string) string {
	port := map[string]int{"imaps": s.IMAPS, "imap": s.IMAP, "pop3s": s.POP3S, "pop3": s.POP3}[scheme]
	return at(scheme, user, s.Host, port)
}

func at(scheme, user, host string, port int) string {
	return fmt.Sprintf("%s://%s@%s:%d", scheme, user, host, port)
}
