package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/archive/maildir"
	"mailhaul/archive/mbox"
	"mailhaul/internal/durable"
	"mailhaul/internal/vault"
)

// Drivers makes archives of each of Formats.
var Drivers = map[string]vault.Constructor{
	"maildir": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
		return maildir.New(fsys, a, maildir.Options{Host: "host"})
	},
	"mbox": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
		return mbox.New(fsys, a, mbox.Options{})
	},
}

// All tells whether every step is to be tried, and not a share of them.
func All() bool { return os.Getenv("MAILHAUL_CRASH") == "all" }

// Stride is how far the steps lie apart that are tried: 1 for all of them. It is
// odd if few is, so that what comes in pairs is met on either side.
func Stride(few int) int {
	switch {
	case All():
		return 1
	case testing.Short():
		return 4*few + 1
	}
	return few
}

// MemoryDir is a directory that needs no disk, if there is one: for tests that kill
// processes, but not the machine.
func MemoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "mailhaul-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// orderEnv is the variable that makes a test program a child with an order.
const orderEnv = "MAILHAUL_TEST_ORDER"

// Child runs the program of the test once more, for Obey. It returns what the child
// wrote to stdout, and whether it was killed and not at its end.
func Child(t testing.TB, order any) (stdout string, killed bool) {
	t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), orderEnv+"="+string(text))
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err = cmd.Run()
	_, exited := errors.AsType[*exec.ExitError](err)
	switch code := cmd.ProcessState.ExitCode(); {
	case ctx.Err() != nil || err != nil && !exited:
		t.Fatalf("%s: no end: %v", text, err)
	case code > 0:
		t.Fatalf("%s: exit %d: %s", text, code, stderr.String())
	}
	return out.String(), err != nil
}

// Obey does in a child what it was ordered to and ends the process; elsewhere it
// returns. It belongs at the beginning of TestMain.
func Obey[O any](do func(O) error) {
	text := os.Getenv(orderEnv)
	if text == "" {
		return
	}
	var o O
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		err = do(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Steps kills its process (SIGKILL) at one of the steps that it is told of, which it
// writes to stdout before.
type Steps struct {
	At int // from 1; 0 for none

	mu sync.Mutex
	n  int
}

// Step is one step.
func (s *Steps) Step(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n++; s.n != s.At {
		return
	}
	fmt.Println(what)
	self, _ := os.FindProcess(os.Getpid())
	_ = self.Kill()
	select {}
}

// Write takes the lines of a trace: each is a step.
func (s *Steps) Write(b []byte) (int, error) {
	s.Step(strings.TrimSpace(string(b)))
	return len(b), nil
}

// Count is how many steps there were.
func (s *Steps) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}
