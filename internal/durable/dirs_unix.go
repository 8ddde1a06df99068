//go:build unix

package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"
)

// maxDirs bounds the directories kept open.
const maxDirs = 64

// dirs keeps directories open, so that a file made in one and renamed into
// another costs two system calls instead of a walk from the root for each. A
// directory that is replaced meanwhile is noticed by SyncDir, before anything in
// it counts as durable.
type dirs struct {
	mu   sync.RWMutex // held for reading while a descriptor is in use
	open map[string]*os.File
	used map[string]fileID // directories used since they were last verified, open or not
}

// fileID tells one directory from another at the same path.
type fileID struct{ dev, ino uint64 }

func idOf(f *os.File) (fileID, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(int(f.Fd()), &st) })
	if err != nil {
		return fileID{}, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}

// in calls f with the descriptor of the directory a name lies in, and the last
// component of the name.
func (r *root) in(op, name string, f func(dir int, base string) error) error {
	if !fs.ValidPath(name) || name == "." {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	for {
		r.dirs.mu.RLock()
		if d := r.dirs.open[dir]; d != nil {
			err := f(int(d.Fd()), base)
			r.dirs.mu.RUnlock()
			return err
		}
		r.dirs.mu.RUnlock()
		if err := r.keep(op, dir); err != nil {
			return err
		}
	}
}

// keep opens a directory and keeps it.
func (r *root) keep(op, dir string) error {
	d, err := r.openDir(op, dir)
	if err != nil {
		return err
	}
	id, err := idOf(d)
	if err != nil {
		d.Close()
		return err
	}
	r.dirs.mu.Lock()
	defer r.dirs.mu.Unlock()
	if r.dirs.open == nil {
		r.dirs.open, r.dirs.used = make(map[string]*os.File), make(map[string]fileID)
	}
	if _, ok := r.dirs.used[dir]; !ok {
		r.dirs.used[dir] = id // what was used before it was closed counts until it is verified
	}
	if len(r.dirs.open) >= maxDirs {
		r.dirs.closeLocked()
	}
	if old := r.dirs.open[dir]; old != nil {
		old.Close()
	}
	r.dirs.open[dir] = d
	return nil
}

func (d *dirs) closeLocked() {
	for _, f := range d.open {
		f.Close()
	}
	clear(d.open)
}

func (d *dirs) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closeLocked()
}

// verify compares a directory, just opened by its path, with the one that was
// used: what was put into a directory that is no longer at its path is not in the
// archive.
func (d *dirs) verify(name string, fresh *os.File) error {
	name = path.Clean(name)
	d.mu.Lock()
	defer d.mu.Unlock()
	used, ok := d.used[name]
	if !ok {
		return nil
	}
	id, err := idOf(fresh)
	if err != nil {
		return err
	}
	if id == used {
		if d.open[name] == nil {
			delete(d.used, name)
		}
		return nil
	}
	delete(d.used, name)
	if kept := d.open[name]; kept != nil {
		kept.Close()
		delete(d.open, name)
	}
	return fmt.Errorf("%w: directory replaced while it was in use", fs.ErrNotExist)
}

// create makes a new file; it is no other than a regular one.
func (r *root) create(name string, flag int) (f *os.File, err error) {
	err = r.in("open", name, func(dir int, base string) error {
		var fd int
		err := retry(func() (err error) {
			fd, err = unix.Openat(dir, base, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, fileMode)
			return err
		})
		if err != nil {
			return &fs.PathError{Op: "open", Path: name, Err: err}
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	return f, err
}

func (r *root) rename(from, to string) error {
	// Both directories are kept before either is used: keeping one takes the lock.
	for _, name := range []string{from, to} {
		if err := r.in("rename", name, func(int, string) error { return nil }); err != nil {
			return err
		}
	}
	fromDir, fromBase := path.Split(from)
	toDir, toBase := path.Split(to)
	r.dirs.mu.RLock()
	defer r.dirs.mu.RUnlock()
	a, b := r.dirs.open[path.Clean(fromDir)], r.dirs.open[path.Clean(toDir)]
	if a == nil || b == nil { // closed in between, to make room
		return r.r.Rename(from, to)
	}
	err := retry(func() error { return unix.Renameat(int(a.Fd()), fromBase, int(b.Fd()), toBase) })
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
