package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
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

// undo puts back what was deleted, once, with flags, keywords and dates; the next
// backup adds nothing, and a later clean may delete it again.
func TestUndo(t *testing.T) {
	s := server(t)
	for _, mode := range []string{"expunge", "trash"} {
		for _, format := range formats {
			t.Run(mode+"-"+format, func(t *testing.T) {
				t.Parallel()
				h := newHost(t, s)
				archive := filepath.Join(h.home, "archive")
				user := "undo-" + mode + "-" + format
				msgs := aged(12, 0)
				msgs[3].Flags = []string{`\Seen`, `\Answered`, "$Forwarded"}
				msgs[4].Flags = []string{"work"}
				load(t, s, user, "INBOX", msgs...)
				load(t, s, user, "Lists/go", aged(6, 50)...)
				load(t, s, user, "Trash")
				source := place("imaps", s, user)
				h.complete(source, archive, "--format", format)
				before := map[string]map[string]string{"INBOX": content(t, s, user, "INBOX"), "Lists/go": content(t, s, user, "Lists/go")}
				args := []string{"--older-than", "0d", "--yes", "--max-delete", "100%"}
				if mode == "trash" {
					args = append(args, "--trash")
				}
				if c := h.clean(0, source, archive, args...); c.Deleted != 18 || c.Mode != mode {
					t.Fatalf("%+v", c)
				}
				count(t, s, user, "INBOX", 0)
				if mode == "trash" {
					count(t, s, user, "Trash", 18)
					if err := s.Expunge(user, "Trash", "1:5"); err != nil { // somebody empties a part of it
						t.Fatal(err)
					}
				}
				h.must(0, "undo", archive, source, "--dry-run")
				count(t, s, user, "INBOX", 0)
				if u := h.undo(archive, source); u.Listed != 18 || u.Failed+u.Skipped != 0 || (mode == "trash") != (u.Adopted == 13) {
					t.Errorf("%+v", u)
				}
				for mailbox, want := range before {
					got := content(t, s, user, mailbox)
					if len(got) != len(want) {
						t.Errorf("%s: %d messages, want %d", mailbox, len(got), len(want))
					}
					for octets, meta := range want {
						if got[octets] != meta {
							t.Errorf("%s: %q, want %q", mailbox, got[octets], meta)
						}
					}
				}
				if mode == "trash" {
					count(t, s, user, "Trash", 0)
				}
				// Nothing is left to undo, and nothing is new.
				if u := h.undo(archive, source); u.Listed != 0 {
					t.Errorf("again: %+v", u)
				}
				if sum := h.complete(source, archive); sum.Archived+sum.Adopted != 0 || sum.Listed != 18 {
					t.Errorf("backup: %+v", sum)
				}
				if c := h.clean(0, source, archive, "--older-than", "4d", "--yes", "--max-delete", "100%"); c.Deleted != 15 {
					t.Errorf("clean after undo: %+v", c)
				}
				count(t, s, user, "INBOX", 3)
				if u := h.undo(archive, source); u.Listed != 15 {
					t.Errorf("undo again: %+v", u)
				}
				h.must(0, "verify", archive)
			})
		}
	}
}

// What --trash moved lies in the archive already: the next backup adds nothing, nor
// when a person moves a message back, and the trash can be cleaned like any mailbox.
func TestTrashIsNotArchivedAgain(t *testing.T) {
	s := server(t)
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, s)
			archive := filepath.Join(h.home, "archive")
			user := "trashed-" + format
			msgs := aged(8, 0)
			msgs = append(msgs, msgs[5]) // one of them twice
			load(t, s, user, "INBOX", msgs...)
			load(t, s, user, "Trash", aged(1, 20)...)
			source := place("imaps", s, user)
			h.complete(source, archive, "--format", format)
			if c := h.clean(0, source, archive, "--trash", "--older-than", "4d", "--yes"); c.Deleted != 6 {
				t.Fatalf("%+v", c)
			}
			count(t, s, user, "Trash", 7)
			nothing := func(when string, listed int64) {
				t.Helper()
				if sum := h.complete(source, archive); sum.Archived+sum.Adopted != 0 || sum.Listed != listed {
					t.Errorf("%s: %+v", when, sum)
				}
			}
			nothing("after clean", 10)
			h.must(0, "verify", archive)
			// A person takes two out again, one of those that are equal.
			if err := s.Move(user, "Trash", "2,3", "INBOX"); err != nil {
				t.Fatal(err)
			}
			if sum := h.complete(source, archive); sum.Archived != 0 || sum.Adopted != 2 {
				t.Errorf("moved back by hand: %+v", sum)
			}
			nothing("once more", 10)
			if c := h.clean(0, source, archive, "--mailbox", "Trash", "--older-than", "0d", "--yes"); c.Deleted != 5 {
				t.Errorf("the trash: %+v", c)
			}
			nothing("after emptying", 5)
			if u := h.undo(archive, source); u.Listed != 5 || u.Uploaded != 5 {
				t.Errorf("%+v", u)
			}
			count(t, s, user, "INBOX", 9)
			count(t, s, user, "Trash", 1) // what somebody else had thrown away
			nothing("after undo", 10)
			h.must(0, "verify", archive)
		})
	}
}

// undone is what undo counts; they add up.
type undone struct{ Listed, Uploaded, Adopted, Skipped, Failed int64 }

func (h *host) undo(archive, source string, more ...string) undone {
	h.t.Helper()
	r := h.must(0, append([]string{"undo", "--json", archive, source}, more...)...)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var u undone
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &u); err != nil || u.Listed != u.Uploaded+u.Adopted+u.Skipped+u.Failed {
		h.t.Errorf("the sum does not add up (%v): %v", err, r)
	}
	return u
}

// content is flags and date of the messages of a mailbox, by their octets.
func content(t *testing.T, s *dovecot.Server, user, mailbox string) map[string]string {
	t.Helper()
	msgs, err := s.Messages(user, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, m := range msgs {
		slices.Sort(m.Flags)
		if _, twice := all[string(m.Octets)]; twice {
			t.Errorf("%s of %s: a message is there twice", mailbox, user)
		}
		all[string(m.Octets)] = fmt.Sprint(m.Flags, m.Date.UTC())
	}
	return all
}

// What was deleted over POP3 comes back over IMAP; over POP3 undo explains.
func TestUndoOfPOP3(t *testing.T) {
	s := server(t)
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	load(t, s, "undopop", "INBOX", aged(5, 0)...)
	before := content(t, s, "undopop", "INBOX")
	h.complete(place("pop3s", s, "undopop"), archive, "--delete")
	count(t, s, "undopop", "INBOX", 0)
	if r := h.must(69, "undo", archive, place("pop3s", s, "undopop")); !strings.Contains(r.stderr, "imaps://") || !strings.Contains(r.stderr, "upload") {
		t.Errorf("it does not explain: %v", r)
	}
	h.must(0, "undo", archive, place("imaps", s, "undopop"))
	after := content(t, s, "undopop", "INBOX")
	for octets := range before {
		if _, there := after[octets]; !there {
			t.Errorf("not back: %q", octets)
		}
	}
	if u := h.undo(archive, place("imaps", s, "undopop")); u.Listed != 0 {
		t.Errorf("again: %+v", u)
	}
	if sum := h.complete(place("pop3s", s, "undopop"), archive); sum.Archived != 0 {
		t.Errorf("the next backup over POP3: %+v", sum)
	}
	count(t, s, "undopop", "INBOX", 5)
}
