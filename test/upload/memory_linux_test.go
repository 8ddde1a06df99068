package upload

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/test/rig"
)

// A message of 200 MB and many small ones, in little memory.
func TestMemory(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	line := []byte(strings.Repeat("x", 75) + "\r\n")
	big := append([]byte("Subject: big\r\n\r\n"), bytes.Repeat(line, 200_000_000/len(line))...)
	must(t, s.Append("ada", "INBOX", dovecot.Message{Octets: big, Date: time.Unix(1e9, 0)}))
	digest := rig.Digest(rig.Canonical(big))
	must(t, s.Append("ada", "INBOX", letters(2000)...))
	big = nil
	h := newHost(t, s.CAFile)
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))
	peak := h.peak("upload", h.path("mail"), imaps(s, "new"))
	if peak > 48<<10 {
		t.Errorf("peak memory %d MiB", peak>>10)
	}
	t.Logf("peak memory %.1f MiB", float64(peak)/(1<<10))
	all := copies(t, s, "new", "INBOX")
	if len(all) != 2001 || !slices.ContainsFunc(all, func(c string) bool { return strings.HasPrefix(c, digest) }) {
		t.Errorf("%d messages", len(all))
	}
}

// One long message goes from server to server in little memory.
func TestMigrateMemory(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	line := strings.Repeat("x", 75) + "\r\n"
	must(t, s.Append("ada", "INBOX", dovecot.Message{Octets: []byte("Subject: big\r\n\r\n" + strings.Repeat(line, 64_000_000/len(line))), Date: time.Unix(1e9, 0)}))
	must(t, s.Append("ada", "INBOX", letters(500)...))
	must(t, s.Append("ada", "Other", letters(500)...))
	h := newHost(t, s.CAFile)
	peak := h.peak("migrate", imaps(s, "ada"), imaps(s, "new"))
	if peak > 48<<10 {
		t.Errorf("peak memory %d MiB", peak>>10)
	}
	t.Logf("peak memory %.1f MiB", float64(peak)/(1<<10))
	for _, box := range []string{"INBOX", "Other"} {
		if want, got := copies(t, s, "ada", box), copies(t, s, "new", box); !slices.Equal(want, got) {
			t.Errorf("%s: %d messages, not the %d", box, len(got), len(want))
		}
	}
}

// peak runs mailhaul and returns the largest resident size seen, in KiB.
func (h *host) peak(args ...string) (most int) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 2*time.Minute)
	defer cancel()
	cmd := h.Command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(h, cmd.Start())
	done := make(chan int)
	go func() {
		most := 0
		for {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
			_, rest, ok := strings.Cut(string(b), "VmHWM:")
			if err != nil || !ok { // a process that ended has no memory
				done <- most
				return
			}
			if kib, err := strconv.Atoi(strings.Fields(rest)[0]); err == nil {
				most = max(most, kib)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	err := cmd.Wait()
	most = <-done
	if err != nil || most == 0 {
		h.Fatalf("%v, %d KiB\n%s", err, most, out.String())
	}
	return most
}
