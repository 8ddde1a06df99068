package ledger

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"mailhaul/internal/durable"
)

// OpenReadOnly opens the ledger in dir for reading and changes nothing there; it
// works on read-only media. The caller holds the archive's lock, shared. What a
// killed run left in the WAL, and what an older program wrote, is read from a private
// copy. A missing ledger
// is an error for which errors.Is(err, fs.ErrNotExist) holds.
func OpenReadOnly(dir string) (*Ledger, error) {
	l := &Ledger{dir: dir, now: time.Now, readOnly: true, cleanup: func() error { return nil }}
	l.forget()
	if err := l.openReadOnly(); err != nil {
		return nil, wrap("open", errors.Join(err, l.cleanup()))
	}
	return l, nil
}

func (l *Ledger) openReadOnly() error {
	fsys, err := durable.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	l.fsys = fsys
	exists, err := l.regular()
	l.fsys = nil
	if err == nil && !exists {
		err = &fs.PathError{Op: "open", Path: filepath.Join(l.dir, fileName), Err: fs.ErrNotExist}
	}
	wal, serr := fsys.Lstat(fileName + "-wal")
	if err := errors.Join(err, fsys.Close()); err != nil {
		return err
	}
	path, params, check := filepath.Join(l.dir, fileName), immutable, false
	if serr == nil && wal.Size() > 0 {
		if path, err = l.privateCopy(path); err != nil {
			return err
		}
		params, check = "mode=rw", true
	}
	version, err := checkHeader(path)
	if err != nil {
		return err
	}
	if !check && version < uint32(len(migrations)) { // to be migrated
		if path, err = l.privateCopy(path); err != nil {
			return err
		}
		params = "mode=rw"
	}
	d, err := openDB(path, params, pragmas...)
	if err != nil {
		return err
	}
	if l.opened.Rebuild, err = d.admit(check); err != nil {
		return errors.Join(err, d.close())
	}
	l.db = d
	return nil
}

// privateCopy copies ledger and WAL to where SQLite may join them.
func (l *Ledger) privateCopy(path string) (string, error) {
	dir, err := os.MkdirTemp("", "mailhaul-")
	if err != nil {
		return "", err
	}
	l.cleanup = func() error { return os.RemoveAll(dir) }
	copied := filepath.Join(dir, fileName)
	return copied, copyLedger(copied, path)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
