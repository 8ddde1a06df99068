package mail

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"io"
)

// Octets is the canonical octets of one message on their way into an archive.
// Sums counts once Read has returned io.EOF.
type Octets interface {
	io.Reader
	Sums() Sums
}

// Sums is what is computed of a message's octets while they pass.
type Sums struct {
	Digest  Digest // of the canonical octets
	Header  Digest // of the header's canonical lines, see HeaderDigest
	Octets  int64  // length of the canonical octets
	Wire    int64  // length of the wire form
	Inexact bool   // the wire form cannot be got back by turning LF into CRLF
}

// Canonical turns the wire form of a message into its canonical octets: CRLF
// becomes LF and a final LF is added where it is missing; no octets stay no
// octets. It is applied exactly once, at the wire. On the way it takes the
// digest of the whole and of the header.
//
// What cannot be turned back into the same wire form by replacing LF with CRLF
// (a bare LF, a missing final newline) is reported as Inexact.
type Canonical struct {
	r      io.Reader
	buf    []byte // wire octets read ahead: a CR held back lies here, too
	from   int
	to     int
	err    error
	whole  hash.Hash
	header headerHash
	sums   Sums
	last   byte
	crHeld bool
	done   bool
}

// NewCanonical reads the wire form from r; buf, if not nil, is used as buffer.
func NewCanonical(r io.Reader, buf []byte) *Canonical {
	if cap(buf) < 4096 {
		buf = make([]byte, 32<<10)
	}
	return &Canonical{r: r, buf: buf[:cap(buf)], whole: sha256.New(), header: newHeaderHash()}
}

// Read returns canonical octets. Errors of the underlying reader are returned
// as they are; the digests are only set after io.EOF.
func (c *Canonical) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if c.from < c.to {
			if n := c.convert(p); n > 0 {
				c.account(p[:n])
				return n, nil
			}
			continue
		}
		if c.err != nil {
			return c.end(p)
		}
		c.from, c.to = 0, 0
		n, err := c.r.Read(c.buf)
		c.to, c.err = n, err
		c.sums.Wire += int64(n)
	}
}

// convert moves octets from the read-ahead to p and returns how many went out;
// 0 means that more input is needed (only a CR was there).
func (c *Canonical) convert(p []byte) int {
	n := 0
	for n < len(p) && c.from < c.to {
		if c.crHeld {
			c.crHeld = false
			if c.buf[c.from] == '\n' {
				c.from++
				p[n] = '\n'
			} else {
				p[n] = '\r'
			}
			c.last = p[n]
			n++
			continue
		}
		src := c.buf[c.from:c.to]
		if len(src) > len(p)-n {
			src = src[:len(p)-n]
		}
		i := bytes.IndexByte(src, '\r')
		if i < 0 {
			i = len(src)
		}
		if i > 0 {
			if bytes.IndexByte(src[:i], '\n') >= 0 {
				c.sums.Inexact = true // RFC 5322 section 2.3: LF only ever behind CR
			}
			n += copy(p[n:], src[:i])
			c.from += i
			c.last = src[i-1]
			continue
		}
		c.from++
		c.crHeld = true
	}
	return n
}

func (c *Canonical) account(b []byte) {
	c.sums.Octets += int64(len(b))
	c.whole.Write(b)
	c.header.write(b)
}

func (c *Canonical) end(p []byte) (int, error) {
	if c.err != io.EOF || c.done {
		return 0, c.err
	}
	if c.crHeld { // a bare CR ends the message
		c.crHeld = false
		p[0], c.last = '\r', '\r'
		c.account(p[:1])
		return 1, nil
	}
	if c.sums.Octets > 0 && c.last != '\n' {
		c.sums.Inexact = true
		p[0], c.last = '\n', '\n'
		c.account(p[:1])
		return 1, nil
	}
	c.done = true
	c.whole.Sum(c.sums.Digest[:0])
	c.sums.Header = c.header.sum()
	return 0, io.EOF
}

// Sums returns what was computed; it is complete once Read has returned io.EOF.
func (c *Canonical) Sums() Sums { return c.sums }

// SumCanonical reads canonical octets, as they lie in an archive, to the end. Wire
// is the length they had with CRLF line ends.
func SumCanonical(r io.Reader) (Sums, error) {
	s, whole, header := Sums{}, sha256.New(), newHeaderHash()
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		b := buf[:n]
		whole.Write(b)
		header.write(b)
		s.Octets += int64(n)
		s.Wire += int64(n + bytes.Count(b, []byte{'\n'}))
		if err == io.EOF {
			break
		}
		if err != nil {
			return Sums{}, err
		}
	}
	whole.Sum(s.Digest[:0])
	s.Header = header.sum()
	return s, nil
}

// headerHash digests the header: all lines before the first empty one, each
// ended by LF. What servers answer to TOP n 0 and BODY[HEADER] gives the same
// digest as the whole message.
type headerHash struct {
	h    hash.Hash
	bol  bool
	over bool
}

func newHeaderHash() headerHash { return headerHash{h: sha256.New(), bol: true} }

func (hh *headerHash) write(b []byte) {
	for !hh.over && len(b) > 0 {
		if hh.bol && b[0] == '\n' {
			hh.over = true
			return
		}
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			hh.h.Write(b)
			hh.bol = false
			return
		}
		hh.h.Write(b[:i+1])
		hh.bol = true
		b = b[i+1:]
	}
}

func (hh *headerHash) sum() (d Digest) {
	hh.h.Sum(d[:0])
	return d
}

// HeaderDigest reads the wire form of a header or of a whole message and returns
// the digest of the header's canonical lines without the empty line that ends it.
func HeaderDigest(r io.Reader) (Digest, error) {
	c := NewCanonical(r, nil)
	if _, err := io.Copy(io.Discard, c); err != nil {
		return Digest{}, err
	}
	return c.Sums().Header, nil
}

// CanonicalInPlace turns the wire form of a whole message into its canonical
// octets within b (or a grown copy, if a final LF is added and b is full), and
// computes the sums. It gives what Canonical gives.
func CanonicalInPlace(b []byte) ([]byte, Sums) {
	s := Sums{Wire: int64(len(b))}
	out := 0
	for in := 0; in < len(b); {
		end := bytes.IndexByte(b[in:], '\n')
		if end < 0 {
			out += copy(b[out:], b[in:])
			break
		}
		line := b[in : in+end]
		in += end + 1
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		} else {
			s.Inexact = true
		}
		out += copy(b[out:], line)
		b[out] = '\n'
		out++
	}
	b = b[:out]
	if out > 0 && b[out-1] != '\n' {
		s.Inexact = true
		b = append(b, '\n')
	}
	s.Octets = int64(len(b))
	s.Digest = sha256.Sum256(b)
	s.Header = sha256.Sum256(headerOf(b))
	return b, s
}

// headerOf returns the lines of canonical octets before the first empty one.
func headerOf(b []byte) []byte {
	if len(b) > 0 && b[0] == '\n' {
		return nil
	}
	if i := bytes.Index(b, []byte("\n\n")); i >= 0 {
		return b[:i+1]
	}
	return b
}
