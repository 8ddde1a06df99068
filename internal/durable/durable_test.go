package durable

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func open(t testing.TB) (FS, string) {
	t.Helper()
	dir := t.TempDir()
	r, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, dir
}

func create(t testing.TB, r FS, name, data string) File {
	t.Helper()
	f, err := r.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := io.WriteString(f, data); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestNamesStayInside(t *testing.T) {
	r, dir := open(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(dir, "dirlink")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "/etc/passwd", "a/../../x", "", "link", "dirlink/outside", "dirlink/new", "a//b", "nul\x00"} {
		if f, err := r.OpenFile(name, os.O_RDWR|os.O_CREATE); err == nil {
			f.Close()
			t.Errorf("%q was opened", name)
		}
		if err := r.Mkdir(name); err == nil {
			t.Errorf("%q was made", name)
		}
	}
}

func TestLocalRefuses(t *testing.T) {
	for _, name := range []string{"../x", "/x", "", "a/"} {
		if _, err := local("open", name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestMkdirAllReportsWhatItMade(t *testing.T) {
	r, _ := open(t)
	made, err := MkdirAll(r, "a/b")
	if err != nil || !slices.Equal(made, []string{"a", "a/b"}) {
		t.Fatal(made, err)
	}
	made, err = MkdirAll(r, "a/b/c/d")
	if err != nil || !slices.Equal(made, []string{"a/b/c", "a/b/c/d"}) {
		t.Fatal(made, err)
	}
	if made, err = MkdirAll(r, "a/b/c"); err != nil || made != nil {
		t.Fatal(made, err)
	}
	create(t, r, "a/file", "")
	if _, err = MkdirAll(r, "a/file/x"); err == nil {
		t.Fatal("made a directory below a file")
	}
	if _, err = MkdirAll(r, "a/file"); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := SyncChain(r, "a/b/c/d"); err != nil {
		t.Fatal(err)
	}
	if err := SyncChain(r, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestChtimesThroughDescriptor(t *testing.T) {
	r, _ := open(t)
	f := create(t, r, "x", "abc")
	for _, when := range []time.Time{
		time.Date(1969, 7, 20, 20, 17, 40, 0, time.UTC),
		time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC),
		time.Date(2040, 1, 2, 3, 4, 5, 0, time.UTC),
	} {
		if err := f.Chtimes(when); err != nil {
			t.Fatal(err)
		}
		st, err := r.Lstat("x")
		if err != nil || !st.ModTime().Equal(when) {
			t.Errorf("%v: got %v, %v", when, st.ModTime(), err)
		}
		if err := r.Chtimes("x", when.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if st, _ = f.Stat(); !st.ModTime().Equal(when.Add(time.Hour)) {
			t.Errorf("by name: got %v", st.ModTime())
		}
	}
}

func TestWriteFileAtomic(t *testing.T) {
	r, _ := open(t)
	for _, data := range []string{"one", "two, longer", ""} {
		if err := WriteFileAtomic(r, "state", []byte(data)); err != nil {
			t.Fatal(err)
		}
		got, err := ReadFile(r, "state", 100)
		if err != nil || string(got) != data {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if err := r.Mkdir("dir"); err != nil {
		t.Fatal(err)
	}
	create(t, r, "dir/x", "")
	if err := WriteFileAtomic(r, "dir", []byte("x")); err == nil {
		t.Fatal("replaced a directory")
	}
	list, err := r.ReadDir(".")
	if err != nil || len(list) != 2 {
		t.Fatalf("left behind: %v, %v", list, err)
	}
	if _, err := ReadFile(r, "state", 0); err != nil {
		t.Fatal(err)
	}
	create(t, r, "long", "12345")
	if _, err := ReadFile(r, "long", 4); err == nil {
		t.Fatal("limit not kept")
	}
}

func TestMakeRoot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		r, err := MakeRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := MakeRoot(filepath.Join(dir, "file")); err == nil {
		t.Fatal("a file is no root")
	}
}

func TestLockFile(t *testing.T) {
	ctx := context.Background()
	name := filepath.Join(t.TempDir(), "lock")
	l, err := LockFile(ctx, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, wait := range []time.Duration{0, time.Millisecond} {
		if _, err := LockFile(ctx, name, wait); !errors.Is(err, ErrLocked) {
			t.Fatalf("wait %v: %v", wait, err)
		}
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := LockFile(canceled, name, time.Hour); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		second, err := LockFile(ctx, name, time.Hour)
		if err == nil {
			err = second.Close()
		}
		got <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if _, err := LockFile(ctx, filepath.Join(name, "x"), time.Hour); err == nil || errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
}

type failingFile struct {
	File
	started, synced int
	start, sync     error
}

func (f *failingFile) StartWriteback() error { f.started++; return f.start }
func (f *failingFile) Sync() error           { f.synced++; return f.sync }

func TestSyncFilesSyncsEachOnce(t *testing.T) {
	bad := errors.New("bad")
	var files []File
	for i := range 50 {
		f := &failingFile{}
		switch i {
		case 7:
			f.sync = bad
		case 9:
			f.start = bad
		}
		files = append(files, f)
	}
	for i, err := range SyncFiles(files, SyncParallel) {
		f := files[i].(*failingFile)
		wantErr, wantSync := i == 7 || i == 9, 1
		if i == 9 {
			wantSync = 0 // the error was already told: it must not be asked again
		}
		if (err != nil) != wantErr || f.started != 1 || f.synced != wantSync {
			t.Errorf("file %d: %v, started %d, synced %d", i, err, f.started, f.synced)
		}
	}
	if errs := SyncFiles(nil, SyncParallel); len(errs) != 0 {
		t.Fatal(errs)
	}
}
