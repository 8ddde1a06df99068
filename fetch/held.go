package fetch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"sync"

	"mailhaul/mail"
)

var errNotDelivered = errors.New("the server listed the message and did not give it")

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
func isVanished(err error) bool { return errors.Is(err, mail.ErrVanished) }

// book is what the archive holds of one mailbox and this account does not claim.
// Identity is counted: each copy can be taken once.
type book struct {
	run    *run
	claims *claims
	mu     sync.Mutex
	bySize map[int64][]*copyOf
	byDig  map[mail.Digest][]*copyOf
	byGone map[int64][]*claim // gone claims by message: who takes the copy takes one over
	byUID  map[string]*claim  // claims by content that stand, by UID
}

// copyOf is one archived message nobody of this account claims.
type copyOf struct {
	message int64
	digest  mail.Digest
	header  mail.Digest
	date    int64  // INTERNALDATE in seconds since 1970
	content string // UID of the claim by content that stands on it, or ""
	sure    bool   // date is one that a server gave
	taken   bool
}

func newBook(ctx context.Context, r *run, mb mail.Mailbox, c *claims, unidentified bool) (*book, error) {
	b := &book{
		run: r, claims: c, bySize: make(map[int64][]*copyOf), byDig: make(map[mail.Digest][]*copyOf),
		byGone: make(map[int64][]*claim), byUID: make(map[string]*claim),
	}
	if l, ok := r.Archive.(Learner); ok && !r.DryRun {
		if err := l.Learn(ctx, mb.Name); err != nil {
			return nil, err
		}
	}
	err := r.Ledger.Free(ctx, r.Source.Account(), mb.Name, func(h mail.Held) error {
		b.add(h, "")
		return nil
	})
	if err == nil && mb.SpecialUse == `\Trash` {
		err = b.addTrashed(ctx, mb.Name)
	}
	if err != nil {
		return nil, err
	}
	for i := range c.all {
		m := &c.all[i]
		switch {
		case m.gone:
			b.byGone[m.message] = append(b.byGone[m.message], m)
			if !m.freed || !r.DryRun || c.heldLive(m.message) {
				continue
			}
			// Not recorded as gone, so the ledger does not call it free.
			err = b.addMessage(ctx, m.message, "")
		case unidentified && m.content:
			uid := string(c.uid(uint32(i)))
			b.byUID[uid] = m
			err = b.addMessage(ctx, m.message, uid)
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// addTrashed adds what we moved to the trash: it lies in the archive where it was.
func (b *book) addTrashed(ctx context.Context, trash string) error {
	seen := make(map[int64]bool)
	return b.run.Ledger.Trashed(ctx, b.run.Source.Account(), trash, func(h mail.Held) error {
		if !seen[h.Message] {
			seen[h.Message] = true
			b.add(h, "")
		}
		return nil
	})
}

func (b *book) addMessage(ctx context.Context, id int64, content string) error {
	held, err := b.run.Ledger.Message(ctx, id)
	if err == nil {
		b.add(held, content)
	}
	return err
}

func (b *book) add(h mail.Held, content string) {
	if h.Receipt.Place == "" { // a person removed it from the archive
		return
	}
	c := &copyOf{
		message: h.Message, digest: h.Receipt.Digest, header: h.Receipt.Header, content: content,
		date: h.Receipt.Info.InternalDate.Unix(), sure: h.Receipt.Info.DateFrom == mail.DateInternal,
	}
	b.bySize[h.Receipt.Wire] = append(b.bySize[h.Receipt.Wire], c)
	b.byDig[c.digest] = append(b.byDig[c.digest], c)
}

// mayHold tells whether a copy of this size is there to be taken.
func (b *book) mayHold(size int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.bySize[size] {
		if !c.taken {
			return true
		}
	}
	return false
}

// takeHeader takes a copy with this size and header, if all such copies have the
// same octets; where they differ only the whole message can tell. So it is where
// the header was not written by a delivery and the dates differ: a draft that was
// edited often keeps its header.
func (b *book) takeHeader(in mail.Info, header header) *copyOf {
	b.mu.Lock()
	defer b.mu.Unlock()
	var same, fit []*copyOf
	for _, c := range b.bySize[in.Size] {
		if c.header != header.digest || c.taken {
			continue
		}
		same = append(same, c)
		if c.digest != same[0].digest {
			return nil
		}
		if header.delivered || c.date == in.InternalDate.Unix() {
			fit = append(fit, c)
		}
	}
	return takeLocked(fit, in.Ref.UID == "")
}

// takeDigest takes a copy with these octets, nil if there is none.
func (b *book) takeDigest(d mail.Digest, unidentified bool) *copyOf {
	b.mu.Lock()
	defer b.mu.Unlock()
	return takeLocked(b.byDig[d], unidentified)
}

// takeLocked takes one of equal copies: for a message without UID one that is
// claimed by content, for any other rather one that is not.
func takeLocked(equal []*copyOf, unidentified bool) *copyOf {
	var found *copyOf
	for _, c := range equal {
		if !c.taken && (found == nil || (c.content != "") == unidentified) {
			found = c
			if (c.content != "") == unidentified {
				break
			}
		}
	}
	if found != nil {
		found.taken = true
	}
	return found
}

// adoption makes the claim of in on the copy. ok is false if a claim by content
// stands on it already and nothing is to be recorded. base is what the server's
// flags were when an account last saw them.
func (b *book) adoption(in mail.Info, c *copyOf, fetched bool) (a mail.Adoption, base mail.Flags, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if in.Ref.UID == "" {
		if c.content != "" {
			b.byUID[c.content].listed = true
			return mail.Adoption{}, "", false
		}
		in.Ref.UID = b.contentUIDLocked(c.digest)
	}
	a = mail.Adoption{Info: in, Message: c.message, Fetched: fetched}
	if old := b.byGone[c.message]; len(old) > 0 {
		a.Takes, base = old[0].id, b.claims.flagsOf(old[0])
		b.byGone[c.message] = old[1:]
	}
	return a, base, true
}

// newUID gives the UID under which a message that goes into the archive is
// claimed: its own, or for want of one its digest and the number of the copy.
func (b *book) newUID(uid string, d mail.Digest) string {
	if uid != "" {
		return uid
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.contentUIDLocked(d)
}

func (b *book) contentUIDLocked(d mail.Digest) string {
	for n := 1; ; n++ {
		uid := contentUID + d.String() + "/" + strconv.Itoa(n)
		if b.byUID[uid] == nil {
			b.byUID[uid] = &claim{listed: true}
			return uid
		}
	}
}

// forget marks claims by content as gone that no message of this run bore out.
func (b *book) forget(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []int64
	for _, m := range b.byUID {
		if !m.listed {
			gone = append(gone, m.id)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return b.run.Ledger.Record(ctx, mail.Change{Gone: gone})
}

// recognise finds out by size and header which wanted messages the archive has,
// and which are outside the selection by a date only the header tells. It
// returns what is left to fetch.
func (t *take) recognise(ctx context.Context, l *listing) ([]mail.Want, error) {
	headers, ok := t.Source.(HeaderSource)
	if !ok {
		return l.wants, nil
	}
	var ask, rest []mail.Want
	for _, w := range l.wants {
		if (w.Size >= 0 && t.book.mayHold(w.Size) || l.undated[wantKey(w.UID, w.Seq)]) && !l.other[w.UID] {
			ask = append(ask, w)
		} else {
			rest = append(rest, w)
		}
	}
	if len(ask) == 0 {
		return l.wants, nil
	}
	settled := make(map[string]bool)
	var mu sync.Mutex
	sizes := make(map[string]int64, len(ask))
	for _, w := range ask {
		sizes[wantKey(w.UID, w.Seq)] = w.Size
	}
	err := headers.Headers(ctx, t.mb, ask, func(in mail.Info, r io.Reader, err error) error {
		key := wantKey(in.Ref.UID, in.Seq)
		size, asked := sizes[key]
		if err != nil || !asked {
			return nil // the message itself will be asked for
		}
		in.Size = size
		header, err := readHeader(r)
		if err != nil {
			return nil
		}
		done, err := t.settle(ctx, in, header, l.undated[key])
		if done {
			mu.Lock()
			settled[key] = true
			mu.Unlock()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, w := range ask {
		if !settled[wantKey(w.UID, w.Seq)] {
			rest = append(rest, w)
		}
	}
	return rest, nil
}

// header is what is compared of a header.
type header struct {
	digest    mail.Digest
	delivered bool // it has the trace of a delivery (RFC 5321 section 4.4)
}

func readHeader(r io.Reader) (header, error) {
	var top start
	digest, err := mail.HeaderDigest(io.TeeReader(r, &top))
	_, from := mail.HeaderDate(top)
	return header{digest: digest, delivered: from == mail.DateReceived}, err
}

// start keeps the first octets written to it.
type start []byte

func (s *start) Write(b []byte) (int, error) {
	const most = 16 << 10
	*s = append(*s, b[:min(len(b), most-len(*s))]...)
	return len(b), nil
}

// settle decides on a message by its header: outside the selection, or in the
// archive already. done is false if its octets are needed.
func (t *take) settle(ctx context.Context, in mail.Info, header header, undated bool) (done bool, err error) {
	if undated {
		if match, _ := t.Selection.Match(in); !match {
			t.book.mu.Lock()
			t.counts.Listed--
			t.book.mu.Unlock()
			return true, nil
		}
	}
	c := t.book.takeHeader(in, header)
	if c == nil {
		return false, nil
	}
	return true, t.adopt(ctx, in, c, false)
}

// adopt claims a copy the archive has.
func (t *take) adopt(ctx context.Context, in mail.Info, c *copyOf, fetched bool) error {
	a, base, fresh := t.book.adoption(in, c, fetched)
	if !fresh {
		t.book.mu.Lock()
		t.counts.Skipped++
		t.book.mu.Unlock()
		return nil
	}
	t.book.mu.Lock()
	t.counts.Adopted++
	if t.deleted[in.Ref.UID] {
		t.run.back++
	}
	t.book.mu.Unlock()
	if t.DryRun {
		return nil
	}
	if err := t.setDate(ctx, in, c); err != nil {
		return err
	}
	if base != in.Flags {
		fc, err := t.setFlags(ctx, flagChange{message: c.message, base: base, now: in.Flags})
		if err != nil {
			return err
		}
		a.Place = fc.Place
	}
	t.pipeline.adopt(a)
	return nil
}

// setDate writes the server's own date where mail readers see it, in the place of one
// read from the message; the ledger does the same with its record.
func (t *take) setDate(ctx context.Context, in mail.Info, c *copyOf) error {
	flagger, ok := t.Archive.(Flagger)
	if !ok || c.sure || in.DateFrom != mail.DateInternal || in.InternalDate.IsZero() || in.InternalDate.Unix() == c.date {
		return nil
	}
	held, err := t.Ledger.Message(ctx, c.message)
	if err != nil {
		return err
	}
	if err := flagger.SetDate(ctx, held.Receipt, in.InternalDate); !isNotExist(err) {
		return err
	}
	return nil
}
