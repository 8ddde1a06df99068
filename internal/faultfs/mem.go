package faultfs

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"mailhaul/internal/durable"
)

// Mem is a disk in memory, as strict as POSIX allows: octets survive a power loss
// only if the file was synced, an entry (a creation, rename or removal) only if
// its directory was. It may be used by several goroutines at once.
type Mem struct {
	mu   sync.Mutex
	root *node
}

// node is a file or a directory: as the process sees it, and as the disk has it.
type node struct {
	dir     bool
	entries map[string]*node
	onDisk  map[string]*node

	data, synced   []byte
	mtime, syncedM time.Time

	lock *memFile
}

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, onDisk: map[string]*node{}}
}

// NewMem returns an empty disk.
func NewMem() *Mem { return &Mem{root: newDir()} }

// Restart is what the end of the process does: locks are gone, all else stays.
func (m *Mem) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root.unlock()
}

func (n *node) unlock() {
	n.lock = nil
	for _, c := range n.entries {
		c.unlock()
	}
}

// Loss says which of the legal disks a power loss leaves.
type Loss int

const (
	// LoseAll forgets everything that was not synced.
	LoseAll Loss = iota
	// LoseData keeps all entries as they were, but what was not synced of the
	// octets is zeros.
	LoseData
	// LoseTail keeps all entries, but half of the octets that were not synced.
	LoseTail
	// LoseSome keeps or forgets each entry and each file's octets by chance; a rename
	// within one directory counts as one.
	LoseSome
)

func (l Loss) String() string { return [...]string{"all", "data", "tail", "some"}[l] }

// Losses are all of them.
var Losses = []Loss{LoseAll, LoseData, LoseTail, LoseSome}

// Crash returns a disk as it may be after a power loss now; m stays as it is.
// seed is for LoseSome.
func (m *Mem) Crash(loss Loss, seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := crash{loss: loss, rnd: rand.New(rand.NewPCG(seed, 1)), made: map[*node]*node{}}
	return &Mem{root: c.node(m.root)}
}

type crash struct {
	loss Loss
	rnd  *rand.Rand
	made map[*node]*node // an inode may have two names after a crash
}

func (c *crash) node(n *node) *node {
	if done := c.made[n]; done != nil {
		return done
	}
	out := newDir()
	out.dir = n.dir
	c.made[n] = out
	if n.dir {
		for name, child := range c.entries(n) {
			kept := c.node(child)
			out.entries[name], out.onDisk[name] = kept, kept
		}
		return out
	}
	out.data = c.octets(n)
	out.synced = slices.Clone(out.data)
	out.mtime = n.syncedM
	if c.loss != LoseAll {
		out.mtime = n.mtime
	}
	out.syncedM = out.mtime
	return out
}

func (c *crash) entries(n *node) map[string]*node {
	switch c.loss {
	case LoseAll:
		return n.onDisk
	case LoseData, LoseTail:
		return n.entries
	}
	return c.some(n)
}

// some keeps or forgets what happened to each entry since the directory was
// synced. A rename within the directory happened as a whole or not at all, and a
// name that was replaced is one or the other: so it is on every file system with a
// journal, and Maildir readers have always relied on it.
func (c *crash) some(n *node) map[string]*node {
	names := map[string]bool{}
	for name := range n.onDisk {
		names[name] = true
	}
	for name := range n.entries {
		names[name] = true
	}
	sorted := slices.Sorted(maps.Keys(names))
	happened := map[*node]bool{}
	for _, name := range sorted {
		for _, child := range []*node{n.onDisk[name], n.entries[name]} {
			if _, decided := happened[child]; !decided && child != nil {
				happened[child] = c.rnd.IntN(2) == 0
			}
		}
	}
	out := map[string]*node{}
	for _, name := range sorted {
		was, is := n.onDisk[name], n.entries[name]
		switch {
		case is != nil && happened[is]:
			out[name] = is
		case was != nil && (is != nil || !happened[was]):
			out[name] = was
		}
	}
	return out
}

func (c *crash) octets(n *node) []byte {
	loss := c.loss
	if loss == LoseSome {
		loss = Loss(c.rnd.IntN(int(LoseSome)))
	}
	if loss == LoseAll || slices.Equal(n.data, n.synced) {
		return slices.Clone(n.synced)
	}
	out := slices.Clone(n.data)
	from := 0
	for from < min(len(out), len(n.synced)) && out[from] == n.synced[from] {
		from++
	}
	if loss == LoseTail {
		return out[:from+(len(out)-from)/2]
	}
	clear(out[from:])
	return out
}

func pathErr(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// find returns a node; the caller holds the lock.
func (m *Mem) find(op, name string) (*node, error) {
	if !fs.ValidPath(name) {
		return nil, pathErr(op, name, fs.ErrInvalid)
	}
	n := m.root
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if !n.dir {
			return nil, pathErr(op, name, syscall.ENOTDIR)
		}
		if n = n.entries[part]; n == nil {
			return nil, pathErr(op, name, syscall.ENOENT)
		}
	}
	return n, nil
}

// parent returns the directory a name lies in.
func (m *Mem) parent(op, name string) (*node, string, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, "", pathErr(op, name, fs.ErrInvalid)
	}
	d, err := m.find(op, path.Dir(name))
	if err == nil && !d.dir {
		err = pathErr(op, name, syscall.ENOTDIR)
	}
	return d, path.Base(name), err
}

func (m *Mem) OpenFile(name string, flag int) (durable.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("open", name)
	if err != nil {
		return nil, err
	}
	n := d.entries[base]
	switch {
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathErr("open", name, syscall.ENOENT)
	case n == nil:
		n = &node{mtime: time.Now()}
		d.entries[base] = n
	case flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, pathErr("open", name, syscall.EEXIST)
	case n.dir:
		return nil, pathErr("open", name, durable.ErrNotRegular)
	}
	if flag&os.O_TRUNC != 0 {
		n.data, n.mtime = nil, time.Now()
	}
	return &memFile{m: m, n: n, name: name, flag: flag}, nil
}

func (m *Mem) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("mkdir", name)
	if err != nil {
		if name == "." {
			return pathErr("mkdir", name, syscall.EEXIST)
		}
		return err
	}
	if d.entries[base] != nil {
		return pathErr("mkdir", name, syscall.EEXIST)
	}
	d.entries[base] = newDir()
	return nil
}

func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	df, bf, err := m.parent("rename", from)
	if err != nil {
		return err
	}
	dt, bt, err := m.parent("rename", to)
	if err != nil {
		return err
	}
	n, old := df.entries[bf], dt.entries[bt]
	switch {
	case n == nil:
		return pathErr("rename", from, syscall.ENOENT)
	case old != nil && old.dir:
		return pathErr("rename", to, syscall.EEXIST)
	}
	delete(df.entries, bf)
	dt.entries[bt] = n
	return nil
}

func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent("remove", name)
	if err != nil {
		return err
	}
	n := d.entries[base]
	switch {
	case n == nil:
		return pathErr("remove", name, syscall.ENOENT)
	case n.dir && len(n.entries) > 0:
		return pathErr("remove", name, syscall.ENOTEMPTY)
	}
	delete(d.entries, base)
	return nil
}

func (m *Mem) ReadDir(name string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, pathErr("readdir", name, syscall.ENOTDIR)
	}
	var list []fs.DirEntry
	for base, child := range n.entries {
		list = append(list, fs.FileInfoToDirEntry(child.info(base)))
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

func (m *Mem) Lstat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("lstat", name)
	if err != nil {
		return nil, err
	}
	return n.info(path.Base(name)), nil
}

func (m *Mem) Chtimes(name string, mtime time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("chtimes", name)
	if err != nil {
		return err
	}
	n.mtime = mtime
	return nil
}

func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("syncdir", name)
	if err != nil {
		return err
	}
	if !n.dir {
		return pathErr("syncdir", name, syscall.ENOTDIR)
	}
	n.onDisk = make(map[string]*node, len(n.entries))
	for base, child := range n.entries {
		n.onDisk[base] = child
	}
	return nil
}

// Close does nothing: the disk stays.
func (m *Mem) Close() error { return nil }

type info struct {
	name  string
	size  int64
	mode  fs.FileMode
	mtime time.Time
	n     *node
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return i.mtime }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return i.n }

func (n *node) info(name string) fs.FileInfo {
	if n.dir {
		return info{name: name, mode: fs.ModeDir | 0o700, n: n}
	}
	return info{name: name, size: int64(len(n.data)), mode: 0o600, mtime: n.mtime, n: n}
}

// memFile is one open file of a Mem.
type memFile struct {
	m      *Mem
	n      *node
	name   string
	flag   int
	off    int64
	closed bool
}

func (f *memFile) Name() string { return f.name }

// begin takes the lock of the disk; every operation but Name does so.
func (f *memFile) begin(op string) error {
	f.m.mu.Lock()
	if f.closed {
		f.m.mu.Unlock()
		return pathErr(op, f.name, fs.ErrClosed)
	}
	return nil
}

func (f *memFile) Read(p []byte) (int, error) {
	if err := f.begin("read"); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	n, err := f.readAt(p, f.off)
	f.off += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.begin("read"); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	return f.readAt(p, off)
}

func (f *memFile) readAt(p []byte, off int64) (int, error) {
	if f.flag&os.O_WRONLY != 0 || off < 0 {
		return 0, pathErr("read", f.name, syscall.EBADF)
	}
	n := 0
	if off < int64(len(f.n.data)) {
		n = copy(p, f.n.data[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	if err := f.begin("write"); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	if f.flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return 0, pathErr("write", f.name, syscall.EBADF)
	}
	if f.flag&os.O_APPEND != 0 {
		f.off = int64(len(f.n.data))
	}
	f.n.resize(max(int64(len(f.n.data)), f.off+int64(len(p))))
	copy(f.n.data[f.off:], p)
	f.off += int64(len(p))
	f.n.mtime = time.Now()
	return len(p), nil
}

func (n *node) resize(size int64) {
	if size <= int64(len(n.data)) {
		n.data = n.data[:size:size]
		return
	}
	n.data = append(n.data, make([]byte, size-int64(len(n.data)))...)
}

func (f *memFile) Seek(offset int64, whence int) (int64, error) {
	if err := f.begin("seek"); err != nil {
		return 0, err
	}
	defer f.m.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		offset += int64(len(f.n.data))
	}
	if offset < 0 {
		return 0, pathErr("seek", f.name, syscall.EINVAL)
	}
	f.off = offset
	return offset, nil
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	if err := f.begin("stat"); err != nil {
		return nil, err
	}
	defer f.m.mu.Unlock()
	return f.n.info(path.Base(f.name)), nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.begin("truncate"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.resize(size)
	f.n.mtime = time.Now()
	return nil
}

func (f *memFile) Chtimes(mtime time.Time) error {
	if err := f.begin("chtimes"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.mtime = mtime
	return nil
}

func (f *memFile) StartWriteback() error {
	if err := f.begin("writeback"); err != nil {
		return err
	}
	f.m.mu.Unlock()
	return nil
}

func (f *memFile) Sync() error {
	if err := f.begin("sync"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	f.n.synced = slices.Clone(f.n.data)
	f.n.syncedM = f.n.mtime
	return nil
}

func (f *memFile) Lock() error {
	if err := f.begin("lock"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	if f.n.lock != nil && f.n.lock != f {
		return durable.ErrLocked
	}
	f.n.lock = f
	return nil
}

func (f *memFile) Close() error {
	if err := f.begin("close"); err != nil {
		return err
	}
	defer f.m.mu.Unlock()
	if f.n.lock == f {
		f.n.lock = nil
	}
	f.closed = true
	return nil
}
