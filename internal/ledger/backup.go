package ledger

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Backup keeps a checked copy as ledger.bak, replacing the one before only when
// the new one is whole and durable.
func (l *Ledger) Backup(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.db == nil:
		return wrap("back up", errClosed)
	case l.readOnly:
		return wrap("back up", errReadOnly)
	}
	if err := l.backup(); err != nil {
		return l.failed("back up", errors.Join(err, l.removeNew()))
	}
	return nil
}

func (l *Ledger) backup() error {
	if err := l.removeNew(); err != nil {
		return err
	}
	f, err := l.fsys.OpenFile(newName, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	defer f.Close()
	path := filepath.Join(l.dir, newName)
	// VACUUM INTO fills an existing file if it is empty, so the mode is ours.
	if err := l.db.exec("VACUUM INTO ?", path); err != nil {
		return err
	}
	d, err := openDB(path, immutable, pragmas...)
	if err != nil {
		return err
	}
	if err := errors.Join(d.check(), d.checkSchema(), d.close()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	l.step("back up")
	if err := l.fsys.Rename(newName, BackupName); err != nil {
		return err
	}
	if err := l.fsys.SyncDir("."); err != nil {
		return err
	}
	l.step("back up done")
	return nil
}
