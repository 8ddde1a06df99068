package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
)

// SyncParallel is how many files are synced at a time: the kernel joins their
// journal commits, more brings nothing.
const SyncParallel = 8

// MkdirAll makes a directory and what is missing above it, and returns what it
// made, top down. None of it is durable before the directory above each is
// synced, see SyncChain.
func MkdirAll(fsys FS, name string) (made []string, err error) {
	err = fsys.Mkdir(name)
	if errors.Is(err, fs.ErrNotExist) && name != "." {
		made, err = MkdirAll(fsys, path.Dir(name))
		if err != nil {
			return made, err
		}
		err = fsys.Mkdir(name)
	}
	if err == nil {
		return append(made, name), nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return made, err
	}
	st, serr := fsys.Lstat(name)
	if serr != nil {
		return made, serr
	}
	if st.Mode().IsRegular() {
		return made, err
	}
	return made, nil
}

// SyncChain syncs the directory and every one above it up to the root, so that
// the whole path is durable whoever made it.
func SyncChain(fsys FS, dir string) error {
	for {
		if err := fsys.SyncDir(dir); err != nil {
			return err
		}
		if dir == "." {
			return nil
		}
		dir = path.Dir(dir)
	}
}

// SyncFiles starts writing all files, then syncs them, parallel at a time. It
// returns one error (or nil) for each. A file with an error must be given up, not
// synced again.
func SyncFiles(files []File, parallel int) []error {
	errs := make([]error, len(files))
	if len(files) > 1 {
		for i, f := range files {
			errs[i] = f.StartWriteback()
		}
	}
	parallel = max(1, min(parallel, len(files)))
	var wg sync.WaitGroup
	for w := range parallel {
		wg.Go(func() {
			for i := w; i < len(files); i += parallel {
				if errs[i] == nil {
					errs[i] = files[i].Sync()
				}
			}
		})
	}
	wg.Wait()
	return errs
}

// WriteFileAtomic replaces a file by data: after a crash it is the old or the new
// one, whole. It is durable when WriteFileAtomic returns nil.
func WriteFileAtomic(fsys FS, name string, data []byte) error {
	tmp := path.Join(path.Dir(name), ".tmp-"+rand.Text())
	f, err := fsys.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fsys.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(fsys.Remove(tmp)))
	}
	return fsys.SyncDir(path.Dir(name))
}

// ReadFile reads a whole file of at most limit octets; a longer one is an error.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, name, limit)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func readLimited(r io.Reader, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: longer than %d octets", name, limit)
	}
	return b, err
}
