package hostile

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

// asking are the commands, since a number of them, that ask for something.
func asking(s *testserver.IMAP, since int, what string) (found []string) {
	for _, cmd := range s.Sent()[since:] {
		if strings.Contains(cmd, what) {
			found = append(found, cmd)
		}
	}
	return found
}

var setOf = regexp.MustCompile(`^UID FETCH (\S+) `)

// bodies counts messages that were asked for as a whole since then.
func bodies(t *testing.T, s *testserver.IMAP, since int) (n int) {
	t.Helper()
	for _, cmd := range asking(s, since, "BODY.PEEK[]") {
		m := setOf.FindStringSubmatch(cmd)
		if m == nil {
			t.Fatalf("sent %q", cmd)
		}
		for uid := range uint32(1000) {
			if testserver.InSet(m[1], uid) {
				n++
			}
		}
	}
	return n
}

// TestGmail uses an account with labels as its owner would: backup, what changes in
// between, clean, and the archive put back into an empty account.
func TestGmail(t *testing.T) {
	t.Parallel()
	for _, format := range rig.Formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			gmail(t, format)
		})
	}
}

func gmail(t *testing.T, format string) {
	h := newHouse(t)
	g := testserver.NewGmail("Work", "Work/2023", "Secret Sauce")
	var ids []string
	for i := range 12 {
		labels := []string{"INBOX"}
		if i%2 == 0 {
			labels = append(labels, "Work")
		}
		if i%3 == 0 {
			labels = append(labels, "Work/2023", "[Gmail]/Starred")
		}
		ids = append(ids, g.Add(letter(i+1), labels...))
	}
	ids = append(ids, g.Add(letter(20), testserver.GmailSent), g.Add(letter(21)), g.Add(letter(22), "Work", "Work/2023"))
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	args := []string{imapPlace("imap+insecure", &g.IMAP), h.archive(), "--timeout", "20s"}
	backup := append([]string{"backup", "--format", format}, args...)

	held := func() map[string][]string { // mailboxes by digest
		m, err := rig.Held(format, h.archive())
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[string][]string)
		for msg, n := range m.Plain() {
			for range n {
				all[msg.Digest] = append(all[msg.Digest], strings.TrimSuffix(msg.Mailbox, ".mbox"))
			}
		}
		for _, boxes := range all {
			slices.Sort(boxes)
		}
		return all
	}
	has := func(i int, want ...string) {
		t.Helper()
		if got := held()[rig.Digest(rig.Canonical([]byte(letter(i))))]; !slices.Equal(got, want) {
			t.Errorf("letter %d is archived in %q, want %q", i, got, want)
		}
	}
	since := 0
	run := func(bodiesWanted int, says string, args ...string) result {
		t.Helper()
		since = len(g.Sent())
		r := h.run(args...)
		if r.code != 0 || !strings.Contains(r.stdout, says) {
			t.Errorf("it should say %q: %v", says, r)
		}
		if n := bodies(t, &g.IMAP, since); n != bodiesWanted {
			t.Errorf("%d messages were downloaded, want %d: %v", n, bodiesWanted, asking(&g.IMAP, since, "BODY"))
		}
		return r
	}

	run(15, "26 new messages", backup...)
	has(1, "INBOX", "Work", "Work/2023")
	has(2, "INBOX")
	has(20, testserver.GmailSent)
	has(21, testserver.GmailAll)
	has(22, "Work", "Work/2023")
	run(0, "0 new messages", backup...)
	if list := asking(&g.IMAP, since, "FETCH"); len(list) > 0 {
		t.Errorf("with nothing new: %q", list)
	}
	run(0, "", "verify", h.archive())

	// Labels come and go; nothing of that is downloaded, and nothing is lost.
	g.Label(ids[1], "Work")
	g.Unlabel(ids[2], "INBOX")
	g.Unlabel(ids[2], "Work")                // the last one
	g.Unlabel(ids[12], testserver.GmailSent) // likewise
	id := g.Add(letter(30), "INBOX", "Work")
	run(1, "5 new messages", backup...)
	has(2, "INBOX", "Work")
	has(3, "INBOX", "Work", testserver.GmailAll)
	has(20, testserver.GmailAll, testserver.GmailSent)
	has(30, "INBOX", "Work")
	run(0, "0 new messages", backup...)

	// A label that the run leaves out is not lost: All Mail shows its messages.
	other := append([]string{"backup", "--exclude", "Work**", args[0], filepath.Join(h.user.Home, "archive", "..", "source")}, args[2:]...)
	if r := h.run(other...); r.code != 0 {
		t.Error(r)
	}
	if m, err := rig.Held("maildir", filepath.Join(h.user.Home, "source")); err != nil || !m.Plain().Has(testserver.GmailAll, rig.Digest(rig.Canonical([]byte(letter(22))))) {
		t.Errorf("without Work, letter 22 is not in All Mail (%v)", err)
	}

	// clean moves to the trash whatever is asked for; copies are fetched once first.
	g.Label(id, "Secret Sauce")
	run(0, "1 new message (", backup...)
	r := run(1, "", append([]string{"clean", "--mailbox", "Secret*", "--older-than", "0d", "--yes", "--include-flagged"}, args...)...)
	if labels := g.Labels()[letter(30)]; !slices.Equal(labels, []string{testserver.GmailTrash}) {
		t.Errorf("letter 30 has labels %q: %v", labels, r)
	}
	run(0, "0 new messages", backup...)
	has(30, "INBOX", "Secret Sauce", "Work")
	run(0, "", "verify", h.archive())

	// Into an empty account: each message is one again, with its labels.
	to := testserver.NewGmail()
	if err := to.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	for range 2 {
		if r := h.run("upload", h.archive(), imapPlace("imap+insecure", &to.IMAP), "--timeout", "20s"); r.code != 0 {
			t.Errorf("upload: %v", r)
		}
	}
	want := make(map[string][]string)
	for i := range 31 {
		boxes := held()[rig.Digest(rig.Canonical([]byte(letter(i))))]
		boxes = slices.DeleteFunc(boxes, func(b string) bool { return b == testserver.GmailAll })
		if boxes != nil {
			want[letter(i)] = boxes
		}
	}
	got := to.Labels()
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("the account has %d messages, want %d", len(got), len(want))
		for octets, labels := range want {
			if !slices.Equal(got[octets], labels) {
				t.Errorf("%.90q has labels %q, want %q", octets, got[octets], labels)
			}
		}
	}
}

// With --delete every label is archived before any message goes; the move to the trash
// that takes a message out of one mailbox takes it out of all.
func TestGmailDelete(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	g := testserver.NewGmail("Work")
	for i := range 6 {
		labels := []string{"INBOX", "Work"}
		g.Add(letter(i+1), labels[:1+i%2]...)
	}
	g.Add(letter(7))
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	args := []string{"backup", "--delete", imapPlace("imap+insecure", &g.IMAP), h.archive(), "--timeout", "20s"}
	if r := h.run(args...); r.code != 0 {
		t.Errorf("%v", r)
	}
	for octets, labels := range g.Labels() {
		if !slices.Equal(labels, []string{testserver.GmailTrash}) {
			t.Errorf("%.90q has labels %q", octets, labels)
		}
	}
	held := h.held()
	for i := range 6 {
		d := rig.Digest(rig.Canonical([]byte(letter(i + 1))))
		if !held.Has("INBOX", d) || held.Has("Work", d) != (i%2 == 1) {
			t.Errorf("letter %d is not where it was", i+1)
		}
	}
	if held.Size() != 10 {
		t.Errorf("%d messages are archived, want 10", held.Size())
	}
	if r := h.run(args...); r.code != 0 || len(h.held()) != len(held) {
		t.Errorf("once more: %v", r)
	}
	if n := len(g.Held(testserver.GmailTrash)); n != 7 {
		t.Errorf("%d messages are in the trash, want 7", n)
	}
}
