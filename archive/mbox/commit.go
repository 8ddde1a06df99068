package mbox

import (
	"errors"
	"io/fs"
	"path"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// commit makes durable what is pending. Appends go on meanwhile.
func (b *box) commit() ([]mail.Receipt, archive.Anchor, error) {
	group, lost := b.handOver()
	if len(group) == 0 {
		return nil, archive.Anchor{}, lost
	}
	err := b.sync()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		err = b.settle()
	}
	if err != nil {
		b.fail(err)
		b.pending = nil
		if !b.foreign {
			b.cut(b.committed)
		}
		return nil, archive.Anchor{}, errors.Join(lost, err)
	}
	receipts := make([]mail.Receipt, len(group))
	for i := range group {
		receipts[i] = group[i].receipt
	}
	return receipts, archive.Anchor{Open: true, Length: b.committed, ModTime: b.modTime.UTC()}, lost
}

// handOver writes out the messages appended so far and takes them from the box.
func (b *box) handOver() (group []pending, lost error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		_ = b.flush() // the error is in b.lost
	}
	lost, b.lost = b.lost, nil
	group, b.pending = b.pending, nil
	if b.err != nil {
		if len(group) > 0 {
			lost = errors.Join(lost, b.err)
		}
		return nil, lost
	}
	if len(group) > 0 {
		b.handed = group[len(group)-1].end
	}
	b.dropTail()
	return group, lost
}

// sync makes the file and the way to it durable.
func (b *box) sync() error {
	if err := b.file.Sync(); err != nil {
		b.mu.Lock()
		b.noSync = true
		b.mu.Unlock()
		return diskError(b.mailbox, "sync", b.name, err)
	}
	if b.chained { // only Commit looks at it, and Commits do not overlap
		return nil
	}
	if err := durable.SyncChain(b.a.fsys, path.Dir(b.name)); err != nil {
		return diskError(b.mailbox, "sync directories of", b.name, err)
	}
	b.chained = true
	return nil
}

// settle notes that everything up to handed is durable, if the name still leads
// to the file that was synced.
func (b *box) settle() error {
	st, err := b.file.Stat()
	if err != nil {
		return diskError(b.mailbox, "stat", b.name, err)
	}
	at, err := b.a.fsys.Lstat(b.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(b.mailbox, "stat", b.name, err)
	}
	if b.foreign || err != nil || at.Size() != st.Size() || !at.ModTime().Equal(st.ModTime()) {
		b.foreign = true
		return changedError(b.mailbox, b.name)
	}
	b.committed, b.modTime = b.handed, st.ModTime()
	if b.written == b.committed {
		b.dirty = false
	}
	b.lock.touch()
	return nil
}

// close drops what is not committed and gives the file back as it was committed,
// modification time included, so that the next run knows it again.
func (b *box) close() error {
	b.turn <- struct{}{} // for good
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = errClosed
	}
	if b.file == nil {
		return nil
	}
	var err error
	if !b.foreign {
		err = b.untouched()
	}
	switch {
	case b.foreign || err != nil:
	case b.created && b.committed == 0:
		err = b.a.fsys.Remove(b.name)
	case b.dirty:
		err = b.restore()
	}
	err = diskError(b.mailbox, "close", b.name, errors.Join(err, b.lock.release(), b.file.Close()))
	b.file, b.tail, b.pending = nil, nil, nil
	return err
}

// restore cuts durably: a tail that came back after a power cut, without the
// ledger's mark, would be taken for mail.
func (b *box) restore() error {
	if err := b.file.Truncate(b.committed); err != nil {
		return err
	}
	if b.noSync {
		return errors.New("cut back, but not durably: a sync had failed before")
	}
	if err := b.file.Sync(); err != nil {
		return err
	}
	return b.file.Chtimes(b.modTime)
}
