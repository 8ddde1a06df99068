package vault

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

var errRebuilt = errors.New("the ledger was built anew from the messages found")

// FindingKind sorts what Verify finds.
type FindingKind int

const (
	Missing    FindingKind = iota // on record, not in the archive
	Altered                       // in the archive, with other octets
	Unreadable                    // the disk would not give it
	Extra                         // in the archive, not on record: no error
)

func (k FindingKind) String() string {
	switch k {
	case Missing:
		return "missing"
	case Altered:
		return "altered"
	case Unreadable:
		return "unreadable"
	case Extra:
		return "extra"
	}
	return fmt.Sprintf("finding %d", int(k))
}

// Finding is one thing Verify found.
type Finding struct {
	Kind    FindingKind
	Mailbox string    // "" for Extra
	Place   string    // in the archive; for Extra the file
	Held    mail.Held // what is on record; zero for Extra
	Err     error     // what reading said; nil for Extra
}

// Tally is what Verify read, of the whole archive or of a mailbox.
type Tally struct {
	Messages   int64 // on record
	Recorded   int64 // octets of those
	Verified   int64 // read back with the right octets
	Octets     int64 // of those
	Missing    int64
	Altered    int64
	Unreadable int64
	Skipped    int64 // left out of a sample
}

// Whole tells that nothing is missing, altered or unreadable.
func (t Tally) Whole() bool { return t.Missing+t.Altered+t.Unreadable == 0 }

// Summary is what Verify read.
type Summary struct {
	Tally
	Mailboxes int64
	Extra     int64
	// Boxes are the mailboxes, in the order of their names.
	Boxes []BoxTally
}

// BoxTally is the part of one mailbox.
type BoxTally struct {
	Mailbox string
	Tally
}

// maxWorkers bounds how many messages are read at a time.
const maxWorkers = 4

// VerifyOptions says what VerifyWith reads and whom it tells.
type VerifyOptions struct {
	// Share of the messages that are read, from 0 to 1, at random. Whether the
	// others are there is not looked at.
	Share float64
	// Select, if not nil, tells which mailboxes are read. With it extra files are
	// not looked for.
	Select func(mailbox string) bool
	Report func(Finding)
	Notify mail.Notify // may be nil
}

// Verify reads every message on record back to the end, by the same Prove that a
// deletion needs, and reports what is missing, altered or unreadable, then the
// files that are not on record. Findings are no error; the error is that of ctx
// or of the ledger. report is called by one goroutine at a time and must not
// close the vault. Verify takes as long as reading the archive does, in constant
// memory but for 16 octets or so of each message.
func (v *Vault) Verify(ctx context.Context, report func(Finding)) (Summary, error) {
	return v.VerifyWith(ctx, VerifyOptions{Share: 1, Report: report})
}

// VerifyWith is Verify for a part of the messages.
func (v *Vault) VerifyWith(ctx context.Context, o VerifyOptions) (sum Summary, err error) {
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	r := &verifying{VerifyOptions: o, v: v, open: v.raw.Open, known: map[uint64]struct{}{}, seed: maphash.MakeSeed()}
	if together, ok := v.raw.(archive.Opener); ok {
		open, closeAll := together.Together()
		r.open = open
		defer func() { err = errors.Join(err, closeAll()) }()
	}
	names, err := v.Ledger.Mailboxes(ctx)
	if err != nil {
		return Summary{}, err
	}
	if o.Select != nil {
		names = slices.DeleteFunc(names, func(n string) bool { return !o.Select(n) })
	}
	if err := r.plan(ctx, names); err != nil {
		return r.sum, err
	}
	err = r.messages(ctx, names)
	r.total()
	if err != nil || o.Select != nil {
		return r.sum, err
	}
	err = r.extras(ctx)
	return r.sum, err
}

type verifying struct {
	VerifyOptions
	v     *Vault
	open  func(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)
	seed  maphash.Seed
	known map[uint64]struct{} // files on record, by fileKey

	mu  sync.Mutex
	sum Summary
}

// plan counts what is on record, so that progress can be told.
func (r *verifying) plan(ctx context.Context, names []string) error {
	for _, name := range names {
		t := BoxTally{Mailbox: name}
		err := r.v.Ledger.Messages(ctx, name, func(h mail.Held) error {
			t.Messages++
			t.Recorded += h.Receipt.Octets
			return nil
		})
		if err != nil {
			return err
		}
		r.sum.Boxes = append(r.sum.Boxes, t)
		r.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Mailbox: name},
			N: int64(float64(t.Messages) * r.Share), Octets: int64(float64(t.Recorded) * r.Share)})
	}
	return nil
}

func (r *verifying) total() {
	r.sum.Mailboxes = int64(len(r.sum.Boxes))
	for _, b := range r.sum.Boxes {
		s := &r.sum.Tally
		s.Messages += b.Messages
		s.Recorded += b.Recorded
		s.Verified += b.Verified
		s.Octets += b.Octets
		s.Missing += b.Missing
		s.Altered += b.Altered
		s.Unreadable += b.Unreadable
		s.Skipped += b.Skipped
	}
}

// job is one message to be verified.
type job struct {
	held mail.Held
	box  *BoxTally
}

// messages hands the messages, in the order in which they were archived, to a few
// workers: their octets then lie about one behind the other on the disk.
func (r *verifying) messages(ctx context.Context, names []string) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan job, 64)
	for range min(maxWorkers, max(2, runtime.NumCPU())) {
		group.Go(func() error {
			for j := range queue {
				if err := r.message(ctx, j); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		for i, name := range names {
			box := &r.sum.Boxes[i]
			box.Messages, box.Recorded = 0, 0
			err := r.v.Ledger.Messages(ctx, name, func(h mail.Held) error { return r.feed(ctx, job{h, box}, queue) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

func (r *verifying) feed(ctx context.Context, j job, queue chan<- job) error {
	if place := j.held.Receipt.Place; place != "" {
		r.known[r.key(place)] = struct{}{}
	}
	skip := r.Share < 1 && rand.Float64() >= r.Share
	r.mu.Lock()
	j.box.Messages++
	j.box.Recorded += j.held.Receipt.Octets
	if skip {
		j.box.Skipped++
	}
	r.mu.Unlock()
	if skip {
		return nil
	}
	select {
	case queue <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// message verifies one message; its error is that of ctx.
func (r *verifying) message(ctx context.Context, j job) error {
	h := j.held
	_, err := prove(ctx, h, r.open)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.Notify(mail.Event{Kind: mail.EventProgress, Ref: mail.Ref{Mailbox: j.box.Mailbox}, N: 1, Octets: h.Receipt.Octets})
	r.mu.Lock()
	defer r.mu.Unlock()
	kind := Unreadable
	switch {
	case err == nil:
		j.box.Verified++
		j.box.Octets += h.Receipt.Octets
		return nil
	case errors.Is(err, fs.ErrNotExist):
		kind = Missing
		j.box.Missing++
	case errors.Is(err, mail.ErrAltered):
		kind = Altered
		j.box.Altered++
	default:
		j.box.Unreadable++
	}
	r.Report(Finding{Kind: kind, Mailbox: h.Receipt.Info.Ref.Mailbox, Place: h.Receipt.Place, Held: h, Err: err})
	return nil
}

// Prove reads a message of the archive back, through a new descriptor. A missing
// one is an error for which errors.Is(err, fs.ErrNotExist) holds, one with other
// octets is mail.ErrAltered.
func (v *Vault) Prove(ctx context.Context, h mail.Held) (mail.Proof, error) {
	return prove(ctx, h, v.raw.Open)
}

func prove(ctx context.Context, h mail.Held, open func(context.Context, mail.Receipt) (io.ReadCloser, error)) (mail.Proof, error) {
	if h.Receipt.Place == "" {
		return mail.Proof{}, fmt.Errorf("message %s: %w", h.Receipt.Digest, fs.ErrNotExist)
	}
	f, err := open(ctx, h.Receipt)
	if err != nil {
		return mail.Proof{}, err
	}
	p, err := mail.Prove(h.Receipt, f)
	return p, errors.Join(err, f.Close())
}

// extras reports files that no message on record lies in. What somebody saved into
// an mbox is on record since Open.
func (r *verifying) extras(ctx context.Context) error {
	extra := func(name string) {
		r.sum.Extra++
		r.Report(Finding{Kind: Extra, Place: name})
	}
	err := walk(r.v.fsys, ".", func(name string, isDir bool) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if isDir || foreign(name) {
			return nil
		}
		if _, ok := r.known[r.key(name)]; !ok {
			extra(name)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		return diskError("verify", err)
	}
	return err
}

func (r *verifying) key(place string) uint64 { return maphash.String(r.seed, fileKey(place)) }

// fileKey reduces a place to what stays the same of its file while mail readers
// work with it: of a Maildir file the name without flags and whether it is in new
// or cur, of a message in an mbox the file.
func fileKey(place string) string {
	dir, base := path.Split(place)
	dir = strings.TrimSuffix(dir, "/")
	if in := path.Base(dir); in == "cur" || in == "new" {
		for _, sep := range []string{":2,", ";2,"} {
			if i := strings.LastIndex(base, sep); i >= 0 {
				base = base[:i]
			}
		}
		return path.Join(path.Dir(dir), base)
	}
	if file, _, ok := strings.Cut(place, ".mbox#"); ok {
		return file + ".mbox"
	}
	return place
}

// foreign tells whether a file belongs to another program that works with mail:
// Dovecot, notmuch, mu, mh, mbsync, an editor or a lock. Their names, and whatever
// a program keeps in tmp, are never those of messages.
func foreign(name string) bool {
	base := path.Base(name)
	switch {
	case strings.HasPrefix(base, "."), strings.HasPrefix(base, "dovecot"),
		strings.HasSuffix(base, ".lock"), path.Base(path.Dir(name)) == "tmp":
		return true
	}
	switch base {
	case "maildirfolder", "subscriptions", "maildirsize":
		return true
	}
	return false
}

// walk calls f for everything below dir in the archive, depth first, but for names
// that begin with a dot: no mailbox has one, .mailhaul does. Symbolic links are
// not followed.
func walk(fsys durable.FS, dir string, f func(name string, isDir bool) error) error {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || dir == "." && e.Name() == "lost+found" {
			continue
		}
		name := path.Join(dir, e.Name())
		if err := f(name, e.IsDir()); err != nil {
			return err
		}
		if e.IsDir() {
			if err := walk(fsys, name, f); err != nil {
				return err
			}
		}
	}
	return nil
}
