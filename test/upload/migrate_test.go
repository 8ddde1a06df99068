package upload

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailhaul/internal/dovecot"
	"mailhaul/internal/durable"
	"mailhaul/internal/testserver"
)

// Two runs for the same two accounts do not work at one time; others do.
func TestMigrateLock(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	must(t, s.Append("ada", "INBOX", letters(3)...))
	h := newHost(t, s.CAFile)
	h.run(0, "migrate", imaps(s, "ada"), imaps(s, "new"))
	locks, err := filepath.Glob(h.path("state/mailhaul/migrate/*/lock"))
	must(t, err)
	if len(locks) != 1 {
		t.Fatalf("locks: %v", locks)
	}
	held, err := durable.LockFile(t.Context(), locks[0], 0)
	must(t, err)
	for _, more := range [][]string{nil, {"--lock-wait", "50ms"}} {
		if out := h.run(75, append([]string{"migrate", imaps(s, "ada"), imaps(s, "new")}, more...)...); !strings.Contains(out, "another run is migrating these accounts") {
			t.Error(out)
		}
	}
	h.run(0, "migrate", imaps(s, "ada"), imaps(s, "new"), "--dry-run")
	h.run(0, "migrate", imaps(s, "ada"), imaps(s, "other"))
	if out := h.run(0, "verify", imaps(s, "ada"), imaps(s, "new")); !strings.Contains(out, "repaired copies are not known") {
		t.Error(out)
	}
	must(t, held.Close())
	if sum := h.json(0, "migrate", imaps(s, "ada"), imaps(s, "new")); sum.Skipped != 3 {
		t.Errorf("%+v", sum)
	}
}

// subscribed are a user's subscriptions.
func subscribed(t *testing.T, s *dovecot.Server, user string) (names []string) {
	t.Helper()
	for _, line := range command(t, s, user, `LSUB "" "*"`) {
		fields := strings.Fields(line)
		names = append(names, strings.Trim(fields[len(fields)-1], `"`))
	}
	slices.Sort(names)
	return names
}

// command says one thing as another client would.
func command(t *testing.T, s *dovecot.Server, user, cmd string) (lines []string) {
	t.Helper()
	c, err := s.Dial(user)
	must(t, err)
	defer c.Close()
	out, err := c.Cmd("%s", cmd)
	must(t, err)
	for _, l := range out {
		if strings.HasPrefix(string(l), "* LSUB") {
			lines = append(lines, string(l))
		}
	}
	return lines
}

// Subscriptions go along once: what the new account's owner does about them stays.
// --subscribe adds all mailboxes that get messages.
func TestMigrateSubscriptions(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	for _, box := range []string{"INBOX", "Work", "Quiet"} {
		must(t, s.Append("ada", box, letters(2)...))
	}
	command(t, s, "ada", "CREATE Empty")
	command(t, s, "ada", "SUBSCRIBE Work")
	command(t, s, "ada", "SUBSCRIBE Empty")
	h := newHost(t, s.CAFile)
	h.run(0, "migrate", imaps(s, "ada"), imaps(s, "new"), "--map", "Work=Projects")
	if got := fmt.Sprint(subscribed(t, s, "new")); got != "[Empty Projects]" {
		t.Error(got)
	}
	command(t, s, "new", "UNSUBSCRIBE Projects")
	command(t, s, "ada", "SUBSCRIBE Quiet")
	h.run(0, "migrate", imaps(s, "ada"), imaps(s, "new"), "--map", "Work=Projects")
	if got := fmt.Sprint(subscribed(t, s, "new")); got != "[Empty Quiet]" {
		t.Error(got)
	}
	h.run(0, "migrate", imaps(s, "ada"), imaps(s, "other"), "--subscribe")
	if got := fmt.Sprint(subscribed(t, s, "other")); got != "[Empty INBOX Quiet Work]" {
		t.Error(got)
	}
}

// A delta pass follows the source's flags and leaves alone those that the
// destination's owner has changed.
func TestMigrateFlags(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	must(t, s.Append("ada", "INBOX", letters(4)...))
	must(t, s.Store("ada", "INBOX", "1:2", "+FLAGS", `\Seen`))
	h := newHost(t, s.CAFile)
	h.run(0, "migrate", imaps(s, "ada"), imaps(s, "new"))
	must(t, s.Store("new", "INBOX", "1", "-FLAGS", `\Seen`))               // read there: to be read again
	must(t, s.Store("new", "INBOX", "3", "+FLAGS", `\Flagged`, "Owner"))   // marked there
	must(t, s.Store("ada", "INBOX", "3", "+FLAGS", `\Answered`, "Source")) // answered here
	must(t, s.Store("ada", "INBOX", "2", "-FLAGS", `\Seen`))               // unread again here
	must(t, s.Append("ada", "INBOX", dovecot.Message{Octets: []byte("Subject: n\r\n\r\nn\r\n"), Flags: []string{`\Draft`}}))
	for pass := range 2 {
		sum := h.json(0, "migrate", imaps(s, "ada"), imaps(s, "new"))
		if want := int64(2 - 2*pass); sum.Flags != want {
			t.Errorf("pass %d: %+v", pass, sum)
		}
		msgs, err := s.Messages("new", "INBOX")
		must(t, err)
		var got []string
		for _, m := range msgs {
			slices.Sort(m.Flags)
			got = append(got, strings.Join(m.Flags, ","))
		}
		if want := `["" "" "Owner,Source,\\Answered,\\Flagged" "" "\\Draft"]`; fmt.Sprintf("%q", got) != want {
			t.Errorf("pass %d: %q, want %s", pass, got, want)
		}
	}
}

// --delete-extra: the dry run counts what the run then removes, and only what the
// source lacked in two runs goes.
func TestMigrateDeleteExtra(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	must(t, s.Append("ada", "INBOX", letters(5)...))
	h := newHost(t, s.CAFile)
	migrate := []string{"migrate", imaps(s, "ada"), imaps(s, "new")}
	h.run(0, migrate...)
	must(t, s.Append("new", "INBOX", dovecot.Message{Octets: []byte("Subject: its owner's\r\n\r\nown\r\n")}))
	must(t, s.Expunge("ada", "INBOX", "2,4"))
	extra := slices.Concat(migrate, []string{"--delete-extra", "--yes"})
	dry := slices.Concat(extra, []string{"--dry-run"})
	h.run(0, extra...)
	for _, step := range []struct {
		args          []string
		removed, left int
	}{{dry, 2, 6}, {extra, 2, 4}, {dry, 0, 4}, {extra, 0, 4}} {
		sum := h.json(0, step.args...)
		left, err := s.Count("new", "INBOX")
		must(t, err)
		if int(sum.Removed) != step.removed || left != step.left {
			t.Errorf("%v: %d messages left, %+v", step, left, sum)
		}
	}
}

// verify knows the repaired copies that a migration has sent.
func TestMigrateRepaired(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	odd := letters(5)
	odd[2].Octets = append([]byte("From ada Mon Jan  1 00:00:00 2001\r\n"), odd[2].Octets...)
	must(t, s.Append("ada", "INBOX", odd...))
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
	h := newHost(t, s.CAFile)
	h.run(3, "migrate", imaps(s, "ada"), dest)
	if out := h.run(65, "verify", imaps(s, "ada"), dest); !strings.Contains(out, "missing at") {
		t.Error(out)
	}
	h.run(0, "migrate", imaps(s, "ada"), dest, "--send-repaired")
	if out := h.run(0, "verify", imaps(s, "ada"), dest); !strings.Contains(out, "repaired at") || strings.Contains(out, "missing at") || strings.Contains(out, "altered at") {
		t.Error(out)
	}
	// Another one there is still told.
	strict.Change("INBOX", func(m *testserver.IMAPMessage) bool {
		if strings.HasPrefix(m.Octets, "X-Invalid") {
			m.Octets = strings.Replace(m.Octets, "body", "other", 1)
		}
		return true
	})
	if out := h.run(65, "verify", imaps(s, "ada"), dest); strings.Contains(out, "repaired at") {
		t.Error(out)
	}
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))
	second := &testserver.IMAP{Capabilities: strict.Capabilities, Appended: strict.Appended}
	must(t, second.Start())
	defer second.Close()
	dest = fmt.Sprintf("imap+insecure://new@127.0.0.1:%d", second.Port())
	h.run(0, "upload", h.path("mail"), dest, "--send-repaired")
	if out := h.run(0, "verify", h.path("mail"), dest); !strings.Contains(out, "repaired at") {
		t.Error(out)
	}
}
