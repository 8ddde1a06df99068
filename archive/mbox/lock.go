package mbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"mailhaul/internal/durable"
)

const (
	lockRetry    = 100 * time.Millisecond
	lockSuffix   = ".lock"
	claimSuffix  = ".claim"
	lockMark     = "mailhaul "
	lockMaxSize  = 256
	lockTouch    = 30 * time.Second
	lockRemoveIt = "another program is using this mbox; if none is, remove the lock file"
)

var errBusy = errors.New("mailbox is in use by another program")

// lock is the pair of locks that mail readers know: fcntl on the mbox, and a
// dotlock beside it. The fcntl lock is taken first and released last. So a
// dotlock that bears our mark, found with the fcntl lock held, was left by a
// killed run, and is taken over. One of another program is never touched. A run
// may be killed before its mark is durable: a dotlock without octets is ours if
// the claim file, durable before the dotlock is made, was there before.
type lock struct {
	fsys    durable.FS
	file    durable.File
	name    string // of the dotlock
	claim   string // of the claim file
	mark    string // what we wrote into it
	touched time.Time
}

// takeLock locks an open mbox, trying until wait is over.
func takeLock(ctx context.Context, fsys durable.FS, mailbox, name string, file durable.File, wait time.Duration) (*lock, error) {
	l := &lock{fsys: fsys, file: file, name: name + lockSuffix,
		claim: path.Join(path.Dir(name), "."+path.Base(name)+claimSuffix),
		mark:  fmt.Sprintf("%s%d %s\n", lockMark, os.Getpid(), rand.Text())}
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
	claimed := l.exists(l.claim)
	if l.exists(l.name) {
		// What was not synced may come back as NUL octets.
		mark := strings.TrimRight(l.read(), "\x00")
		if !strings.HasPrefix(mark, lockMark) && !(claimed && strings.HasPrefix(lockMark, mark)) {
			return errBusy
		}
		return l.sign(os.O_WRONLY | os.O_TRUNC)
	}
	if !claimed {
		f, err := l.fsys.OpenFile(l.claim, os.O_WRONLY|os.O_CREATE)
		if err == nil {
			err = f.Close()
		}
		if err == nil {
			err = l.fsys.SyncDir(path.Dir(l.claim))
		}
		if err != nil {
			return err
		}
	}
	err := l.sign(os.O_WRONLY | os.O_CREATE | os.O_EXCL)
	if errors.Is(err, errBusy) && !claimed {
		err = errors.Join(err, l.fsys.Remove(l.claim))
	}
	return err
}

// sign opens the dotlock and writes our mark into it.
func (l *lock) sign(flag int) error {
	f, err := l.fsys.OpenFile(l.name, flag)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return errBusy // it came or went just now
	}
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(l.mark))
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err // the claim makes what is left of it ours
}

func (l *lock) exists(name string) bool {
	_, err := l.fsys.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// read returns what stands in the dotlock; something that is not our mark, if it
// cannot be read.
func (l *lock) read() string {
	b, err := durable.ReadFile(l.fsys, l.name, lockMaxSize)
	if err != nil {
		return err.Error()
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
// mbox is closed, which comes after. A dotlock that cannot be read is an error, so
// that the next run looks after it.
func (l *lock) release() error {
	mark, err := durable.ReadFile(l.fsys, l.name, lockMaxSize)
	if err == nil && string(mark) == l.mark {
		err = l.fsys.Remove(l.name)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if l.exists(l.claim) {
		return l.fsys.Remove(l.claim)
	}
	return nil
}
