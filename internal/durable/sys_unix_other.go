//go:build unix && !linux

package durable

import (
	"time"

	"golang.org/x/sys/unix"
)

// StartWriteback does nothing: there is no such call here.
func (f *file) StartWriteback() error { return nil }

func (f *file) Chtimes(mtime time.Time) error {
	return f.root.Chtimes(f.local, time.Time{}, mtime)
}

// setLock takes a lock that belongs to the process: closing any descriptor of the
// file releases it.
func setLock(fd uintptr, lk *unix.Flock_t) error { return setLockProcess(fd, lk) }
