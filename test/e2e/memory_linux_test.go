package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
)

// memoryPromise is the most resident memory a backup may ever have, in KiB.
const memoryPromise = 48 << 10

// Memory does not grow with the mailbox or the message: thousands of messages and
// several of 30 MB, in both formats.
func TestMemory(t *testing.T) {
	s := server(t)
	huge := dovecot.Message{Octets: corpus.Huge().Octets}
	load(t, s, "memory", "INBOX", ordinary(2000, 0)...)
	load(t, s, "memory", "INBOX", huge, huge, huge)
	load(t, s, "memory", "INBOX", ordinary(500, 2000)...)
	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, format := range formats {
			h := newHost(t, s)
			bin, err := plain()
			if err != nil {
				t.Fatal(err)
			}
			h.bin = bin
			archive := filepath.Join(h.home, "archive")
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			cmd := h.command(ctx, "backup", "--json", place(scheme, s, "memory"), archive, "--format", format)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			begin := time.Now()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			peak := make(chan int)
			go func() { peak <- watchMemory(cmd.Process.Pid) }()
			if r := h.wait(cmd, &stdout, &stderr, begin); r.code != 0 || h.summary(r).Archived != 2503 {
				t.Fatal(r)
			}
			if kib := <-peak; kib == 0 || kib > memoryPromise {
				t.Errorf("%s %s: %d KiB at most, promised are %d", scheme, format, kib, memoryPromise)
			}
		}
	}
}

// watchMemory returns the largest VmHWM seen, in KiB, until the process is gone.
func watchMemory(pid int) int {
	most := 0
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, rest, ok := strings.Cut(string(b), "VmHWM:")
		if err != nil || !ok { // a process that ended has no memory
			return most
		}
		fields := strings.Fields(rest)
		if kib, err := strconv.Atoi(fields[0]); err == nil {
			most = max(most, kib)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
