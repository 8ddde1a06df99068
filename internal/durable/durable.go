// Package durable is the one place that knows how octets become durable: write,
// sync, rename, sync the directory chain, lock. Nobody else calls fsync.
//
// Everything goes through an FS, which is rooted: no name leads outside, and
// symbolic links that point outside are not followed (os.Root). Tests put
// another FS in its place (internal/faultfs).
package durable

import (
	"io"
	"io/fs"
	"time"
)

// FS is a directory tree and the operations an archive needs on it. Names are
// relative, slash separated and never escape the root. All methods may be called
// from several goroutines at once. Errors are those of the operating system.
type FS interface {
	// OpenFile opens with the flags of os.OpenFile; new files get 0600 whatever
	// the umask. Only regular files are opened, anything else is an error.
	OpenFile(name string, flag int) (File, error)
	// Mkdir makes one directory, 0700.
	Mkdir(name string) error
	Rename(from, to string) error
	Remove(name string) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Lstat(name string) (fs.FileInfo, error)
	Chtimes(name string, mtime time.Time) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	Close() error
}

// File is one open regular file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.Seeker
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	// Chtimes sets the modification time through the descriptor, where the
	// system can, else by name.
	Chtimes(mtime time.Time) error
	// StartWriteback asks the kernel to begin writing dirty pages without
	// waiting (sync_file_range on Linux); elsewhere it does nothing.
	StartWriteback() error
	// Sync makes the file's octets durable. After an error it must never be
	// called again on this file: the kernel may have dropped the dirty pages and
	// would report success.
	Sync() error
	// Lock takes an exclusive fcntl lock on the whole file without waiting;
	// ErrLocked if another process holds one. Released by Close.
	Lock() error
}
