package maildir

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"mailhaul/internal/durable"
)

// errNotIndexed says that the directories were read and hold no such message.
var errNotIndexed = fmt.Errorf("no such message: %w", fs.ErrNotExist)

const (
	// maxIndexed bounds the memory of all indexes: some 20 octets for an entry.
	maxIndexed = 1 << 19
	// settleTime is the coarsest clock of directories: what changes later than
	// that after its mtime is seen in the mtime.
	settleTime = 100 * time.Millisecond
)

// indexes know under which names messages lie now. A directory is read when
// somebody first asks, and again when it has changed.
type indexes struct {
	mu    sync.Mutex
	seed  maphash.Seed
	boxes map[string]*index
	total int
	// suffixes are the few different endings ("cur" and ":2,S"), entries their numbers
	suffixes []suffix
	numbers  map[suffix]uint32
}

type suffix struct{ sub, info string }

type index struct {
	entries  map[uint64]uint32 // by hash of the identifying part
	cur, new time.Time         // mtimes before they were read
	read     time.Time
}

// find returns the name of a message now. again asks for a new look at the
// directories even if they seem unchanged.
func (x *indexes) find(fsys durable.FS, dir, stem string, again bool) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	ix, fresh := x.boxes[dir], false
	if ix == nil || again {
		var err error
		if ix, err = x.scan(fsys, dir); err != nil {
			return "", err
		}
		fresh = true
	}
	for {
		if n, ok := ix.entries[maphash.String(x.seed, stem)]; ok {
			s := x.suffixes[n]
			return path.Join(dir, s.sub, stem+s.info), nil
		}
		if fresh || !x.changed(fsys, dir, ix) {
			return "", errNotIndexed
		}
		var err error
		if ix, err = x.scan(fsys, dir); err != nil {
			return "", err
		}
		fresh = true
	}
}

// moved notes a new name.
func (x *indexes) moved(dir, stem, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ix := x.boxes[dir]; ix != nil {
		ix.entries[maphash.String(x.seed, stem)] = x.number(path.Base(path.Dir(name)), strings.TrimPrefix(path.Base(name), stem))
	}
}

func (x *indexes) number(sub, info string) uint32 {
	s := suffix{sub, info}
	n, ok := x.numbers[s]
	if !ok {
		n = uint32(len(x.suffixes))
		x.suffixes = append(x.suffixes, s)
		x.numbers[s] = n
	}
	return n
}

func mtime(fsys durable.FS, dir string) time.Time {
	st, err := fsys.Lstat(dir)
	if err != nil {
		return time.Time{}
	}
	return st.ModTime()
}

func (x *indexes) changed(fsys durable.FS, dir string, ix *index) bool {
	cur, now := mtime(fsys, dir+"/cur"), mtime(fsys, dir+"/new")
	return !cur.Equal(ix.cur) || !now.Equal(ix.new) || ix.read.Sub(cur) < settleTime || ix.read.Sub(now) < settleTime
}

func (x *indexes) scan(fsys durable.FS, dir string) (*index, error) {
	if x.boxes == nil || x.total > maxIndexed {
		x.boxes, x.numbers, x.suffixes, x.total = map[string]*index{}, map[suffix]uint32{}, nil, 0
		x.seed = maphash.MakeSeed()
	}
	ix := &index{entries: map[uint64]uint32{}, cur: mtime(fsys, dir+"/cur"), new: mtime(fsys, dir+"/new"), read: time.Now()}
	for _, sub := range []string{"new", "cur"} { // in this order, since readers move them so
		list, err := fsys.ReadDir(dir + "/" + sub)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range list {
			stem, _, _ := splitInfo(e.Name())
			ix.entries[maphash.String(x.seed, stem)] = x.number(sub, e.Name()[len(stem):])
		}
	}
	if old := x.boxes[dir]; old != nil {
		x.total -= len(old.entries)
	}
	x.boxes[dir] = ix
	x.total += len(ix.entries)
	return ix, nil
}
