package mbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

const (
	// bufferSize is how much is gathered before it is written to the file.
	bufferSize = 256 << 10
	// writebackEvery is how much is written before the kernel is asked to begin
	// with it, so that little is left for the sync.
	writebackEvery = 8 << 20
)

// box is one mbox that this run appends to.
//
// The file holds what is committed, then whole messages, then perhaps a part of a
// long message that is being appended:
//
//	base <= committed <= handed <= size, where the next message will begin
type box struct {
	a       *Archive
	mailbox string
	name    string        // of the file
	turn    chan struct{} // held by the one Append at work

	mu      sync.Mutex // guards what follows
	file    durable.File
	lock    *lock
	created bool  // by this run
	chained bool  // the directories above are durable
	err     error // the mailbox is given up for this run
	foreign bool  // because somebody else changed the file: it must not be cut
	noSync  bool  // a sync failed: never again on this descriptor
	lost    error // why messages that Append had taken could not be written

	base      int64 // length at the start of the run
	committed int64
	modTime   time.Time // at committed
	handed    int64     // end of the messages handed to the last Commit
	size      int64
	written   int64     // length of the file: size without tail, with a part
	dirty     bool      // written to since committed
	unsynced  int64     // written since write-back was started
	sep       []byte    // what is missing to an empty line at size
	baseSep   []byte    // the same at base
	tail      []byte    // whole messages not yet in the file
	pending   []pending // behind handed
}

// pending is a message that is appended and not committed.
type pending struct {
	receipt mail.Receipt
	end     int64 // behind its separator
}

// tails are buffers of bufferSize. A mailbox gets one when its messages need it:
// there may be thousands of mailboxes with one message each.
var tails = sync.Pool{New: func() any {
	b := make([]byte, 0, bufferSize)
	return &b
}}

// smallTail is up to where a tail grows on its own.
const smallTail = 16 << 10

// gather adds to the octets not yet in the file.
func (b *box) gather(p []byte) {
	if n := len(b.tail) + len(p); n > cap(b.tail) && n > smallTail && cap(b.tail) < bufferSize {
		b.tail = append(*tails.Get().(*[]byte), b.tail...)
	}
	b.tail = append(b.tail, p...)
}

// dropTail gives the buffer back.
func (b *box) dropTail() {
	if t := b.tail[:0]; cap(t) >= bufferSize {
		tails.Put(&t)
	}
	b.tail = nil
}

// open opens and locks the file and marks it open in the ledger, once per run.
// The caller has the turn.
func (b *box) open(ctx context.Context) error {
	b.mu.Lock()
	ready, err := b.file != nil, b.err
	b.mu.Unlock()
	if ready || err != nil {
		return err
	}
	if _, err := durable.MkdirAll(b.a.fsys, path.Dir(b.name)); err != nil {
		return diskError(b.mailbox, "create", path.Dir(b.name), err)
	}
	if err := archive.KeepName(b.a.fsys, b.mailbox); err != nil {
		return diskError(b.mailbox, "write", archive.NameFile(b.name), err)
	}
	_, err = b.a.fsys.Lstat(b.name)
	created := errors.Is(err, fs.ErrNotExist)
	f, err := b.a.fsys.OpenFile(b.name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return diskError(b.mailbox, "open", b.name, err)
	}
	l, err := takeLock(ctx, b.a.fsys, b.mailbox, b.name, f, b.a.opts.LockWait)
	if err != nil {
		f.Close()
		if mail.KindOf(err) == mail.KindTemporary { // do not wait again for every message
			b.mu.Lock()
			b.err = err
			b.mu.Unlock()
		}
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin(f); err != nil {
		if created {
			err = errors.Join(err, b.a.fsys.Remove(b.name))
		}
		return errors.Join(err, l.release(), f.Close())
	}
	b.file, b.lock, b.created = f, l, created
	return nil
}

// begin looks at the file as it is at the start and marks it open.
func (b *box) begin(f durable.File) error {
	st, err := f.Stat()
	if err != nil {
		return diskError(b.mailbox, "stat", b.name, err)
	}
	size := st.Size()
	if seen, ok := b.a.seenAt(b.mailbox); ok && !sameState(seen, st) {
		return changedError(b.mailbox, b.name)
	}
	sep, err := missingSeparator(f, size)
	if err != nil {
		return diskError(b.mailbox, "read", b.name, err)
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		return diskError(b.mailbox, "seek", b.name, err)
	}
	mark := archive.Anchor{Open: true, Length: size, ModTime: st.ModTime().UTC()}
	if err := b.a.anchors.MarkOpen(b.mailbox, mark); err != nil {
		return fmt.Errorf("mark %s as open: %w", b.name, err)
	}
	b.sep, b.baseSep = sep, sep
	b.base, b.committed, b.handed, b.size, b.written = size, size, size, size, size
	b.modTime = st.ModTime()
	return nil
}

// missingSeparator returns what must be written so that a From_ line at size lies
// behind an empty line.
func missingSeparator(r io.ReaderAt, size int64) ([]byte, error) {
	if size == 0 {
		return nil, nil
	}
	var end [3]byte
	b := end[:min(size, 3)]
	if _, err := r.ReadAt(b, size-int64(len(b))); err != nil && err != io.EOF {
		return nil, err
	}
	b = bytes.TrimPrefix(b, []byte("\n\r")) // what is left is an empty line
	switch {
	case b[len(b)-1] != '\n':
		return []byte("\n\n"), nil
	case len(b) > 1 && b[len(b)-2] != '\n':
		return []byte("\n"), nil
	}
	return nil, nil
}

// spill writes a part of a long message to the file.
func (b *box) spill(w *workspace, p []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	if !w.begun {
		b.separate()
		if err := b.flush(); err != nil {
			return err
		}
		w.begun = true
	}
	_, err := b.write(p)
	return err
}

// separate makes sure that the file so far ends in an empty line.
func (b *box) separate() {
	b.gather(b.sep)
	b.size += int64(len(b.sep))
	b.sep = nil
}

// accept takes a whole message.
func (b *box) accept(w *workspace, in mail.Info, sums mail.Sums) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return b.err
	}
	if !w.begun {
		b.separate()
		if len(b.tail)+len(w.stage) > bufferSize {
			if err := b.flush(); err != nil {
				return err
			}
		}
	}
	start := b.size
	if w.begun {
		if _, err := b.write(w.stage); err != nil {
			return err
		}
	} else {
		b.gather(w.stage)
	}
	b.size += w.total
	b.pending = append(b.pending, pending{
		receipt: mail.Receipt{Info: in, Place: place(b.name, start, w.total-1), Sums: sums},
		end:     b.size,
	})
	return nil
}

// abort removes what the message at work has left in the file.
func (b *box) abort(w *workspace) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w.begun && b.err == nil {
		b.cut(b.size) // tail is empty
	}
}

// flush writes the whole messages gathered so far. On an error those that did
// not reach the file are given up and the file is cut back behind the last one
// that did.
func (b *box) flush() error {
	if len(b.tail) == 0 {
		return nil
	}
	_, err := b.write(b.tail)
	b.tail = b.tail[:0]
	if err == nil {
		return nil
	}
	if b.err == nil {
		b.rollback()
	}
	b.lost = errors.Join(b.lost, err)
	return err
}

// rollback gives up what lies behind the last whole message in the file.
func (b *box) rollback() {
	kept := len(b.pending)
	for kept > 0 && b.pending[kept-1].end > b.written {
		kept--
	}
	b.pending = b.pending[:kept]
	b.size = b.floor()
	if b.size == b.base {
		b.sep = b.baseSep
	}
	b.cut(b.size)
}

// floor is the end of the last whole message in the file.
func (b *box) floor() int64 {
	if n := len(b.pending); n > 0 {
		return b.pending[n-1].end
	}
	return b.handed
}

// write appends to the file. The octets that arrived are counted, also on errors.
func (b *box) write(p []byte) (int, error) {
	if err := b.untouched(); err != nil {
		return 0, err
	}
	b.dirty = true
	n, err := b.file.Write(p)
	b.written += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return n, diskError(b.mailbox, "write", b.name, err)
	}
	if b.unsynced += int64(n); b.unsynced >= writebackEvery {
		b.unsynced = 0
		if err := b.file.StartWriteback(); err != nil {
			return n, b.fail(diskError(b.mailbox, "write", b.name, err))
		}
	}
	return n, nil
}

// untouched makes sure that the file is as long as this run has made it. If not,
// somebody else writes to it, and it is neither written to nor cut any more.
func (b *box) untouched() error {
	st, err := b.file.Stat()
	if err != nil {
		return diskError(b.mailbox, "stat", b.name, err)
	}
	if st.Size() != b.written {
		b.foreign = true
		return b.fail(changedError(b.mailbox, b.name))
	}
	return nil
}

// cut truncates the file; if that cannot be done the mailbox is given up, and the
// next run cuts.
func (b *box) cut(size int64) {
	if err := b.untouched(); err != nil {
		b.fail(err)
		return
	}
	err := b.file.Truncate(size)
	if err == nil {
		_, err = b.file.Seek(size, io.SeekStart)
	}
	if err != nil {
		b.fail(diskError(b.mailbox, "truncate", b.name, err))
		return
	}
	b.written = size
}

// fail gives the mailbox up for this run.
func (b *box) fail(err error) error {
	if b.err == nil {
		b.err = err
	}
	return err
}
