package mbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"mailhaul/archive"
	"mailhaul/internal/durable"
)

// Recover compares the file with the anchor; see archive.Archive.
//
// An open anchor says that a run was killed: what lies behind the recorded length
// is that run's, not committed, and cut. It is kept if the file was rewritten
// since, or if there is a message in it that another program saved. A file whose
// size or modification time is not that of the anchor is read again as a whole,
// and nothing of it is changed.
func (a *Archive) Recover(ctx context.Context, mailbox string, anchor archive.Anchor, _ func(place string) bool) (archive.Found, error) {
	name := fileName(mailbox)
	found, err := a.recover(ctx, mailbox, name, anchor)
	if err != nil {
		return archive.Found{}, err
	}
	a.mu.Lock()
	a.seen[mailbox] = found.Anchor
	a.mu.Unlock()
	return found, nil
}

func (a *Archive) recover(ctx context.Context, mailbox, name string, anchor archive.Anchor) (archive.Found, error) {
	st, err := a.fsys.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return archive.Found{All: anchor.Length > 0}, nil
	}
	if err != nil {
		return archive.Found{}, diskError(mailbox, "stat", name, err)
	}
	if !anchor.Open && sameState(anchor, st) {
		return archive.Found{Anchor: anchor}, nil
	}
	f, err := a.fsys.OpenFile(name, os.O_RDWR)
	if err != nil {
		return archive.Found{}, diskError(mailbox, "open", name, err)
	}
	l, err := takeLock(ctx, a.fsys, mailbox, name, f, a.opts.LockWait)
	if err != nil {
		return archive.Found{}, errors.Join(err, f.Close())
	}
	found, err := a.recoverLocked(ctx, mailbox, name, f, anchor)
	if cerr := errors.Join(l.release(), f.Close()); err == nil {
		err = diskError(mailbox, "unlock", name, cerr)
	}
	return found, err
}

func (a *Archive) recoverLocked(ctx context.Context, mailbox, name string, f durable.File, anchor archive.Anchor) (found archive.Found, err error) {
	st, err := f.Stat()
	if err != nil {
		return found, diskError(mailbox, "stat", name, err)
	}
	cut := false
	if anchor.Open {
		if cut, err = canCut(f, st.Size(), anchor.Length); err != nil {
			return found, diskError(mailbox, "read", name, err)
		}
	}
	if cut {
		if st.Size() > anchor.Length {
			if err := f.Truncate(anchor.Length); err != nil {
				return found, diskError(mailbox, "truncate", name, err)
			}
		}
	} else {
		found.All = true
		for rc, err := range receipts(ctx, mailbox, name, f, st.Size()) {
			if err != nil {
				return found, err
			}
			found.Receipts = append(found.Receipts, rc)
		}
	}
	if err := f.Sync(); err != nil {
		return found, diskError(mailbox, "sync", name, err)
	}
	if err := durable.SyncChain(a.fsys, path.Dir(name)); err != nil {
		return found, diskError(mailbox, "sync directories of", name, err)
	}
	if st, err = f.Stat(); err != nil {
		return found, diskError(mailbox, "stat", name, err)
	}
	found.Anchor = archive.Anchor{Length: st.Size(), ModTime: st.ModTime().UTC()}
	return found, nil
}

// sameState tells whether a file is as an anchor has it.
func sameState(anchor archive.Anchor, st fs.FileInfo) bool {
	return st.Size() == anchor.Length && (anchor.Length == 0 || st.ModTime().Equal(anchor.ModTime))
}

// canCut tells whether what lies behind length is nothing but the tail of a
// killed run.
func canCut(f io.ReaderAt, size, length int64) (bool, error) {
	if size < length {
		return false, nil
	}
	var head [8]byte
	n, err := f.ReadAt(head[:], length)
	if err != nil && err != io.EOF {
		return false, err
	}
	boundary, err := isBoundary(f, length)
	if err != nil {
		return false, err
	}
	if !boundary && n > 0 && head[0] != '\n' {
		return false, nil // the recorded length is no longer the end of a message
	}
	saved, err := holdsForeign(f, length, size)
	return !saved, err
}

// holdsForeign tells whether there is a whole message in f, between from and to,
// that another program put there.
func holdsForeign(f io.ReaderAt, from, to int64) (bool, error) {
	var end [2]byte
	if to-from < int64(len(end)) {
		return false, nil
	}
	if _, err := f.ReadAt(end[:], to-int64(len(end))); err != nil && err != io.EOF {
		return false, err
	}
	if !bytes.Equal(end[:], []byte("\n\n")) && !bytes.Equal(end[:], crLF) {
		return false, nil
	}
	s := newScanner(f, from, to)
	for {
		err := s.next()
		if err == io.EOF {
			return holdsGlued(f, from, to)
		}
		if err != nil || s.msg.reader {
			return err == nil, err
		}
	}
}

// holdsGlued tells whether a message was saved directly behind a torn one, where no
// empty line shows it: a From_ line anywhere in a line, with a header line behind
// it that mailhaul would not write there. What mailhaul has quoted does not count.
func holdsGlued(f io.ReaderAt, from, to int64) (bool, error) {
	r := bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), readAhead)
	var line []byte // its end at least
	for {
		piece, err := r.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			line = append(line[:0], line[max(0, len(line)-maxFrom):]...)
			continue
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		}
		if endsInFrom(line) {
			next, err := r.Peek(maxSniff)
			if err != nil && err != io.EOF {
				return false, err
			}
			if isForeignHeader(next) {
				return true, nil
			}
		}
		line = line[:0]
	}
}

// endsInFrom tells whether a line holds a From_ line that is not quoted.
func endsInFrom(line []byte) bool {
	line = line[max(0, len(line)-maxFrom):]
	for at := 0; ; at++ {
		i := bytes.Index(line[at:], fromWord)
		if i < 0 {
			return false
		}
		at += i
		_, ok := parseFrom(line[at:])
		if ok && (at == 0 || countQuotes(line) < at) {
			return true
		}
	}
}
