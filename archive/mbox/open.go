package mbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Open opens the octets of a message; see archive.Archive. If there is no message
// at its place any more, because a mail reader rewrote the file, it is looked for
// by digest.
func (a *Archive) Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	return a.open(ctx, rc, func(mailbox, name string) (durable.File, func() error, error) {
		f, err := openRead(a.fsys, mailbox, name)
		if err != nil {
			return nil, nil, err
		}
		return f, f.Close, nil
	})
}

// open opens a message in the file that openFile opens.
func (a *Archive) open(ctx context.Context, rc mail.Receipt, openFile func(mailbox, name string) (durable.File, func() error, error)) (io.ReadCloser, error) {
	mailbox := rc.Info.Ref.Mailbox
	name, offset, length, ok := parsePlace(rc.Place)
	if !ok {
		return nil, missingError(mailbox, rc.Place)
	}
	f, closeFile, err := openFile(mailbox, name)
	if err != nil {
		return nil, err
	}
	r, err := openMessage(f, offset, length)
	if errors.Is(err, fs.ErrNotExist) && !rc.Digest.IsZero() {
		offset, length, ok, err = a.lookup.find(ctx, mailbox, name, f, rc.Digest)
		if err == nil && ok {
			r, err = openMessage(f, offset, length)
		} else if err == nil {
			err = fs.ErrNotExist
		}
	}
	if err == nil {
		r.close = closeFile
		return r, nil
	}
	_ = closeFile() // read only
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missingError(mailbox, rc.Place)
	}
	return nil, diskError(mailbox, "read", name, err)
}

// messageReader reads the octets of one message.
type messageReader struct {
	*scanner
	close func() error
}

func (m *messageReader) Close() error { return m.close() }

// openMessage opens the message at offset; fs.ErrNotExist if none begins and ends
// just there.
func openMessage(f durable.File, offset, length int64) (*messageReader, error) {
	ok, err := isBoundary(f, offset)
	if err != nil {
		return nil, err
	}
	sep, whole, err := separatorAt(f, offset+length)
	if err != nil {
		return nil, err
	}
	if !ok || !whole {
		return nil, fs.ErrNotExist
	}
	s := newScanner(f, offset, offset+length+sep)
	if err := s.next(); err == io.EOF || err == nil && s.msg.offset != offset {
		return nil, fs.ErrNotExist
	} else if err != nil {
		return nil, err
	}
	return &messageReader{scanner: s}, nil
}

// isBoundary tells whether a From_ line may begin at offset.
func isBoundary(f io.ReaderAt, offset int64) (bool, error) {
	if offset == 0 {
		return true, nil
	}
	var b [2]byte
	n, err := f.ReadAt(b[:], max(0, offset-2))
	if err != nil && err != io.EOF {
		return false, err
	}
	return bytes.Equal(b[:n], []byte("\n\n")) || offset == 1 && b[0] == '\n' || bytes.Equal(b[:n], crLF), nil
}

// separatorAt tells whether a message may end at offset, and how long the
// separator behind it is. The message may lack its last LF (see scanner).
func separatorAt(f io.ReaderAt, offset int64) (sep int64, ok bool, err error) {
	var b [8]byte
	n, err := f.ReadAt(b[:], offset-1)
	if err == io.EOF {
		err = nil
	}
	if err != nil {
		return 0, false, err
	}
	if n == 0 { // the last LF is missing
		n, err := f.ReadAt(b[:1], offset-2)
		if err == io.EOF {
			err = nil
		}
		return 0, n == 1, err
	}
	if b[0] != '\n' {
		return 0, false, nil
	}
	rest := b[1:n]
	switch {
	case len(rest) == 0:
		return 0, true, nil
	case rest[0] == '\n':
		sep = 1
	case bytes.HasPrefix(rest, crLF):
		sep = 2
	default:
		return 0, false, nil
	}
	rest = rest[sep:]
	return sep, bytes.HasPrefix(fromWord, rest[:min(len(rest), len(fromWord))]), nil
}

// lookup finds messages of one file by digest; it keeps 48 octets for each
// message of the file last asked about.
type lookup struct {
	mu      sync.Mutex
	name    string
	size    int64
	mtime   int64
	entries []lookupEntry
}

type lookupEntry struct {
	digest         mail.Digest
	offset, length int64
}

func (l *lookup) find(ctx context.Context, mailbox, name string, f durable.File, d mail.Digest) (offset, length int64, ok bool, err error) {
	st, err := f.Stat()
	if err != nil {
		return 0, 0, false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.name != name || l.size != st.Size() || l.mtime != st.ModTime().UnixNano() {
		l.name, l.entries = "", nil
		for rc, err := range receipts(ctx, mailbox, name, f, st.Size()) {
			if err != nil {
				return 0, 0, false, err
			}
			_, offset, length, _ := parsePlace(rc.Place)
			l.entries = append(l.entries, lookupEntry{rc.Digest, offset, length})
		}
		slices.SortFunc(l.entries, func(a, b lookupEntry) int { return bytes.Compare(a.digest[:], b.digest[:]) })
		l.name, l.size, l.mtime = name, st.Size(), st.ModTime().UnixNano()
	}
	i, ok := slices.BinarySearchFunc(l.entries, d, func(e lookupEntry, d mail.Digest) int { return bytes.Compare(e.digest[:], d[:]) })
	if !ok {
		return 0, 0, false, nil
	}
	return l.entries[i].offset, l.entries[i].length, true, nil
}
