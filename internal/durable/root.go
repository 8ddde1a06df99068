package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// ErrLocked says that another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// ErrNotRegular says that a name stands for something that is no regular file: a
// directory, a FIFO, a socket or a device. Those are never opened for octets.
var ErrNotRegular = errors.New("not a regular file")

const (
	fileMode = 0o600
	dirMode  = 0o700
)

// OpenRoot opens an existing directory as an FS. Symbolic links inside that lead
// outside are not followed (os.Root), the path itself may hold some.
func OpenRoot(path string) (FS, error) {
	r, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &root{r: r}, nil
}

// MakeRoot makes the directory and what is missing above it, 0700, all of it
// durable, and opens it as an FS.
func MakeRoot(path string) (FS, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := makeDirs(path); err != nil {
		return nil, err
	}
	return OpenRoot(path)
}

// makeDirs makes path and what is missing above it; each new entry is durable
// when it returns.
func makeDirs(path string) error {
	err := os.Mkdir(path, dirMode)
	switch parent := filepath.Dir(path); {
	case err == nil:
		if err := os.Chmod(path, dirMode); err != nil {
			return err
		}
		return syncDirPath(parent)
	case errors.Is(err, fs.ErrNotExist) && parent != path:
		if st, serr := os.Stat(parent); serr == nil && st.IsDir() {
			return err // there, and takes no directories: /proc
		}
		if err := makeDirs(parent); err != nil {
			return err
		}
		return makeDirs(path)
	case errors.Is(err, fs.ErrExist):
		if st, serr := os.Stat(path); serr != nil || !st.IsDir() {
			return err
		}
		return nil
	default:
		return err
	}
}

func syncDirPath(path string) error {
	d, err := os.OpenFile(path, os.O_RDONLY|openDirFlags, 0)
	if err != nil {
		return err
	}
	return errors.Join(syncDir(d), d.Close())
}

// root is the FS of a real directory.
type root struct {
	r     *os.Root
	dirs  dirs
	masks atomic.Int32 // what the umask does to new files: one of the masks* values
}

const (
	masksUnknown int32 = iota
	masksNothing       // new files come out as 0600
	masksOwner         // a umask such as 0277: the mode must be set after creation
)

// local turns an FS name into one of the operating system; names that lead
// outside, and DOS device names on Windows, are refused.
func local(op, name string) (string, error) {
	l, err := filepath.Localize(name)
	if err != nil {
		return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return l, nil
}

func (r *root) OpenFile(name string, flag int) (File, error) {
	l, err := local("open", name)
	if err != nil {
		return nil, err
	}
	var f *os.File
	existed := false
	if flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL {
		f, err = r.create(name, flag)
	} else {
		f, existed, err = r.openExisting(name, l, flag)
	}
	if err != nil {
		return nil, err
	}
	if flag&os.O_CREATE != 0 && !existed {
		if err := r.fixMode(f); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &file{File: f, root: r.r, name: name, local: l}, nil
}

// openExisting opens what may be there already, if it is a regular file.
func (r *root) openExisting(name, l string, flag int) (f *os.File, existed bool, err error) {
	notRegular := &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	// A device may act on being opened, so it is looked at before.
	switch st, err := r.r.Stat(l); {
	case err == nil && !st.Mode().IsRegular():
		return nil, false, notRegular
	case err == nil:
		existed = true
	case !errors.Is(err, fs.ErrNotExist):
		return nil, false, err
	}
	if f, err = r.r.OpenFile(l, flag|openFileFlags, fileMode); err != nil {
		return nil, false, err
	}
	// It may have become something else in between.
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = notRegular
	}
	if err != nil {
		f.Close()
		return nil, false, err
	}
	return f, existed, nil
}

// fixMode gives a new file its mode where the umask takes bits of the owner. The
// umask is looked at once.
func (r *root) fixMode(f *os.File) error {
	if r.masks.Load() == masksNothing {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Mode().Perm()&fileMode == fileMode {
		r.masks.CompareAndSwap(masksUnknown, masksNothing)
		return nil
	}
	r.masks.Store(masksOwner)
	return f.Chmod(fileMode)
}

func (r *root) Mkdir(name string) error {
	l, err := local("mkdir", name)
	if err != nil {
		return err
	}
	if err := r.r.Mkdir(l, dirMode); err != nil {
		return err
	}
	return r.r.Chmod(l, dirMode)
}

func (r *root) Rename(from, to string) error { return r.rename(from, to) }

func (r *root) Remove(name string) error {
	l, err := local("remove", name)
	if err != nil {
		return err
	}
	return r.r.Remove(l)
}

// openDir opens a directory; something else is an error and is not waited for.
func (r *root) openDir(op, name string) (*os.File, error) {
	l, err := local(op, name)
	if err != nil {
		return nil, err
	}
	return r.r.OpenFile(l, os.O_RDONLY|openDirFlags, 0)
}

func (r *root) ReadDir(name string) ([]fs.DirEntry, error) {
	d, err := r.openDir("readdir", name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	list, err := d.ReadDir(-1)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

func (r *root) Lstat(name string) (fs.FileInfo, error) {
	l, err := local("lstat", name)
	if err != nil {
		return nil, err
	}
	return r.r.Lstat(l)
}

func (r *root) Chtimes(name string, mtime time.Time) error {
	l, err := local("chtimes", name)
	if err != nil {
		return err
	}
	return r.r.Chtimes(l, time.Time{}, mtime)
}

func (r *root) SyncDir(name string) error {
	d, err := r.openDir("syncdir", name)
	if err != nil {
		return err
	}
	if err = r.dirs.verify(name, d); err == nil {
		err = syncDir(d)
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", name, err)
	}
	return nil
}

func (r *root) Close() error {
	r.dirs.close()
	return r.r.Close()
}

// file is a File of a real directory.
type file struct {
	*os.File
	root  *os.Root
	name  string
	local string
}

// Name returns the name the file was opened by, relative to the root.
func (f *file) Name() string { return f.name }
