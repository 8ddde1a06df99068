package ledger

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"mailhaul/mail"
)

func sameAs(t *testing.T, l *Ledger, account, object string) (places []string) {
	t.Helper()
	same, err := l.Same(context.Background(), account, object)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range same {
		places = append(places, h.Receipt.Info.Ref.Mailbox)
	}
	return places
}

func TestSame(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	defer l.Close()
	var ids []int64
	for i, mailbox := range []string{"INBOX", "Work", "INBOX", "Other"} {
		rc := testReceipt(mailbox, i+1)
		rc.Info.Ref.Account, rc.Info.ObjectID = testAccount, "17"
		if i == 2 {
			rc.Info.ObjectID = ""
		}
		record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc, Copied: i == 1}}})
		list := claimsOf(t, l, testAccount, mailbox)
		c := list[len(list)-1]
		if c.Fetched == (i == 1) {
			t.Errorf("message %d: fetched is %v", i, c.Fetched)
		}
		ids = append(ids, c.ID)
	}
	if got := sameAs(t, l, testAccount, "17"); len(got) != 3 || got[0] != "INBOX" || got[1] != "Work" {
		t.Errorf("%v", got)
	}
	if got := append(sameAs(t, l, testAccount, ""), sameAs(t, l, testAccount, "18")...); len(got) != 0 {
		t.Errorf("%v", got)
	}
	// A label that was taken away leaves the octets.
	record(t, l, mail.Change{Gone: []int64{ids[3]}})
	if got := sameAs(t, l, testAccount, "17"); len(got) != 3 {
		t.Errorf("%v", got)
	}
	// Another account's server may mean another message.
	const other = "imap:bob@example.org@imap.example.org"
	if got := sameAs(t, l, other, "17"); len(got) != 0 {
		t.Errorf("another account has %v", got)
	}
	rc := testReceipt("INBOX", 9)
	rc.Info.Ref.Account = other
	record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
	if got := sameAs(t, l, testAccount, "17"); len(got) != 2 {
		t.Errorf("with two accounts in the archive: %v, want what is still claimed", got)
	}
}

// A ledger of the version before can be read on media that cannot be written.
func TestReadOnlyOfOlderVersion(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: testReceipt("INBOX", 1)}}})
	for _, sql := range []string{"DROP INDEX message_object", "PRAGMA user_version = 1"} {
		if err := l.db.exec(sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := r.Messages(context.Background(), "INBOX", func(mail.Held) error { n++; return nil }); err != nil || n != 1 {
		t.Errorf("%d messages, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file was changed, %v", err)
	}
	l = mustOpen(t, dir)
	defer l.Close()
	if v, err := l.db.int64("PRAGMA user_version"); err != nil || v != int64(len(migrations)) {
		t.Errorf("version %d, %v", v, err)
	}
}
