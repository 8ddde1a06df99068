package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"hash/maphash"
	"io"
	"slices"
	"sync"
	"time"

	"mailhaul/mail"
)

// A server that shows one message in several mailboxes may say so (X-GM-MSGID of
// Gmail, EMAILID of RFC 8474). Then it is fetched in one of them only. The others get
// a copy of what the archive has by then, provided that size and header are the same
// there: what a server says of identity saves octets, it never stands for them.

// Reader is an Archive that gives back the octets it has; see archive.Archive.
type Reader interface {
	Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)
}

// copyChunk is how many messages are compared together.
const copyChunk = 1000

// double is a message that is to be copied, if it can be.
type double struct {
	mail.Want
	object string
}

// seen remembers which messages were seen in this run, by their ObjectIDs. Two that
// are taken for one another cost no more than a comparison.
type seen struct {
	mu   sync.Mutex
	seed maphash.Seed
	ids  map[uint64]struct{}
}

func newSeen() *seen {
	return &seen{seed: maphash.MakeSeed(), ids: make(map[uint64]struct{})}
}

// again tells whether the message was seen before, and remembers it.
func (s *seen) again(object string) bool {
	h := maphash.String(s.seed, object)
	s.mu.Lock()
	defer s.mu.Unlock()
	_, again := s.ids[h]
	s.ids[h] = struct{}{}
	return again
}

// copies tells whether a message that the mailbox lacks is, or is about to be, in the
// archive for another one. Only the octets of a message are worth the question.
func (r *run) copies(ctx context.Context, in mail.Info) bool {
	if in.ObjectID == "" || in.Ref.UID == "" || in.Size < 0 {
		return false
	}
	if _, ok := r.Source.(HeaderSource); !ok {
		return false
	}
	if _, ok := r.Archive.(Reader); !ok {
		return false
	}
	if r.seen.again(in.ObjectID) {
		return true
	}
	same, err := r.Ledger.Same(ctx, r.Source.Account(), in.ObjectID)
	return err == nil && len(same) > 0 // an error comes again where it matters
}

// apart takes what may be copied out of wants.
func (l *listing) apart(wants []mail.Want) (rest []mail.Want, later []double) {
	if len(l.doubles) == 0 {
		return wants, nil
	}
	rest = make([]mail.Want, 0, len(wants))
	for _, w := range wants {
		if object := l.doubles[w.UID]; object != "" {
			later = append(later, double{w, object})
		} else {
			rest = append(rest, w)
		}
	}
	return rest, later
}

// laterOnes brings in what was left for when the other mailboxes are archived.
func (t *take) laterOnes(ctx context.Context) (Counts, error) {
	t.counts = Counts{}
	wants := make([]mail.Want, len(t.later))
	for i, d := range t.later {
		wants[i] = d.Want
	}
	t.asked = newAsked(wants)
	var err error
	for chunk := range slices.Chunk(t.later, copyChunk) {
		if err = t.copyAll(ctx, chunk); err != nil {
			break
		}
	}
	if err == nil {
		err = t.fetch(ctx, slices.Collect(t.asked.pending()))
	}
	return t.end(err)
}

// copyAll copies what it can of doubles; the rest is left to be fetched.
func (t *take) copyAll(ctx context.Context, doubles []double) error {
	same := make(map[string][]mail.Held)
	objects := make(map[string]string)
	var ask []mail.Want
	for _, d := range doubles {
		held, err := t.Ledger.Same(ctx, t.Source.Account(), d.object)
		if err != nil {
			return err
		}
		held = slices.DeleteFunc(held, func(h mail.Held) bool { return h.Suspicious != "" || h.Receipt.Wire != d.Size })
		if len(held) > 0 {
			same[d.UID], objects[d.UID] = held, d.object
			ask = append(ask, d.Want)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	type match struct {
		in   mail.Info
		held mail.Held
	}
	var matches []match
	var mu sync.Mutex
	err := t.Source.(HeaderSource).Headers(ctx, t.mb, ask, func(in mail.Info, r io.Reader, err error) error {
		if err != nil || in.ObjectID != objects[in.Ref.UID] {
			return nil // the message itself will be asked for
		}
		header, err := readHeader(r)
		if err != nil {
			return nil
		}
		held, ok := theSame(same[in.Ref.UID], header.digest)
		if ok && (in.Size < 0 || in.Size == held.Receipt.Wire) {
			mu.Lock()
			matches = append(matches, match{in, held})
			mu.Unlock()
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, m := range matches {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := t.copy(ctx, m.in, m.held); err != nil {
			return err
		}
	}
	return nil
}

// theSame returns the one with this header, unless there are some whose octets differ.
func theSame(held []mail.Held, header mail.Digest) (found mail.Held, ok bool) {
	for _, h := range held {
		switch {
		case h.Receipt.Header != header:
		case ok && h.Receipt.Digest != found.Receipt.Digest:
			return found, false
		default:
			found, ok = h, true
		}
	}
	return found, ok
}

// copy writes the octets of an archived message for another mailbox, too. Where they
// are not what they were, the message is left to be fetched.
func (t *take) copy(ctx context.Context, in mail.Info, held mail.Held) error {
	if !t.begin(in) {
		return nil
	}
	in.Size = held.Receipt.Wire
	t.date(&in)
	if c := t.book.takeDigest(held.Receipt.Digest, false); c != nil {
		return t.adopt(ctx, in, c, false)
	}
	f, err := t.Archive.(Reader).Open(ctx, held.Receipt)
	if err != nil {
		t.again(in)
		return nil
	}
	defer f.Close() // read only
	c := &copied{r: f, sums: held.Receipt.Sums, hash: sha256.New()}
	err = t.pipeline.append(t, in, c, c.sums.Octets, func(mail.Sums) string { return "" })
	switch {
	case c.err != nil:
		t.again(in)
		return nil
	case err != nil:
		t.pipeline.refused(t, in, err)
		return err
	}
	t.pipeline.progress(in, 1, c.sums.Wire)
	return nil
}

// date gives a message the time of fetching where nothing else is known.
func (t *take) date(in *mail.Info) {
	if in.InternalDate.IsZero() {
		in.InternalDate, in.DateFrom = t.Now().UTC().Truncate(time.Second), mail.DateFetched
	}
}

var errChanged = errors.New("the archived message is not what it was")

// copied is the octets of an archived message, held against its digest.
type copied struct {
	r    io.Reader
	hash hash.Hash
	n    int64
	sums mail.Sums
	err  error
}

// Sums is what was recorded of the message; Read has compared it when it says io.EOF.
func (c *copied) Sums() mail.Sums { return c.sums }

func (c *copied) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.hash.Write(b[:n])
	c.n += int64(n)
	if err == io.EOF && (c.n != c.sums.Octets || mail.Digest(c.hash.Sum(nil)) != c.sums.Digest) {
		err = errChanged
	}
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
