package upload

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// From POP3 comes one INBOX, with the dates of the archive, unread unless
// --mark-seen.
func TestPOP3(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	var msgs []dovecot.Message
	for _, h := range corpus.Hazards() {
		if len(h.Octets) > 0 {
			msgs = append(msgs, dovecot.Message{Octets: h.Octets, Flags: []string{`\Answered`}})
		}
	}
	must(t, s.Append("ada", "INBOX", append(msgs, letters(20)...)...))
	h := newHost(t, s.CAFile)
	h.run(0, "backup", url("pop3s", "ada", s, s.POP3S), h.path("mail"))
	want, err := rig.Held("maildir", h.path("mail"))
	must(t, err)
	for user, seen := range map[string]bool{"unseen": false, "seen": true} {
		var more []string
		if seen {
			more = []string{"--mark-seen"}
		}
		sum := h.json(0, append([]string{"upload", h.path("mail"), imaps(s, user)}, more...)...)
		got := rig.Multiset{}
		dated := 0
		all, err := s.Messages(user, "INBOX")
		must(t, err)
		for _, m := range all {
			got[rig.Message{Mailbox: "INBOX", Digest: rig.Digest(rig.Canonical(m.Octets))}]++
			if mail.NewFlags(m.Flags...).Has(`\Seen`) != seen || len(m.Flags) > 1 {
				t.Errorf("%s: flags %q", user, m.Flags)
			}
			if m.Date.Year() == 2022 {
				dated++
			}
		}
		same(t, user, want, got, int(sum.Altered))
		if sum.Uploaded != int64(len(msgs)+20) || dated < 20 {
			t.Errorf("%s: %d with their date, %+v", user, dated, sum)
		}
	}
}

// What was gone at the source at the last complete backup is counted, and left out
// with --present; what mailhaul deleted there is not gone in this sense.
func TestPresent(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	must(t, s.Append("ada", "INBOX", letters(10)...))
	h := newHost(t, s.CAFile)
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))
	h.run(0, "clean", imaps(s, "ada"), h.path("mail"), "--before", "2022-03-04T05:06:02Z", "--yes") // the first two
	must(t, s.Expunge("ada", "INBOX", "9:10"))
	must(t, s.Append("ada", "INBOX", letters(11)[10]))
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))
	if sum := h.json(0, "upload", h.path("mail"), imaps(s, "new"), "--present"); sum.Listed != 9 || sum.Uploaded != 9 || sum.Gone != 2 {
		t.Errorf("--present: %+v", sum)
	}
	if out := h.run(0, "upload", h.path("mail"), imaps(s, "new")); !strings.Contains(out, "2 messages (224 B) uploaded, 9 already there") || !strings.Contains(out, "2 no longer at the source") {
		t.Error(out)
	}
}

// Flags follow the archive, and what the destination's owner changed stays.
func TestDeltaPasses(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	must(t, s.Append("ada", "INBOX", letters(5)...))
	h := newHost(t, s.CAFile)
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))
	h.run(0, "upload", h.path("mail"), imaps(s, "new"))
	must(t, s.Store("new", "INBOX", "1:2", "+FLAGS", `\Flagged`, "mine"))
	must(t, s.Store("new", "INBOX", "4", "+FLAGS", `\Seen`))
	must(t, s.Store("ada", "INBOX", "1", "+FLAGS", `\Seen`, "$Forwarded"))
	must(t, s.Store("ada", "INBOX", "3", "+FLAGS", `\Answered`))
	must(t, s.Expunge("new", "INBOX", "5")) // by its owner: it stays away
	must(t, s.Append("ada", "INBOX", letters(6)[5]))
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))
	if sum := h.json(0, "upload", h.path("mail"), imaps(s, "new")); sum.Uploaded != 1 || sum.Skipped != 5 || sum.Flags != 2 {
		t.Errorf("%+v", sum)
	}
	msgs, err := s.Messages("new", "INBOX")
	must(t, err)
	var got []string
	for _, m := range msgs {
		got = append(got, fmt.Sprint(mail.NewFlags(m.Flags...)))
	}
	want := []string{fmt.Sprint(mail.NewFlags(`\Seen`, `\Flagged`, "$Forwarded", "mine")), fmt.Sprint(mail.NewFlags(`\Flagged`, "mine")), `\Answered`, `\Seen`, ""}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if sum := h.json(0, "upload", h.path("mail"), imaps(s, "new")); sum.Skipped != 6 || sum.Flags != 0 {
		t.Errorf("nothing new: %+v", sum)
	}
}

// A destination with too little space: said in advance, what fits arrives, uploads
// end after three refusals in a row, the rest is kept for the next run.
func TestSmallQuota(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{Quota: "100k"})
	from := dovecot.Start(t, dovecot.Options{})
	var msgs []dovecot.Message
	for _, l := range letters(40) {
		l.Octets = append(l.Octets, bytes.Repeat([]byte("a line of some length to fill the space\r\n"), 100)...)
		msgs = append(msgs, l)
	}
	must(t, from.Append("ada", "INBOX", msgs...))
	h := newHost(t, from.CAFile)
	h.run(0, "backup", imaps(from, "ada"), h.path("mail"))
	h.CAFile = s.CAFile
	if out := h.run(0, "upload", h.path("mail"), imaps(s, "new"), "--dry-run"); !strings.Contains(out, "to send: 40 messages, 168.") ||
		!strings.Contains(out, "102.4 kB free at the destination") || !strings.Contains(out, "will not fit: about 15 messages for lack of space") {
		t.Error(out)
	}
	out := h.run(3, "upload", h.path("mail"), imaps(s, "new"))
	for _, want := range []string{"about 15 messages will not fit", "Quota exceeded", "make room at the destination", " 16 failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	if n := strings.Count(out, "Quota exceeded"); n != 3 {
		t.Errorf("%d refusals\n%s", n, out)
	}
	must(t, s.Restart(dovecot.Options{}))
	if sum := h.json(0, "upload", h.path("mail"), imaps(s, "new")); sum.Uploaded != 16 || sum.Skipped != 24 {
		t.Errorf("%+v", sum)
	}
}

// A message the server refuses is named with its words; others go on, it is tried
// again in the next run, and --send-repaired sends a copy that it takes.
func TestRefusedMessage(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	odd := letters(5)
	odd[2].Octets = append([]byte("From ada Mon Jan  1 00:00:00 2001\r\n"), odd[2].Octets...)
	must(t, s.Append("ada", "INBOX", odd...))
	h := newHost(t, s.CAFile)
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))

	strict := &testserver.IMAP{Capabilities: "IMAP4rev1 LITERAL+ MULTIAPPEND UIDPLUS"}
	strict.Appended = func(c *testserver.IMAPConn, _ string, octets []string) bool {
		refuse := slices.ContainsFunc(octets, func(o string) bool { return strings.HasPrefix(o, "From ") })
		if refuse {
			c.NO("Message contains invalid header")
		}
		return refuse
	}
	must(t, strict.Start())
	defer strict.Close()
	dest := fmt.Sprintf("imap+insecure://new@127.0.0.1:%d", strict.Port())
	for range 2 {
		if out := h.run(3, "upload", h.path("mail"), dest); !strings.Contains(out, "NO Message contains invalid header") || !strings.Contains(out, "1 failed") {
			t.Error(out)
		}
		if n := len(strict.Held("INBOX")); n != 4 {
			t.Errorf("%d messages", n)
		}
	}
	if out := h.run(0, "upload", h.path("mail"), dest, "--send-repaired"); !strings.Contains(out, "a repaired copy") || !strings.Contains(out, "1 as repaired copies") {
		t.Error(out)
	}
	if held := strict.Held("INBOX"); len(held) != 5 || !strings.HasPrefix(held[4].Octets, "X-Invalid: From ada") {
		t.Errorf("%v", held)
	}
	if sum := h.json(0, "upload", h.path("mail"), dest); sum.Skipped != 5 {
		t.Errorf("%+v", sum)
	}
	h.run(0, "verify", h.path("mail")) // the archive keeps the original
}
