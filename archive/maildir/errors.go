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

// refusesColon tells whether a file system may have refused a name for its colon,
// as those of Windows do.
func refusesColon(err error) bool { return errors.Is(err, syscall.EINVAL) }
