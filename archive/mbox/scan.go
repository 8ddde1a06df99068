package mbox

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"

	"mailhaul/mail"
)

const (
	// maxFrom bounds a From_ line; a longer line is none.
	maxFrom = 1000
	// maxOwnLines bounds the three lines behind a From_ line.
	maxOwnLines = 16 << 10
	// maxSniff bounds a flag line in the header of a foreign message.
	maxSniff = 4 << 10
	// readAhead is as much as is read at once; more than any of the above.
	readAhead = 64 << 10
)

var (
	lineFeed = []byte("\n")
	crLF     = []byte("\r\n")
	fromWord = []byte("From ")
)

// message is what a scanner says about one message.
type message struct {
	offset int64 // of the From_ line
	end    int64 // behind the last octet; known once all octets were read
	from   fromLine
	own    bool // it has the three lines
	reader bool // its first line is a header line that mailhaul would not write there
	flags  mail.Flags
}

// scanner splits an mbox into messages and gives back their octets, in memory
// that depends on nothing in the file.
//
// A message begins with a From_ line (parseFrom) at the start or behind an empty
// line. That holds for every line that mailhaul, mutt or Dovecot put there, and
// spares the unquoted "From " lines inside messages of other writers. One empty
// line in front of a From_ line or of the end is the separator. In lines that
// match ^>+From one ">" is taken away. A last line without LF gets one.
// Content-Length is not believed.
type scanner struct {
	r   *bufio.Reader
	off int64 // of the next octet of r
	msg message

	mid    bool   // inside a line
	run    bool   // the line so far is nothing but ">"
	blank  bool   // the line before was empty, or there is none
	held   []byte // empty line that may turn out to be the separator
	header bool   // in the header of a foreign message
	crlf   bool   // the From_ line ended in CRLF, so does the separator
	atFrom bool   // the message ended in front of a From_ line
	ended  bool
	any    bool // the message has octets
	last   byte // the last of them

	sniffed struct{ status, xstatus, keywords []byte }
	piece   []byte // read, not yet handed out by Read
}

// newScanner reads f from offset off, which lies at the start of a line behind an
// empty one, to end.
func newScanner(f io.ReaderAt, off, end int64) *scanner {
	length := max(0, end-off)
	size := int(min(max(length+1, 4<<10), readAhead)) // what is short is seen as a whole
	return &scanner{r: bufio.NewReaderSize(io.NewSectionReader(f, off, length), size), off: off, blank: true}
}

// next goes to the next message; io.EOF if there is none. What was left of the
// one before is skipped, octets in front of the first belong to no message.
func (s *scanner) next() error {
	for !s.ended {
		if _, err := s.content(); err != nil && err != io.EOF {
			return err
		}
	}
	if !s.atFrom {
		return io.EOF
	}
	line, err := s.peekLine(maxFrom)
	if err != nil {
		return err
	}
	from, _ := parseFrom(line)
	s.msg = message{offset: s.off, from: from}
	s.crlf = bytes.HasSuffix(line, []byte("\r\n"))
	s.discard(len(line))
	s.mid, s.run, s.blank, s.held = false, false, false, nil
	s.atFrom, s.ended, s.any, s.last = false, false, false, 0
	s.piece = nil
	s.sniffed.status, s.sniffed.xstatus, s.sniffed.keywords = nil, nil, nil
	return s.ownLines()
}

// ownLines reads the three lines if they are there.
func (s *scanner) ownLines() error {
	b, err := s.r.Peek(min(maxOwnLines, s.r.Size()))
	if err != nil && err != io.EOF {
		return err
	}
	status, xstatus, keywords, n := cutOwnLines(b)
	s.header = n == 0
	s.msg.reader = n == 0 && isForeignHeader(b)
	if n > 0 {
		s.msg.own = true
		s.msg.flags = parseFlags(status, xstatus, keywords)
		s.discard(n)
	}
	return nil
}

// Read gives the octets of the current message; io.EOF at its end.
func (s *scanner) Read(p []byte) (int, error) {
	for len(s.piece) == 0 {
		b, err := s.content()
		if err != nil {
			return 0, err
		}
		s.piece = b
	}
	n := copy(p, s.piece)
	s.piece = s.piece[n:]
	return n, nil
}

// content returns the next octets of the message; they are valid until the next
// call.
func (s *scanner) content() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	b, err := s.scan()
	if err == io.EOF {
		return s.finish()
	}
	if len(b) > 0 {
		s.any, s.last = true, b[len(b)-1]
	}
	return b, err
}

// finish ends the message where a From_ line or the end of the file follows.
func (s *scanner) finish() ([]byte, error) {
	if s.any && s.last != '\n' && s.held == nil {
		s.last = '\n'
		s.msg.end = s.off + 1
		s.ended = true
		s.setFlags()
		return lineFeed, nil
	}
	s.msg.end = s.off - int64(len(s.held))
	s.ended = true
	s.setFlags()
	return nil, io.EOF
}

func (s *scanner) setFlags() {
	if !s.msg.own {
		s.msg.flags = parseFlags(s.sniffed.status, s.sniffed.xstatus, s.sniffed.keywords)
	}
}

// scan returns octets, or io.EOF where the message ends.
func (s *scanner) scan() ([]byte, error) {
	for {
		if s.mid {
			return s.rest()
		}
		b, err := s.r.Peek(1)
		if err != nil {
			return nil, err
		}
		first := b[0] // b itself changes with the next Peek
		if !s.run && first == 'F' && s.blank {
			if line, err := s.peekLine(maxFrom); err != nil {
				return nil, err
			} else if _, ok := parseFrom(line); ok {
				s.atFrom = true
				return nil, io.EOF
			}
		}
		if first == '\n' {
			s.discard(1)
			s.blank, s.header = true, false
			if out := s.hold(lineFeed); out != nil {
				return out, nil
			}
			continue
		}
		if first == '\r' {
			if b, _ := s.r.Peek(2); len(b) == 2 && b[1] == '\n' {
				return s.blankCRLF()
			}
		}
		if out := s.hold(nil); out != nil {
			return out, nil
		}
		s.blank = false
		if first == '>' {
			if out, err := s.quoted(); err != nil || len(out) > 0 {
				return out, err
			}
		} else if s.header {
			s.sniff()
		}
		s.mid, s.run = true, false
	}
}

// hold keeps an empty line back and lets go the one held before.
func (s *scanner) hold(line []byte) (before []byte) {
	before, s.held = s.held, line
	return before
}

func (s *scanner) blankCRLF() ([]byte, error) {
	s.discard(2)
	s.blank, s.header = true, false
	if s.crlf {
		return s.hold(crLF), nil
	}
	return append(slices.Clip(s.hold(nil)), crLF...), nil
}

// rest returns what is there of the current line, to its end at most.
func (s *scanner) rest() ([]byte, error) {
	b, err := s.r.ReadSlice('\n')
	s.off += int64(len(b))
	switch {
	case err == nil:
		s.mid = false
	case errors.Is(err, bufio.ErrBufferFull) || err == io.EOF && len(b) > 0:
	default:
		return nil, err
	}
	return b, nil
}

// quoted looks at a line that begins with ">" and takes one away if "From "
// follows. It returns octets where the line has more of them than can be looked
// at; then it has to be called again, which s.run sees to.
func (s *scanner) quoted() ([]byte, error) {
	for look := 64; ; look = s.r.Size() {
		b, err := s.r.Peek(look)
		if err != nil && err != io.EOF {
			return nil, err
		}
		n := countQuotes(b)
		switch {
		case n+len(fromWord) <= len(b) || err == io.EOF:
			if bytes.HasPrefix(b[n:], fromWord) {
				s.discard(1)
			}
			return nil, nil
		case look == s.r.Size():
			s.discard(n - 1)
			s.run = true
			return b[:n-1], nil
		}
	}
}

// sniff notes the flag lines of a foreign message; they remain part of it.
func (s *scanner) sniff() {
	b, _ := s.r.Peek(1)
	if len(b) == 0 || b[0]|0x20 != 's' && b[0]|0x20 != 'x' {
		return
	}
	line, _ := s.peekLine(maxSniff)
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return
	}
	value = bytes.TrimSpace(bytes.Clone(value))
	switch {
	case bytes.EqualFold(name, []byte("Status")):
		s.sniffed.status = value
	case bytes.EqualFold(name, []byte("X-Status")):
		s.sniffed.xstatus = value
	case bytes.EqualFold(name, []byte("X-Keywords")):
		s.sniffed.keywords = value
	}
}

// peekLine returns the line ahead with its LF, without reading it; nil if it is
// longer than limit. At the end of the file the LF may be missing.
func (s *scanner) peekLine(limit int) ([]byte, error) {
	b, err := s.r.Peek(limit)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1], nil
	}
	if err == io.EOF {
		return b, nil
	}
	return nil, nil
}

func (s *scanner) discard(n int) {
	k, _ := s.r.Discard(n)
	s.off += int64(k)
}
