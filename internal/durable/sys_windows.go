package durable

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

const (
	openFileFlags = 0
	openDirFlags  = 0
)

// syncDir does nothing: Windows has no way to flush a directory, NTFS keeps its
// entries in a journal.
func syncDir(*os.File) error { return nil }

// StartWriteback does nothing: there is no such call here.
func (f *file) StartWriteback() error { return nil }

func (f *file) Chtimes(mtime time.Time) error {
	return f.root.Chtimes(f.local, time.Time{}, mtime)
}

func (f *file) Lock() error {
	const all = ^uint32(0)
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, all, all, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return ErrLocked
	}
	if err != nil {
		return &fs.PathError{Op: "lock", Path: f.name, Err: err}
	}
	return nil
}
