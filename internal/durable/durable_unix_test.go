//go:build unix

package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestModesWhateverTheUmask(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o277, 0o777} {
		r, dir := open(t)
		old := unix.Umask(mask)
		f, err := r.OpenFile("file", os.O_RDWR|os.O_CREATE|os.O_EXCL)
		derr := r.Mkdir("dir")
		unix.Umask(old)
		if err != nil || derr != nil {
			t.Fatal(err, derr)
		}
		f.Close()
		for name, want := range map[string]fs.FileMode{"file": 0o600, "dir": 0o700} {
			st, err := os.Lstat(filepath.Join(dir, name))
			if err != nil || st.Mode().Perm() != want {
				t.Errorf("umask %o: %s is %v", mask, name, st.Mode())
			}
		}
	}
}

// A directory that takes no entries says that they do not exist.
func TestMakeRootWhereNothingCanBeMade(t *testing.T) {
	if st, err := os.Stat("/proc"); err != nil || !st.IsDir() {
		t.Skip("there is no /proc")
	}
	for _, path := range []string{"/proc/mailhaul", "/proc/mailhaul/deeper"} {
		if _, err := MakeRoot(path); err == nil {
			t.Errorf("%s was made", path)
		}
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	r, dir := open(t)
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Mkdir("dir"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fifo", "dir"} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE} {
			if f, err := r.OpenFile(name, flag); !errors.Is(err, ErrNotRegular) {
				if err == nil {
					f.Close()
				}
				t.Errorf("%s with flags %#x: %v", name, flag, err)
			}
		}
	}
	if _, err := r.ReadDir("fifo"); !errors.Is(err, unix.ENOTDIR) {
		t.Error(err)
	}
	if err := r.SyncDir("fifo"); !errors.Is(err, unix.ENOTDIR) {
		t.Error(err)
	}
}
