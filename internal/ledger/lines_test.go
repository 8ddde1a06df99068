package ledger

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
	"mailhaul/mail"
)

// intended is a ledger with one message and an intent to delete it.
func intended(t *testing.T, mode string) (l *Ledger, c mail.Claim, d mail.Doomed, id int64) {
	t.Helper()
	l = mustOpen(t, t.TempDir())
	rc, p := proofOf(t, "a message")
	record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
	c = claimsOf(t, l, testAccount, "INBOX")[0]
	d = mail.Doomed{Claim: c.ID, Proof: p}
	ids, err := l.IntendDeletions(context.Background(), []mail.Doomed{d}, "all", mode)
	if err != nil {
		t.Fatal(err)
	}
	return l, c, d, ids[0]
}

func settle(t *testing.T, l *Ledger, r mail.DeletionResult) {
	t.Helper()
	if err := l.SettleDeletions(context.Background(), []mail.DeletionResult{r}); err != nil {
		t.Fatal(err)
	}
}

// An intent is settled once: what is said of it later changes nothing.
func TestSettledOnce(t *testing.T) {
	l, c, _, id := intended(t, mail.ModeExpunge)
	settle(t, l, mail.DeletionResult{ID: id})
	settle(t, l, mail.DeletionResult{ID: id, Gone: true})
	if got := claimsOf(t, l, testAccount, "INBOX")[0]; !got.Gone.IsZero() {
		t.Error("kept, then gone: the claim is gone")
	}
	l, c, _, id = intended(t, mail.ModeExpunge)
	settle(t, l, mail.DeletionResult{ID: id, Gone: true})
	settle(t, l, mail.DeletionResult{ID: id})
	var undo []int64
	err := l.Deletions(context.Background(), testAccount, time.Time{}, func(d mail.Deletion) error {
		undo = append(undo, d.Claim.ID)
		return nil
	})
	if err != nil || !slices.Equal(undo, []int64{c.ID}) {
		t.Errorf("gone, then kept: to undo %v, %v", undo, err)
	}
}

// What came of an order is recorded, also when the run is being ended.
func TestSettledAfterTheEnd(t *testing.T) {
	l, _, _, id := intended(t, mail.ModeExpunge)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.SettleDeletions(ended, []mail.DeletionResult{{ID: id, Gone: true}}); err != nil {
		t.Error(err)
	}
	if got := claimsOf(t, l, testAccount, "INBOX")[0]; got.GoneBy != GoneByUs {
		t.Errorf("%+v", got)
	}
}

// A message that left the trash may be shown there again, under a UID nobody knows.
func TestTrashedTwice(t *testing.T) {
	l, c, _, id := intended(t, mail.ModeTrash)
	place := mail.Info{Ref: mail.Ref{Mailbox: "Bin", UIDValidity: 5, UID: "77"}, Size: c.Size}
	settle(t, l, mail.DeletionResult{ID: id, Gone: true, Moved: place})
	count := func() (n int) {
		if err := l.Trashed(context.Background(), testAccount, "Bin", func(mail.Held) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("%d are told of, though the trash's claim holds it", n)
	}
	record(t, l, mail.Change{Gone: []int64{claimsOf(t, l, testAccount, "Bin")[0].ID}})
	if n := count(); n != 1 {
		t.Errorf("%d are told of, want the one that no claim holds", n)
	}
}

// What is not, or no longer, known to be fetched under its UID is not deleted.
func TestNotFetchedIsNotIntended(t *testing.T) {
	for name, change := range map[string]func(c mail.Claim) []mail.Change{
		"wrong": func(c mail.Claim) []mail.Change { return []mail.Change{{Wrong: []int64{c.ID}}} },
		"fetched when gone": func(c mail.Claim) []mail.Change {
			return []mail.Change{{Wrong: []int64{c.ID}}, {Gone: []int64{c.ID}}, {Fetched: []int64{c.ID}}, {Returned: []int64{c.ID}}}
		},
	} {
		l, c, d, id := intended(t, mail.ModeExpunge)
		settle(t, l, mail.DeletionResult{ID: id})
		for _, ch := range change(c) {
			record(t, l, ch)
		}
		if _, err := l.IntendDeletions(context.Background(), []mail.Doomed{d}, "all", mail.ModeExpunge); mail.KindOf(err) != mail.KindIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// After an error of the disk nothing more is written: it is not known what the file
// holds.
func TestNothingIsWrittenAfterADiskError(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	err := l.write(context.Background(), "fail", func() error { return &fs.PathError{Op: "sync", Path: "ledger", Err: os.ErrInvalid} })
	if mail.KindOf(err) != mail.KindDisk {
		t.Fatal(err)
	}
	rc, _ := proofOf(t, "a message")
	if err := l.Record(context.Background(), mail.Change{Archived: []mail.Archived{{Receipt: rc}}}); mail.KindOf(err) != mail.KindDisk {
		t.Errorf("recorded: %v", err)
	}
	if n := len(heldIn(t, l, "INBOX")); n != 0 {
		t.Errorf("%d messages", n)
	}
}

// Each transaction is synced, by one process that lets no other in.
func TestPragmas(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	for pragma, want := range map[string]string{"synchronous": "2", "locking_mode": "exclusive", "journal_mode": "wal"} {
		got, err := l.db.string("SELECT CAST(" + pragma + " AS TEXT) FROM pragma_" + pragma)
		if err != nil || got != want {
			t.Errorf("%s is %q, want %q (%v)", pragma, got, want, err)
		}
	}
}

// A file gets its name when it is synced, and the name is synced, too.
func TestSyncedBeforeItIsNamed(t *testing.T) {
	dir := t.TempDir()
	root, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	ops := faultfs.New(root, faultfs.Plan{})
	l := &Ledger{dir: dir, fsys: ops, now: time.Now}
	l.forget()
	after := func(n int, what string, want ...string) {
		t.Helper()
		log := ops.Log()[n:]
		for _, op := range want {
			i := slices.IndexFunc(log, func(s string) bool { return strings.HasPrefix(s, op) })
			if i < 0 {
				t.Errorf("%s: no %q in its place in %q", what, op, ops.Log()[n:])
				return
			}
			log = log[i+1:]
		}
	}
	if err := l.open("maildir"); err != nil {
		t.Fatal(err)
	}
	after(0, "a new ledger", "sync ledger.new", "rename ledger.new", "syncdir .")
	n := ops.Ops()
	if err := l.Backup(context.Background()); err != nil {
		t.Fatal(err)
	}
	after(n, "a copy", "sync ledger.new", "rename ledger.new", "syncdir .")
	if err := l.db.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("no ledger"), 0o600); err != nil {
		t.Fatal(err)
	}
	n = ops.Ops()
	if err := l.open("maildir"); err != nil {
		t.Fatal(err)
	}
	after(n, "a damaged one", "rename ledger.sqlite", "syncdir .", "sync ledger.new", "rename ledger.new", "syncdir .")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
