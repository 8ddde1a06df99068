// Package maildir keeps each mailbox as a Maildir, one nested directory per
// mailbox (Dovecot's LAYOUT=fs), each message as one file that holds exactly the
// canonical octets.
//
// A message is written to tmp and, once it is synced, renamed into cur as
//
//	TIME.RANDOM.HOST,S=OCTETS:2,FLAGS
//
// with its INTERNALDATE as mtime. The name up to the last ":2," (";2," on file
// systems that refuse the colon) never changes and identifies the message: mail
// readers may change the flags behind it and move the file between new and cur.
// That part, below cur, is the Place of a receipt.
package maildir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Options tune an Archive; the zero value is right outside tests.
type Options struct {
	// Host is the third part of file names; "" means the name of this host.
	Host string
	// OpenFiles is how many messages may wait with an open descriptor before they
	// are synced early; 0 means 200. As many again may be open while that goes
	// on, and one for each Append that runs.
	OpenFiles int
}

const defaultOpenFiles = 200

// Archive is an archive.Archive and archive.Flagger of Maildirs. Its methods may
// be called concurrently as far as the contract says.
type Archive struct {
	fsys      durable.FS
	anchors   archive.Anchors
	host      string
	openFiles int

	mu      sync.Mutex // guards what follows
	boxes   map[string]*box
	pending []*message
	open    int   // descriptors among pending
	failed  int   // messages that failed in an early sync, told by the next Commit
	failure error // the first of them
	sep     byte  // ':' or ';'
	closed  bool

	flushing sync.Mutex // held while pending messages are synced or committed
	index    indexes
}

var (
	_ archive.Archive = (*Archive)(nil)
	_ archive.Flagger = (*Archive)(nil)
	_ archive.Strayer = (*Archive)(nil)
)

// New opens an archive on fsys, which it does not close.
func New(fsys durable.FS, anchors archive.Anchors, opts Options) (*Archive, error) {
	a := &Archive{fsys: fsys, anchors: anchors, host: opts.Host, openFiles: opts.OpenFiles, boxes: map[string]*box{}, sep: ':'}
	if a.host == "" {
		a.host, _ = os.Hostname()
	}
	a.host = safeHost(a.host)
	if a.openFiles <= 0 {
		a.openFiles = defaultOpenFiles
	}
	if runtime.GOOS == "windows" {
		a.sep = ';'
	}
	return a, nil
}

// box is one mailbox.
type box struct {
	mailbox string
	dir     string // path below the root

	mu       sync.Mutex
	ready    bool  // marked as open, its directories are there
	chained  bool  // the directories above cur are durable
	dirty    bool  // flags were changed since cur was synced
	broken   error // a sync of a directory failed: nothing more is archived here in this run
	keywords keywords
}

func (b *box) cur(name string) string { return b.dir + "/cur/" + name }
func (b *box) tmp(name string) string { return b.dir + "/tmp/" + name }

func (a *Archive) box(mailbox string) *box {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.boxes[mailbox]
	if b == nil {
		dir, _ := archive.Path(mailbox)
		b = &box{mailbox: mailbox, dir: dir}
		a.boxes[mailbox] = b
	}
	return b
}

// prepare makes the mailbox ready for its first message of the run.
func (a *Archive) prepare(b *box) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil || b.ready {
		return b.broken
	}
	if err := a.anchors.MarkOpen(b.mailbox, archive.Anchor{Open: true}); err != nil {
		return err
	}
	for _, sub := range []string{"/cur", "/new", "/tmp"} {
		if _, err := durable.MkdirAll(a.fsys, b.dir+sub); err != nil {
			return diskError(mail.Ref{Mailbox: b.mailbox}, "make "+b.dir+sub, err)
		}
	}
	if err := archive.KeepName(a.fsys, b.mailbox); err != nil {
		return diskError(mail.Ref{Mailbox: b.mailbox}, "write "+archive.NameFile(b.dir), err)
	}
	b.ready = true
	return nil
}

// message is one that was appended and is not committed.
type message struct {
	box  *box
	file durable.File // nil once it is synced and closed
	base string       // name in tmp
	info mail.Info
	sums mail.Sums
	err  error
}

// stem is the part of the final name that identifies the message.
func (m *message) stem() string { return fmt.Sprintf("%s,S=%d", m.base, m.sums.Octets) }

// Commit implements archive.Archive.
func (a *Archive) Commit(ctx context.Context) (archive.Group, error) {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	group, failed, failure := a.take()
	a.sync(group)
	for _, b := range a.touched(group) {
		a.commitBox(b, slices.DeleteFunc(slices.Clone(group), func(m *message) bool { return m.box != b || m.err != nil }))
	}
	out := archive.Group{Anchors: map[string]archive.Anchor{}}
	for _, m := range group {
		if m.err != nil {
			if failed++; failure == nil {
				failure = m.err
			}
			continue
		}
		out.Receipts = append(out.Receipts, mail.Receipt{Info: m.info, Place: m.box.cur(m.stem()), Sums: m.sums})
		out.Anchors[m.box.mailbox] = archive.Anchor{Open: true}
	}
	if failed > 1 {
		failure = fmt.Errorf("%w (and %d more messages)", failure, failed-1)
	}
	return out, errors.Join(failure, a.syncFlags())
}

// take empties the list of pending messages.
func (a *Archive) take() (group []*message, failed int, failure error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	group, failed, failure = a.pending, a.failed, a.failure
	a.pending, a.open, a.failure, a.failed = nil, 0, nil, 0
	return group, failed, failure
}

func (a *Archive) touched(group []*message) []*box {
	var list []*box
	for _, m := range group {
		if !slices.Contains(list, m.box) {
			list = append(list, m.box)
		}
	}
	return list
}

// sync syncs and closes the files that are still open. A message that fails is
// given up: its file is removed, never synced again.
func (a *Archive) sync(group []*message) {
	var open []*message
	var files []durable.File
	for _, m := range group {
		if m.file != nil {
			open, files = append(open, m), append(files, m.file)
		}
	}
	for i, err := range durable.SyncFiles(files, durable.SyncParallel) {
		m := open[i]
		if cerr := m.file.Close(); err == nil {
			err = cerr
		}
		m.file = nil
		if err != nil {
			m.err = diskError(m.info.Ref, "sync "+m.box.tmp(m.base), err)
			a.remove(m.box.tmp(m.base))
		}
	}
}

// commitBox brings synced messages of one mailbox into cur and makes that
// durable, or leaves none of them there.
func (a *Archive) commitBox(b *box, group []*message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.broken
	if err == nil {
		err = a.learnKeywords(b, group)
	}
	if err != nil {
		for _, m := range group {
			m.err = err
			a.remove(b.tmp(m.base))
		}
		return
	}
	names := make(map[*message]string, len(group))
	for _, m := range group {
		if names[m], m.err = a.deliver(b, m); m.err != nil {
			a.remove(b.tmp(m.base))
			a.remove(b.cur(names[m])) // a rename may fail late
		}
	}
	if err := a.syncBox(b); err != nil {
		for _, m := range group {
			if m.err == nil {
				m.err = err
				a.remove(b.cur(names[m]))
			}
		}
	}
}

// deliver renames one message into cur and returns its name there.
func (a *Archive) deliver(b *box, m *message) (string, error) {
	for {
		a.mu.Lock()
		sep := a.sep
		a.mu.Unlock()
		name := m.stem() + string(sep) + "2," + b.keywords.letters(m.info.Flags)
		err := a.fsys.Rename(b.tmp(m.base), b.cur(name))
		if err == nil {
			return name, nil
		}
		if sep == ':' && a.refusesColon(b, m, err) {
			a.mu.Lock()
			a.sep = ';'
			a.mu.Unlock()
			continue
		}
		return name, diskError(m.info.Ref, "rename "+b.tmp(m.base)+" into cur", err)
	}
}

// syncBox makes the entries of cur durable, and the way to it when it is the
// first time: an earlier run may have made it and died before it was synced.
func (a *Archive) syncBox(b *box) error {
	err := a.fsys.SyncDir(b.dir + "/cur")
	if err == nil && !b.chained {
		err = durable.SyncChain(a.fsys, b.dir)
	}
	if err != nil {
		b.broken = diskError(mail.Ref{Mailbox: b.mailbox}, "sync "+b.dir, err)
		return b.broken
	}
	b.chained, b.dirty = true, false
	return nil
}

// syncFlags makes names that SetFlags changed durable.
func (a *Archive) syncFlags() error {
	a.mu.Lock()
	var boxes []*box
	for _, b := range a.boxes {
		boxes = append(boxes, b)
	}
	a.mu.Unlock()
	var errs []error
	for _, b := range boxes {
		b.mu.Lock()
		if b.dirty && b.broken == nil {
			errs = append(errs, a.syncBox(b))
		}
		b.mu.Unlock()
	}
	return errors.Join(errs...)
}

// remove takes away what must not stay. That it fails adds nothing to the error
// that led here: Recover sweeps what is left.
func (a *Archive) remove(name string) { _ = a.fsys.Remove(name) }

// Close drops what was not committed.
func (a *Archive) Close() error {
	a.flushing.Lock()
	defer a.flushing.Unlock()
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	group, _, _ := a.take()
	for _, m := range group {
		if m.file != nil {
			m.file.Close()
		}
		a.remove(m.box.tmp(m.base))
	}
	return a.syncFlags()
}

// Mailboxes implements archive.Archive. Directories that no mailbox name leads to
// are not listed.
func (a *Archive) Mailboxes(ctx context.Context) ([]string, error) {
	list, err := a.walk(ctx, ".", nil)
	slices.Sort(list)
	return list, err
}

func (a *Archive) walk(ctx context.Context, dir string, list []string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return list, err
	}
	entries, err := a.fsys.ReadDir(dir)
	if err != nil {
		return list, diskError(mail.Ref{}, "list "+dir, err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case !e.IsDir() || strings.HasPrefix(name, "."), dir != "." && (name == "new" || name == "tmp"):
		case dir != "." && name == "cur":
			mailbox, err := archive.FindMailbox(a.fsys, dir)
			if err == nil {
				list = append(list, mailbox)
			} else if !errors.Is(err, archive.ErrNotOurs) {
				return list, diskError(mail.Ref{}, "read "+archive.NameFile(dir), err)
			}
		default:
			if list, err = a.walk(ctx, path.Join(dir, name), list); err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

// date is the INTERNALDATE that an mtime stands for.
func date(st fs.FileInfo) time.Time { return st.ModTime().UTC() }
