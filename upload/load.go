package upload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"mailhaul/mail"
)

// A group is what is recorded and sent together.
const (
	groupCount  = 400
	groupOctets = 1 << 20   // in memory
	groupWire   = 4 << 20   // in all
	small       = 128 << 10 // larger messages are not held in memory
	large       = 2 << 20   // and those go alone
)

// item is one message ready to be sent.
type item struct {
	held   mail.Held
	octets []byte // nil: not in memory
	wire   int64  // octets as they are sent
	nul    bool
	risky  bool // servers are known to alter such octets
	// repaired says that it is a repaired copy: of original, which was refused.
	repaired bool
	original mail.Receipt
	refusal  error
}

// alone tells whether a message goes in a command of its own. RFC 3502 section 6.3.11
// takes no octets for "stop".
func (it *item) alone() bool { return it.octets == nil && it.wire > large || it.wire == 0 }

func (it *item) open(ctx context.Context, m Messages) (io.ReadCloser, error) {
	switch {
	case it.octets != nil:
		return io.NopCloser(bytes.NewReader(it.octets)), nil
	case it.repaired:
		r, err := m.Open(ctx, it.original)
		if err != nil {
			return nil, err
		}
		return repairing{newRepair(r), r}, nil
	}
	return m.Open(ctx, it.held.Receipt)
}

// group is a number of items and the memory they lie in.
type group struct {
	items []*item
	slab  []byte
	err   error // nothing more can be loaded
}

// loader reads messages ahead, one group while another is sent.
type loader struct {
	*box
	todo  []int64
	ready int // of todo, these were prepared
	out   chan group
	slabs chan []byte // given back
}

func (b *box) load(ctx context.Context) *loader {
	l := &loader{box: b, todo: b.todo, out: make(chan group), slabs: b.slabs}
	go l.run(ctx)
	return l
}

func (l *loader) run(ctx context.Context) {
	defer close(l.out)
	var next *item // read, and did not fit
	for ctx.Err() == nil && (len(l.todo) > 0 || next != nil) {
		g := group{slab: l.slab()}
		next = l.fill(ctx, &g, next)
		if len(g.items) == 0 && g.err == nil {
			continue
		}
		select {
		case l.out <- g:
		case <-ctx.Done():
			return
		}
		if g.err != nil {
			return
		}
	}
}

func (l *loader) slab() []byte {
	select {
	case s := <-l.slabs:
		return s[:0]
	default:
		return make([]byte, 0, groupOctets)
	}
}

func (l *loader) giveBack(slab []byte) {
	select {
	case l.slabs <- slab:
	default:
	}
}

// fill loads a group; what does not fit any more is returned.
func (l *loader) fill(ctx context.Context, g *group, first *item) (next *item) {
	var wire int64
	if first != nil {
		g.items = append(g.items, first)
		if first.alone() {
			return nil
		}
		wire = first.wire
	}
	for len(g.items) < groupCount && len(l.todo) > 0 && ctx.Err() == nil {
		if err := l.prepare(ctx); err != nil {
			g.err = err
			return nil
		}
		h, err := l.Messages.Message(ctx, l.todo[0])
		if err != nil {
			g.err = err
			return nil
		}
		if h.Receipt.Octets <= small && int64(len(g.slab))+h.Receipt.Octets > groupOctets || wire > 0 && wire+h.Receipt.Wire > groupWire {
			return nil
		}
		l.todo = l.todo[1:]
		l.ready--
		if err := l.tooBig(h); err != nil {
			g.items = append(g.items, &item{held: h, wire: -1})
			continue
		}
		it, err := l.take(ctx, g, h)
		if err != nil {
			if mail.KindOf(err) == mail.KindDisk {
				g.err = err
				return nil
			}
			g.items = append(g.items, &item{held: h, wire: -1})
			l.Notify(mail.Event{Kind: mail.EventFailed, Ref: l.ref(h.Receipt.Info.Ref), Err: err})
			continue
		}
		if it.alone() {
			if len(g.items) > 0 {
				return it
			}
			g.items = append(g.items, it)
			return nil
		}
		g.items = append(g.items, it)
		wire += it.wire
	}
	return nil
}

// prepare lets a Preparer read ahead.
func (l *loader) prepare(ctx context.Context) error {
	p, ok := l.Messages.(Preparer)
	if !ok || l.ready > 0 {
		return nil
	}
	l.ready = min(len(l.todo), groupCount)
	return p.Prepare(ctx, l.todo[:l.ready])
}

// take reads a message's octets and compares their digest: what is damaged is not
// sent.
func (l *loader) take(ctx context.Context, g *group, h mail.Held) (*item, error) {
	it := &item{held: h}
	r, err := l.Messages.Open(ctx, h.Receipt)
	if err != nil {
		return nil, l.unreadable(h, err)
	}
	defer r.Close()
	var digest mail.Digest
	if n := h.Receipt.Octets; n <= small {
		from := len(g.slab)
		buf := g.slab[from : from+int(n)]
		if _, err := io.ReadFull(r, buf); err != nil {
			return nil, l.unreadable(h, err)
		}
		if m, _ := r.Read(make([]byte, 1)); m > 0 {
			return nil, l.unreadable(h, errors.New("it is longer than it was"))
		}
		it.octets, digest = buf[:len(buf):len(buf)], sha256.Sum256(buf)
		it.look(buf)
		g.slab = g.slab[:from+int(n)]
	} else if digest, err = it.scan(r); err != nil {
		return nil, l.unreadable(h, err)
	}
	if digest != h.Receipt.Digest {
		return nil, l.unreadable(h, mail.ErrAltered)
	}
	return it, nil
}

// look counts what octets become on the wire.
func (it *item) look(b []byte) {
	it.wire += int64(len(b) + bytes.Count(b, []byte{'\n'}))
	it.nul = it.nul || bytes.IndexByte(b, 0) >= 0
	it.risky = it.risky || it.nul || bytes.IndexByte(b, '\r') >= 0
}

func (it *item) scan(r io.Reader) (d mail.Digest, err error) {
	h := sha256.New()
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		it.look(buf[:n])
		if err == io.EOF {
			h.Sum(d[:0])
			return d, nil
		}
		if err != nil {
			return d, err
		}
	}
}

func (l *loader) unreadable(h mail.Held, err error) error {
	if mail.KindOf(err) == mail.KindDisk && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: it is shorter than it was", mail.ErrAltered)
	}
	return &mail.Error{Kind: mail.KindIntegrity, Ref: l.ref(h.Receipt.Info.Ref), Op: "read " + describe(h), Err: err,
		Hint: "it is not sent; mailhaul verify names what is damaged"}
}
