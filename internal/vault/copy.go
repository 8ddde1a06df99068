package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"time"

	"mailhaul/internal/ledger"
	"mailhaul/mail"
)

// copyAge is how old the checked copy of the ledger may become.
const copyAge = 7 * 24 * time.Hour

// KeepCopy makes a checked copy of the ledger if the last one, or the archive itself
// where there is none, is older than a week. A copy that cannot be made, for lack of
// space, is only told; a ledger that turns out to be damaged is an error.
func (v *Vault) KeepCopy(ctx context.Context, notify mail.Notify) error {
	if v.readOnly {
		return nil
	}
	last := v.markInfo
	st, err := v.fsys.Lstat(path.Join(Dir, ledger.BackupName))
	switch {
	case err == nil:
		last = st
	case !errors.Is(err, fs.ErrNotExist):
		return diskError("back up ledger", err)
	}
	if last != nil {
		// One from the future says nothing: the clock was wrong, then or now.
		if age := time.Since(last.ModTime()); age >= 0 && age < copyAge {
			return nil
		}
	}
	err = v.Ledger.Backup(ctx)
	if err == nil || ctx.Err() != nil || errors.Is(err, ledger.ErrDamaged) {
		return err
	}
	notify(mail.Event{Kind: mail.EventWarning, Err: fmt.Errorf("the weekly copy of the ledger was not made: %w", err)})
	return nil
}
