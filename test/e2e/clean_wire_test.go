package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mailhaul/internal/dovecot"
)

// What may never be sent to an IMAP server: it removes what was not named, or lets
// the server decide what a rule means. COPY is what a MOVE is made of where there is
// none.
var never = regexp.MustCompile(`(?i)C: \S+ (EXPUNGE|CLOSE|UID EXPUNGE *$|(UID )?SEARCH|(UID )?COPY|(UID )?STORE .*[^+-]FLAGS)`)

// Over whole runs, from the first octet to the last, only UID EXPUNGE, MOVE, and
// conditional STOREs of \Deleted are sent.
func TestNothingUnnamedIsRemoved(t *testing.T) {
	s := server(t)
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	load(t, s, "wire", "INBOX", aged(20, 0)...)
	load(t, s, "wire", "Lists", aged(20, 0)...)
	load(t, s, "wire", "Trash")
	source := place("imaps", s, "wire")
	trace := filepath.Join(h.home, "trace")
	h.complete(source, archive, "--trace", trace)
	h.clean(0, source, archive, "--older-than", "15d", "--yes", "--trace", trace)
	h.clean(0, source, archive, "--older-than", "10d", "--yes", "--trash", "--trace", trace)
	h.complete(source, archive, "--delete", "--keep", "5d", "--trace", trace)
	h.must(0, "undo", archive, source, "--trace", trace)
	count(t, s, "wire", "INBOX", 20)
	b, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if never.MatchString(line) {
			t.Errorf("sent: %s", line)
		}
		for _, verb := range []string{"UID EXPUNGE", "UID MOVE", "UID STORE", "APPEND"} {
			if strings.Contains(line, " C: ") && strings.Contains(line, verb) {
				seen[verb]++
				if verb == "UID STORE" && strings.Contains(line, "+FLAGS") && (!strings.Contains(line, "UNCHANGEDSINCE") || !strings.Contains(line, `(\Deleted)`)) {
					t.Errorf("sent: %s", line)
				}
			}
		}
	}
	if len(seen) != 4 {
		t.Errorf("the trace shows only %v", seen)
	}
}

// Without UIDPLUS nothing is marked: 69, and a hint to --trash where there is MOVE,
// which works then.
func TestWithoutUIDPlus(t *testing.T) {
	for _, move := range []bool{true, false} {
		t.Run(fmt.Sprint("MOVE ", move), func(t *testing.T) {
			t.Parallel()
			caps, hint := "IMAP4rev1 SASL-IR ID ENABLE NAMESPACE SPECIAL-USE CONDSTORE", "POP3"
			if move {
				caps, hint = caps+" MOVE", "--trash"
			}
			s := dovecot.Start(t, dovecot.Options{Extra: "protocol imap {\n  imap_capability = " + caps + "\n}\n"})
			h := newHost(t, s)
			archive := filepath.Join(h.home, "archive")
			load(t, s, "ada", "INBOX", aged(6, 0)...)
			load(t, s, "ada", "Trash")
			source := place("imaps", s, "ada")
			trace := filepath.Join(h.home, "trace")
			if r := h.must(69, "backup", source, archive, "--delete", "--trace", trace); !strings.Contains(r.stderr, "UIDPLUS") || !strings.Contains(r.stderr, hint) {
				t.Errorf("%v", r)
			}
			h.must(69, "clean", source, archive, "--older-than", "0d", "--yes", "--trace", trace)
			if !move {
				h.must(69, "clean", source, archive, "--older-than", "0d", "--yes", "--trash", "--trace", trace)
			}
			b, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			if sent := regexp.MustCompile(`(?m) C: .*(STORE|EXPUNGE).*$`).Find(b); sent != nil {
				t.Errorf("something was marked: %s", sent)
			}
			count(t, s, "ada", "INBOX", 6)
			if sum := h.complete(source, archive); sum.Listed != 6 || sum.Archived != 0 {
				t.Errorf("%+v", sum)
			}
			if !move {
				return
			}
			if c := h.clean(0, source, archive, "--older-than", "3d", "--yes", "--trash"); c.Deleted != 4 {
				t.Errorf("%+v", c)
			}
			if sum := h.complete(source, archive); sum.Archived != 0 || sum.Listed != 6 {
				t.Errorf("after --trash: %+v", sum)
			}
		})
	}
}
