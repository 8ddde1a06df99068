//go:build unix

package durable

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A file made in a directory that somebody has put another in place of is not
// where the archive looks for it: the sync must fail.
func TestReplacedDirectoryIsNotSynced(t *testing.T) {
	t.Run("kept open", func(t *testing.T) { replaceDirectory(t, false) })
	t.Run("closed to make room", func(t *testing.T) { replaceDirectory(t, true) })
}

func replaceDirectory(t *testing.T, evict bool) {
	dir := t.TempDir()
	fsys, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	for _, d := range []string{"a", "a/tmp", "a/cur"} {
		if err := fsys.Mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	put := func(name string) error {
		f, err := fsys.OpenFile("a/tmp/"+name, os.O_CREATE|os.O_EXCL|os.O_WRONLY)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		return fsys.Rename("a/tmp/"+name, "a/cur/"+name)
	}
	if err := put("1"); err != nil {
		t.Fatal(err)
	}
	if err := fsys.SyncDir("a/cur"); err != nil {
		t.Fatal(err)
	}
	if evict {
		if err := put("2"); err != nil { // into the directory that is replaced below
			t.Fatal(err)
		}
		for i := range maxDirs + 1 {
			dir := fmt.Sprint("other", i)
			if err := fsys.Mkdir(dir); err != nil {
				t.Fatal(err)
			}
			f, err := fsys.OpenFile(dir+"/x", os.O_CREATE|os.O_EXCL|os.O_WRONLY)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"a", "a/tmp", "a/cur"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if !evict {
		if err := put("2"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "a/cur/2")); err == nil {
		t.Fatal("the file is where it is looked for: this test says nothing")
	}
	if err := fsys.SyncDir("a/cur"); err == nil {
		t.Error("the new directory was synced, and the file is in the old one")
	}
	if err := put("3"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a/cur/3")); err != nil {
		t.Errorf("after the error the new directory is used: %v", err)
	}
}

// More directories than are kept open, from several goroutines.
func TestManyDirectories(t *testing.T) {
	fsys, err := OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	const n = 3 * maxDirs
	for i := range n {
		if err := fsys.Mkdir(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range n {
				from, to := fmt.Sprintf("%d/%d.new", i, g), fmt.Sprintf("%d/%d", (i+g)%n, i*4+g)
				f, err := fsys.OpenFile(from, os.O_CREATE|os.O_EXCL|os.O_WRONLY)
				if err != nil {
					t.Error(err)
					return
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
				if err := fsys.Rename(from, to); err != nil {
					t.Error(err)
				}
				if _, err := fsys.Lstat(to); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
