package faultfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailhaul/internal/durable"
)

func write(t *testing.T, fsys durable.FS, name, data string) durable.File {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, data); err != nil {
		t.Fatal(err)
	}
	return f
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// tree lists a disk as "name=octets".
func tree(t *testing.T, fsys durable.FS, dir string) (out []string) {
	t.Helper()
	list, err := fsys.ReadDir(dir)
	must(t, err)
	for _, e := range list {
		name := strings.TrimPrefix(dir+"/"+e.Name(), "./")
		if e.IsDir() {
			out = append(append(out, name+"/"), tree(t, fsys, name)...)
			continue
		}
		data, err := durable.ReadFile(fsys, name, 1000)
		must(t, err)
		out = append(out, name+"="+string(data))
	}
	return out
}

func TestCrashForgetsWhatWasNotSynced(t *testing.T) {
	m := NewMem()
	must(t, m.Mkdir("tmp"), m.Mkdir("cur"), m.SyncDir("."))
	f := write(t, m, "tmp/a", "synced")
	must(t, f.Sync())
	_, err := io.WriteString(f, "+more")
	must(t, err, m.Mkdir("later"))
	check := func(loss Loss, want ...string) {
		t.Helper()
		if got := tree(t, m.Crash(loss, 1), "."); !slices.Equal(got, want) {
			t.Errorf("%v: %q, want %q", loss, got, want)
		}
	}
	check(LoseAll, "cur/", "tmp/")
	check(LoseData, "cur/", "later/", "tmp/", "tmp/a=synced\x00\x00\x00\x00\x00")
	check(LoseTail, "cur/", "later/", "tmp/", "tmp/a=synced+m")
	must(t, m.SyncDir("tmp"))
	check(LoseAll, "cur/", "tmp/", "tmp/a=synced")
	must(t, m.Rename("tmp/a", "cur/a"))
	check(LoseAll, "cur/", "tmp/", "tmp/a=synced")
	must(t, m.SyncDir("cur"), m.SyncDir("tmp"))
	check(LoseAll, "cur/", "cur/a=synced", "tmp/")
	must(t, m.Remove("cur/a"))
	check(LoseAll, "cur/", "cur/a=synced", "tmp/")
	check(LoseData, "cur/", "later/", "tmp/")
	both := map[bool]bool{}
	for seed := range uint64(50) {
		both[slices.Contains(tree(t, m.Crash(LoseSome, seed), "."), "later/")] = true
	}
	if len(both) != 2 {
		t.Error("LoseSome does not vary")
	}
	must(t, f.Close())
	if err := f.Sync(); !errors.Is(err, fs.ErrClosed) {
		t.Error(err)
	}
}

func TestCrashForgetsMtime(t *testing.T) {
	m, when := NewMem(), time.Unix(1000, 0)
	f := write(t, m, "a", "x")
	must(t, f.Chtimes(when), f.Sync(), m.SyncDir("."), m.Chtimes("a", when.Add(time.Hour)))
	for loss, want := range map[Loss]time.Time{LoseAll: when, LoseData: when.Add(time.Hour)} {
		if st, err := m.Crash(loss, 0).Lstat("a"); err != nil || !st.ModTime().Equal(want) {
			t.Errorf("%v: %v, %v", loss, st.ModTime(), err)
		}
	}
}

// The model must answer as a real file system does.
func TestMemAnswersAsARealFileSystem(t *testing.T) {
	real, err := durable.OpenRoot(t.TempDir())
	must(t, err)
	defer real.Close()
	for name, fsys := range map[string]durable.FS{"real": real, "mem": NewMem()} {
		must(t, fsys.Mkdir("d"))
		write(t, fsys, "d/f", "0123456789").Close()
		open := func(name string, flag int) error {
			f, err := fsys.OpenFile(name, flag)
			if err == nil {
				f.Close()
			}
			return err
		}
		_, rerr := fsys.ReadDir("none")
		_, lerr := fsys.Lstat("none")
		for what, c := range map[string]struct{ got, want error }{
			"open missing":     {open("none", os.O_RDONLY), fs.ErrNotExist},
			"create below":     {open("none/x", os.O_RDWR|os.O_CREATE), fs.ErrNotExist},
			"exclusive":        {open("d/f", os.O_RDWR|os.O_CREATE|os.O_EXCL), fs.ErrExist},
			"open directory":   {open("d", os.O_RDONLY), durable.ErrNotRegular},
			"below a file":     {open("d/f/x", os.O_RDONLY), syscall.ENOTDIR},
			"outside":          {open("../x", os.O_RDONLY), fs.ErrInvalid},
			"mkdir again":      {fsys.Mkdir("d"), fs.ErrExist},
			"mkdir on file":    {fsys.Mkdir("d/f"), fs.ErrExist},
			"mkdir below":      {fsys.Mkdir("none/x"), fs.ErrNotExist},
			"rename missing":   {fsys.Rename("none", "x"), fs.ErrNotExist},
			"remove missing":   {fsys.Remove("none"), fs.ErrNotExist},
			"remove non-empty": {fsys.Remove("d"), syscall.ENOTEMPTY},
			"readdir missing":  {rerr, fs.ErrNotExist},
			"lstat missing":    {lerr, fs.ErrNotExist},
			"sync missing":     {fsys.SyncDir("none"), fs.ErrNotExist},
			"sync file":        {fsys.SyncDir("d/f"), syscall.ENOTDIR},
			"chtimes missing":  {fsys.Chtimes("none", time.Now()), fs.ErrNotExist},
		} {
			if !errors.Is(c.got, c.want) {
				t.Errorf("%s: %s: %v, want %v", name, what, c.got, c.want)
			}
		}
		f, err := fsys.OpenFile("d/f", os.O_RDWR|os.O_APPEND)
		must(t, err)
		_, werr := f.Write([]byte("ab"))
		must(t, werr, f.Truncate(11))
		off, serr := f.Seek(-3, io.SeekEnd)
		must(t, serr)
		b, berr := io.ReadAll(f)
		must(t, berr)
		if off != 8 || string(b) != "89a" {
			t.Errorf("%s: at %d %q", name, off, b)
		}
		n, aerr := f.ReadAt(make([]byte, 5), 9)
		if n != 2 || aerr != io.EOF {
			t.Errorf("%s: ReadAt %d, %v", name, n, aerr)
		}
		must(t, f.Close())
		g, err := fsys.OpenFile("d/f", os.O_RDONLY)
		must(t, err)
		if _, err := g.Write([]byte("x")); err == nil {
			t.Errorf("%s: wrote to a file open for reading", name)
		}
		g.Close()
		write(t, fsys, "old", "old").Close()
		must(t, fsys.Rename("d/f", "old"), fsys.Remove("d"))
		if got := tree(t, fsys, "."); !slices.Equal(got, []string{"old=0123456789a"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestLocks(t *testing.T) {
	m := NewMem()
	a, b := write(t, m, "x", ""), write(t, m, "x", "")
	must(t, a.Lock(), a.Lock())
	if err := b.Lock(); !errors.Is(err, durable.ErrLocked) {
		t.Fatal(err)
	}
	must(t, a.Close(), b.Lock())
	m.Restart()
	must(t, write(t, m, "x", "").Lock())
}

// script is a few operations; the first error ends it.
func script(fsys durable.FS) error {
	if err := fsys.Mkdir("d"); err != nil {
		return err
	}
	f, err := fsys.OpenFile("d/a", os.O_WRONLY|os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write([]byte("0123456789")); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return fsys.SyncDir("d")
}

func TestEachOperationFailsInItsTurn(t *testing.T) {
	for _, mode := range []Mode{Fail, Short, Late, Die} {
		n := 1
		for ; ; n++ {
			f := New(NewMem(), Plan{At: n, Mode: mode, Err: syscall.EIO})
			err := script(f)
			if !f.Hit() {
				if err != nil {
					t.Errorf("%v: %v", mode, err)
				}
				break
			}
			want := error(syscall.EIO)
			if mode == Die {
				want = ErrDead
			}
			if closing := strings.Contains(f.Where(), "close"); !closing && !errors.Is(err, want) {
				t.Errorf("%v at %s: %v", mode, f.Where(), err)
			}
			if mode == Die && f.Mkdir("x") != ErrDead {
				t.Errorf("alive after %s", f.Where())
			}
		}
		if n != 7 { // mkdir, create, write, sync, syncdir, close
			t.Errorf("%v: %d steps", mode, n-1)
		}
	}
}

func TestShortWrite(t *testing.T) {
	m := NewMem()
	f := New(m, Plan{At: 3, Mode: Short, Err: syscall.ENOSPC})
	if err := script(f); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if got := tree(t, m, "."); !slices.Equal(got, []string{"d/", "d/a=01234"}) {
		t.Errorf("%q", got)
	}
}

func TestSecondSyncIsAViolation(t *testing.T) {
	f := New(NewMem(), Plan{At: 3})
	a := write(t, f, "a", "x")
	if a.Sync() == nil || f.Violations() != nil {
		t.Fatal("no fault")
	}
	must(t, a.Sync())
	if v := f.Violations(); len(v) != 1 {
		t.Errorf("%q", v)
	}
}

const killEnv = "FAULTFS_TEST_KILL"

func TestKill(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		fsys, err := durable.OpenRoot(dir)
		must(t, err)
		t.Fatal("survived: ", script(New(fsys, Plan{At: 4, Mode: Kill})))
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), killEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Exited() || len(out) > 0 {
		t.Fatalf("%v, %s", err, out)
	}
	fsys, err := durable.OpenRoot(dir)
	must(t, err)
	defer fsys.Close()
	if got := tree(t, fsys, "."); !slices.Equal(got, []string{"d/", "d/a=0123456789"}) {
		t.Errorf("%q", got)
	}
}
