package maildir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/archive/archivetest"
	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
	"mailhaul/mail"
)

type testMessage = archivetest.Message

func openDir(t *testing.T, opts Options) (*Archive, durable.FS, string) {
	t.Helper()
	dir := t.TempDir()
	fsys, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fsys.Close() })
	return openFS(t, fsys, opts), fsys, dir
}

func openFS(t *testing.T, fsys durable.FS, opts Options) *Archive {
	t.Helper()
	a, err := New(fsys, archivetest.NewLedger(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func add(t *testing.T, a *Archive, list ...testMessage) archive.Group {
	t.Helper()
	for _, m := range list {
		if err := a.Append(context.Background(), m.Info(), m.Octets()); err != nil {
			t.Fatal(err)
		}
	}
	g, err := a.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func content(t *testing.T, a *Archive, rc mail.Receipt) string {
	t.Helper()
	r, err := a.Open(context.Background(), rc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLayout(t *testing.T) {
	a, fsys, dir := openDir(t, Options{Host: "ho/st:1,x"})
	m := testMessage{Mailbox: "Archive/2023", Wire: "Subject: x\r\n\r\nbody\r\n", Flags: mail.NewFlags(mail.Seen, mail.Answered, mail.Deleted, mail.Draft, mail.Flagged)}
	rc := add(t, a, m).Receipts[0]
	for sub, want := range map[string]int{"cur": 1, "new": 0, "tmp": 0} {
		list, err := fsys.ReadDir("Archive/2023/" + sub)
		if err != nil || len(list) != want {
			t.Fatalf("%s: %v, %v", sub, list, err)
		}
		if sub != "cur" {
			continue
		}
		name := list[0].Name()
		base, letters, sep := splitInfo(name)
		stem, size, _ := strings.Cut(base, ",S=")
		if !isOwn(stem) || size != fmt.Sprint(len(m.Canonical())) || sep != ':' || letters != "DFRS" || !strings.HasSuffix(stem, ".ho_st_1_x") {
			t.Errorf("name %q", name)
		}
		if rc.Place != "Archive/2023/cur/"+base {
			t.Errorf("place %q", rc.Place)
		}
		st, err := os.Stat(filepath.Join(dir, "Archive/2023/cur", name))
		if err != nil || !st.ModTime().Equal(m.Info().InternalDate) || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st, err)
		}
	}
	if _, err := fsys.Lstat("Archive/cur"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a mailbox that has no messages was made: %v", err)
	}
}

// rename moves the only message of a mailbox as a mail reader would.
func rename(t *testing.T, fsys durable.FS, box, sub, suffix string) {
	t.Helper()
	for _, from := range []string{"cur", "new"} {
		list, err := fsys.ReadDir(box + "/" + from)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			stem, _, _ := splitInfo(e.Name())
			if err := fsys.Rename(path.Join(box, from, e.Name()), path.Join(box, sub, stem+suffix)); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no message")
}

func TestMovedMessagesAreFound(t *testing.T) {
	a, fsys, _ := openDir(t, Options{})
	rc := add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"}).Receipts[0]
	for _, to := range []struct{ sub, suffix string }{{"cur", ":2,S"}, {"new", ""}, {"cur", ":2,FS"}, {"cur", ";2,F"}, {"cur", ""}} {
		rename(t, fsys, "INBOX", to.sub, to.suffix)
		if got := content(t, a, rc); got != "Subject: x\n\n" {
			t.Errorf("%v: %q", to, got)
		}
		n := 0
		for got, err := range a.Receipts(context.Background(), "INBOX") {
			if n++; err != nil || got.Place != rc.Place || got.Digest != rc.Digest {
				t.Errorf("%v: %+v, %v", to, got, err)
			}
		}
		if n != 1 {
			t.Errorf("%v: %d messages", to, n)
		}
		found, err := a.Recover(context.Background(), "INBOX", archive.Anchor{Open: true}, func(p string) bool { return p == rc.Place })
		if err != nil || len(found.Receipts) != 0 {
			t.Errorf("%v: taken for a new message: %+v, %v", to, found, err)
		}
		if _, err := a.SetFlags(context.Background(), rc, "", mail.Flagged); err != nil {
			t.Errorf("%v: %v", to, err)
		}
	}
}

func TestReadersLettersStay(t *testing.T) {
	a, fsys, _ := openDir(t, Options{})
	rc := add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"}).Receipts[0]
	rename(t, fsys, "INBOX", "cur", ":2,PTz")
	rc, err := a.SetFlags(context.Background(), rc, "", mail.Seen)
	list, _ := fsys.ReadDir("INBOX/cur")
	if err != nil || !strings.HasSuffix(list[0].Name(), ":2,PSTz") || rc.Info.Flags != mail.NewFlags(mail.Seen, mail.Deleted) {
		t.Errorf("%q, %q, %v", list[0].Name(), rc.Info.Flags, err)
	}
	rc, err = a.SetFlags(context.Background(), rc, mail.Deleted, "")
	list, _ = fsys.ReadDir("INBOX/cur")
	if err != nil || !strings.HasSuffix(list[0].Name(), ":2,PSz") || rc.Info.Flags != mail.Seen {
		t.Errorf("%q, %q, %v", list[0].Name(), rc.Info.Flags, err)
	}
}

func TestKeywordsAsDovecotWritesThem(t *testing.T) {
	a, fsys, _ := openDir(t, Options{})
	if _, err := durable.MkdirAll(fsys, "INBOX/cur"); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFileAtomic(fsys, "INBOX/dovecot-keywords", []byte("0 $Forwarded\n2 work\nx y\n99 z\n")); err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 30 {
		many = append(many, fmt.Sprintf("k%02d", i))
	}
	add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: 1\r\n\r\n", Flags: mail.NewFlags("WORK", "$Forwarded", "home")},
		testMessage{Mailbox: "INBOX", Wire: "Subject: 2\r\n\r\n", Flags: mail.NewFlags(many...)})
	data, err := durable.ReadFile(fsys, "INBOX/dovecot-keywords", 10000)
	if err != nil || !strings.HasPrefix(string(data), "0 $Forwarded\n1 home\n2 work\n3 k00\n") || !strings.HasSuffix(string(data), "25 k22\n") {
		t.Errorf("%q, %v", data, err)
	}
	var names []string
	list, _ := fsys.ReadDir("INBOX/cur")
	for _, e := range list {
		_, letters, _ := splitInfo(e.Name())
		names = append(names, letters)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"abc", "defghijklmnopqrstuvwxyz"}) {
		t.Errorf("letters %q", names)
	}
	if _, err := fsys.Lstat("INBOX/dovecot-keywords.lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestLockedKeywordsStayInTheLedger(t *testing.T) {
	a, fsys, _ := openDir(t, Options{})
	if _, err := durable.MkdirAll(fsys, "INBOX/cur"); err != nil {
		t.Fatal(err)
	}
	lock := "INBOX/dovecot-keywords.lock"
	f, err := fsys.OpenFile(lock, os.O_WRONLY|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	m := testMessage{Mailbox: "INBOX", Wire: "Subject: 1\r\n\r\n", Flags: mail.NewFlags("work")}
	if rc := add(t, a, m).Receipts[0]; rc.Info.Flags != "work" {
		t.Errorf("%q", rc.Info.Flags)
	}
	if _, err := fsys.Lstat(lock); err != nil {
		t.Errorf("the lock of somebody else: %v", err)
	}
	if err := fsys.Chtimes(lock, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	add(t, a, m)
	if data, err := durable.ReadFile(fsys, "INBOX/dovecot-keywords", 100); err != nil || string(data) != "0 work\n" {
		t.Errorf("after a stale lock: %q, %v", data, err)
	}
}

// noColon is a file system of Windows.
type noColon struct {
	durable.FS
	err error // what it says
}

func (n noColon) Rename(from, to string) error {
	if strings.Contains(to, ":") {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: n.err}
	}
	return n.FS.Rename(from, to)
}

func TestColonRefused(t *testing.T) {
	for _, err := range []error{syscall.EINVAL, syscall.ENOENT} {
		a := openFS(t, noColon{faultfs.NewMem(), err}, Options{})
		m := testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n", Flags: mail.Seen}
		for _, rc := range add(t, a, m, m, m).Receipts {
			if got := content(t, a, rc); got != m.Canonical() {
				t.Errorf("%q", got)
			}
			rc, err := a.SetFlags(context.Background(), rc, "", mail.Flagged)
			if err != nil || rc.Info.Flags != mail.NewFlags(mail.Seen, mail.Flagged) {
				t.Errorf("%q, %v", rc.Info.Flags, err)
			}
		}
	}
}

func TestRecoverSweepsOnlyOurOwn(t *testing.T) {
	a, fsys, _ := openDir(t, Options{Host: "host"})
	add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"})
	names := map[string]bool{
		"1700000000.ABCDEFGHIJKLMNOPQRST.host": false, "1700000000.ABCDEFGHIJKLMNOPQR77.other": false,
		"1700000000.M123P456.host": true, "notes": true, "1700000000.ABCDEFGHIJKLMNOPQRST": true,
	}
	for name := range names {
		f, err := fsys.OpenFile("INBOX/tmp/"+name, os.O_WRONLY|os.O_CREATE)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if _, err := a.Recover(context.Background(), "INBOX", archive.Anchor{}, func(string) bool { return true }); err != nil {
		t.Fatal(err)
	}
	for name, stays := range names {
		if _, err := fsys.Lstat("INBOX/tmp/" + name); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRecoverLeavesTornAndForeignFiles(t *testing.T) {
	a, fsys, _ := openDir(t, Options{})
	rc := add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"}).Receipts[0]
	for name, data := range map[string]string{"1.torn.host,S=100:2,": "half", "2.mutt.host:2,S": "Subject: saved\n\n", ".hidden": "x"} {
		if err := durable.WriteFileAtomic(fsys, "INBOX/cur/"+name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	known := func(p string) bool { return p == rc.Place }
	found, err := a.Recover(context.Background(), "INBOX", archive.Anchor{}, known)
	if err != nil || len(found.Receipts) != 0 {
		t.Errorf("after a run that ended well: %+v, %v", found, err)
	}
	found, err = a.Recover(context.Background(), "INBOX", archive.Anchor{Open: true}, known)
	if err != nil || len(found.Receipts) != 1 || found.Receipts[0].Place != "INBOX/cur/2.mutt.host" {
		t.Errorf("after a run that was killed: %+v, %v", found, err)
	}
}

// counting counts open descriptors.
type counting struct {
	durable.FS
	mu        sync.Mutex
	open, top int
}

type countingFile struct {
	durable.File
	c *counting
}

func (c *counting) OpenFile(name string, flag int) (durable.File, error) {
	f, err := c.FS.OpenFile(name, flag)
	if err == nil {
		c.mu.Lock()
		c.open++
		c.top = max(c.top, c.open)
		c.mu.Unlock()
		f = &countingFile{f, c}
	}
	return f, err
}

func (f *countingFile) Close() error {
	f.c.mu.Lock()
	f.c.open--
	f.c.mu.Unlock()
	return f.File.Close()
}

func TestOpenFilesAreBounded(t *testing.T) {
	c := &counting{FS: faultfs.NewMem()}
	a := openFS(t, c, Options{OpenFiles: 10})
	const writers, each = 4, 100
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				m := testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"}
				if err := a.Append(context.Background(), m.Info(), m.Octets()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if g := add(t, a); len(g.Receipts) != writers*each {
		t.Errorf("%d receipts", len(g.Receipts))
	}
	if c.open != 0 || c.top > 2*10+writers {
		t.Errorf("%d files open, at most %d", c.open, c.top)
	}
}

func TestEarlySyncFails(t *testing.T) {
	for n := 1; ; n++ {
		disk := faultfs.NewMem()
		f := faultfs.New(disk, faultfs.Plan{At: n, Err: syscall.EIO})
		a, err := New(f, archivetest.NewLedger(), Options{OpenFiles: 2})
		if err != nil {
			t.Fatal(err)
		}
		failed := 0
		for i := range 5 {
			m := testMessage{Mailbox: "INBOX", Wire: fmt.Sprintf("Subject: %d\r\n\r\n", i)}
			if err := a.Append(context.Background(), m.Info(), m.Octets()); err != nil {
				failed++
			}
		}
		g, cerr := a.Commit(context.Background())
		if len(g.Receipts)+failed < 5 && cerr == nil {
			t.Errorf("%s: %d receipts, and no error", f.Where(), len(g.Receipts))
		}
		if cerr != nil && (mail.KindOf(cerr) != mail.KindDisk || mail.HintOf(cerr) == "") {
			t.Errorf("%s: %v", f.Where(), cerr)
		}
		if v := f.Violations(); v != nil {
			t.Errorf("%s: %v", f.Where(), v)
		}
		list, err := disk.ReadDir("INBOX/cur")
		if err != nil && !errors.Is(err, fs.ErrNotExist) || len(list) != len(g.Receipts) {
			t.Errorf("%s: %d files for %d receipts, %v", f.Where(), len(list), len(g.Receipts), err)
		}
		hit := f.Hit()
		a.Close()
		if !hit {
			return
		}
	}
}

// What goes wrong with one message's file is told for that message: it is not
// archived, even where only close says so, and no other is lost over it.
func TestFailedCloseIsNoReceipt(t *testing.T) {
	for _, mode := range []faultfs.Mode{faultfs.Fail, faultfs.Late} {
		hit := 0
		for n := 1; ; n++ {
			disk := faultfs.NewMem()
			f := faultfs.New(disk, faultfs.Plan{At: n, Mode: mode, Err: syscall.EIO})
			a := openFS(t, f, Options{})
			ok := true
			for i := range 3 {
				m := testMessage{Mailbox: "INBOX", Wire: fmt.Sprintf("Subject: %d\r\n\r\n", i)}
				ok = ok && a.Append(context.Background(), m.Info(), m.Octets()) == nil
			}
			g, err := a.Commit(context.Background())
			if ok && strings.Contains(f.Where(), "(close INBOX/tmp/") {
				hit++
				if mail.KindOf(err) != mail.KindDisk || len(g.Receipts) != 2 {
					t.Errorf("%v at %s: %d receipts, %v", mode, f.Where(), len(g.Receipts), err)
				}
			}
			a.Close()
			if !f.Hit() {
				break
			}
		}
		if hit != 3 {
			t.Errorf("%v: %d files failed to close", mode, hit)
		}
	}
}

// A directory whose sync failed once is not trusted again: the kernel says only once
// that entries were lost.
func TestFailedSyncOfADirectoryIsFinal(t *testing.T) {
	hit := 0
	for n := 1; ; n++ {
		disk := faultfs.NewMem()
		f := faultfs.New(disk, faultfs.Plan{At: n, Err: syscall.EIO})
		a := openFS(t, f, Options{})
		m := testMessage{Mailbox: "INBOX", Wire: "Subject: 1\r\n\r\n"}
		if a.Append(context.Background(), m.Info(), m.Octets()) == nil {
			_, err := a.Commit(context.Background())
			if strings.Contains(f.Where(), "(syncdir ") && err != nil {
				hit++
				again := testMessage{Mailbox: "INBOX", Wire: "Subject: 2\r\n\r\n"}
				aerr := a.Append(context.Background(), again.Info(), again.Octets())
				g, cerr := a.Commit(context.Background())
				if len(g.Receipts) > 0 || aerr == nil && cerr == nil {
					t.Errorf("after %s: %d receipts, %v, %v", f.Where(), len(g.Receipts), aerr, cerr)
				}
			}
		}
		a.Close()
		if !f.Hit() {
			break
		}
	}
	if hit == 0 {
		t.Error("no sync of a directory failed")
	}
}

func TestDiskFullNamesPathAndHint(t *testing.T) {
	f := faultfs.New(faultfs.NewMem(), faultfs.Plan{})
	a := openFS(t, f, Options{})
	add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"})
	full := faultfs.New(f, faultfs.Plan{At: 8, Mode: faultfs.Short, Err: syscall.ENOSPC})
	b := openFS(t, full, Options{})
	m := testMessage{Mailbox: "INBOX", Wire: string(bytes.Repeat([]byte("0123456789\r\n"), 20000))}
	err := b.Append(context.Background(), m.Info(), m.Octets())
	if mail.KindOf(err) != mail.KindDisk || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "write INBOX/tmp/") ||
		!strings.Contains(mail.HintOf(err), "free space") {
		t.Errorf("%v (%s)", err, full.Where())
	}
	if list, err := f.ReadDir("INBOX/tmp"); err != nil || len(list) != 0 {
		t.Errorf("left in tmp: %v, %v", list, err)
	}
}

func TestAppendAfterClose(t *testing.T) {
	a, fsys, _ := openDir(t, Options{})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	m := testMessage{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"}
	if err := a.Append(context.Background(), m.Info(), m.Octets()); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
	if list, err := fsys.ReadDir("INBOX/tmp"); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
}

func FuzzFileName(f *testing.F) {
	for _, s := range []string{"1.x.h,S=5:2,FS", "x", ":2,", "a;2,b:2,c", ",S=9999999999999999999:2,", "\xff:2,\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		stem, letters, sep := splitInfo(name)
		if sep != 0 && stem+string(sep)+"2,"+letters != name || sep == 0 && (stem != name || letters != "") {
			t.Errorf("%q: %q %q %q", name, stem, letters, sep)
		}
		k := keywords{names: []string{"$Forwarded", "", "work"}}
		again := k.replaceLetters(letters, k.flags(letters))
		if k.flags(again) != k.flags(letters) {
			t.Errorf("%q: letters %q become %q", name, letters, again)
		}
		statedSize(stem)
		isOwn(name)
	})
}

func FuzzKeywords(f *testing.F) {
	for _, s := range []string{"0 a\n1 b\n", "25 z\n26 x\n-1 y\n", "\n\n", "0  \r\n", "7 \xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, data string) {
		names := parseKeywords(data)
		if len(names) > maxKeywords {
			t.Fatalf("%d keywords", len(names))
		}
		k := keywords{names: names}
		if again := parseKeywords(k.String()); !slices.Equal(again, names) {
			t.Errorf("%q, then %q", names, again)
		}
	})
}
