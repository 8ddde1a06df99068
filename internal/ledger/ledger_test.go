package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailhaul/mail"
)

func claimsOf(tb testing.TB, l *Ledger, account, mailbox string) (list []mail.Claim) {
	tb.Helper()
	err := l.Claims(context.Background(), account, mailbox, func(c mail.Claim) error {
		list = append(list, c)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

func heldIn(tb testing.TB, l *Ledger, mailbox string) (list []mail.Held) {
	tb.Helper()
	err := l.Messages(context.Background(), mailbox, func(h mail.Held) error {
		list = append(list, h)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

func freeIn(tb testing.TB, l *Ledger, account, mailbox string) (ids []int64) {
	tb.Helper()
	err := l.Free(context.Background(), account, mailbox, func(h mail.Held) error {
		ids = append(ids, h.Message)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return ids
}

func record(tb testing.TB, l *Ledger, c mail.Change) {
	tb.Helper()
	if err := l.Record(context.Background(), c); err != nil {
		tb.Fatal(err)
	}
}

func TestRecordAndReadBack(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	rc := testReceipt("INBOX", 1)
	rc.Info.Flags = mail.NewFlags(mail.Seen, "$Forwarded")
	rc.Inexact = true
	other := testReceipt("Sent", 2)
	record(t, l, mail.Change{
		Archived: []mail.Archived{{Receipt: rc, Suspicious: "empty"}, {Receipt: other, UID: "uidl-7"}},
		Cursors:  []mail.Cursor{{Account: testAccount, Mailbox: "INBOX", State: "s1"}},
		Anchors:  map[string]mail.Anchor{"INBOX": {Length: 12, ModTime: time.Unix(5, 6).UTC()}},
	})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir)

	held := heldIn(t, l, "INBOX")
	if len(held) != 1 {
		t.Fatalf("%d messages", len(held))
	}
	want := rc
	want.Info.Ref, want.Info.Size = mail.Ref{Mailbox: "INBOX"}, rc.Wire
	if held[0].Receipt != want || held[0].Suspicious != "empty" {
		t.Errorf("got %+v\nwant %+v", held[0].Receipt, want)
	}
	if c := claimsOf(t, l, testAccount, "INBOX"); len(c) != 1 || c[0].UID != "2" || c[0].UIDValidity != 7 || !c[0].Fetched ||
		c[0].Flags != rc.Info.Flags || c[0].Message != held[0].Message || c[0].Size != rc.Info.Size || !c[0].Gone.IsZero() {
		t.Errorf("claims %+v", c)
	}
	if c := claimsOf(t, l, testAccount, "Sent"); len(c) != 1 || c[0].UID != "uidl-7" {
		t.Errorf("claims %+v", c)
	}
	if s, err := l.Cursor(context.Background(), testAccount, "INBOX"); s != "s1" || err != nil {
		t.Errorf("cursor %q %v", s, err)
	}
	if a, err := l.Anchor(context.Background(), "INBOX"); err != nil || a != (mail.Anchor{Length: 12, ModTime: time.Unix(5, 6).UTC()}) {
		t.Errorf("anchor %+v %v", a, err)
	}
	if a, err := l.Accounts(context.Background()); err != nil || !slices.Equal(a, []string{testAccount}) {
		t.Errorf("accounts %q %v", a, err)
	}
	if l.Format() != "maildir" {
		t.Errorf("format %q", l.Format())
	}
}

// UIDs that look like numbers without being written as one must stay as they are.
func TestUIDs(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	uids := []string{"1", "007", "+5", "-0", "99999999999999999999", "4294967295", "a b", "1e3", " 7", ""}
	for i, uid := range uids {
		rc := testReceipt("INBOX", i)
		rc.Info.Ref.UID = uid
		record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
	}
	for i, c := range claimsOf(t, l, testAccount, "INBOX") {
		if c.UID != uids[i] {
			t.Errorf("UID %q came back as %q", uids[i], c.UID)
		}
	}
}

func TestGoneReturnedTaken(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	fill(t, l, "INBOX", 0, 3)
	c := claimsOf(t, l, testAccount, "INBOX")
	record(t, l, mail.Change{Gone: []int64{c[0].ID, c[1].ID}})
	c = claimsOf(t, l, testAccount, "INBOX")
	if c[0].Gone.IsZero() || c[0].GoneBy != GoneByServer || !c[2].Gone.IsZero() {
		t.Fatalf("claims %+v", c)
	}
	if free := freeIn(t, l, testAccount, "INBOX"); !slices.Equal(free, []int64{c[0].Message, c[1].Message}) {
		t.Errorf("free %v", free)
	}
	if free := freeIn(t, l, "pop3:ada@x", "INBOX"); len(free) != 3 {
		t.Errorf("free for another account %v", free)
	}
	record(t, l, mail.Change{Returned: []int64{c[0].ID}})
	in := mail.Info{Ref: mail.Ref{Account: testAccount, Mailbox: "INBOX", UIDValidity: 8, UID: "77"}, Size: 9,
		Flags: mail.NewFlags(mail.Flagged)}
	record(t, l, mail.Change{Adopted: []mail.Adoption{{Info: in, Message: c[1].Message, Takes: c[1].ID}}})
	got := claimsOf(t, l, testAccount, "INBOX")
	if len(got) != 3 || !got[0].Gone.IsZero() || got[1].UID != "77" || got[1].UIDValidity != 8 || got[1].Fetched || !got[1].Gone.IsZero() {
		t.Errorf("claims %+v", got)
	}
	m, err := l.Message(context.Background(), c[1].Message)
	if err != nil || m.Receipt.Info.Flags != mail.NewFlags(mail.Flagged) {
		t.Errorf("flags %q %v: \\Seen went and \\Flagged came at the server", m.Receipt.Info.Flags, err)
	}
	// A claim that is there cannot be taken; nothing of the change is recorded.
	err = l.Record(context.Background(), mail.Change{Gone: []int64{c[0].ID},
		Adopted: []mail.Adoption{{Info: in, Message: c[2].Message, Takes: c[2].ID}}})
	if err == nil || !slices.Equal(claimsOf(t, l, testAccount, "INBOX"), got) {
		t.Errorf("err %v, or the change left something", err)
	}
}

func TestRecordIgnoresTheEndOfTheRun(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Record(ctx, mail.Change{Archived: []mail.Archived{{Receipt: testReceipt("INBOX", 1)}}}); err != nil {
		t.Fatal(err)
	}
	if n := len(heldIn(t, l, "INBOX")); n != 1 {
		t.Errorf("%d messages", n)
	}
	if _, err := l.IntendUploads(ctx, Sending{}); !errors.Is(err, context.Canceled) {
		t.Errorf("an intent after the end: %v", err)
	}
}

func TestLedgerInCallback(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	fill(t, l, "INBOX", 0, 2000)
	n := 0
	err := l.Claims(context.Background(), testAccount, "INBOX", func(c mail.Claim) error {
		n++
		return l.Record(context.Background(), mail.Change{Flags: []mail.FlagChange{{Claim: c.ID, Message: c.Message, Flags: ""}}})
	})
	if err != nil || n != 2000 {
		t.Errorf("%d claims, %v", n, err)
	}
}

func TestNothingNewChangesNothing(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, "INBOX", 0, 100)
	cursor := mail.Change{Cursors: []mail.Cursor{{Account: testAccount, Mailbox: "INBOX", State: "s"}}}
	record(t, l, cursor)
	l.Close()
	before := snapshot(t, dir)
	l = mustOpen(t, dir)
	claimsOf(t, l, testAccount, "INBOX")
	record(t, l, cursor)
	if err := l.CloseAnchors(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, dir); !equalFiles(before, after) {
		t.Error("the ledger's octets changed")
	}
	if len(before) != 1 {
		t.Errorf("files of a closed ledger: %d", len(before))
	}
}

func snapshot(tb testing.TB, dir string) map[string][]byte {
	tb.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		files[e.Name()] = b
	}
	return files
}

func restoreFiles(tb testing.TB, files map[string][]byte) string {
	tb.Helper()
	dir := tb.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

func equalFiles(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			return false
		}
	}
	return true
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, "INBOX", 0, 10)
	if err := l.Backup(context.Background()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 { // ledger, WAL, copy
		t.Fatalf("%v %v", entries, err)
	}
	for _, e := range entries {
		if st, err := e.Info(); err != nil || st.Mode() != 0o600 {
			t.Errorf("%s: %v %v", e.Name(), st.Mode(), err)
		}
	}
}

// A run killed at any durable step leaves a ledger that opens, has everything that
// was recorded before, and nothing half.
func TestKilledAtEveryStep(t *testing.T) {
	dir := t.TempDir()
	type moment struct {
		files map[string][]byte
		step  string
		least int // messages recorded for certain
	}
	var moments []moment
	recorded := 0
	hook := func(step string) {
		if step == "record done" {
			recorded += 20
		}
		moments = append(moments, moment{snapshot(t, dir), step, recorded})
	}
	l, err := Open(dir, Options{Format: "mbox", Hook: hook})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		var c mail.Change
		for n := range 20 {
			c.Archived = append(c.Archived, mail.Archived{Receipt: testReceipt("INBOX", i*20+n)})
		}
		record(t, l, c)
		if i == 2 {
			if err := errors.Join(l.MarkOpen("INBOX", mail.Anchor{Length: 3}), l.Backup(context.Background())); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(l.CloseAnchors(context.Background()), l.Close()); err != nil {
		t.Fatal(err)
	}
	if len(moments) < 18 {
		t.Fatalf("only %d steps", len(moments))
	}
	for _, m := range moments {
		dir := restoreFiles(t, m.files)
		l, err := Open(dir, Options{Format: "mbox"})
		if err != nil {
			t.Fatalf("killed at %q: %v", m.step, err)
		}
		if n := len(heldIn(t, l, "INBOX")); n < m.least || n%20 != 0 || n != len(claimsOf(t, l, testAccount, "INBOX")) {
			t.Errorf("killed at %q: %d messages, %d recorded", m.step, n, m.least)
		}
		if o := l.Opened(); o.SetAside != "" || o.Restored || !o.Rebuild {
			t.Errorf("killed at %q: %+v", m.step, o)
		}
		ro, err := OpenReadOnly(restoreFiles(t, m.files))
		if _, ok := m.files[fileName]; ok {
			if err != nil {
				t.Fatalf("killed at %q, read only: %v", m.step, err)
			}
			if n := len(heldIn(t, ro, "INBOX")); n < m.least {
				t.Errorf("killed at %q, read only: %d messages", m.step, n)
			}
			ro.Close()
		}
		l.Close()
	}
}

func TestReadOnly(t *testing.T) {
	if _, err := OpenReadOnly(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a ledger: %v", err)
	}
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, "INBOX", 0, 50)
	crashed := snapshot(t, dir) // with a WAL
	l.Close()
	for name, files := range map[string]map[string][]byte{"closed": snapshot(t, dir), "killed": crashed} {
		t.Run(name, func(t *testing.T) {
			dir := restoreFiles(t, files)
			if err := os.Chmod(dir, 0o500); err != nil {
				t.Fatal(err)
			}
			defer os.Chmod(dir, 0o700)
			l, err := OpenReadOnly(dir)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(claimsOf(t, l, testAccount, "INBOX")); n != 50 {
				t.Errorf("%d claims", n)
			}
			if err := l.Record(context.Background(), mail.Change{Gone: []int64{1}}); err == nil {
				t.Error("recorded")
			}
			if err := errors.Join(l.Close(), l.Close()); err != nil {
				t.Error(err)
			}
			if !equalFiles(files, snapshot(t, dir)) {
				t.Error("the directory changed")
			}
		})
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, "INBOX", 0, 5)
	l.Close()
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(b[60:], uint32(len(migrations)+1)) // user_version
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Options{Format: "maildir"})
	if mail.KindOf(err) != mail.KindConfig || mail.HintOf(err) == "" {
		t.Errorf("kind %v hint %q: %v", mail.KindOf(err), mail.HintOf(err), err)
	}
	if files := snapshot(t, dir); len(files) != 1 || !bytes.Equal(files[fileName], b) {
		t.Error("it was touched")
	}
}

func TestDamagedIsSetAside(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, "INBOX", 0, 2000)
	withWAL := snapshot(t, dir)
	l.Close()
	closed := snapshot(t, dir)[fileName]

	damage := map[string]func() map[string][]byte{
		"empty":      func() map[string][]byte { return map[string][]byte{fileName: {}} },
		"short":      func() map[string][]byte { return map[string][]byte{fileName: closed[:50]} },
		"truncated":  func() map[string][]byte { return map[string][]byte{fileName: closed[:len(closed)/2]} },
		"other file": func() map[string][]byte { return map[string][]byte{fileName: bytes.Repeat([]byte("x"), 9000)} },
		"schema": func() map[string][]byte {
			return map[string][]byte{fileName: bytes.Replace(closed, []byte("CREATE TABLE claim"), []byte("CREATE TABLE clarm"), 1)}
		},
		"page, marked": func() map[string][]byte {
			b := bytes.Clone(closed)
			for i := 4096 * 20; i < 4096*40; i++ {
				b[i] = 0xa5
			}
			return map[string][]byte{fileName: b, suspect: {}}
		},
		"under a WAL": func() map[string][]byte {
			b := bytes.Clone(withWAL[fileName])
			clear(b[100:])
			return map[string][]byte{fileName: b, fileName + "-wal": withWAL[fileName+"-wal"][:5000]}
		},
		"WAL alone": func() map[string][]byte {
			return map[string][]byte{fileName + "-wal": withWAL[fileName+"-wal"]}
		},
	}
	for name, files := range damage {
		t.Run(name, func(t *testing.T) {
			files := files()
			dir := restoreFiles(t, files)
			l := mustOpen(t, dir)
			o := l.Opened()
			if o.SetAside == "" || !o.Rebuild || o.Restored {
				t.Fatalf("%+v", o)
			}
			if len(heldIn(t, l, "INBOX")) != 0 {
				t.Error("messages in a new ledger")
			}
			fill(t, l, "INBOX", 0, 3)
			l.Close()
			after := snapshot(t, dir)
			for name, b := range files {
				if name == suspect {
					continue
				}
				stem := strings.TrimSuffix(o.SetAside, "-wal")
				aside := stem + strings.TrimPrefix(name, fileName)
				if got, ok := after[aside]; !ok || !bytes.Equal(got, b) {
					t.Errorf("%s: not kept as it was in %s", name, aside)
				}
			}
			if _, ok := after[suspect]; ok {
				t.Error("still marked for a check")
			}
			if again := mustOpen(t, dir); again.Opened().SetAside != "" {
				t.Error("the new ledger was set aside, too")
			}
		})
	}
}

func TestRestoredFromCopy(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir)
	fill(t, l, "INBOX", 0, 50)
	record(t, l, mail.Change{Cursors: []mail.Cursor{{Account: testAccount, Mailbox: "INBOX", State: "s"}}})
	if err := errors.Join(l.Rebuilt(context.Background()), l.Backup(context.Background()), l.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, []byte("no ledger"), 0o600); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir)
	if o := l.Opened(); !o.Restored || !o.Rebuild || o.SetAside == "" {
		t.Errorf("%+v", o)
	}
	if n := len(claimsOf(t, l, testAccount, "INBOX")); n != 50 {
		t.Errorf("%d claims", n)
	}
	if s, _ := l.Cursor(context.Background(), testAccount, "INBOX"); s != "" {
		t.Errorf("cursor %q: what came after the copy would be passed over", s)
	}
	l.Close()
	// A copy that is damaged, too, is no use.
	for _, name := range []string{path, filepath.Join(dir, BackupName)} {
		if err := os.WriteFile(name, []byte("no ledger"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l = mustOpen(t, dir)
	if o := l.Opened(); o.Restored || len(claimsOf(t, l, testAccount, "INBOX")) != 0 {
		t.Errorf("%+v", o)
	}
}

func TestSymlinkIsNotFollowed(t *testing.T) {
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "x")
	if err := os.Symlink(outside, filepath.Join(dir, fileName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Format: "maildir"}); mail.KindOf(err) != mail.KindDisk {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(outside); !errors.Is(err, fs.ErrNotExist) {
		t.Error("made outside")
	}
}

func TestAnchors(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx := context.Background()
	if err := l.MarkOpen("INBOX", mail.Anchor{Length: 10}); err != nil {
		t.Fatal(err)
	}
	record(t, l, mail.Change{Anchors: map[string]mail.Anchor{"INBOX": {Length: 20}}})
	if a, _ := l.Anchor(ctx, "INBOX"); a != (mail.Anchor{Open: true, Length: 20}) {
		t.Errorf("%+v: the mark must outlast the groups of a run", a)
	}
	if err := l.CloseAnchors(ctx); err != nil {
		t.Fatal(err)
	}
	if a, _ := l.Anchor(ctx, "INBOX"); a != (mail.Anchor{Length: 20}) {
		t.Errorf("%+v", a)
	}
}

func TestReanchor(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx := context.Background()
	at := func(n int, place string) mail.Receipt {
		rc := testReceipt("INBOX", n)
		rc.Place = place
		return rc
	}
	places := func() (list []string) {
		for _, h := range heldIn(t, l, "INBOX") {
			list = append(list, h.Receipt.Place)
		}
		return list
	}
	check := func(what string, want ...string) {
		t.Helper()
		if got := places(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	reanchor := func(all bool, list ...mail.Receipt) {
		t.Helper()
		if err := l.Reanchor(ctx, "INBOX", list, all, mail.Anchor{Length: 9}); err != nil {
			t.Fatal(err)
		}
	}
	reanchor(true, at(1, "a"), at(1, "b"), at(2, "c"))
	check("new", "a", "b", "c")
	reanchor(true, at(1, "b"), at(1, "x"), at(2, "c"))
	check("one of two equal ones moved", "x", "b", "c")
	reanchor(true, at(1, "b"), at(3, "d"))
	check("two missing, one new", "", "b", "", "d")
	reanchor(false, at(2, "e"), at(1, "b"), at(1, "f"), at(1, "g"))
	check("added", "f", "b", "e", "d", "g")
	reanchor(true)
	check("all missing", "", "", "", "", "")
	if a, _ := l.Anchor(ctx, "INBOX"); a.Length != 9 {
		t.Errorf("anchor %+v", a)
	}
	broken := errors.New("broken")
	err := l.ReanchorAll(ctx, "INBOX", func(yield func(mail.Receipt, error) bool) {
		_ = yield(at(1, "b"), nil) && yield(mail.Receipt{}, broken)
	}, mail.Anchor{})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	check("an error undoes all", "", "", "", "", "")
}

// What the archive lost and a server still has comes back under its old row.
func TestLostAndFetchedAgain(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	fill(t, l, "INBOX", 0, 4)
	c := claimsOf(t, l, testAccount, "INBOX")
	if err := l.Lost(context.Background(), []int64{c[1].Message, c[2].Message}); err != nil {
		t.Fatal(err)
	}
	lost := claimsOf(t, l, testAccount, "INBOX")
	if lost[0].Missing || !lost[1].Missing || !lost[2].Missing {
		t.Fatalf("%+v", lost)
	}
	if free := freeIn(t, l, "pop3:other", "INBOX"); len(free) != 2 {
		t.Errorf("missing messages are offered: %v", free)
	}
	same, changed := testReceipt("INBOX", 1), testReceipt("INBOX", 900)
	same.Place, changed.Info.Ref.UID = "new place", c[2].UID
	record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: same}, {Receipt: changed}}})
	got := claimsOf(t, l, testAccount, "INBOX")
	if len(got) != 4 || got[1] != c[1] || got[2].Missing || got[2].Message == c[2].Message || got[2].UID != c[2].UID {
		t.Errorf("%+v", got)
	}
	if m, err := l.Message(context.Background(), c[1].Message); err != nil || m.Receipt.Place != "new place" {
		t.Errorf("%+v %v", m, err)
	}
	if n := len(heldIn(t, l, "INBOX")); n != 5 {
		t.Errorf("%d messages", n)
	}
}

func proofOf(tb testing.TB, body string) (mail.Receipt, mail.Proof) {
	tb.Helper()
	sums, err := mail.SumCanonical(strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	rc := testReceipt("INBOX", len(body))
	rc.Sums = sums
	p, err := mail.Prove(rc, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	return rc, p
}

// A claim that is taken over closes the intent that was open on it: the message is at
// the server, and what becomes of it later is nobody's deletion.
func TestTakenOverClosesTheIntent(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx := context.Background()
	rc, p := proofOf(t, "a message")
	record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
	c := claimsOf(t, l, testAccount, "INBOX")[0]
	if _, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: c.ID, Proof: p}}, "all", mail.ModeExpunge); err != nil {
		t.Fatal(err)
	}
	record(t, l, mail.Change{Gone: []int64{c.ID}})
	if _, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: c.ID, Proof: p}}, "all", mail.ModeExpunge); mail.KindOf(err) != mail.KindIntegrity {
		t.Errorf("no longer at the server: %v", err)
	}
	in := mail.Info{Ref: mail.Ref{Account: testAccount, Mailbox: "INBOX", UIDValidity: 7, UID: "500"}}
	record(t, l, mail.Change{Adopted: []mail.Adoption{{Info: in, Message: c.Message, Takes: c.ID}}})
	if open, err := l.OpenDeletions(ctx, testAccount, "INBOX"); err != nil || len(open) != 0 {
		t.Errorf("open: %+v %v", open, err)
	}
	record(t, l, mail.Change{Gone: []int64{c.ID}})
	if got := claimsOf(t, l, testAccount, "INBOX")[0]; got.GoneBy != GoneByServer {
		t.Errorf("gone by %q", got.GoneBy)
	}
}

// A claim found to be on another message has its mailbox listed again, though
// nothing changed there: the message it names is not archived.
func TestWrongClaimForgetsTheCursor(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx := context.Background()
	rc, _ := proofOf(t, "a message")
	record(t, l, mail.Change{
		Archived: []mail.Archived{{Receipt: rc}},
		Cursors:  []mail.Cursor{{Account: testAccount, Mailbox: "INBOX", State: "1"}, {Account: testAccount, Mailbox: "Sent", State: "2"}},
	})
	record(t, l, mail.Change{Wrong: []int64{claimsOf(t, l, testAccount, "INBOX")[0].ID}})
	for mailbox, want := range map[string]string{"INBOX": "", "Sent": "2"} {
		if state, err := l.Cursor(ctx, testAccount, mailbox); err != nil || state != want {
			t.Errorf("%s: %q, want %q (%v)", mailbox, state, want, err)
		}
	}
}

// A POP3 mailbox that lists after a deletion what it did before is looked at again: the
// server has ignored it.
func TestDeletionForgetsTheCursorOfPOP3(t *testing.T) {
	for account, want := range map[string]string{"pop3:ada@example.org@mail.example.org": "", testAccount: "1"} {
		l := mustOpen(t, t.TempDir())
		ctx := context.Background()
		rc, _ := proofOf(t, "a message")
		rc.Info.Ref.Account = account
		proof, err := mail.Prove(rc, strings.NewReader("a message"))
		if err != nil {
			t.Fatal(err)
		}
		record(t, l, mail.Change{
			Archived: []mail.Archived{{Receipt: rc}}, Cursors: []mail.Cursor{{Account: account, Mailbox: "INBOX", State: "1"}},
		})
		ids, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: claimsOf(t, l, account, "INBOX")[0].ID, Proof: proof}}, "all", mail.ModeExpunge)
		if err != nil {
			t.Fatal(err)
		}
		for gone, state := range []string{"1", want} {
			if err := l.SettleDeletions(ctx, []mail.DeletionResult{{ID: ids[0], Gone: gone == 1}}); err != nil {
				t.Fatal(err)
			}
			if got, err := l.Cursor(ctx, account, "INBOX"); err != nil || got != state {
				t.Errorf("%s, gone %d: %q, want %q (%v)", account, gone, got, state, err)
			}
			ids, _ = l.IntendDeletions(ctx, []mail.Doomed{{Claim: claimsOf(t, l, account, "INBOX")[0].ID, Proof: proof}}, "all", mail.ModeExpunge)
		}
	}
}

func TestDeletions(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx := context.Background()
	var proofs []mail.Proof
	for i := range 4 {
		rc, p := proofOf(t, "message "+strings.Repeat("x", i))
		proofs = append(proofs, p)
		a := mail.Archived{Receipt: rc}
		if i == 3 {
			a.Suspicious = "stub"
		}
		record(t, l, mail.Change{Archived: []mail.Archived{a}})
	}
	c := claimsOf(t, l, testAccount, "INBOX")
	refused := map[string]mail.Doomed{
		"unproven":    {Claim: c[0].ID},
		"other proof": {Claim: c[0].ID, Proof: proofs[1]},
		"no claim":    {Claim: 1, Proof: proofs[0]},
		"suspicious":  {Claim: c[3].ID, Proof: proofs[3]},
	}
	for name, d := range refused {
		_, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: c[1].ID, Proof: proofs[1]}, d}, "all", mail.ModeExpunge)
		if mail.KindOf(err) != mail.KindIntegrity {
			t.Errorf("%s: %v", name, err)
		}
	}
	if open, err := l.OpenDeletions(ctx, testAccount, "INBOX"); err != nil || len(open) != 0 {
		t.Fatalf("%v %v: a refusal must be for all", open, err)
	}
	ids, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: c[0].ID, Proof: proofs[0]}, {Claim: c[1].ID, Proof: proofs[1]},
		{Claim: c[2].ID, Proof: proofs[2]}}, "--older-than 1y", mail.ModeTrash)
	if err != nil || len(ids) != 3 {
		t.Fatal(ids, err)
	}
	// One deleted, one kept, one never heard of and then found gone.
	if err := l.SettleDeletions(ctx, []mail.DeletionResult{{ID: ids[0], Gone: true}, {ID: ids[1]}}); err != nil {
		t.Fatal(err)
	}
	open, err := l.OpenDeletions(ctx, testAccount, "INBOX")
	if err != nil || len(open) != 1 || open[0].ID != ids[2] || open[0].Claim.ID != c[2].ID || open[0].Rule != "--older-than 1y" ||
		open[0].Mode != mail.ModeTrash || open[0].Held.Message != c[2].Message || !open[0].Open {
		t.Errorf("%+v %v", open, err)
	}
	record(t, l, mail.Change{Gone: []int64{c[2].ID}})
	got := claimsOf(t, l, testAccount, "INBOX")
	if got[0].GoneBy != GoneByUs || got[1].GoneBy != "" || got[2].GoneBy != GoneByUs {
		t.Errorf("%+v", got)
	}
	undo := func(since time.Time) (list []int64) {
		err := l.Deletions(ctx, testAccount, since, func(d mail.Deletion) error {
			list = append(list, d.Claim.ID)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := undo(time.Time{}); !slices.Equal(list, []int64{c[0].ID, c[2].ID}) {
		t.Errorf("to undo: %v", list)
	}
	if list := undo(time.Now().Add(time.Hour)); len(list) != 0 {
		t.Errorf("to undo since later: %v", list)
	}
	// Put back: nothing is left to undo, also if the server takes it away again.
	in := mail.Info{Ref: mail.Ref{Account: testAccount, Mailbox: "INBOX", UIDValidity: 7, UID: "500"}}
	record(t, l, mail.Change{Adopted: []mail.Adoption{{Info: in, Message: c[0].Message, Takes: c[0].ID}}, Returned: []int64{c[2].ID}})
	record(t, l, mail.Change{Gone: []int64{c[0].ID, c[2].ID}})
	if list := undo(time.Time{}); len(list) != 0 {
		t.Errorf("to undo after undoing: %v", list)
	}
	if _, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: c[0].ID, Proof: proofs[0]}}, "", mail.ModeExpunge); mail.KindOf(err) != mail.KindIntegrity {
		t.Errorf("no longer at the server: %v", err)
	}
	if err := l.Lost(ctx, []int64{c[1].Message}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: c[1].ID, Proof: proofs[1]}}, "", mail.ModeExpunge); mail.KindOf(err) != mail.KindIntegrity {
		t.Errorf("lost from the archive: %v", err)
	}
	// An adopted claim is fetched once before it can go.
	record(t, l, mail.Change{Returned: []int64{c[0].ID}})
	if _, err := l.IntendDeletions(ctx, []mail.Doomed{{Claim: c[0].ID, Proof: proofs[0]}}, "", mail.ModeExpunge); mail.KindOf(err) != mail.KindIntegrity {
		t.Errorf("adopted: %v", err)
	}
}

func TestUploads(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx := context.Background()
	fill(t, l, "INBOX", 0, 3)
	held := heldIn(t, l, "INBOX")
	const dest = "imap:bob@new.example.org"
	s := Sending{Account: dest, Mailbox: "Old/INBOX", UIDValidity: 3, UIDNext: 40}
	for _, h := range held {
		s.Messages = append(s.Messages, Outgoing{Message: h.Message, Digest: h.Receipt.Digest})
	}
	ids, err := l.IntendUploads(ctx, s)
	if err != nil || len(ids) != 3 {
		t.Fatal(ids, err)
	}
	open, err := l.OpenUploads(ctx, dest, "Old/INBOX")
	if err != nil || len(open) != 3 || open[1].UIDNext != 40 || open[1].UIDValidity != 3 || open[0].Group != open[2].Group ||
		open[2].Digest != held[2].Receipt.Digest {
		t.Fatalf("%+v %v", open, err)
	}
	altered := mail.Digest{9}
	results := []Uploaded{
		{ID: ids[0], Arrived: true, Info: mail.Info{Ref: mail.Ref{UIDValidity: 3, UID: "40"}, Size: 5}},
		{ID: ids[1]},
		{ID: ids[2], Arrived: true, Info: mail.Info{Ref: mail.Ref{UID: "41"}}, Altered: altered},
	}
	for range 2 { // settling twice is settling once
		if err := l.SettleUploads(ctx, results); err != nil {
			t.Fatal(err)
		}
	}
	var done []Upload
	if err := l.Uploads(ctx, dest, "Old/INBOX", func(u Upload) error { done = append(done, u); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(done) != 2 || done[0].UID != "40" || done[1].Altered != altered || done[1].UIDValidity != 3 {
		t.Errorf("%+v", done)
	}
	if c := claimsOf(t, l, dest, "Old/INBOX"); len(c) != 2 || c[0].UID != "40" || c[0].Fetched || c[0].Message != held[0].Message {
		t.Errorf("%+v", c)
	}
	if a, _ := l.Accounts(ctx); !slices.Equal(a, []string{testAccount}) {
		t.Errorf("a destination counts as a source: %q", a)
	}
}

func TestManyEqualMessages(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	list := make([]mail.Receipt, 20_000)
	for i := range list {
		list[i] = testReceipt("INBOX", 1)
		list[i].Place = strconv.Itoa(i)
	}
	for range 2 {
		if err := l.Reanchor(context.Background(), "INBOX", list, true, mail.Anchor{}); err != nil {
			t.Fatal(err)
		}
		for i := range list {
			list[i].Place += "'"
		}
	}
	if n := len(heldIn(t, l, "INBOX")); n != len(list) {
		t.Errorf("%d messages", n)
	}
}
