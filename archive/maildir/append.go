package maildir

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"time"

	"mailhaul/mail"
)

// bufferSize is how much of a message is read before its file is made: one that
// fits costs one write, and nothing if it is not wanted after all.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Append implements archive.Archive.
func (a *Archive) Append(ctx context.Context, in mail.Info, r mail.Octets) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if in.InternalDate.IsZero() {
		return fmt.Errorf("%s: no INTERNALDATE given", in.Ref)
	}
	b := a.box(in.Ref.Mailbox)
	if err := a.prepare(b); err != nil {
		return err
	}
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	m := &message{box: b, base: a.newName(), info: in}
	if err := a.write(ctx, m, r, buf[:]); err != nil {
		return err
	}
	m.sums = r.Sums()
	return a.add(m)
}

// write writes the message to tmp; after an error nothing is left there.
func (a *Archive) write(ctx context.Context, m *message, r io.Reader, buf []byte) (err error) {
	n, rerr := fill(r, buf)
	if rerr != nil && rerr != io.EOF {
		return rerr
	}
	name := m.box.tmp(m.base)
	op := "write " + name
	f, err := a.fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		if !errors.Is(err, fs.ErrExist) {
			a.remove(name) // creation may fail late
		}
		return diskError(m.info.Ref, op, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			a.remove(name)
		}
	}()
	for {
		if n > 0 {
			if _, err := f.Write(buf[:n]); err != nil {
				return diskError(m.info.Ref, op, err)
			}
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			return rerr
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n, rerr = fill(r, buf)
	}
	if err := f.Chtimes(m.info.InternalDate); err != nil {
		return diskError(m.info.Ref, op, err)
	}
	m.file = f
	return nil
}

// fill reads until buf is full or r fails.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	return n, err
}

// add makes the message pending, and syncs early when too many files are open.
func (a *Archive) add(m *message) error {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		m.file.Close()
		a.remove(m.box.tmp(m.base))
		return diskError(m.info.Ref, "write "+m.box.tmp(m.base), fs.ErrClosed)
	}
	a.pending = append(a.pending, m)
	a.open++
	full := a.open >= a.openFiles
	a.mu.Unlock()
	if full {
		a.syncEarly()
	}
	return nil
}

// syncEarly syncs and closes the files of pending messages. Those that wait here
// meanwhile are why open files stay bounded.
func (a *Archive) syncEarly() {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	a.mu.Lock()
	if a.open < a.openFiles { // somebody else did it
		a.mu.Unlock()
		return
	}
	group := a.pending
	a.pending, a.open = nil, 0
	a.mu.Unlock()

	a.sync(group)

	a.mu.Lock()
	defer a.mu.Unlock()
	var good []*message
	for _, m := range group {
		if m.err == nil {
			good = append(good, m)
		} else if a.failed++; a.failure == nil {
			a.failure = m.err
		}
	}
	a.pending = append(good, a.pending...)
}

// randomLen base32 characters carry 100 bits.
const randomLen = 20

// newName is unique without a look at the directory or trust in the clock.
func (a *Archive) newName() string {
	return strconv.FormatInt(time.Now().Unix(), 10) + "." + rand.Text()[:randomLen] + "." + a.host
}
