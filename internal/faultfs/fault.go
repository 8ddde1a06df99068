package faultfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"mailhaul/internal/durable"
)

// ErrDead is what every operation returns after the process "died" (Die).
var ErrDead = errors.New("the process is dead")

// Mode says what happens at the chosen operation.
type Mode int

const (
	// Fail lets the operation fail once, without effect; later ones succeed.
	Fail Mode = iota
	// Short lets a write take half its octets and then fail; other operations
	// fail as with Fail.
	Short
	// Late does the operation and then reports failure, as a network file
	// system may.
	Late
	// Die lets this and every later operation fail without effect: to the disk
	// the process is gone.
	Die
	// Kill ends the own process for real (SIGKILL).
	Kill
)

func (m Mode) String() string {
	return [...]string{"fail", "short", "late", "die", "kill"}[m]
}

// Plan says which operation is hit, and how.
type Plan struct {
	At   int // number of the operation, from 1; 0 for none
	Mode Mode
	Err  error // EIO, ENOSPC, ...; nil is a plain error
}

// FS counts the operations on another FS, those on its files included, and lets
// one of them go wrong. It may be used by several goroutines at once.
type FS struct {
	inner durable.FS
	plan  Plan

	mu         sync.Mutex
	ops        int
	log        []string
	dead       bool
	violations []string
}

// New wraps inner.
func New(inner durable.FS, plan Plan) *FS {
	if plan.Err == nil {
		plan.Err = errors.New("injected fault")
	}
	return &FS{inner: inner, plan: plan}
}

// Ops returns how many operations there were.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Log returns the operations in their order, each as "verb name".
func (f *FS) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Hit tells whether the planned operation came.
func (f *FS) Hit() bool { return f.plan.At > 0 && f.Ops() >= f.plan.At }

// Where names the operation that was hit.
func (f *FS) Where() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.plan.At < 1 || f.plan.At > len(f.log) {
		return "no operation"
	}
	return fmt.Sprintf("operation %d (%s)", f.plan.At, f.log[f.plan.At-1])
}

// Violations names what no program may do: to sync a file again after a sync of
// it failed.
func (f *FS) Violations() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.violations)
}

// outcome of one operation.
type outcome struct {
	err   error // instead of doing it
	late  error // after doing it
	short bool  // a write does half
}

func (f *FS) step(verb, name string) outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return outcome{err: ErrDead}
	}
	f.ops++
	f.log = append(f.log, verb+" "+name)
	if f.ops != f.plan.At {
		return outcome{}
	}
	err := &fs.PathError{Op: verb, Path: name, Err: f.plan.Err}
	switch f.plan.Mode {
	case Short:
		return outcome{err: err, short: true}
	case Late:
		return outcome{late: err}
	case Die:
		f.dead = true
		return outcome{err: ErrDead}
	case Kill:
		killSelf()
	}
	return outcome{err: err}
}

// do runs one operation under the plan.
func (f *FS) do(verb, name string, op func() error) error {
	out := f.step(verb, name)
	if out.err != nil {
		return out.err
	}
	if err := op(); err != nil {
		return err
	}
	return out.late
}

func killSelf() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		p.Kill()
	}
	select {} // the signal is on its way
}

func (f *FS) OpenFile(name string, flag int) (durable.File, error) {
	verb := "open"
	if flag&os.O_CREATE != 0 {
		verb = "create"
	}
	var inner durable.File
	err := f.do(verb, name, func() (err error) {
		inner, err = f.inner.OpenFile(name, flag)
		return err
	})
	if err != nil {
		if inner != nil {
			inner.Close()
		}
		return nil, err
	}
	return &file{fs: f, inner: inner}, nil
}

func (f *FS) Mkdir(name string) error {
	return f.do("mkdir", name, func() error { return f.inner.Mkdir(name) })
}

func (f *FS) Rename(from, to string) error {
	return f.do("rename", from+" "+to, func() error { return f.inner.Rename(from, to) })
}

func (f *FS) Remove(name string) error {
	return f.do("remove", name, func() error { return f.inner.Remove(name) })
}

func (f *FS) ReadDir(name string) (list []fs.DirEntry, err error) {
	err = f.do("readdir", name, func() (err error) {
		list, err = f.inner.ReadDir(name)
		return err
	})
	return list, err
}

func (f *FS) Lstat(name string) (st fs.FileInfo, err error) {
	err = f.do("lstat", name, func() (err error) {
		st, err = f.inner.Lstat(name)
		return err
	})
	return st, err
}

func (f *FS) Chtimes(name string, mtime time.Time) error {
	return f.do("chtimes", name, func() error { return f.inner.Chtimes(name, mtime) })
}

func (f *FS) SyncDir(name string) error {
	return f.do("syncdir", name, func() error { return f.inner.SyncDir(name) })
}

// Close closes the wrapped FS whatever the plan says.
func (f *FS) Close() error { return f.inner.Close() }

type file struct {
	fs         *FS
	inner      durable.File
	mu         sync.Mutex
	syncFailed bool
}

func (f *file) Name() string { return f.inner.Name() }

func (f *file) Read(p []byte) (n int, err error) {
	err = f.fs.do("read", f.Name(), func() (err error) {
		n, err = f.inner.Read(p)
		return err
	})
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.fs.do("read", f.Name(), func() (err error) {
		n, err = f.inner.ReadAt(p, off)
		return err
	})
	return n, err
}

func (f *file) Write(p []byte) (int, error) {
	out := f.fs.step("write", f.Name())
	if out.short {
		n, err := f.inner.Write(p[:len(p)/2])
		return n, errors.Join(out.err, err)
	}
	if out.err != nil {
		return 0, out.err
	}
	n, err := f.inner.Write(p)
	if err == nil {
		err = out.late
	}
	return n, err
}

func (f *file) Seek(offset int64, whence int) (n int64, err error) {
	err = f.fs.do("seek", f.Name(), func() (err error) {
		n, err = f.inner.Seek(offset, whence)
		return err
	})
	return n, err
}

func (f *file) Stat() (st fs.FileInfo, err error) {
	err = f.fs.do("stat", f.Name(), func() (err error) {
		st, err = f.inner.Stat()
		return err
	})
	return st, err
}

func (f *file) Truncate(size int64) error {
	return f.fs.do("truncate", f.Name(), func() error { return f.inner.Truncate(size) })
}

func (f *file) Chtimes(mtime time.Time) error {
	return f.fs.do("chtimes", f.Name(), func() error { return f.inner.Chtimes(mtime) })
}

func (f *file) StartWriteback() error {
	return f.fs.do("writeback", f.Name(), f.inner.StartWriteback)
}

func (f *file) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.syncFailed {
		f.fs.mu.Lock()
		f.fs.violations = append(f.fs.violations, "second sync of "+f.Name())
		f.fs.mu.Unlock()
	}
	err := f.fs.do("sync", f.Name(), f.inner.Sync)
	f.syncFailed = f.syncFailed || err != nil
	return err
}

func (f *file) Lock() error { return f.fs.do("lock", f.Name(), f.inner.Lock) }

// Close closes the wrapped file whatever the plan says.
func (f *file) Close() error {
	out := f.fs.step("close", f.Name())
	return errors.Join(f.inner.Close(), out.err, out.late)
}
