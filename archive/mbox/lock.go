package mbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"mailhaul/internal/durable"
)

const (
	lockRetry    = 100 * time.Millisecond
	lockSuffix   = ".lock"
	lockMark     = "mailhaul "
	lockMaxSize  = 256
	lockTouch    = 30 * time.Second
	lockRemoveIt = "another program is using this mbox; if none is, remove the lock file"
)

var errBusy = errors.New("mailbox is in use by another program")

// lock is the pair of locks that mail readers know: fcntl on the mbox, and a
// dotlock beside it. The fcntl lock is taken first and released last. So a
// dotlock that bears our mark, found with the fcntl lock held, was left by a
// killed run, and is taken over. One of another program is never touched.
type lock struct {
	fsys    durable.FS
	file    durable.File
	name    string // of the dotlock
	mark    string // what we wrote into it
	touched time.Time
}

// takeLock locks an open mbox, trying until wait is over.
func takeLock(ctx context.Context, fsys durable.FS, mailbox, name string, file durable.File, wait time.Duration) (*lock, error) {
	l := &lock{fsys: fsys, file: file, name: name + lockSuffix,
		mark: fmt.Sprintf("%s%d %s\n", lockMark, os.Getpid(), rand.Text())}
	err := retryBusy(ctx, wait, file.Lock)
	if errors.Is(err, durable.ErrLocked) {
		return nil, busyError(mailbox, name, "another program is using this mbox; try again when it is done", err)
	}
	if err != nil {
		return nil, diskError(mailbox, "lock", name, err)
	}
	err = retryBusy(ctx, wait, l.dot)
	if errors.Is(err, errBusy) {
		return nil, busyError(mailbox, l.name, lockRemoveIt, err)
	}
	if err != nil {
		return nil, diskError(mailbox, "create", l.name, err)
	}
	l.touched = time.Now()
	return l, nil
}

func retryBusy(ctx context.Context, wait time.Duration, try func() error) error {
	end := time.Now().Add(wait)
	for {
		err := try()
		if !errors.Is(err, errBusy) && !errors.Is(err, durable.ErrLocked) || !time.Now().Before(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockRetry):
		}
	}
}

// dot makes the dotlock, or takes over that of a killed run.
func (l *lock) dot() error {
	f, err := l.fsys.OpenFile(l.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if errors.Is(err, fs.ErrExist) {
		if !strings.HasPrefix(l.read(), lockMark) {
			return errBusy
		}
		f, err = l.fsys.OpenFile(l.name, os.O_WRONLY|os.O_TRUNC)
		if errors.Is(err, fs.ErrNotExist) {
			return errBusy // gone just now: try again
		}
	}
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(l.mark))
	if serr := f.Sync(); err == nil { // so that a power cut leaves no lock without mark
		err = serr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return errors.Join(err, l.fsys.Remove(l.name))
	}
	return nil
}

func (l *lock) read() string {
	b, err := durable.ReadFile(l.fsys, l.name, lockMaxSize)
	if err != nil {
		return ""
	}
	return string(b)
}

// touch keeps programs that go by age from taking the dotlock for a stale one.
func (l *lock) touch() {
	if now := time.Now(); now.Sub(l.touched) > lockTouch && l.fsys.Chtimes(l.name, now) == nil {
		l.touched = now
	}
}

// release removes the dotlock if it is still ours. The fcntl lock ends when the
// mbox is closed, which comes after.
func (l *lock) release() error {
	if l == nil || l.read() != l.mark {
		return nil
	}
	return l.fsys.Remove(l.name)
}
