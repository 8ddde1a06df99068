package ledger

import (
	"bytes"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// The files of a ledger, in ARCHIVE/.mailhaul.
const (
	// BackupName is the last checked copy, which Backup makes.
	BackupName = "ledger.bak"

	fileName   = "ledger.sqlite"
	newName    = "ledger.new" // being made; worth nothing after a crash
	damagedFmt = "ledger.damaged-20060102T150405Z"
)

// Options of Open.
type Options struct {
	// Format is recorded when the ledger has to be made: "maildir" or "mbox".
	Format string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Hook, if not nil, is called before and after each durable step with its
	// name; tests end the process there.
	Hook func(step string)
}

var (
	errClosed   = errors.New("closed")
	errReadOnly = errors.New("opened for reading only")
)

// pragmas of every connection. The exclusive lock from the first access on keeps
// the index of the WAL out of shared memory, so that network file systems do.
var pragmas = []string{
	"locking_mode = EXCLUSIVE",
	"synchronous = FULL",
	"temp_store = MEMORY",
	"cache_size = -2048",
	"cell_size_check = ON",
	"trusted_schema = OFF",
}

// Open opens the ledger in dir, an archive's .mailhaul directory, and makes it if
// it is missing. A damaged one is set aside, never overwritten, and the last
// checked copy takes its place, or else a new one; Opened tells. A ledger written
// by a newer version is an error of KindConfig.
//
// The caller holds the archive's lock and calls Close.
func Open(dir string, o Options) (*Ledger, error) {
	fsys, err := durable.OpenRoot(dir)
	if err != nil {
		return nil, wrap("open", err)
	}
	l := &Ledger{dir: dir, fsys: fsys, now: o.Now, hook: o.Hook}
	if l.now == nil {
		l.now = time.Now
	}
	l.forget()
	if err := l.open(o.Format); err != nil {
		return nil, errors.Join(err, fsys.Close())
	}
	return l, nil
}

func (l *Ledger) open(format string) error {
	exists, err := l.regular()
	if err != nil {
		return wrap("open", err)
	}
	if exists {
		err := l.connect()
		if err == nil {
			return nil
		}
		if !damaged(err) {
			return wrap("open", err)
		}
	}
	if err := l.setAside(); err != nil {
		return wrap("set the damaged ledger aside", err)
	}
	if err := l.replace(format); err != nil {
		return wrap("create", err)
	}
	return wrap("open", l.connect())
}

// regular tells whether there is a ledger; a file of any of its names that is no
// regular one is an error, since SQLite would follow it.
func (l *Ledger) regular() (exists bool, err error) {
	for _, suffix := range []string{"-journal", "-wal", ""} {
		st, err := l.fsys.Lstat(fileName + suffix)
		exists = err == nil
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return false, err
		case !st.Mode().IsRegular():
			return false, &fs.PathError{Op: "open", Path: filepath.Join(l.dir, fileName+suffix), Err: durable.ErrNotRegular}
		}
	}
	return exists, nil
}

// connect opens the file that is there and checks that it is a whole ledger.
func (l *Ledger) connect() error {
	check := false // as a whole: after a run that did not close it, or met damage
	if st, err := l.fsys.Lstat(fileName + "-wal"); err == nil && st.Size() > 0 {
		check = true
	}
	if _, err := l.fsys.Lstat(suspect); err == nil {
		check = true
	}
	path := filepath.Join(l.dir, fileName)
	if _, err := checkHeader(path); err != nil {
		return err
	}
	if check {
		if err := l.inspect(path); err != nil {
			return err
		}
	}
	d, err := openDB(path, "mode=rw", pragmas...)
	if err != nil {
		return err
	}
	if l.opened.Rebuild, err = d.admit(false); err != nil {
		return errors.Join(err, d.close())
	}
	if err := l.fsys.Remove(suspect); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, d.close())
	}
	l.db = d
	return nil
}

// inspect reads a copy of ledger and WAL as a whole. A copy, since SQLite would
// write the WAL into a damaged file before that could be set aside as it is.
func (l *Ledger) inspect(path string) error {
	if err := l.removeNew(); err != nil {
		return err
	}
	copied := filepath.Join(l.dir, newName)
	err := copyLedger(copied, path)
	if err == nil {
		err = inspectCopy(copied)
	}
	return errors.Join(err, l.removeNew())
}

func inspectCopy(path string) error {
	d, err := openDB(path, "mode=rw", pragmas...)
	if err != nil {
		return err
	}
	_, err = d.admit(true)
	return errors.Join(err, d.close())
}

// copyLedger copies a ledger and its WAL, if there is one.
func copyLedger(to, from string) error {
	if err := copyFile(to, from); err != nil {
		return err
	}
	err := copyFile(to+"-wal", from+"-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// checkHeader refuses what SQLite would take for an empty database. It returns the
// version that the file's header has.
func checkHeader(path string) (version uint32, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, 100)
	if _, err := io.ReadFull(f, b); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, fmt.Errorf("%w: shorter than its header", ErrDamaged)
	} else if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(b, []byte("SQLite format 3\x00")) {
		return 0, fmt.Errorf("%w: not an SQLite file", ErrDamaged)
	}
	return binary.BigEndian.Uint32(b[60:]), nil // user_version
}

// admit tells whether an open database is a ledger this program can work with,
// and brings its schema up to date.
func (d *db) admit(check bool) (rebuild bool, err error) {
	id, err := d.int64("PRAGMA application_id")
	if err != nil {
		return false, err
	}
	if id != applicationID {
		return false, fmt.Errorf("%w: the file belongs to something else", ErrDamaged)
	}
	version, err := d.int64("PRAGMA user_version")
	if err != nil {
		return false, err
	}
	if version > int64(len(migrations)) {
		return false, &mail.Error{
			Kind: mail.KindConfig, Op: "open ledger",
			Err:  fmt.Errorf("it has version %d, this program knows versions up to %d", version, len(migrations)),
			Hint: "use the newer mailhaul that wrote this archive",
		}
	}
	if version < 1 {
		return false, fmt.Errorf("%w: version %d", ErrDamaged, version)
	}
	if check {
		if err := d.check(); err != nil {
			return false, err
		}
	}
	if err := d.migrate(version); err != nil {
		return false, err
	}
	if err := d.checkSchema(); err != nil {
		return false, err
	}
	s, err := d.string("SELECT value FROM meta WHERE key = 'rebuild'")
	return s != "0", err
}

// check reads the whole file.
func (d *db) check() error {
	s, err := d.string("PRAGMA quick_check(1)")
	if err != nil {
		return err
	}
	if s != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, s)
	}
	return nil
}

// checkSchema compares the tables with what the migrations made: SQLite keeps
// their text as it was written.
func (d *db) checkSchema() error {
	want := strings.Join(migrations, "")
	n := strings.Count(want, "CREATE ")
	err := d.query("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL", nil, func(v []driver.Value) error {
		if s := text(v[0]); !strings.HasPrefix(s, "CREATE ") || !strings.Contains(want, s+";") {
			return fmt.Errorf("%w: its tables are not those of version %d", ErrDamaged, len(migrations))
		}
		n--
		return nil
	})
	if err == nil && n != 0 {
		err = fmt.Errorf("%w: tables are missing", ErrDamaged)
	}
	return err
}

// setAside renames what there is of a damaged ledger, its WAL with it, and makes
// that durable. A WAL alone is one whose ledger was set aside, or lost, before; it
// must not come to lie beside a new ledger.
func (l *Ledger) setAside() error {
	var suffixes []string
	for _, suffix := range []string{"", "-wal", "-journal"} {
		switch _, err := l.fsys.Lstat(fileName + suffix); {
		case err == nil:
			suffixes = append(suffixes, suffix)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if suffixes == nil {
		return nil
	}
	l.step("set aside")
	name, err := l.freeName(l.now().UTC().Format(damagedFmt))
	if err != nil {
		return err
	}
	for _, suffix := range suffixes {
		if err := l.fsys.Rename(fileName+suffix, name+suffix); err != nil {
			return err
		}
	}
	if err := l.fsys.SyncDir("."); err != nil {
		return err
	}
	l.opened.SetAside = name + suffixes[0]
	l.step("set aside done")
	return nil
}

// freeName returns stem, with a number behind it if files of that name exist.
func (l *Ledger) freeName(stem string) (string, error) {
	entries, err := l.fsys.ReadDir(".")
	if err != nil {
		return "", err
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name()+"-", name+"-") })
	}
	name := stem
	for n := 2; taken(name); n++ {
		name = fmt.Sprintf("%s.%d", stem, n)
	}
	return name, nil
}

// replace puts a ledger in place: the last checked copy if it is good, else an
// empty one. Either way the archive must be read again.
func (l *Ledger) replace(format string) error {
	if err := l.removeNew(); err != nil {
		return err
	}
	restored, err := l.restore()
	if err != nil {
		return err
	}
	if !restored {
		if err := l.create(format); err != nil {
			return err
		}
	}
	f, err := l.fsys.OpenFile(newName, os.O_RDWR)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	l.step("create")
	if err := l.fsys.Rename(newName, fileName); err != nil {
		return err
	}
	if err := l.fsys.SyncDir("."); err != nil {
		return err
	}
	l.opened.Restored = restored
	l.step("create done")
	return nil
}

func (l *Ledger) removeNew() error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		if err := l.fsys.Remove(newName + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// create makes an empty ledger under newName.
func (l *Ledger) create(format string) error {
	if !slices.Contains([]string{"maildir", "mbox"}, format) {
		return fmt.Errorf("unknown format %q", format)
	}
	// Made here, so that it has the mode of every file of the archive; SQLite
	// gives its WAL the same.
	f, err := l.fsys.OpenFile(newName, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	// Not synced step by step: the file is, as a whole, before it gets its name.
	d, err := openDB(filepath.Join(l.dir, newName), "mode=rw", append(slices.Clone(pragmas), "synchronous = OFF", "journal_mode = WAL")...)
	if err != nil {
		return err
	}
	err = d.migrate(0)
	if err == nil {
		err = d.exec("INSERT INTO meta (key, value) VALUES ('format', ?), ('rebuild', '1')", format)
	}
	return errors.Join(err, d.finish())
}

// restore copies the last checked copy to newName, if there is a good one.
func (l *Ledger) restore() (bool, error) {
	data, err := l.fsys.OpenFile(BackupName, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer data.Close()
	f, err := l.fsys.OpenFile(newName, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(f, data)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	err = reuse(filepath.Join(l.dir, newName))
	if err != nil && (damaged(err) || mail.KindOf(err) == mail.KindConfig) {
		return false, l.removeNew()
	}
	return err == nil, err
}

// reuse checks a copy and takes from it what may be no longer true.
func reuse(path string) error {
	if _, err := checkHeader(path); err != nil {
		return err
	}
	d, err := openDB(path, "mode=rw", append(slices.Clone(pragmas), "journal_mode = WAL")...)
	if err != nil {
		return err
	}
	_, err = d.admit(true)
	if err == nil {
		err = d.tx(func() error {
			return errors.Join(
				d.exec("UPDATE box SET cursor = ''"),
				d.exec("UPDATE meta SET value = '1' WHERE key = 'rebuild'"))
		})
	}
	return errors.Join(err, d.finish())
}

// finish moves the WAL into the file, removes it and closes.
func (d *db) finish() error {
	busy, err := d.int64("PRAGMA wal_checkpoint(TRUNCATE)")
	if err == nil && busy != 0 {
		err = errors.New("checkpoint: busy")
	}
	return errors.Join(err, d.close())
}

// Close brings everything into the one file, so that a plain copy of it is whole,
// and closes it. It may be called twice.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.db == nil {
		return nil
	}
	d := l.db
	l.db = nil
	if l.readOnly {
		return wrap("close", errors.Join(d.close(), l.cleanup()))
	}
	l.step("checkpoint")
	var err error
	if l.broken != nil {
		err = d.close()
	} else {
		err = d.finish()
	}
	err = errors.Join(err, l.fsys.Close())
	l.step("checkpoint done")
	return wrap("close", err)
}

// immutable opens a file that nobody writes.
const immutable = "mode=ro&immutable=1"
