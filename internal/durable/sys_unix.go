//go:build unix

package durable

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// A FIFO does not block the opener, a terminal does not become ours.
	openFileFlags = unix.O_NONBLOCK | unix.O_NOCTTY
	openDirFlags  = unix.O_NONBLOCK | unix.O_DIRECTORY
)

// syncDir makes the entries of a directory durable. Some network and FUSE file
// systems have no such call and say EINVAL or ENOTSUP: they keep the order by
// themselves or not at all, and there is nothing more to do.
func syncDir(d *os.File) error {
	err := d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

func (f *file) Lock() error {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart} // Len 0: to the end of the file, however long it grows
	err := setLock(f.Fd(), &lk)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrLocked
	}
	if err != nil {
		return &fs.PathError{Op: "lock", Path: f.name, Err: err}
	}
	return nil
}

func setLockProcess(fd uintptr, lk *unix.Flock_t) error {
	return retry(func() error { return unix.FcntlFlock(fd, unix.F_SETLK, lk) })
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
