package imapconn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"mailhaul/internal/dial"
)

const (
	maxLine     = 64 << 10  // of one line, unless a list may be longer
	maxLongLine = 1 << 20   // of a line with a long list (flags, VANISHED)
	maxString   = 64 << 10  // of a literal that is no message
	maxDepth    = 32        // of parentheses
	readBuffer  = 128 << 10 // octets
)

// errSyntax says that a response cannot be understood; the next one can.
var errSyntax = errors.New("response not understood")

// wireError says that nothing on the connection can be trusted any more.
type wireError struct{ err error }

func (e *wireError) Error() string { return e.err.Error() }
func (e *wireError) Unwrap() error { return e.err }

func broken(format string, args ...any) error {
	return &wireError{fmt.Errorf(format, args...)}
}

// scanner reads responses token by token. Slices it returns are valid until the
// next line is read.
//
// Framing never depends on parsing: a response is a line and, wherever a line
// ends in {n}, n octets and one line more. So skipRest can always find the end.
type scanner struct {
	br       *bufio.Reader
	line     []byte // without its end
	pos      int
	lit      int64 // announced behind the line and not yet read; -1 for none
	maxBody  int64
	long     []byte
	consumed func() // after each line, for traces; may be nil
}

func newScanner(r io.Reader, maxBody int64) *scanner {
	return &scanner{br: bufio.NewReaderSize(r, readBuffer), lit: -1, maxBody: maxBody}
}

// next reads a line.
func (s *scanner) next() error {
	s.pos, s.lit = 0, -1
	line, err := s.br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = s.nextLong(line)
	}
	if err != nil {
		s.line = nil
		if _, ok := errors.AsType[*wireError](err); ok {
			return err
		}
		return &wireError{dial.UnexpectedEOF(err)}
	}
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	s.line = line
	if s.consumed != nil {
		s.consumed()
	}
	return nil
}

// nextLong collects a line that is longer than the buffer.
func (s *scanner) nextLong(begin []byte) ([]byte, error) {
	s.long = append(s.long[:0], begin...)
	for {
		more, err := s.br.ReadSlice('\n')
		if len(s.long)+len(more) > maxLongLine {
			return nil, broken("line of more than %d octets", maxLongLine)
		}
		s.long = append(s.long, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return s.long, err
		}
	}
}

// peek returns the next character of the line, 0 at its end.
func (s *scanner) peek() byte {
	if s.pos < len(s.line) {
		return s.line[s.pos]
	}
	return 0
}

func (s *scanner) atEnd() bool { return s.pos >= len(s.line) }

func (s *scanner) accept(c byte) bool {
	if s.pos < len(s.line) && s.line[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// spaces skips any number of spaces: some servers write two or a trailing one.
func (s *scanner) spaces() {
	for s.pos < len(s.line) && s.line[s.pos] == ' ' {
		s.pos++
	}
}

// rest returns what is left of the line.
func (s *scanner) rest() []byte { return s.line[min(s.pos, len(s.line)):] }

// atom reads up to a space or parenthesis; empty if there is none.
func (s *scanner) atom() []byte {
	from := s.pos
	for s.pos < len(s.line) {
		switch s.line[s.pos] {
		case ' ', '(', ')', '"', '{':
			return s.line[from:s.pos]
		}
		s.pos++
	}
	return s.line[from:s.pos]
}

// number reads digits that fit into 63 bits.
func (s *scanner) number() (int64, bool) {
	from := s.pos
	var n int64
	for s.pos < len(s.line) {
		d := s.line[s.pos] - '0'
		if d > 9 {
			break
		}
		if n > (1<<63-1-int64(d))/10 {
			return 0, false
		}
		n = n*10 + int64(d)
		s.pos++
	}
	return n, s.pos > from
}

func (s *scanner) number32() (uint32, bool) {
	n, ok := s.number()
	return uint32(n), ok && n < 1<<32
}

// isNil reads NIL in any case.
func (s *scanner) isNil() bool {
	b := s.rest()
	if len(b) < 3 || !bytes.EqualFold(b[:3], []byte("NIL")) {
		return false
	}
	if len(b) > 3 && b[3] != ' ' && b[3] != ')' {
		return false
	}
	s.pos += 3
	return true
}

// literal reads the announcement of a literal (RFC 9051 section 4.3), also {n+}
// and ~{n}, which must end the line. Sizes are checked against the limit before
// anything is allocated.
func (s *scanner) literal(limit int64) (size int64, ok bool, err error) {
	from := s.pos
	s.accept('~')
	if !s.accept('{') {
		s.pos = from
		return 0, false, nil
	}
	n, digits := s.number()
	s.accept('+')
	if !digits || !s.accept('}') || !s.atEnd() {
		return 0, false, broken("announcement of a literal not understood: %.40q", s.line[from:])
	}
	if n > limit {
		return 0, false, broken("literal of %d octets, more than the %d allowed here", n, limit)
	}
	s.lit = n
	return n, true, nil
}

// text reads a string: quoted, literal or, tolerantly, an atom. null says NIL.
func (s *scanner) text() (b []byte, null bool, err error) {
	switch c := s.peek(); {
	case c == '"':
		b, err = s.quoted()
		return b, false, err
	case c == '{' || c == '~' && len(s.rest()) > 1 && s.rest()[1] == '{':
		n, _, err := s.literal(maxString)
		if err != nil {
			return nil, false, err
		}
		b = make([]byte, n)
		if err := s.readLiteral(b); err != nil {
			return nil, false, err
		}
		return b, false, s.next()
	case s.isNil():
		return nil, true, nil
	}
	b = s.atom()
	if len(b) == 0 {
		return nil, false, errSyntax
	}
	return b, false, nil
}

func (s *scanner) readLiteral(b []byte) error {
	if _, err := io.ReadFull(s.br, b); err != nil {
		return &wireError{dial.UnexpectedEOF(err)}
	}
	s.lit = -1
	return nil
}

func (s *scanner) quoted() ([]byte, error) {
	s.pos++
	from := s.pos
	b := s.line[from:]
	i := bytes.IndexByte(b, '"')
	if i < 0 {
		return nil, errSyntax
	}
	if bytes.IndexByte(b[:i], '\\') < 0 {
		s.pos += i + 1
		return b[:i], nil
	}
	var out []byte
	for s.pos < len(s.line) {
		c := s.line[s.pos]
		s.pos++
		switch {
		case c == '"':
			return out, nil
		case c == '\\' && s.pos < len(s.line):
			c = s.line[s.pos]
			s.pos++
		}
		out = append(out, c)
	}
	return nil, errSyntax
}

// skip passes over one value, balanced, of whatever kind.
func (s *scanner) skip() error {
	depth := 0
	for {
		s.spaces()
		switch c := s.peek(); {
		case s.atEnd():
			return errSyntax
		case c == '(':
			s.pos++
			if depth++; depth > maxDepth {
				return errSyntax
			}
			continue
		case c == ')':
			if depth == 0 {
				return errSyntax
			}
			s.pos++
			depth--
		case c == '"':
			if _, err := s.quoted(); err != nil {
				return err
			}
		default:
			if err := s.skipAtomOrLiteral(); err != nil {
				return err
			}
		}
		if depth == 0 {
			return nil
		}
	}
}

func (s *scanner) skipAtomOrLiteral() error {
	n, ok, err := s.literal(s.maxBody)
	if err != nil {
		return err
	}
	if !ok {
		if len(s.atom()) == 0 {
			return errSyntax
		}
		return nil
	}
	if err := s.discard(n); err != nil {
		return err
	}
	return s.next()
}

func (s *scanner) discard(n int64) error {
	for n > 0 {
		k, err := s.br.Discard(int(min(n, 1<<30)))
		n -= int64(k)
		if err != nil {
			return &wireError{dial.UnexpectedEOF(err)}
		}
	}
	s.lit = -1
	return nil
}

// skipRest passes over the rest of the response, by its framing alone.
func (s *scanner) skipRest() error {
	for {
		if s.lit < 0 {
			s.pos = len(s.line)
			i := bytes.LastIndexByte(s.line, '{')
			if i < 0 || s.line[len(s.line)-1] != '}' {
				return nil
			}
			s.pos = i
			if _, _, err := s.literal(s.maxBody); err != nil {
				return err
			}
		}
		if err := s.discard(s.lit); err != nil {
			return err
		}
		if err := s.next(); err != nil {
			return err
		}
	}
}

func upper(b []byte) string { return string(bytes.ToUpper(b)) }
