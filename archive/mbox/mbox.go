// Package mbox keeps archives as mboxrd, one file per mailbox: INBOX.mbox,
// Archive/2023.mbox. docs/formats.md says what is in a file.
//
// What mailhaul writes it reads back octet for octet. Files that others wrote or
// changed are read as far as they can be understood (see scanner): a message
// without the three lines behind the From_ line is foreign, and everything behind
// its From_ line belongs to it.
package mbox

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Suffix is what the name of an mbox ends in.
const Suffix = ".mbox"

// Options are the choices of an mbox archive; the zero value is good.
type Options struct {
	// LockWait is how long to wait for another program that has locked an mbox; 0
	// means 10 s, less than 0 not at all.
	LockWait time.Duration
}

// Archive is an archive of mbox files. All methods may be called at once, but for
// what archive.Archive says of Commit and Recover.
type Archive struct {
	fsys    durable.FS
	anchors archive.Anchors
	opts    Options

	mu     sync.Mutex // guards what follows
	boxes  map[string]*box
	seen   map[string]archive.Anchor // as Recover left them
	closed bool

	lookup lookup
}

var _ archive.Archive = (*Archive)(nil)

// New returns the archive in fsys, which the caller closes after the archive.
// anchors gets the mark that has to be durable before a run's first append.
func New(fsys durable.FS, anchors archive.Anchors, opts Options) (*Archive, error) {
	if fsys == nil || anchors == nil {
		return nil, errors.New("mbox: no file system or no anchors")
	}
	if opts.LockWait == 0 {
		opts.LockWait = 10 * time.Second
	}
	return &Archive{fsys: fsys, anchors: anchors, opts: opts,
		boxes: make(map[string]*box), seen: make(map[string]archive.Anchor)}, nil
}

// fileName returns the path of a mailbox's file.
func fileName(mailbox string) string {
	name, _ := archive.Path(mailbox)
	return name + Suffix
}

func (a *Archive) box(mailbox string) (*box, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errClosed
	}
	b := a.boxes[mailbox]
	if b == nil {
		b = &box{a: a, mailbox: mailbox, name: fileName(mailbox), turn: make(chan struct{}, 1)}
		a.boxes[mailbox] = b
	}
	return b, nil
}

func (a *Archive) seenAt(mailbox string) (archive.Anchor, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, ok := a.seen[mailbox]
	return s, ok
}

// Append writes one message; see archive.Archive. Messages for one mailbox are
// written one after the other, for different mailboxes at the same time.
func (a *Archive) Append(ctx context.Context, in mail.Info, r mail.Octets) error {
	b, err := a.box(in.Ref.Mailbox)
	if err != nil {
		return err
	}
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := b.open(ctx); err != nil {
		return err
	}
	w := workspaces.Get().(*workspace)
	defer w.release()
	w.start(b)
	octets, err := w.encode(ctx, r, in.InternalDate, in.Flags)
	if err == nil {
		sums := r.Sums()
		if sums.Octets != octets {
			err = errors.New("sums do not belong to the octets")
		} else {
			err = b.accept(w, in, sums)
		}
	}
	if err != nil {
		b.abort(w)
	}
	return err
}

// Commit makes durable what was appended before; see archive.Archive.
func (a *Archive) Commit(ctx context.Context) (archive.Group, error) {
	a.mu.Lock()
	boxes := make([]*box, 0, len(a.boxes))
	for _, b := range a.boxes {
		boxes = append(boxes, b)
	}
	a.mu.Unlock()
	slices.SortFunc(boxes, func(x, y *box) int { return strings.Compare(x.mailbox, y.mailbox) })

	type result struct {
		receipts []mail.Receipt
		anchor   archive.Anchor
		err      error
	}
	results := make([]result, len(boxes))
	parallel := min(durable.SyncParallel, len(boxes))
	var wg sync.WaitGroup
	for w := range parallel {
		wg.Go(func() {
			for i := w; i < len(boxes); i += parallel {
				if results[i].err = ctx.Err(); results[i].err == nil {
					results[i].receipts, results[i].anchor, results[i].err = boxes[i].commit()
				}
			}
		})
	}
	wg.Wait()

	group := archive.Group{Anchors: make(map[string]archive.Anchor)}
	var errs []error
	for i, r := range results {
		if len(r.receipts) > 0 {
			group.Receipts = append(group.Receipts, r.receipts...)
			group.Anchors[boxes[i].mailbox] = r.anchor
		}
		errs = append(errs, r.err)
	}
	return group, errors.Join(errs...)
}

// Close drops what was not committed, cuts it from the files, removes the locks
// and closes the files. An error means that a file could not be brought back to
// its last committed state: its anchor must stay open.
func (a *Archive) Close() error {
	a.mu.Lock()
	a.closed = true
	boxes := a.boxes
	a.boxes = nil
	a.mu.Unlock()
	var errs []error
	for _, b := range boxes {
		errs = append(errs, b.close())
	}
	return errors.Join(errs...)
}

// Mailboxes lists the mailboxes that have a file. Files whose name no mailbox
// gives are left out.
func (a *Archive) Mailboxes(ctx context.Context) ([]string, error) {
	list, err := a.walk(ctx, ".", nil)
	slices.Sort(list)
	return list, err
}

func (a *Archive) walk(ctx context.Context, dir string, list []string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := a.fsys.ReadDir(dir)
	if err != nil {
		return nil, diskError("", "read directory", dir, err)
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), "."):
		case e.IsDir():
			if list, err = a.walk(ctx, name, list); err != nil {
				return nil, err
			}
		case e.Type().IsRegular() && strings.HasSuffix(name, Suffix):
			mailbox, err := archive.FindMailbox(a.fsys, strings.TrimSuffix(name, Suffix))
			if errors.Is(err, archive.ErrNotOurs) {
				continue
			}
			if err != nil {
				return nil, diskError("", "read name of", name, err)
			}
			list = append(list, mailbox)
		}
	}
	return list, nil
}

// Receipts reads every message of a mailbox; see archive.Archive. Of a mailbox
// that this run appends to, it reads what is committed.
func (a *Archive) Receipts(ctx context.Context, mailbox string) iter.Seq2[mail.Receipt, error] {
	return func(yield func(mail.Receipt, error) bool) {
		name := fileName(mailbox)
		f, err := openRead(a.fsys, mailbox, name)
		if err != nil {
			yield(mail.Receipt{}, err)
			return
		}
		defer f.Close()
		end, err := a.durableEnd(mailbox, f)
		if err != nil {
			yield(mail.Receipt{}, diskError(mailbox, "stat", name, err))
			return
		}
		for rc, err := range receipts(ctx, mailbox, name, f, end) {
			if !yield(rc, err) || err != nil {
				return
			}
		}
	}
}

// durableEnd returns up to where the file may be read.
func (a *Archive) durableEnd(mailbox string, f durable.File) (int64, error) {
	a.mu.Lock()
	b := a.boxes[mailbox]
	a.mu.Unlock()
	if b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.file != nil {
			return b.committed, nil
		}
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// receipts reads the messages in f up to end.
func receipts(ctx context.Context, mailbox, name string, f io.ReaderAt, end int64) iter.Seq2[mail.Receipt, error] {
	return func(yield func(mail.Receipt, error) bool) {
		s := newScanner(f, 0, end)
		for {
			if err := ctx.Err(); err != nil {
				yield(mail.Receipt{}, err)
				return
			}
			err := s.next()
			if err == io.EOF {
				return
			}
			var sums mail.Sums
			if err == nil {
				sums, err = mail.SumCanonical(s)
			}
			if err != nil {
				yield(mail.Receipt{}, diskError(mailbox, "read", name, err))
				return
			}
			if !yield(receipt(mailbox, name, s.msg, sums), nil) {
				return
			}
		}
	}
}

func receipt(mailbox, name string, m message, sums mail.Sums) mail.Receipt {
	return mail.Receipt{
		Info: mail.Info{
			Ref:          mail.Ref{Mailbox: mailbox},
			Size:         -1,
			InternalDate: m.from.date,
			DateFrom:     mail.DateFromFileTime,
			Flags:        m.flags,
		},
		Place: place(name, m.offset, m.end-m.offset),
		Sums:  sums,
	}
}

func openRead(fsys durable.FS, mailbox, name string) (durable.File, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &mail.Error{Kind: mail.KindIntegrity, Ref: mail.Ref{Mailbox: mailbox}, Op: "open " + name, Err: err}
	}
	if err != nil {
		return nil, diskError(mailbox, "open", name, err)
	}
	return f, nil
}
