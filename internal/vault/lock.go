package vault

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/gofrs/flock"

	"mailhaul/internal/durable"
)

func lockExclusive(ctx context.Context, name string, wait time.Duration) (interface{ Close() error }, error) {
	l, err := durable.LockFile(ctx, name, wait)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// lockShared takes the lock of an existing file together with other readers. It
// opens the file for reading only: the medium may allow no more.
func lockShared(ctx context.Context, name string, wait time.Duration) (interface{ Close() error }, error) {
	f := flock.New(name, flock.SetFlag(os.O_RDONLY))
	ok, err := f.TryRLock()
	if err == nil && !ok && wait > 0 {
		limited, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		ok, err = f.TryRLockContext(limited, 100*time.Millisecond)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			err = nil
		}
	}
	if err == nil && !ok {
		err = durable.ErrLocked
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
