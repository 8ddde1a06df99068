package pop3

import (
	"bytes"
	"errors"
	"io"

	"mailhaul/internal/dial"
)

// bufferSize is larger than dial's, so that octets go into it directly. It also is
// the longest status or listing line.
const bufferSize = 128 << 10

var errLineTooLong = errors.New("line of the server is longer than 128 KiB")

// reader reads lines and bodies out of one buffer.
type reader struct {
	src  io.Reader
	buf  []byte
	r, w int
}

func newReader(src io.Reader) *reader { return &reader{src: src, buf: make([]byte, bufferSize)} }

func (r *reader) buffered() []byte { return r.buf[r.r:r.w] }

// fill reads more octets behind those that are buffered.
func (r *reader) fill() error {
	if r.r == r.w {
		r.r, r.w = 0, 0
	} else if r.w == len(r.buf) {
		if r.r == 0 {
			return errLineTooLong
		}
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
	for range 100 {
		n, err := r.src.Read(r.buf[r.w:])
		r.w += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return dial.UnexpectedEOF(err)
		}
	}
	return io.ErrNoProgress
}

// line returns the next line without its end (CRLF, or LF alone as some servers
// send it). It is valid until the next call.
func (r *reader) line() ([]byte, error) {
	scanned := 0
	for {
		b := r.buffered()
		if i := bytes.IndexByte(b[scanned:], '\n'); i >= 0 {
			line := b[:scanned+i]
			r.r += len(line) + 1
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
		scanned = len(b)
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// body reads the octets of one multi-line answer exactly: it ends at CRLF "." CRLF
// and nowhere else, and only a dot that was stuffed behind a CRLF is taken away
// (RFC 1939 section 3). A line that begins with one dot cannot come from a server
// that stuffs; its dot is kept.
type body struct {
	r      *reader
	n      int64 // octets returned so far
	dots   int64 // dots taken away
	start  bool  // at the start of a line that CRLF ended
	cr     bool  // the last octet returned was CR
	done   bool  // the terminator was read
	err    error
	maxLen int64 // 0 for none
}

var errTooLarge = errors.New("message is larger than allowed")

func (b *body) reset(r *reader, maxLen int64) { *b = body{r: r, start: true, maxLen: maxLen} }

// dotLine finds the first line that begins with a dot, behind a CRLF in b, and
// returns where; -1 if there is none. Dots are rarer than line ends, and hardly
// there at all in what is encoded in base64.
func dotLine(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '.')
		if i < 0 {
			return -1
		}
		at += i
		if at >= 2 && b[at-1] == '\n' && b[at-2] == '\r' {
			return at
		}
		at++
	}
}

// Read returns io.EOF at the terminator only; a connection that ends before is
// io.ErrUnexpectedEOF.
func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for !b.done && b.err == nil {
		if b.start {
			b.err = b.lineStart()
			continue
		}
		if n := b.take(p); n > 0 {
			b.n += int64(n)
			if b.maxLen > 0 && b.n > b.maxLen {
				b.err = errTooLarge
				return 0, b.err
			}
			return n, nil
		}
		b.err = b.r.fill()
	}
	if b.err != nil {
		return 0, b.err
	}
	return 0, io.EOF
}

// lineStart deals with a dot at the start of a line.
func (b *body) lineStart() error {
	buf := b.r.buffered()
	if len(buf) == 0 {
		return b.r.fill()
	}
	if buf[0] != '.' {
		b.start = false
		return nil
	}
	if len(buf) == 1 || buf[1] == '\r' && len(buf) == 2 {
		return b.r.fill()
	}
	switch {
	case buf[1] == '\r' && buf[2] == '\n':
		b.r.r += 3
		b.done = true
	case buf[1] == '.':
		b.r.r++
		b.dots++
	}
	b.start = false
	return nil
}

// take moves octets up to the next line start that needs a look; 0 means that
// nothing can be said before more octets are there.
func (b *body) take(p []byte) int {
	buf := b.r.buffered()
	if len(buf) == 0 {
		return 0
	}
	n := min(len(buf), len(p))
	if b.cr && buf[0] == '\n' {
		n = 1
	} else if i := dotLine(buf[:min(len(buf), n+1)]); i >= 0 {
		n = i
	}
	copy(p, buf[:n])
	b.r.r += n
	if buf[n-1] == '\n' {
		b.start = b.cr
		if n > 1 {
			b.start = buf[n-2] == '\r'
		}
	}
	b.cr = buf[n-1] == '\r'
	return n
}

// fits tells whether the octets read are as many as LIST says. Some servers count
// stuffed dots, or not the CRLF they add to a message that does not end in one. An
// answer that ended too early is always shorter, and one that began too early
// holds a status line of five octets at least.
func (b *body) fits(size int64) bool {
	return size >= 0 && (b.n == size || b.n+b.dots == size || b.n == size+2)
}
