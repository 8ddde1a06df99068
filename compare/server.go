package compare

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strconv"
	"sync"

	"mailhaul/internal/headline"
	"mailhaul/mail"
)

// Source is what is needed of a server.
type Source interface {
	Account() string
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)
	List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error]
	Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
}

// headerSource gives headers without bodies.
type headerSource interface {
	Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
}

// Server is a Side that reads a server.
func Server(s Source) Side { return server{s} }

type server struct{ Source }

func (s server) List(ctx context.Context, mb mail.Mailbox, yield func(Item) error) error {
	for in, err := range s.Source.List(ctx, mb) {
		if err != nil {
			return err
		}
		it := Item{Want: mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size}, Date: in.InternalDate, Flags: in.Flags}
		if err := yield(it); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// namedSource can tell of one mailbox whether it is there.
type namedSource interface {
	Mailbox(ctx context.Context, name string) (mb mail.Mailbox, there bool, err error)
}

func (s server) Find(ctx context.Context, name string) (mb mail.Mailbox, there bool, err error) {
	if n, ok := s.Source.(namedSource); ok {
		return n.Mailbox(ctx, name)
	}
	return mb, false, nil
}

// wantKey finds a want again by what the server says of the message.
func wantKey(uid string, seq uint32) string {
	if uid != "" {
		return uid
	}
	return "#" + strconv.FormatUint(uint64(seq), 10)
}

func (s server) Look(ctx context.Context, mb mail.Mailbox, wants []mail.Want, depth Depth, take func(Look)) error {
	at := make(map[string]int, len(wants))
	for i, w := range wants {
		at[wantKey(w.UID, w.Seq)] = i
	}
	var mu sync.Mutex
	deliver := func(in mail.Info, r io.Reader, err error) error {
		mu.Lock()
		i, asked := at[wantKey(in.Ref.UID, in.Seq)]
		mu.Unlock()
		if !asked {
			return nil
		}
		l := Look{I: i, Err: err}
		if err == nil {
			if l, err = look(r, depth); err != nil {
				return nil // it comes again
			}
			l.I = i
		}
		mu.Lock()
		defer mu.Unlock()
		take(l)
		return nil
	}
	if h, ok := s.Source.(headerSource); ok && depth == Header {
		return h.Headers(ctx, mb, wants, deliver)
	}
	return s.Fetch(ctx, mb, wants, deliver)
}

// look reads the wire form of a message.
func look(r io.Reader, depth Depth) (l Look, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	c := mail.NewCanonical(r, *buf)
	if l, err = lookAt(c, depth); err == nil {
		l.Sums = c.Sums()
	}
	return l, err
}

var buffers = sync.Pool{New: func() any {
	return new(make([]byte, 32<<10))
}}

// lookAt reads canonical octets; the sums are for the caller to set.
func lookAt(r io.Reader, depth Depth) (l Look, err error) {
	if depth == Whole {
		_, err = io.Copy(io.Discard, struct{ io.Reader }{r})
		return l, err
	}
	var top head
	if depth == Header {
		_, err = io.Copy(&top, r)
	} else {
		f := newFormer()
		_, err = io.Copy(io.MultiWriter(&top, f), r)
		l.form = f.form()
	}
	l.Head = headline.Read(bytes.NewReader(top))
	return l, err
}

// head keeps the beginning of what is written to it.
type head []byte

const headOctets = 64 << 10

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), headOctets-len(*h))]...)
	return len(p), nil
}

var (
	errNotGiven     = errors.New("the server lists it and does not give it")
	errRefusedThere = errors.New("the other side has a message of this size that it does not give")
)
