//go:build unix

package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fmt"
)

func TestTellManager(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	var out bytes.Buffer
	if code := run([]string{"version"}, nil, &out, &out); code != 0 {
		t.Fatalf("%d: %s", code, out.String())
	}
	t.Setenv("NOTIFY_SOCKET", path)
	if code := run([]string{"bakup"}, nil, &out, &out); code != exitUsage {
		t.Fatalf("%d: %s", code, out.String())
	}
	a := &app{shared: &shared{}}
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	stop := a.tellManager()
	if os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("WATCHDOG_USEC") != "" {
		t.Error("children of the program get the socket")
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	next := func() string {
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	for _, want := range []string{"READY=1\n", "STOPPING=1\nSTATUS=ended with exit code 0", "READY=1\n", "STOPPING=1\nSTATUS=ended with exit code 64", "READY=1\n", "WATCHDOG=1\nSTATUS=nothing is being"} {
		if got := next(); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	stop(0)
	for got := next(); !strings.HasPrefix(got, "STOPPING=1"); got = next() {
		if !strings.HasPrefix(got, "WATCHDOG=1") {
			t.Errorf("%q", got)
		}
	}
}

// Under the journal each line has its priority, and elsewhere none.
func TestJournal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	for _, tt := range []struct{ stream, want string }{
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino), "<3>mailhaul: error: there is no verb \"bakup\"\n<4>mailhaul: hint: did you mean mailhaul backup?\n"},
		{"1:1", "mailhaul: error: there is no verb \"bakup\"\nmailhaul: hint: did you mean mailhaul backup?\n"},
	} {
		t.Setenv("JOURNAL_STREAM", tt.stream)
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		run([]string{"bakup"}, nil, f, f)
		if b, err := os.ReadFile(name); err != nil || string(b) != tt.want {
			t.Errorf("%q, %v; want %q", b, err, tt.want)
		}
	}
}
