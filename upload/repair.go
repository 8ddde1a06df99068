package upload

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"unicode/utf8"

	"mailhaul/mail"
)

// longLine is the most octets of a line, without its end, that a repaired message
// has (RFC 5322 section 2.1.1).
const longLine = 998

// repair sends repaired copies of messages that were refused.
func (s *sender) repair(ctx context.Context, pend []*pending) error {
	tried, err := s.repairable(ctx, pend)
	if err != nil || len(tried) == 0 {
		return err
	}
	if err := s.check(ctx); err != nil {
		giveUp(tried)
		return err
	}
	return s.resend(ctx, tried)
}

// attempt is a message that was refused, and the copy to be sent instead.
type attempt struct {
	of   *pending
	copy *item
}

// giveUp counts refused messages as such when they are settled.
func giveUp(tried []attempt) {
	for _, a := range tried {
		a.of.retry = false
	}
}

// repairable finds what was refused and can be repaired. It is not counted as
// failed when it is settled: resend must follow.
func (s *sender) repairable(ctx context.Context, pend []*pending) (tried []attempt, err error) {
	if !s.SendRepaired {
		return nil, nil
	}
	for _, p := range pend {
		if p.answer.Refused == nil || p.answer.Group || errors.Is(p.answer.Refused, ErrOverQuota) || p.item == nil || p.item.repaired {
			continue
		}
		it, err := s.repaired(ctx, p.item)
		if err != nil {
			giveUp(tried)
			return nil, err
		}
		if it != nil {
			it.refusal = p.answer.Refused
			p.retry = true
			tried = append(tried, attempt{p, it})
		}
	}
	return tried, nil
}

// resend sends the copies of those that are now known not to have arrived all the
// same.
func (s *sender) resend(ctx context.Context, tried []attempt) error {
	for _, a := range tried { // alone: one refusal is not to be that of others
		if a.of.arrived {
			continue
		}
		if err := s.deliver(ctx, []*item{a.copy}); err != nil {
			return err
		}
	}
	return nil
}

// repaired returns a repaired copy of a message, nil if there is nothing to repair.
func (s *sender) repaired(ctx context.Context, it *item) (*item, error) {
	out := &item{held: it.held, repaired: true, original: it.held.Receipt, risky: true}
	r, err := out.open(ctx, s.Messages)
	if err != nil {
		return nil, nil // it was told that it cannot be read
	}
	defer r.Close()
	sums, err := mail.SumCanonical(r)
	if err != nil || sums.Digest == it.held.Receipt.Digest {
		return nil, nil
	}
	out.held.Receipt.Sums, out.wire = sums, sums.Wire
	return out, nil
}

// repairing is a repaired copy as it is read.
type repairing struct {
	io.Reader
	io.Closer
}

// repair reads canonical octets as a server takes them that is strict: NULs become
// spaces, bare CRs line ends, lines that are too long are broken, and header lines
// that are no fields become fields named X-Invalid. A message without octets
// becomes an empty line.
type repair struct {
	r      *bufio.Reader
	out    bytes.Buffer
	err    error
	header bool // within the header
	field  bool // a field was seen: a line that begins with a space continues it
	line   int  // octets of the line that were passed on; 0: it begins
	crs    int  // CRs that were held back
	any    bool // there were octets
}

func newRepair(r io.Reader) io.Reader {
	return &repair{r: bufio.NewReaderSize(r, 4096), header: true}
}

func (p *repair) Read(b []byte) (int, error) {
	for p.out.Len() == 0 {
		if p.err != nil {
			return 0, p.err
		}
		p.more()
	}
	return p.out.Read(b)
}

// more repairs the next piece: a line end, or what makes one line of the copy.
func (p *repair) more() {
	piece, err := p.r.Peek(longLine + 1) // the line that is begun is all there, or too long
	if err != nil && err != io.EOF {
		p.err = err
		return
	}
	if len(piece) == 0 {
		p.last()
		p.err = io.EOF
		return
	}
	p.any = true
	n := 1
	switch i := bytes.IndexAny(piece, "\r\n"); {
	case i < 0:
		n = p.text(piece)
	case i > 0:
		n = p.text(piece[:i])
	case piece[0] == '\r':
		p.crs++
	default: // CRs before LF belong to one line end
		p.crs = 0
		p.end()
	}
	_, _ = p.r.Discard(n) // it was peeked at
}

// last ends what has no end.
func (p *repair) last() {
	for ; p.crs > 0; p.crs-- {
		p.end()
	}
	if !p.any {
		p.end()
	}
}

// text passes on the rest of a line, or as much of it as a line has room for, and
// returns how many octets that was.
func (p *repair) text(b []byte) int {
	for ; p.crs > 0; p.crs-- {
		p.end()
	}
	b = bytes.ReplaceAll(b, []byte{0}, []byte{' '})
	name := 0
	if p.header && p.line == 0 {
		name = p.begin(b)
	}
	if p.line+len(b) <= longLine {
		p.out.Write(b)
		p.line += len(b)
		return len(b)
	}
	n := p.room(b, name)
	p.out.Write(b[:n])
	p.out.WriteByte('\n')
	p.line = 0
	if p.header && b[n] != ' ' {
		p.out.WriteByte(' ')
		p.line = 1
	}
	return n
}

// room returns where a line that is too long is broken: in a header at a space, which
// then begins the next line, else between characters. The field name, with its
// colon, stays in one piece.
func (p *repair) room(b []byte, name int) int {
	n := longLine - p.line
	if p.header {
		if i := name + bytes.LastIndexByte(b[name:n], ' '); i >= max(name, 1) {
			return i
		}
	}
	for k := 0; k < utf8.UTFMax && n > max(name, 1) && !utf8.RuneStart(b[n]); k++ {
		n--
	}
	return n
}

// begin looks at the beginning of a header line and returns the octets of its field
// name and colon, 0 if it continues a field or is none.
func (p *repair) begin(b []byte) int {
	if (b[0] == ' ' || b[0] == '\t') && p.field {
		return 0
	}
	p.field = true
	if n := bytes.IndexByte(b[:min(len(b), longLine)], ':') + 1; validName(b[:n]) {
		return n
	}
	const field = "X-Invalid: "
	p.out.WriteString(field)
	p.line = len(field)
	return 0
}

// validName tells whether b is a field name and its colon (RFC 5322 sections 2.2 and
// 4.5.1, which allows spaces between them).
func validName(b []byte) bool {
	b = bytes.TrimRight(bytes.TrimSuffix(b, []byte(":")), " \t")
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(b) > 0
}

func (p *repair) end() {
	if p.line == 0 {
		p.header = false
	}
	p.out.WriteByte('\n')
	p.line = 0
}
