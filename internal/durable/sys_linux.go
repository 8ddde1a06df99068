package durable

import (
	"errors"
	"io/fs"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// StartWriteback starts writing the file's dirty pages and does not wait. File
// systems that cannot are none the worse: Sync does it all.
func (f *file) StartWriteback() error {
	err := retry(func() error {
		return unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	})
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ESPIPE) {
		return &fs.PathError{Op: "sync_file_range", Path: f.name, Err: err}
	}
	return nil
}

// Chtimes is futimens(3): utimensat(2) of the descriptor without a path.
func (f *file) Chtimes(mtime time.Time) error {
	m, err := unix.TimeToTimespec(mtime)
	if err != nil { // 32-bit systems beyond 2038
		return f.root.Chtimes(f.local, time.Time{}, mtime)
	}
	ts := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, m}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, f.Fd(), 0, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
	if errno != 0 {
		return &fs.PathError{Op: "futimens", Path: f.name, Err: errno}
	}
	return nil
}

// setLock takes a lock that belongs to the open file, not to the process: that
// another descriptor of the same file is closed does not release it. It still
// conflicts with the fcntl locks of mail readers.
func setLock(fd uintptr, lk *unix.Flock_t) error {
	err := retry(func() error { return unix.FcntlFlock(fd, unix.F_OFD_SETLK, lk) })
	if errors.Is(err, unix.EINVAL) { // before Linux 3.15, and some network file systems
		return setLockProcess(fd, lk)
	}
	return err
}
