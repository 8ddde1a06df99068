package migrate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"mailhaul/mail"
)

// place is what the ledger of a migration has for a message's place: its octets
// are at the source.
const place = "source"

// small messages of a group lie in one file; larger ones have a file each.
const small = 512 << 10

// spool takes messages from the source and keeps them until they were sent on. It
// is the archive of the reading engine; what it returns as committed was only
// read, and the ledger of a migration claims no more. Its files have no names.
type spool struct {
	dir string

	mu      sync.Mutex
	file    *file    // small messages go there
	entries []*entry // complete and not committed
	ready   []*batch // committed and not taken, in order
}

func newSpool(dir string) *spool { return &spool{dir: dir} }

// file is a temporary file that several messages share; it is closed with the last
// of them.
type file struct {
	*os.File
	mu   sync.Mutex
	end  int64
	refs int
}

type entry struct {
	receipt mail.Receipt
	file    *file
	from    int64
	taken   bool
	held    mail.Held // once it is on record
}

func (s *spool) temp() (*file, error) {
	f, err := os.CreateTemp(s.dir, "spool-*")
	if err == nil {
		if err = os.Remove(f.Name()); err != nil { // the octets go with the descriptor
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return nil, diskError("make temporary file", err)
	}
	return &file{File: f, refs: 1}, nil
}

func diskError(op string, err error) error {
	return &mail.Error{Kind: mail.KindDisk, Op: op, Err: err, Hint: "make room there, then run the same command again"}
}

func (f *file) release() {
	f.mu.Lock()
	f.refs--
	last := f.refs == 0
	f.mu.Unlock()
	if last {
		_ = f.Close() // nobody reads it any more
	}
}

// share returns the file for small messages with one reference more.
func (s *spool) share() (*file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		f, err := s.temp()
		if err != nil {
			return nil, err
		}
		s.file = f
	}
	s.file.mu.Lock()
	s.file.refs++
	s.file.mu.Unlock()
	return s.file, nil
}

// Append implements fetch.Archive.
func (s *spool) Append(_ context.Context, in mail.Info, r mail.Octets) error {
	e, err := s.store(r, in.Size)
	if err != nil {
		return err
	}
	e.receipt = mail.Receipt{Info: in, Place: place, Sums: r.Sums()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, e)
	return nil
}

// buffers are for small messages.
var buffers = sync.Pool{New: func() any { return new([small]byte) }}

func (s *spool) store(r io.Reader, size int64) (*entry, error) {
	if size > small { // as far as the server says
		return s.stream(r)
	}
	buf := buffers.Get().(*[small]byte)
	defer buffers.Put(buf)
	n := 0
	var err error
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	switch err {
	case nil:
		return s.stream(io.MultiReader(bytes.NewReader(buf[:n]), r))
	case io.EOF:
	default:
		return nil, err
	}
	f, err := s.share()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	e := &entry{file: f, from: f.end}
	f.end += int64(n)
	f.mu.Unlock()
	if _, err := f.WriteAt(buf[:n], e.from); err != nil {
		f.release()
		return nil, diskError("write temporary file", err)
	}
	return e, nil
}

// read stores a message that comes in wire form.
func (s *spool) read(r io.Reader, size int64) (*entry, error) {
	c := mail.NewCanonical(r, nil)
	e, err := s.store(c, size)
	if err != nil {
		return nil, err
	}
	e.receipt.Sums = c.Sums()
	return e, nil
}

// stream stores a large message as it comes.
func (s *spool) stream(r io.Reader) (*entry, error) {
	f, err := s.temp()
	if err != nil {
		return nil, err
	}
	w := &diskWriter{f: f.File}
	if _, err := io.Copy(w, r); err != nil {
		f.release()
		if w.err != nil {
			err = diskError("write temporary file", w.err)
		}
		return nil, err
	}
	return &entry{file: f}, nil
}

// diskWriter keeps errors of the disk apart from those of the network.
type diskWriter struct {
	f   *os.File
	err error
}

func (w *diskWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.err = err
	return n, err
}

// Commit implements fetch.Archive.
func (s *spool) Commit(context.Context) (mail.Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return mail.Group{}, nil
	}
	b := &batch{entries: s.entries, byID: make(map[int64]*entry)}
	s.ready, s.entries = append(s.ready, b), nil
	s.seal()
	var g mail.Group
	for _, e := range b.entries {
		g.Receipts = append(g.Receipts, e.receipt)
	}
	return g, nil
}

// seal lets the next messages go to another file; the caller holds s.mu.
func (s *spool) seal() {
	if s.file != nil {
		s.file.release()
		s.file = nil
	}
}

// take returns the oldest group that was committed.
func (s *spool) take() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		return &batch{}
	}
	b := s.ready[0]
	s.ready = s.ready[1:]
	return b
}

func (s *spool) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seal()
	for _, e := range s.entries {
		e.file.release()
	}
	for _, b := range s.ready {
		b.close()
	}
	s.entries, s.ready = nil, nil
}

// batch is the messages of one group.
type batch struct {
	entries []*entry
	byID    map[int64]*entry // by message of the ledger
}

// claim gives the octets of an entry to a message of the ledger.
func (b *batch) claim(h mail.Held) bool {
	for _, e := range b.entries {
		if !e.taken && e.receipt.Digest == h.Receipt.Digest && e.receipt.Info.Ref.Mailbox == h.Receipt.Info.Ref.Mailbox {
			e.taken, e.held = true, h
			b.byID[h.Message] = e
			return true
		}
	}
	return false
}

// add gives an entry to a message of the ledger.
func (b *batch) add(id int64, e *entry) {
	if old := b.byID[id]; old == nil {
		b.entries = append(b.entries, e)
		b.byID[id] = e
	} else {
		e.file.release()
	}
}

func (b *batch) open(id int64) (io.ReadCloser, error) {
	e := b.byID[id]
	if e == nil {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(io.NewSectionReader(e.file, e.from, e.receipt.Octets)), nil
}

// close gives the octets up.
func (b *batch) close() {
	for _, e := range b.entries {
		e.file.release()
	}
	b.entries, b.byID = nil, nil
}
