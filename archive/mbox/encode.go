package mbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	gombox "github.com/emersion/go-mbox"

	"mailhaul/mail"
)

const (
	// maxLine is the longest line that goes through go-mbox, which looks again at
	// all of an unfinished line with every write.
	maxLine = 64 << 10
	// portion is about how much go-mbox gets at a time: it makes a buffer of that size
	// for each message.
	portion = 2 << 10
	// maxEmptyReads is how often a reader may return nothing in a row.
	maxEmptyReads = 100
)

var errNotCanonical = errors.New("not canonical octets: the last line has no LF")

// encoder writes one message as mboxrd through go-mbox.
//
// go-mbox gets every line in wire form, CRLF, and takes exactly that CR away
// again: a CR of the message in front of LF survives. It quotes ^From itself; one
// more ">" in front of ^>+From makes that reversible (mboxrd). The last LF is held
// back, since go-mbox ends a message with two. Lines over maxLine are written past
// it, and so are those that it would only copy: where there is nothing to quote, its
// output is the input.
type encoder struct {
	out  io.Writer // what go-mbox writes to
	lib  io.Writer // go-mbox's writer of the current message
	in   []byte    // read ahead, maxLine long
	n    int       // how much of it is filled
	wire []byte
	held held
	line lineState
}

// held says which line end was not written yet.
type held int

const (
	heldNothing held = iota
	heldInLib        // the line lies in go-mbox
	heldDirect       // the line was written past go-mbox
)

// lineState says where in a line the octets in encoder.in begin.
type lineState int

const (
	lineStart lineState = iota
	lineRun             // of a long line, everything before was ">"
	lineMid             // of a long line
)

// encode reads canonical octets from r to the end and returns how many there were.
func (e *encoder) encode(ctx context.Context, r io.Reader, date time.Time, flags mail.Flags) (octets int64, err error) {
	if e.in == nil {
		e.in = make([]byte, maxLine)
	}
	e.n, e.held, e.line = 0, heldNothing, lineStart
	n, eof, err := e.fill(ctx, r)
	if err != nil {
		return 0, err
	}
	octets = n
	w := gombox.NewWriter(e.out)
	e.lib, err = w.CreateMessage(sender(e.in[:e.n]), fromDate(date))
	if err != nil {
		return 0, err
	}
	var own [256]byte
	if err := e.lines(appendOwnLines(own[:0], flags)); err != nil {
		return 0, err
	}
	for {
		used, err := e.step(eof)
		if err != nil {
			return 0, err
		}
		e.n = copy(e.in, e.in[used:e.n])
		if eof && e.n == 0 {
			break
		}
		if eof {
			continue
		}
		n, eof, err = e.fill(ctx, r)
		octets += n
		if err != nil {
			return 0, err
		}
	}
	if e.line != lineStart {
		return 0, errNotCanonical
	}
	return octets, w.Close()
}

// fill reads until the buffer is full or r has ended.
func (e *encoder) fill(ctx context.Context, r io.Reader) (n int64, eof bool, err error) {
	empty := 0
	for e.n < len(e.in) {
		if err := ctx.Err(); err != nil {
			return n, false, err
		}
		k, err := r.Read(e.in[e.n:])
		e.n += k
		n += int64(k)
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
		if k > 0 {
			empty = 0
		} else if empty++; empty == maxEmptyReads {
			return n, false, io.ErrNoProgress
		}
	}
	return n, false, nil
}

// step writes a part of the buffer and returns how much of it. The buffer is full
// unless eof is set.
func (e *encoder) step(eof bool) (used int, err error) {
	b := e.in[:e.n]
	switch e.line {
	case lineStart:
		if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
			return i + 1, e.lines(b[:i+1])
		}
		if eof && len(b) > 0 {
			return 0, errNotCanonical
		}
		if len(b) == 0 {
			return 0, nil
		}
		e.line = lineRun
		return 0, e.release()
	case lineRun:
		return e.quoteLong(b, eof)
	default:
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if eof {
				return 0, errNotCanonical
			}
			_, err := e.out.Write(b)
			return len(b), err
		}
		e.line, e.held = lineStart, heldDirect
		_, err := e.out.Write(b[:i])
		return i + 1, err
	}
}

// quoteLong puts a ">" in front of a long line that matches ^>*From, however many
// ">" there are.
func (e *encoder) quoteLong(b []byte, eof bool) (used int, err error) {
	n := countQuotes(b)
	if n > 1 && n+len("From ") > len(b) && !eof {
		_, err := e.out.Write(b[:n-1])
		return n - 1, err
	}
	e.line = lineMid
	if bytes.HasPrefix(b[n:], fromWord) {
		_, err = e.out.Write([]byte{'>'})
	}
	return 0, err
}

// lines writes whole lines, except for the last line end: through go-mbox if one of
// them is to be quoted.
func (e *encoder) lines(b []byte) error {
	if !needsQuote(b) {
		if err := e.release(); err != nil {
			return err
		}
		e.held = heldDirect
		_, err := e.out.Write(b[:len(b)-1])
		return err
	}
	if e.held == heldDirect {
		if err := e.release(); err != nil {
			return err
		}
	}
	w := e.wire[:0]
	if e.held == heldInLib {
		w = append(w, "\r\n"...)
	}
	for len(b) > 0 {
		if len(w) >= portion {
			if err := e.give(w); err != nil {
				return err
			}
			w = append(w[:0], "\r\n"...)
		}
		i := bytes.IndexByte(b, '\n')
		if b[0] == '>' && bytes.HasPrefix(b[countQuotes(b[:i]):], fromWord) {
			w = append(w, '>')
		}
		w = append(w, b[:i]...)
		w = append(w, "\r\n"...)
		b = b[i+1:]
	}
	return e.give(w)
}

// give hands wire octets to go-mbox, except for the last line end.
func (e *encoder) give(w []byte) error {
	e.wire, e.held = w, heldInLib
	_, err := e.lib.Write(w[:len(w)-len("\r\n")])
	return err
}

// release writes the line end that was held back.
func (e *encoder) release() (err error) {
	switch e.held {
	case heldInLib:
		_, err = e.lib.Write([]byte("\r\n"))
	case heldDirect:
		_, err = e.out.Write([]byte{'\n'})
	}
	e.held = heldNothing
	return err
}

// needsQuote tells whether a line matches ^>*From.
func needsQuote(b []byte) bool {
	for at := 0; ; {
		i := bytes.Index(b[at:], fromWord)
		if i < 0 {
			return false
		}
		at += i
		j := at
		for j > 0 && b[j-1] == '>' {
			j--
		}
		if j == 0 || b[j-1] == '\n' {
			return true
		}
		at += len(fromWord)
	}
}

// countQuotes returns how many ">" b begins with.
func countQuotes(b []byte) int {
	n := 0
	for n < len(b) && b[n] == '>' {
		n++
	}
	return n
}
