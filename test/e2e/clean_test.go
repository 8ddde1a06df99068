package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
)

// cleaned is the summary of clean.
type cleaned struct {
	summary
	Mode   string
	Stayed map[string]int64
}

func (h *host) cleaned(r result) cleaned {
	h.t.Helper()
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var c cleaned
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &c); err != nil || c.Type != "summary" || c.Command != "clean" {
		h.t.Fatalf("no summary (%v): %v", err, r)
	}
	if c.Exit != int64(r.code) {
		h.t.Errorf("the summary says exit %d: %v", c.Exit, r)
	}
	if c.Listed != c.Deleted+c.Skipped+c.Failed {
		h.t.Errorf("the sum does not add up: %v", r)
	}
	return c
}

// clean runs clean with --json and wants an exit code.
func (h *host) clean(code int, source, archive string, more ...string) cleaned {
	h.t.Helper()
	return h.cleaned(h.must(code, append([]string{"clean", "--json", source, archive}, more...)...))
}

// aged is n messages, the first a day old, the next two, and so on: INTERNALDATE
// and Received agree.
func aged(n, from int) []dovecot.Message {
	msgs := make([]dovecot.Message, n)
	for i := range msgs {
		when := time.Now().AddDate(0, 0, -i-from-1).UTC().Truncate(time.Second)
		msgs[i] = dovecot.Message{Date: when, Octets: fmt.Appendf(nil,
			"Received: from a by b; %s\r\nFrom: ada@example.org\r\nSubject: message %d\r\n\r\nbody of message %d\r\n%s\r\n",
			when.Format(time.RFC1123Z), i+from, i+from, strings.Repeat("x", 60))}
	}
	return msgs
}

func count(t *testing.T, s *dovecot.Server, user, mailbox string, want int) {
	t.Helper()
	if n, err := s.Count(user, mailbox); err != nil || n != want {
		t.Errorf("%s of %s has %d messages, want %d (%v)", mailbox, user, n, want, err)
	}
}

var schemes = []string{"imaps", "pop3s"}

// forAll runs a test for every protocol and format.
func forAll(t *testing.T, name string, test func(t *testing.T, s *dovecot.Server, h *host, scheme, user, archive string)) {
	s := server(t)
	for _, scheme := range schemes {
		for _, format := range formats {
			t.Run(scheme+"-"+format, func(t *testing.T) {
				t.Parallel()
				h := newHost(t, s)
				archive := filepath.Join(h.home, "archive")
				test(t, s, h, scheme, name+"-"+scheme+"-"+format, format+":"+archive)
			})
		}
	}
}

func TestCleanByAge(t *testing.T) {
	forAll(t, "age", func(t *testing.T, s *dovecot.Server, h *host, scheme, user, archive string) {
		load(t, s, user, "INBOX", aged(10, 0)...)
		source := place(scheme, s, user)
		h.complete(source, archive)

		// Without a terminal nothing happens until --yes says so.
		if r := h.must(1, "clean", source, archive, "--older-than", "5d"); !strings.Contains(r.stderr, "--yes") {
			t.Errorf("no hint: %v", r)
		}
		if r := h.must(0, "clean", source, archive, "--older-than", "5d", "--dry-run"); !strings.Contains(r.stdout, "6 messages") {
			t.Errorf("no plan: %v", r)
		}
		count(t, s, user, "INBOX", 10)

		c := h.clean(0, source, archive, "--older-than", "5d", "--yes")
		if c.Deleted != 6 || c.Failed != 0 || c.Octets == 0 {
			t.Errorf("%+v", c)
		}
		count(t, s, user, "INBOX", 4)
		// What we deleted is neither fetched again nor lost.
		if sum := h.complete(source, archive); sum.Archived+sum.Adopted != 0 || sum.Listed != 4 {
			t.Errorf("%+v", sum)
		}
		h.must(0, "verify", strings.SplitN(archive, ":", 2)[1])
		if c := h.clean(0, source, archive, "--older-than", "5d", "--yes"); c.Deleted != 0 {
			t.Errorf("again: %+v", c)
		}
	})
}

// backup --delete frees the server of what the archive proves, that of earlier
// runs too, but for flagged mail and what is younger than --keep.
func TestBackupDelete(t *testing.T) {
	forAll(t, "bd", func(t *testing.T, s *dovecot.Server, h *host, scheme, user, archive string) {
		msgs := aged(30, 0)
		msgs[25].Flags = []string{`\Flagged`}
		load(t, s, user, "INBOX", msgs[:20]...)
		source := place(scheme, s, user)
		h.complete(source, archive)
		load(t, s, user, "INBOX", msgs[20:]...)
		want := wanted(t, s, user, "INBOX")

		h.must(64, "backup", source, archive, "--keep", "10d")
		h.must(64, "backup", source, archive, "--max-delete", "1")
		if sum := h.complete(source, archive, "--delete", "--keep", "10d", "--dry-run"); sum.Deleted != 11 {
			t.Errorf("%+v", sum)
		}
		if _, r := h.backup(source, archive, "--delete", "--keep", "10d", "--max-delete", "5"); r.code != 1 {
			t.Errorf("above the ceiling: %v", r)
		}
		count(t, s, user, "INBOX", 30)
		flagged := 1
		if scheme == "pop3s" {
			flagged = 0 // POP3 knows no flags
		}
		sum := h.complete(source, archive, "--delete", "--keep", "10d")
		if sum.Deleted != int64(21-flagged) || sum.Archived != 0 {
			t.Errorf("%+v", sum)
		}
		count(t, s, user, "INBOX", 9+flagged)
		dir := strings.SplitN(archive, ":", 2)[1]
		same(t, "INBOX", want, held(t, strings.SplitN(archive, ":", 2)[0], dir, "INBOX"))
		h.must(0, "verify", dir)

		// The next night: one new message comes, nothing else does anything.
		load(t, s, user, "INBOX", aged(1, 100)...)
		if sum := h.complete(source, archive, "--delete", "--keep", "10d"); sum.Deleted != 1 || sum.Archived != 1 {
			t.Errorf("%+v", sum)
		}
		if r := h.must(0, "backup", "-q", source, archive, "--delete", "--keep", "10d"); r.stdout+r.stderr != "" {
			t.Errorf("not silent: %v", r)
		}
		count(t, s, user, "INBOX", 9+flagged)
	})
}
