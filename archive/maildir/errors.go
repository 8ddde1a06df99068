package maildir

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"mailhaul/mail"
)

// diskError says what was done to which path when the disk failed.
func diskError(ref mail.Ref, op string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*mail.Error](err); ok || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if p, ok := err.(*fs.PathError); ok { // op names the path
		err = p.Err
	}
	return &mail.Error{Kind: mail.KindDisk, Ref: ref, Op: op, Err: err, Hint: hint(err)}
}

func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space and run the same command again"
	case errors.Is(err, syscall.EROFS):
		return "the file system is mounted read-only"
	case errors.Is(err, fs.ErrPermission):
		return "the archive must be writable by the user who runs this"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "raise the limit of open files (ulimit -n)"
	}
	return "look at the disk, then run the same command again"
}

// refusesColon tells whether a file system may have refused for its colon to rename
// a message into cur, as those of Windows do. (exFAT by FUSE says that there is no
// such file, though message and directory are there.)
func (a *Archive) refusesColon(b *box, m *message, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return errors.Is(err, syscall.EINVAL)
	}
	_, message := a.fsys.Lstat(b.tmp(m.base))
	_, cur := a.fsys.Lstat(b.dir + "/cur")
	return message == nil && cur == nil
}
