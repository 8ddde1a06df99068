package durable

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gofrs/flock"
)

// lockRetry is how often a held lock is tried again while waiting.
const lockRetry = 100 * time.Millisecond

// Lock is a held lock file.
type Lock struct{ f *flock.Flock }

// LockFile takes an exclusive lock on the file at path, which is made (0600) if
// it is missing and stays when the lock is released. The lock is the kernel's and
// ends with the process; neither the file nor what is in it means anything. If
// another process holds it, the result is ErrLocked, at once when wait is 0, else
// when wait is over.
func LockFile(ctx context.Context, path string, wait time.Duration) (*Lock, error) {
	f := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(fileMode))
	ok, err := f.TryLock()
	if err == nil && !ok && wait > 0 {
		ok, err = waitLock(ctx, f, wait)
	}
	if err == nil && !ok {
		err = ErrLocked
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f: f}, nil
}

func waitLock(ctx context.Context, f *flock.Flock, wait time.Duration) (bool, error) {
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ok, err := f.TryLockContext(limited, lockRetry)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return false, nil
	}
	return ok, err
}

// Close releases the lock.
func (l *Lock) Close() error { return l.f.Close() }
