package vault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/internal/ledger"
	"mailhaul/mail"
)

// Dir is the directory in an archive that is mailhaul's own.
const Dir = ".mailhaul"

// DefaultFormat is the format of a new archive if none is asked for.
const DefaultFormat = "maildir"

// Constructor makes the driver of a format on the archive's directory.
type Constructor func(fsys durable.FS, anchors archive.Anchors) (archive.Archive, error)

// Options of Open.
type Options struct {
	// Format is "maildir" or "mbox": of a new archive, and checked against that of
	// one that is there. "" takes what is there, or DefaultFormat.
	Format string
	// Create allows to make an archive where there is none: in a directory that
	// is missing or empty.
	Create bool
	// New forgets that another archive was at this path.
	New bool
	// LockWait is how long to wait for another run; 0 means not at all.
	LockWait time.Duration
	// ReadOnly changes nothing in the archive, works on read-only media and
	// shares the lock with others of its kind. Append and Commit then fail.
	ReadOnly bool
	// Formats are the drivers, by name.
	Formats map[string]Constructor
	// StateDir is where paths that held archives are remembered; "" is
	// $XDG_STATE_HOME/mailhaul or ~/.local/state/mailhaul, or nowhere.
	StateDir string
	// Notify, if not nil, is told what a person should know (EventWarning).
	Notify mail.Notify
	// Hook is the ledger's; tests end the process there.
	Hook func(step string)
	// Now is the ledger's clock; nil means time.Now.
	Now func() time.Time
	// WrapFS, if not nil, is put around the archive's directory; tests let
	// operations fail there. The lock and the ledger's own files are not under it.
	WrapFS func(durable.FS) durable.FS
}

func (o Options) wrap(fsys durable.FS) durable.FS {
	if o.WrapFS == nil {
		return fsys
	}
	return o.WrapFS(fsys)
}

// Vault is an open archive. Its methods may be called from several goroutines at
// once, Close excepted.
type Vault struct {
	// Archive is the format's driver; every Commit first makes sure that the
	// archive is still where it was. It is an archive.Flagger if the driver is.
	Archive archive.Archive
	// Ledger is the archive's ledger.
	Ledger *ledger.Ledger

	path      string
	fsys      durable.FS
	lock      interface{ Close() error }
	raw       archive.Archive
	mark      mark
	markInfo  fs.FileInfo
	readOnly  bool
	committed atomic.Int64 // receipts returned by Commit
	torn      atomic.Bool  // a Commit failed
	noting    sync.WaitGroup
	learnt    sync.Map // mailboxes that Learn was called for
	notify    mail.Notify
	closed    bool
}

// Path returns the archive's absolute path.
func (v *Vault) Path() string { return v.path }

// Format returns "maildir" or "mbox".
func (v *Vault) Format() string { return v.mark.Format }

// Opener returns the driver as one that opens many messages together, if it can.
func (v *Vault) Opener() (archive.Opener, bool) {
	o, ok := v.raw.(archive.Opener)
	return o, ok
}

// Open opens the archive at a path, or makes it. After a run that was killed it
// first puts right what that left; a lost or damaged ledger is built anew from
// the messages. The errors a person must act on are *mail.Error: KindUsage where
// there is no archive or one of another format, KindTemporary where another run
// holds the lock, KindDisk where one was that is not there now, KindConfig where
// it is of a newer version. The caller calls Close.
func Open(ctx context.Context, dir string, o Options) (*Vault, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, diskError("open archive", err)
	}
	v := &Vault{path: abs, readOnly: o.ReadOnly}
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	v.notify = o.Notify
	if err := v.open(ctx, o); err != nil {
		return nil, errors.Join(err, v.release())
	}
	return v, nil
}

func (v *Vault) open(ctx context.Context, o Options) error {
	mem := openMemory(o.StateDir)
	was := mem.recall(v.path)
	if o.New {
		was = mark{}
	}
	known, err := v.openDir(o, was)
	if err != nil {
		return err
	}
	if err := v.takeLock(ctx, o.LockWait); err != nil {
		return err
	}
	if err := v.openLedger(o, known); err != nil {
		return err
	}
	if err := v.openDriver(o); err != nil {
		return err
	}
	if !o.ReadOnly {
		if err := v.recover(ctx, o.Notify); err != nil {
			return err
		}
	}
	if !o.ReadOnly {
		// A note nobody waits for: it is several fsyncs.
		v.noting.Go(func() { mem.note(v.path, v.mark) })
	}
	return nil
}

// step is what is to be made before an archive can be used.
type step int

const (
	nothing   step = iota
	makeOwn        // .mailhaul
	makeWhole      // the directory and .mailhaul
)

// Look tells, by the errors of Open, whether an archive could be opened or made at a
// path, as far as that can be told without changing anything or waiting for a lock.
func Look(dir string, o Options) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return diskError("open archive", err)
	}
	v := &Vault{path: abs, readOnly: o.ReadOnly}
	was := openMemory(o.StateDir).recall(abs)
	if o.New {
		was = mark{}
	}
	known, _, err := v.look(o, was)
	if err == nil {
		err = v.checkFormat(o.Format, known.Format)
	}
	return errors.Join(err, v.release())
}

// openDir opens the directory and .mailhaul in it, both made if need be, and
// returns what is known of the archive: the zero mark for a new one.
func (v *Vault) openDir(o Options, was mark) (known mark, err error) {
	known, todo, err := v.look(o, was)
	switch {
	case err != nil:
		return mark{}, err
	case todo == makeWhole:
		return known, v.makeDir(o)
	case todo == makeOwn:
		return known, v.makeOwnDir()
	}
	return known, nil
}

// look opens the directory, if there is one, and tells what is there.
func (v *Vault) look(o Options, was mark) (known mark, todo step, err error) {
	st, err := os.Stat(v.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return mark{}, makeWhole, v.mayMake(o, was, "is gone")
	case err != nil:
		return mark{}, nothing, diskError("open archive", err)
	case !st.IsDir():
		return mark{}, nothing, usage(fmt.Errorf("%s is no directory", v.path), "name a directory that holds an archive, or a new one")
	}
	fsys, err := durable.OpenRoot(v.path)
	if err != nil {
		return mark{}, nothing, diskError("open archive", err)
	}
	v.fsys = o.wrap(fsys)
	switch st, err := v.fsys.Lstat(Dir); {
	case err == nil && st.IsDir():
		known, err := readMark(v.fsys)
		return known, nothing, err
	case err == nil:
		return mark{}, nothing, diskError("open archive", fmt.Errorf("%s is no directory", filepath.Join(v.path, Dir)))
	case !errors.Is(err, fs.ErrNotExist):
		return mark{}, nothing, diskError("open archive", err)
	}
	empty, err := isEmpty(v.fsys)
	switch {
	case err != nil:
		return mark{}, nothing, diskError("open archive", err)
	case empty:
		return mark{}, makeWhole, v.mayMake(o, was, "is now empty")
	case was.ID == "":
		return mark{}, nothing, usage(fmt.Errorf("%s is not empty and holds no archive of mailhaul", v.path),
			"name an empty directory or a new one")
	case o.ReadOnly:
		return mark{}, nothing, diskError("open archive", fmt.Errorf("%s has lost its %s", v.path, Dir))
	}
	return was, makeOwn, nil // its messages are here, its .mailhaul was removed
}

// mayMake tells whether an archive may be made where there is nothing.
func (v *Vault) mayMake(o Options, was mark, now string) error {
	switch {
	case was.ID != "":
		return &mail.Error{Kind: mail.KindDisk, Op: "open archive",
			Err:  fmt.Errorf("%s held an archive and %s", v.path, now),
			Hint: "mount it, or begin a new archive there with --new"}
	case !o.Create:
		return usage(fmt.Errorf("there is no archive at %s", v.path), "mailhaul backup makes one")
	}
	return nil
}

func (v *Vault) makeDir(o Options) error {
	if o.ReadOnly {
		return usage(fmt.Errorf("there is no archive at %s", v.path), "mailhaul backup makes one")
	}
	if v.fsys == nil {
		fsys, err := durable.MakeRoot(v.path)
		if err != nil {
			return diskError("make archive", err)
		}
		v.fsys = o.wrap(fsys)
	}
	return v.makeOwnDir()
}

func (v *Vault) makeOwnDir() error {
	if err := v.fsys.Mkdir(Dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return diskError("make archive", err)
	}
	if err := v.fsys.SyncDir("."); err != nil {
		return diskError("make archive", err)
	}
	return nil
}

// isEmpty takes the directory mkfs makes for no content.
func isEmpty(fsys durable.FS) (bool, error) {
	entries, err := fsys.ReadDir(".")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Name() != "lost+found" {
			return false, nil
		}
	}
	return true, nil
}

func (v *Vault) takeLock(ctx context.Context, wait time.Duration) error {
	name := filepath.Join(v.path, Dir, "lock")
	switch st, err := v.fsys.Lstat(path.Join(Dir, "lock")); {
	case err == nil && !st.Mode().IsRegular():
		return diskError("lock archive", fmt.Errorf("%s: %w", name, durable.ErrNotRegular))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return diskError("lock archive", err)
	case err != nil && v.readOnly:
		return nil // nobody ever wrote here, or the medium was made without it
	}
	var err error
	if v.readOnly {
		v.lock, err = lockShared(ctx, name, wait)
	} else {
		v.lock, err = lockExclusive(ctx, name, wait)
	}
	switch {
	case errors.Is(err, durable.ErrLocked):
		return &mail.Error{Kind: mail.KindTemporary, Op: "open archive",
			Err:  fmt.Errorf("another run is working on %s", v.path),
			Hint: "wait for it to end, or use --lock-wait"}
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil:
		return diskError("lock archive", err)
	}
	return nil
}

// openLedger opens the ledger and the mark beside it, and makes both if need be.
func (v *Vault) openLedger(o Options, known mark) error {
	// Checked before anything is made, and again once the ledger has spoken.
	if err := v.checkFormat(o.Format, known.Format); err != nil {
		return err
	}
	dir := filepath.Join(v.path, Dir)
	if v.readOnly {
		l, err := ledger.OpenReadOnly(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return &mail.Error{Kind: mail.KindDisk, Op: "open archive", Err: err,
				Hint: "the ledger is lost; mailhaul backup builds it anew from the messages"}
		}
		if err != nil {
			return err
		}
		v.Ledger = l
	} else {
		format, err := v.formatOf(o, known)
		if err != nil {
			return err
		}
		v.Ledger, err = ledger.Open(dir, ledger.Options{Format: format, Hook: o.Hook, Now: o.Now})
		if err != nil {
			return err
		}
		v.warn(o.Notify)
	}
	format := v.Ledger.Format()
	if err := v.checkFormat(o.Format, format); err != nil {
		return err
	}
	if known.Format != "" && known.Format != format {
		return diskError("open archive", fmt.Errorf("%s is marked as %s, but its ledger says %s", v.path, known.Format, format))
	}
	v.mark = mark{ID: known.ID, Format: format}
	return v.keepMark()
}

func (v *Vault) warn(notify mail.Notify) {
	op := v.Ledger.Opened()
	if op.SetAside == "" {
		return
	}
	what := "it is built anew from the messages; what only it knew is lost"
	if op.Restored {
		what = "the last checked copy takes its place"
	}
	notify(mail.Event{Kind: mail.EventWarning,
		Err: fmt.Errorf("the ledger of %s was damaged and is now %s; %s", v.path, path.Join(Dir, op.SetAside), what)})
}

func (v *Vault) checkFormat(want, have string) error {
	if want == "" || have == "" || want == have {
		return nil
	}
	return usage(fmt.Errorf("the archive at %s is %s, not %s", v.path, have, want),
		"leave --format out; a format is chosen once, when an archive is made")
}

// formatOf decides the format in case the ledger has to be made: what the archive
// is known to be, else whose messages lie there, else what is asked for.
func (v *Vault) formatOf(o Options, known mark) (string, error) {
	if known.Format != "" {
		return known.Format, nil
	}
	found, err := v.detect()
	switch {
	case err != nil:
		return "", err
	case found != "":
		return found, nil
	case o.Format != "":
		return o.Format, nil
	}
	return DefaultFormat, nil
}

// detect looks for the first mailbox of either format.
func (v *Vault) detect() (format string, err error) {
	err = walk(v.fsys, ".", func(name string, isDir bool) error {
		switch {
		case isDir && path.Base(name) == "cur":
			format = "maildir"
		case !isDir && strings.HasSuffix(name, ".mbox"):
			format = "mbox"
		default:
			return nil
		}
		return fs.SkipAll
	})
	if err != nil && !errors.Is(err, fs.SkipAll) {
		return "", diskError("open archive", err)
	}
	return format, nil
}

func (v *Vault) openDriver(o Options) error {
	ctor := o.Formats[v.mark.Format]
	if ctor == nil {
		return &mail.Error{Kind: mail.KindConfig, Op: "open archive",
			Err: fmt.Errorf("no driver for the format %q of %s", v.mark.Format, v.path)}
	}
	a, err := ctor(v.fsys, v.Ledger)
	if err != nil {
		return err
	}
	v.raw = a
	v.Archive = v.guard(a)
	return nil
}

// Check tells whether the archive is still where it was when it was opened; if
// not (unmounted, renamed, replaced), the error is of KindDisk. Commit begins
// with it.
func (v *Vault) Check() error {
	if v.markInfo == nil {
		return nil
	}
	st, err := os.Stat(filepath.Join(v.path, Dir, markName))
	if err == nil && !os.SameFile(st, v.markInfo) {
		err = errors.New("another directory lies there now")
	}
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "archive " + v.path, Err: fmt.Errorf("it is no longer in place: %w", err),
			Hint: "mount it again and run the same command"}
	}
	return nil
}

// Close closes the driver, takes back the marks that say a run is under way if
// everything appended was committed and recorded, closes the ledger and gives up
// the lock. It may be called twice.
func (v *Vault) Close() error {
	if v.closed {
		return nil
	}
	err := v.raw.Close()
	clean := err == nil && !v.torn.Load() && v.committed.Load() == v.Ledger.Recorded()
	if clean && !v.readOnly {
		err = v.Ledger.CloseAnchors(context.Background())
	}
	v.raw = nil
	return errors.Join(err, v.release())
}

// release lets go of whatever is open, the lock last.
func (v *Vault) release() error {
	v.closed = true
	v.noting.Wait()
	var errs []error
	if v.raw != nil {
		errs = append(errs, v.raw.Close())
	}
	if v.Ledger != nil {
		errs = append(errs, v.Ledger.Close())
	}
	if v.lock != nil {
		errs = append(errs, v.lock.Close())
	}
	if v.fsys != nil {
		errs = append(errs, v.fsys.Close())
	}
	return errors.Join(errs...)
}

func usage(err error, hint string) error {
	return &mail.Error{Kind: mail.KindUsage, Op: "open archive", Err: err, Hint: hint}
}

func diskError(op string, err error) error {
	return &mail.Error{Kind: mail.KindDisk, Op: op, Err: err}
}
