package crash

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// split keeps an archive's mail on a disk in memory, whose power can fail, and
// what is mailhaul's own, the ledger's directory, where SQLite can reach it.
type split struct {
	own durable.FS // of the archive's directory; only vault.Dir in it is used
	box durable.FS
}

func (s split) of(name string) durable.FS {
	if name == vault.Dir || strings.HasPrefix(name, vault.Dir+"/") {
		return s.own
	}
	return s.box
}

func (s split) OpenFile(name string, flag int) (durable.File, error) {
	return s.of(name).OpenFile(name, flag)
}

func (s split) Rename(from, to string) error               { return s.of(from).Rename(from, to) }
func (s split) Mkdir(name string) error                    { return s.of(name).Mkdir(name) }
func (s split) Remove(name string) error                   { return s.of(name).Remove(name) }
func (s split) Lstat(name string) (fs.FileInfo, error)     { return s.of(name).Lstat(name) }
func (s split) Chtimes(name string, mtime time.Time) error { return s.of(name).Chtimes(name, mtime) }

func (s split) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := s.of(name).ReadDir(name)
	if err != nil || name != "." {
		return list, err
	}
	own, err := s.own.ReadDir(".")
	list = append(list, own...)
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, err
}

func (s split) SyncDir(name string) error {
	if name == "." {
		return errors.Join(s.own.SyncDir("."), s.box.SyncDir("."))
	}
	return s.of(name).SyncDir(name)
}

func (s split) Close() error { return errors.Join(s.own.Close(), s.box.Close()) }

// machine is one whose power fails: the mail is as a power loss leaves it, the
// ledger as it was at its last durable step. So the ledger lags as far as it can.
type machine struct {
	p    place
	disk *faultfs.Mem
	seed uint64

	mu     sync.Mutex
	fsys   *faultfs.FS
	ledger map[string][]byte // vault.Dir at the ledger's last durable step
	done   reported          // what was on record then
	off    bool
}

// wrap puts the archive onto the machine; the power fails at the operation.
func (m *machine) wrap(at int) func(durable.FS) durable.FS {
	return func(real durable.FS) durable.FS {
		m.fsys = faultfs.New(m.disk, faultfs.Plan{At: at, Mode: faultfs.Die})
		return split{own: real, box: m.fsys}
	}
}

// hook keeps the ledger whenever it is durable.
func (m *machine) hook(step string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fsys != nil && m.fsys.Hit() {
		m.off = true
	}
	if m.off || !strings.HasSuffix(step, " done") {
		return
	}
	if err := m.keep(); err != nil {
		panic(err)
	}
}

// note is told what is on record; what comes after the power failed was never
// reported to anybody.
func (m *machine) note(mailbox string, d mail.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.off {
		m.done.note(mailbox, d)
	}
}

// keep reads vault.Dir.
func (m *machine) keep() error {
	dir := filepath.Join(m.p.archive(), vault.Dir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	m.ledger = map[string][]byte{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		m.ledger[e.Name()] = b
	}
	return nil
}

// reboot lays the archive out at to, as a power loss leaves it.
func (m *machine) reboot(to place, loss faultfs.Loss) error {
	own := filepath.Join(to.archive(), vault.Dir)
	if err := os.MkdirAll(own, 0o700); err != nil {
		return err
	}
	m.mu.Lock() // the run may go on in another mailbox
	ledger := maps.Clone(m.ledger)
	m.mu.Unlock()
	for name, b := range ledger {
		if err := os.WriteFile(filepath.Join(own, name), b, 0o600); err != nil {
			return err
		}
	}
	return layOut(m.disk.Crash(loss, m.seed), ".", to.archive())
}

// layOut copies a disk in memory into a directory.
func layOut(disk *faultfs.Mem, name, to string) error {
	entries, err := disk.ReadDir(name)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, target := join(name, e.Name()), filepath.Join(to, e.Name())
		if e.IsDir() {
			err = errors.Join(os.MkdirAll(target, 0o700), layOut(disk, from, target))
		} else {
			err = layOutFile(disk, from, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

func layOutFile(disk *faultfs.Mem, from, to string) error {
	b, err := durable.ReadFile(disk, from, 1<<30)
	if err != nil {
		return err
	}
	st, err := disk.Lstat(from)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(to, b, 0o600), os.Chtimes(to, st.ModTime(), st.ModTime()))
}

// load puts what lies in a directory, without vault.Dir, onto the disk, durable.
func load(disk *faultfs.Mem, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path == from {
				return nil
			}
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil || name == "." {
			return err
		}
		name = filepath.ToSlash(name)
		switch {
		case d.Name() == vault.Dir:
			return fs.SkipDir
		case d.IsDir():
			return errors.Join(disk.Mkdir(name), durable.SyncChain(disk, name))
		}
		return loadFile(disk, name, path)
	})
}

func loadFile(disk *faultfs.Mem, name, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := disk.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chtimes(st.ModTime()), f.Sync(), f.Close(), durable.SyncChain(disk, filepath.ToSlash(filepath.Dir(name))))
}
