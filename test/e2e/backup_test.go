package e2e

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
)

const (
	nested   = "Archive/2023/Q1"
	nonASCII = "Entwürfe & Co/日本"
)

var formats = []string{"maildir", "mbox"}

// hazards is the corpus as messages to load. Dovecot does not take a message
// without octets by APPEND.
func hazards() []dovecot.Message {
	var msgs []dovecot.Message
	for i, h := range corpus.Hazards() {
		if len(h.Octets) == 0 {
			continue
		}
		m := dovecot.Message{Octets: h.Octets, Date: time.Date(2001+i%20, 3, 1+i%28, 4, 5, i, 0, time.UTC)}
		switch i % 4 {
		case 1:
			m.Flags = []string{`\Seen`}
		case 2:
			m.Flags = []string{`\Flagged`, `\Answered`, "$Forwarded"}
		case 3:
			m.Flags = []string{`\Draft`, `\Seen`, "NonJunk", "todo"}
		}
		msgs = append(msgs, m)
	}
	return msgs
}

// ordinary is n generated messages.
func ordinary(n, from int) []dovecot.Message {
	var msgs []dovecot.Message
	for i := range n {
		g := corpus.Generate(corpus.Small, from+i)
		msgs = append(msgs, dovecot.Message{Octets: g.Octets, Date: g.Date})
	}
	return msgs
}

func load(t *testing.T, s *dovecot.Server, user, mailbox string, msgs ...dovecot.Message) {
	t.Helper()
	if err := s.Append(user, mailbox, msgs...); err != nil {
		t.Fatal(err)
	}
}

// state is what another client would see of a mailbox.
func state(t *testing.T, s *dovecot.Server, user, mailbox string) string {
	t.Helper()
	st, err := s.Status(user, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := s.Messages(user, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%v\n", st)
	for _, m := range msgs {
		slices.Sort(m.Flags)
		fmt.Fprintf(&b, "%d %v %v %s\n", m.UID, m.Flags, m.Date, digest(m.Octets))
	}
	return b.String()
}

// Every hazard over IMAP, in nested and non-ASCII mailboxes: the archive holds
// exactly what an independent client drains, the server is left as it was, and
// the second run changes nothing.
func TestIMAP(t *testing.T) {
	s := server(t)
	names := []string{"INBOX", nested, nonASCII}
	for _, scheme := range []string{"imaps", "imap"} {
		for _, format := range formats {
			t.Run(scheme+"-"+format, func(t *testing.T) {
				t.Parallel()
				user := "hazards-" + scheme + "-" + format
				msgs := hazards()
				load(t, s, user, "INBOX", msgs...)
				load(t, s, user, nested, msgs[:20]...)
				load(t, s, user, nonASCII, msgs[20:]...)
				load(t, s, user, "Archive") // holds no message, has a level below
				before := map[string]string{}
				for _, name := range names {
					before[name] = state(t, s, user, name)
				}

				h := newHost(t, s)
				archive := filepath.Join(h.home, "archive")
				sum, r := h.backup(place(scheme, s, user), archive, "--format", format)
				if r.code != 0 && r.code != 3 || sum.Failed != 0 || sum.Archived != int64(2*len(msgs)) {
					t.Fatal(r)
				}
				for _, name := range names {
					same(t, name, wanted(t, s, user, name), held(t, format, archive, name))
					if d := gocmp.Diff(before[name], state(t, s, user, name)); d != "" {
						t.Errorf("%s changed at the server: %s", name, d)
					}
				}
				got := mailboxes(t, format, archive)
				for _, name := range names {
					if !slices.Contains(got, name) {
						t.Errorf("the archive has mailboxes %q", got)
					}
				}

				first := snapshot(t, archive)
				sum, r = h.backup(place(scheme, s, user), archive)
				if r.code != 0 || sum.Archived+sum.Adopted+sum.Failed != 0 {
					t.Errorf("second run: %v", r)
				}
				unchanged(t, first, snapshot(t, archive))
				h.must(0, "verify", archive)
			})
		}
	}
}

// Flags, keywords and INTERNALDATE are kept where other programs look for them.
func TestIMAPMetadata(t *testing.T) {
	s := server(t)
	h := newHost(t, s)
	load(t, s, "metadata", "INBOX", hazards()...)
	archive := filepath.Join(h.home, "archive")
	if sum, r := h.backup(place("imaps", s, "metadata"), archive); sum.Failed != 0 || r.code != 0 && r.code != 3 {
		t.Fatal(r)
	}
	letters := map[string]string{`\Seen`: "S", `\Answered`: "R", `\Flagged`: "F", `\Draft`: "D"}
	for i, line := range strings.Split(strings.TrimSpace(read(t, filepath.Join(archive, "INBOX", "dovecot-keywords"))), "\n") {
		number, keyword, _ := strings.Cut(line, " ")
		if number != fmt.Sprint(i) {
			t.Errorf("dovecot-keywords: %q", line)
		}
		letters[keyword] = string(rune('a' + i))
	}
	want, got := map[string]int{}, map[string]int{}
	msgs, err := s.Messages("metadata", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		var info []string
		for _, f := range m.Flags {
			info = append(info, letters[f])
		}
		slices.Sort(info)
		want[fmt.Sprintf("%s %s %s", digest(canonical(m.Octets)), m.Date.UTC(), strings.Join(info, ""))]++
	}
	for _, f := range maildir(t, archive, "INBOX") {
		got[fmt.Sprintf("%s %s %s", digest(f.octets), f.mtime.UTC(), f.info)]++
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Every hazard over POP3.
func TestPOP3(t *testing.T) {
	s := server(t)
	for _, scheme := range []string{"pop3s", "pop3"} {
		for _, format := range formats {
			t.Run(scheme+"-"+format, func(t *testing.T) {
				t.Parallel()
				user := "hazards-" + scheme + "-" + format
				msgs := hazards()
				load(t, s, user, "INBOX", msgs...)
				want := wantedPOP3(t, s, user)

				h := newHost(t, s)
				archive := filepath.Join(h.home, "archive")
				sum, r := h.backup(place(scheme, s, user), archive, "--format", format)
				if r.code != 0 && r.code != 3 || sum.Failed != 0 || sum.Archived != int64(len(msgs)) {
					t.Fatal(r)
				}
				same(t, "INBOX", want, held(t, format, archive, "INBOX"))
				if n, err := s.Count(user, "INBOX"); n != len(msgs) || err != nil {
					t.Errorf("%d messages are left at the server, %v", n, err)
				}

				first := snapshot(t, archive)
				if sum, r = h.backup(place(scheme, s, user), archive); r.code != 0 || sum.Archived+sum.Adopted+sum.Failed != 0 {
					t.Errorf("second run: %v", r)
				}
				unchanged(t, first, snapshot(t, archive))
				h.must(0, "verify", archive)
			})
		}
	}
}

// One message of 30 MB, both protocols, both formats.
func TestHuge(t *testing.T) {
	s := server(t)
	load(t, s, "huge", "INBOX", dovecot.Message{Octets: corpus.Huge().Octets}, dovecot.Message{Octets: corpus.Hazards()[0].Octets})
	want := wanted(t, s, "huge", "INBOX")
	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, format := range formats {
			h := newHost(t, s)
			archive := filepath.Join(h.home, "archive")
			h.complete(place(scheme, s, "huge"), archive, "--format", format)
			same(t, scheme+" "+format, want, held(t, format, archive, "INBOX"))
		}
	}
}

// The digest of a Maildir file is what sha256sum prints and what cat gives back.
func TestSha256sum(t *testing.T) {
	bin, err := exec.LookPath("sha256sum")
	if err != nil {
		missing(t, "sha256sum is not installed")
	}
	s := server(t)
	h := newHost(t, s)
	load(t, s, "sums", "INBOX", ordinary(20, 0)...)
	archive := filepath.Join(h.home, "archive")
	h.complete(place("imaps", s, "sums"), archive)
	args := []string{}
	for _, f := range maildir(t, archive, "INBOX") {
		args = append(args, f.path)
	}
	out, err := exec.Command(bin, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := multiset{}
	for line := range strings.Lines(string(out)) {
		sum, _, _ := strings.Cut(strings.TrimPrefix(line, `\`), " ")
		got[sum]++
	}
	same(t, "sha256sum", wanted(t, s, "sums", "INBOX"), got)
}

// What changes at the server afterwards: new mail comes, flags follow, what was
// expunged there stays here, a new UIDVALIDITY adds nothing.
func TestChangesAtServer(t *testing.T) {
	s := server(t)
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			user := "changes-" + format
			h := newHost(t, s)
			archive := filepath.Join(h.home, "archive")
			source := place("imaps", s, user)
			load(t, s, user, "INBOX", ordinary(50, 0)...)
			h.complete(source, archive, "--format", format)
			all := wanted(t, s, user, "INBOX")

			if err := s.Expunge(user, "INBOX", "1:10"); err != nil {
				t.Fatal(err)
			}
			sum := h.complete(source, archive)
			if sum.Archived != 0 || sum.Listed != 40 {
				t.Errorf("after EXPUNGE: %+v", sum)
			}
			same(t, "after EXPUNGE", all, held(t, format, archive, "INBOX"))

			load(t, s, user, "INBOX", ordinary(5, 1000)...)
			for d, n := range wanted(t, s, user, "INBOX") {
				all[d] = n
			}
			if sum = h.complete(source, archive); sum.Archived != 5 {
				t.Errorf("after new mail: %+v", sum)
			}
			same(t, "after new mail", all, held(t, format, archive, "INBOX"))

			if err := s.Store(user, "INBOX", "11:20", "+FLAGS", `\Seen`, `\Flagged`); err != nil {
				t.Fatal(err)
			}
			if sum = h.complete(source, archive); sum.Archived+sum.Adopted != 0 {
				t.Errorf("after STORE: %+v", sum)
			}
			same(t, "after STORE", all, held(t, format, archive, "INBOX"))
			if format == "maildir" {
				flagged := 0
				for _, f := range maildir(t, archive, "INBOX") {
					if f.info == "FS" {
						flagged++
					}
				}
				if flagged != 10 {
					t.Errorf("%d files have the new flags, want 10", flagged)
				}
			}

			if err := s.SetUIDValidity(user, "INBOX", 4711); err != nil {
				t.Fatal(err)
			}
			if sum = h.complete(source, archive); sum.Archived != 0 || sum.Adopted != 45 {
				t.Errorf("after a new UIDVALIDITY: %+v", sum)
			}
			same(t, "after a new UIDVALIDITY", all, held(t, format, archive, "INBOX"))
			before := snapshot(t, archive)
			if sum = h.complete(source, archive); sum.Archived+sum.Adopted != 0 {
				t.Errorf("once more: %+v", sum)
			}
			unchanged(t, before, snapshot(t, archive))
		})
	}
}

// POP3 and IMAP of one mailbox into one archive share INBOX.
func TestPOP3ThenIMAP(t *testing.T) {
	s := server(t)
	for _, order := range [][]string{{"pop3s", "imaps"}, {"imaps", "pop3s"}} {
		for _, format := range formats {
			t.Run(order[0]+"-first-"+format, func(t *testing.T) {
				t.Parallel()
				user := "both-" + order[0] + format
				h := newHost(t, s)
				archive := filepath.Join(h.home, "archive")
				load(t, s, user, "INBOX", ordinary(30, 0)...)
				load(t, s, user, "INBOX", ordinary(1, 0)...) // a twin
				h.complete(place(order[0], s, user), archive, "--format", format)
				sum := h.complete(place(order[1], s, user), archive)
				if sum.Archived != 0 || sum.Adopted != 31 {
					t.Errorf("the second protocol: %+v", sum)
				}
				same(t, "INBOX", wanted(t, s, user, "INBOX"), held(t, format, archive, "INBOX"))
				if format == "maildir" {
					sameDates(t, s, user, archive)
				}
			})
		}
	}
}

// sameDates holds the dates of the files of INBOX against the server's.
func sameDates(t *testing.T, s *dovecot.Server, user, archive string) {
	t.Helper()
	there, err := s.Messages(user, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	want, got := make(map[string]int), make(map[string]int)
	for _, m := range there {
		want[digest(canonical(m.Octets))+m.Date.UTC().String()]++
	}
	for _, f := range maildir(t, archive, "INBOX") {
		got[digest(f.octets)+f.mtime.UTC().String()]++
	}
	if !maps.Equal(want, got) {
		t.Errorf("dates: %v, want %v", got, want)
	}
}

// An archive is moved as a whole, and nothing is fetched again.
func TestMovedArchive(t *testing.T) {
	s := server(t)
	for _, format := range formats {
		h := newHost(t, s)
		user := "moved-" + format
		load(t, s, user, "INBOX", ordinary(20, 0)...)
		old, moved := filepath.Join(h.home, "old"), filepath.Join(h.home, "elsewhere")
		h.complete(place("imaps", s, user), old, "--format", format)
		if err := os.Rename(old, moved); err != nil {
			t.Fatal(err)
		}
		if sum := h.complete(place("imaps", s, user), moved); sum.Archived+sum.Adopted != 0 {
			t.Errorf("after moving: %+v", sum)
		}
		h.must(0, "verify", moved)
		same(t, format, wanted(t, s, user, "INBOX"), held(t, format, moved, "INBOX"))
	}
}

// The path that held an archive and is now empty is not filled again.
func TestEmptiedArchive(t *testing.T) {
	s := server(t)
	h := newHost(t, s)
	load(t, s, "emptied", "INBOX", ordinary(3, 0)...)
	archive := filepath.Join(h.home, "archive")
	h.complete(place("imaps", s, "emptied"), archive)
	if err := os.Rename(archive, archive+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(archive, 0o700); err != nil {
		t.Fatal(err)
	}
	r := h.must(74, "backup", place("imaps", s, "emptied"), archive)
	if !strings.Contains(r.stderr, "hint:") || !strings.Contains(r.stderr, "--new") {
		t.Errorf("no hint: %v", r)
	}
	if sum := h.complete(place("imaps", s, "emptied"), archive, "--new"); sum.Archived != 3 {
		t.Errorf("with --new: %+v", sum)
	}
}

// Without its ledger an archive is learnt again from its files: nothing doubled.
func TestLostLedger(t *testing.T) {
	s := server(t)
	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, format := range formats {
			t.Run(scheme+"-"+format, func(t *testing.T) {
				t.Parallel()
				user := "lost-" + scheme + format
				h := newHost(t, s)
				load(t, s, user, "INBOX", hazards()...)
				load(t, s, user, nonASCII, ordinary(5, 0)...)
				archive := filepath.Join(h.home, "archive")
				if sum, r := h.backup(place(scheme, s, user), archive, "--format", format); sum.Failed != 0 {
					t.Fatal(r)
				}
				want := held(t, format, archive, "INBOX")
				ledgers, err := filepath.Glob(filepath.Join(archive, ".mailhaul", "ledger*"))
				if err != nil || len(ledgers) == 0 {
					t.Fatalf("%q, %v", ledgers, err)
				}
				for _, name := range ledgers {
					if err := os.Remove(name); err != nil {
						t.Fatal(err)
					}
				}
				sum, r := h.backup(place(scheme, s, user), archive)
				if r.code != 0 && r.code != 3 || sum.Archived != 0 || sum.Failed != 0 {
					t.Errorf("with the ledger lost: %v", r)
				}
				same(t, "INBOX", want, held(t, format, archive, "INBOX"))
				if scheme == "imaps" {
					same(t, nonASCII, wanted(t, s, user, nonASCII), held(t, format, archive, nonASCII))
				}
				h.must(0, "verify", archive)
			})
		}
	}
}

// Other servers: other separators, a namespace prefix, COMPRESS, other storage.
func TestOtherServers(t *testing.T) {
	server(t)
	for name, o := range map[string]dovecot.Options{
		"prefix":   {MailLocation: dovecot.MDBox, Separator: ".", Prefix: "INBOX."},
		"compress": {MailLocation: dovecot.SDBox, Compress: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot.Start(t, o)
			h := newHost(t, s)
			sep := "/"
			if o.Separator != "" {
				sep = o.Separator
			}
			raw := o.Prefix + strings.ReplaceAll(nonASCII, "/", sep)
			load(t, s, "ada", "INBOX", hazards()...)
			load(t, s, "ada", raw, ordinary(10, 0)...)
			archive := filepath.Join(h.home, "archive")
			sum, r := h.backup(place("imaps", s, "ada"), archive)
			if sum.Failed != 0 || r.code != 0 && r.code != 3 {
				t.Fatal(r)
			}
			same(t, "INBOX", wanted(t, s, "ada", "INBOX"), held(t, "maildir", archive, "INBOX"))
			same(t, nonASCII, wanted(t, s, "ada", raw), held(t, "maildir", archive, nonASCII))
		})
	}
}
