package imapconn

import (
	"io"
	"time"

	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// Item is a set of FETCH data items.
type Item uint8

const (
	ItemUID Item = 1 << iota
	ItemFlags
	ItemDate // INTERNALDATE; also set where the server sent one that cannot be read
	ItemSize // RFC822.SIZE
	ItemModSeq
	ItemBody // some BODY section, NIL included
)

// ItemsMeta are the items that describe a message.
const ItemsMeta = ItemUID | ItemFlags | ItemDate | ItemSize

// Fetch is what one FETCH response says, as far as it has been read.
type Fetch struct {
	Has          Item // items read so far
	Seq          uint32
	UID          uint32
	Flags        mail.Flags
	InternalDate time.Time // UTC; zero if it cannot be read
	Size         int64
	ModSeq       uint64
	ObjectID     string   // EMAILID (RFC 8474), else X-GM-MSGID
	Labels       []string // X-GM-LABELS, as the server spells them; nil where it says something odd
}

// FetchHandler takes FETCH responses. An error from it ends the reading, and with
// it the connection.
type FetchHandler interface {
	// Body is called when a body section begins; f has what came before it in the
	// response. What is not read of b is skipped. For NIL, b.Nil() is true.
	Body(f *Fetch, b *Body) error
	// End is called when the response is over.
	End(f *Fetch) error
}

// Body is the octets of a body section.
type Body struct {
	Section string // "" for the whole message, "HEADER", "TEXT", or else as the server writes it
	Partial bool   // the server says that these octets are a part only
	size    int64  // -1 for NIL
	left    int64
	quoted  []byte // instead of a literal
	p       *fetchParser
}

// Nil tells that the server has no such section, or will not give it.
func (b *Body) Nil() bool { return b.size < 0 }

// Size returns the octets the server announced; 0 for NIL.
func (b *Body) Size() int64 { return max(b.size, 0) }

// Read reads the octets. A connection that ends in them is io.ErrUnexpectedEOF.
func (b *Body) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), b.left)]
	if b.quoted != nil {
		n := copy(p, b.quoted[b.size-b.left:])
		b.left -= int64(n)
		return n, nil
	}
	n, err := b.p.s.br.Read(p)
	b.left -= int64(n)
	b.p.s.lit = b.left
	if err != nil {
		err = &wireError{dial.UnexpectedEOF(err)}
		b.p.err = err
	}
	return n, err
}

// Whole returns a reader of the octets that reaches io.EOF only when the rest of
// the response has been read, too, and accept, if not nil, finds nothing wrong with it:
// an announced size that is too short or too long does not pass for a message.
func (b *Body) Whole(accept func(*Fetch) error) io.Reader { return &wholeBody{b, accept} }

type wholeBody struct {
	b      *Body
	accept func(*Fetch) error
}

func (w *wholeBody) Read(p []byte) (int, error) {
	n, err := w.b.Read(p)
	if err != io.EOF {
		return n, err
	}
	if err := w.b.p.finish(w.b); err != nil {
		return 0, err
	}
	if w.accept != nil {
		if err := w.accept(&w.b.p.f); err != nil {
			return 0, err
		}
	}
	return 0, io.EOF
}
