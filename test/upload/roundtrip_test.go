package upload

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/test/rig"
)

// An account of the hazard corpus goes into an archive, from there to an empty
// account, and from there into another archive: digests, dates, flags and keywords
// are equal, in every mailbox.
func TestRoundTrip(t *testing.T) {
	for name, to := range map[string]dovecot.Options{
		"Maildir":      {},
		"sdbox":        {MailLocation: dovecot.SDBox, Separator: "."},
		"INBOX prefix": {Separator: ".", Prefix: "INBOX.", MailLocation: "maildir:~/mail"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, dest := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, to)
			fill(t, from)
			formats := rig.Formats[:1]
			if name == "sdbox" {
				formats = rig.Formats
			}
			for _, format := range formats {
				h := newHost(t, from.CAFile)
				h.run(0, "backup", imaps(from, "ada"), h.path("first"), "--format", format)
				h.CAFile = dest.CAFile
				user := "grace-" + format
				sum := h.json(0, "upload", h.path("first"), imaps(dest, user))
				if sum.Uploaded == 0 || sum.Uploaded != sum.Listed {
					t.Fatalf("%+v", sum)
				}
				h.run(0, "backup", imaps(dest, user), h.path("second"), "--format", "maildir")
				// Letters of keywords differ from archive to archive: flags are compared at the servers.
				same(t, format, held(t, format, h.path("first")), held(t, "maildir", h.path("second")), int(sum.Altered))
				differ := 0
				for _, mailbox := range []string{"INBOX", "Archive/2023/Gr\u00fc\u00dfe"} {
					at := mailbox
					if mailbox != "INBOX" {
						at = to.Prefix + strings.ReplaceAll(mailbox, "/", cmpOr(to.Separator, "/"))
					}
					differ += lacking(copies(t, from, "ada", mailbox), copies(t, dest, user, at))
					if got, want := dates(t, dest, user, at), dates(t, from, "ada", mailbox); !slices.Equal(got, want) {
						t.Errorf("%s %s: dates, flags and keywords\n got %q\nwant %q", format, mailbox, got, want)
					}
				}
				if differ != int(sum.Altered) {
					t.Errorf("%s: %d messages are not there with their digest, date and flags, %d were said to be altered", format, differ, sum.Altered)
				}
			}
		})
	}
}

// lacking counts what the second of two sorted multisets lacks of the first.
func lacking(first, second []string) (n int) {
	for _, s := range first {
		if i, found := slices.BinarySearch(second, s); found {
			second = slices.Delete(slices.Clone(second), i, i+1)
		} else {
			n++
		}
	}
	return n
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// fill makes the account: the corpus, but the message without octets, which no
// server takes.
func fill(t *testing.T, s *dovecot.Server) {
	t.Helper()
	flags := [][]string{nil, {`\Seen`}, {`\Seen`, `\Answered`, "$Forwarded"}, {`\Flagged`, "custom", "$label1"}, {`\Draft`}}
	var msgs []dovecot.Message
	for i, h := range corpus.Hazards() {
		if len(h.Octets) > 0 {
			msgs = append(msgs, dovecot.Message{Octets: h.Octets, Date: time.Date(1999+i, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600)), Flags: flags[i%len(flags)]})
		}
	}
	must(t, s.Append("ada", "INBOX", msgs...))
	must(t, s.Append("ada", "Archive/2023/Gr\u00fc\u00dfe", msgs[:len(msgs)/2]...))
}

func held(t *testing.T, format, dir string) rig.Multiset {
	t.Helper()
	m, err := rig.Held(format, dir)
	if err != nil && !os.IsNotExist(err) {
		for _, line := range strings.Split(err.Error(), "\n") {
			if !strings.Contains(line, filepath.Base("dovecot-keywords")) {
				t.Fatal(err)
			}
		}
	}
	return m
}

// same wants equal archives, but for so many messages that the destination altered.
func same(t *testing.T, what string, first, second rig.Multiset, altered int) {
	t.Helper()
	first, second = first.Plain(), second.Plain()
	var lacking []string
	for m, n := range first {
		for range n - min(n, second[m]) {
			lacking = append(lacking, fmt.Sprint(m))
		}
	}
	if len(lacking) != altered || first.Size() != second.Size() {
		t.Errorf("%s: %d messages went in, %d came back, %d differ, %d were said to:\n%s", what, first.Size(), second.Size(), len(lacking), altered, strings.Join(lacking, "\n"))
	}
}

// dates are those of a mailbox, with flags and keywords.
func dates(t *testing.T, s *dovecot.Server, user, mailbox string) (all []string) {
	t.Helper()
	for _, line := range copies(t, s, user, mailbox) {
		_, rest, _ := strings.Cut(line, " ")
		all = append(all, rest)
	}
	slices.Sort(all)
	return all
}
