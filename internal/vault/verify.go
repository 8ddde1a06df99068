package vault

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

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

// Summary is what Verify read.
type Summary struct {
	Mailboxes  int64
	Messages   int64 // on record
	Verified   int64 // read back with the right octets
	Octets     int64 // of those
	Missing    int64
	Altered    int64
	Unreadable int64
	Extra      int64
	Skipped    int64 // left out of a sample
}

// Whole tells that nothing is missing, altered or unreadable.
func (s Summary) Whole() bool { return s.Missing+s.Altered+s.Unreadable == 0 }

// maxWorkers bounds how many messages are read at a time.
const maxWorkers = 4

// Verify reads every message on record back to the end, by the same Prove that a
// deletion needs, and reports what is missing, altered or unreadable, then the
// files that are not on record. Findings are no error; the error is that of ctx
// or of the ledger. report is called by one goroutine at a time and must not
// close the vault. Verify takes as long as reading the archive does, in constant
// memory but for 16 octets or so of each message.
func (v *Vault) Verify(ctx context.Context, report func(Finding)) (Summary, error) {
	return v.VerifySample(ctx, 1, report)
}

// VerifySample is Verify for a random share of the messages, from 0 to 1. Whether
// the others are there is not looked at.
func (v *Vault) VerifySample(ctx context.Context, share float64, report func(Finding)) (Summary, error) {
	r := &verifying{v: v, report: report, share: share, known: map[uint64]struct{}{}, seed: maphash.MakeSeed()}
	names, err := v.Ledger.Mailboxes(ctx)
	if err != nil {
		return Summary{}, err
	}
	if err := r.messages(ctx, names); err != nil {
		return r.sum, err
	}
	err = r.extras(ctx)
	return r.sum, err
}

type verifying struct {
	v      *Vault
	report func(Finding)
	share  float64
	seed   maphash.Seed
	known  map[uint64]struct{} // files on record, by fileKey

	mu  sync.Mutex
	sum Summary
}

// messages hands the messages, in the order in which they were archived, to a few
// workers: their octets then lie about one behind the other on the disk.
func (r *verifying) messages(ctx context.Context, names []string) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan mail.Held, 64)
	for range min(maxWorkers, max(2, runtime.NumCPU())) {
		group.Go(func() error {
			for h := range queue {
				if err := r.message(ctx, h); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(queue)
		for _, name := range names {
			r.sum.Mailboxes++
			err := r.v.Ledger.Messages(ctx, name, func(h mail.Held) error { return r.feed(ctx, h, queue) })
			if err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

func (r *verifying) feed(ctx context.Context, h mail.Held, queue chan<- mail.Held) error {
	if h.Receipt.Place != "" {
		r.known[r.key(h.Receipt.Place)] = struct{}{}
	}
	skip := r.share < 1 && rand.Float64() >= r.share
	r.mu.Lock()
	r.sum.Messages++
	if skip {
		r.sum.Skipped++
	}
	r.mu.Unlock()
	if skip {
		return nil
	}
	select {
	case queue <- h:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// message verifies one message; its error is that of ctx.
func (r *verifying) message(ctx context.Context, h mail.Held) error {
	_, err := r.v.Prove(ctx, h)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	kind := Unreadable
	switch {
	case err == nil:
		r.sum.Verified++
		r.sum.Octets += h.Receipt.Octets
		return nil
	case errors.Is(err, fs.ErrNotExist):
		kind = Missing
		r.sum.Missing++
	case errors.Is(err, mail.ErrAltered):
		kind = Altered
		r.sum.Altered++
	default:
		r.sum.Unreadable++
	}
	r.report(Finding{Kind: kind, Mailbox: h.Receipt.Info.Ref.Mailbox, Place: h.Receipt.Place, Held: h, Err: err})
	return nil
}

// Prove reads a message of the archive back, through a new descriptor. A missing
// one is an error for which errors.Is(err, fs.ErrNotExist) holds, one with other
// octets is mail.ErrAltered.
func (v *Vault) Prove(ctx context.Context, h mail.Held) (mail.Proof, error) {
	if h.Receipt.Place == "" {
		return mail.Proof{}, fmt.Errorf("message %s: %w", h.Receipt.Digest, fs.ErrNotExist)
	}
	f, err := v.raw.Open(ctx, h.Receipt)
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
		r.report(Finding{Kind: Extra, Place: name})
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
