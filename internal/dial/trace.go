package dial

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxTraceLine cuts longer lines in a trace, in octets.
const maxTraceLine = 1000

// Trace writes what goes over connections, one line per protocol line, with
// secrets and message octets left out. It may be shared by connections.
type Trace struct {
	W io.Writer

	mu    sync.Mutex
	conns int64
}

func (t *Trace) nextConn() int64 {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns++
	return t.conns
}

// Line writes one line: the time in UTC, the number of the connection, a mark
// ("C" client, "S" server, "*" remark) and the text, control characters escaped.
// A nil Trace and a failing writer are silent.
func (t *Trace) Line(conn int64, mark, text string) {
	if t == nil || t.W == nil {
		return
	}
	cut := ""
	if len(text) > maxTraceLine {
		cut = fmt.Sprintf(" ... (%d octets)", len(text))
		text = text[:maxTraceLine]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.W, "%s #%d %s: %s%s\n", time.Now().UTC().Format("15:04:05.000"), conn, mark, escape(text), cut)
}

// escape makes text safe for a terminal and one line long.
func escape(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		s = s[n:]
	}
	return b.String()
}

// tracer follows the lines of one connection.
type tracer struct {
	t     *Trace
	conn  int64
	quiet atomic.Bool

	mu     sync.Mutex
	redact func(string) string
	login  bool // between a login command and its answer
	inbuf  []byte
	outbuf []byte
}

func (tr *tracer) in(p []byte)  { tr.collect(&tr.inbuf, p, "S") }
func (tr *tracer) out(p []byte) { tr.collect(&tr.outbuf, p, "C") }

func (tr *tracer) collect(buf *[]byte, p []byte, mark string) {
	if tr.t == nil || tr.quiet.Load() {
		return
	}
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			// What is beyond the cut is not written anyway, but a secret
			// must be seen whole to be recognised.
			if len(*buf) < 64<<10 {
				*buf = append(*buf, p...)
			}
			return
		}
		line := append(*buf, p[:i]...)
		p = p[i+1:]
		tr.line(mark, strings.TrimSuffix(string(line), "\r"))
		*buf = (*buf)[:0]
	}
}

// line writes one protocol line without secrets. Called with mu held.
func (tr *tracer) line(mark, text string) {
	if mark == "C" {
		text = tr.clientLine(text)
	} else {
		text = tr.serverLine(text)
	}
	if tr.redact != nil {
		text = tr.redact(text)
	}
	tr.t.Line(tr.conn, mark, text)
}

// clientLine hides the arguments of login commands and what answers a challenge.
func (tr *tracer) clientLine(s string) string {
	words := strings.SplitN(s, " ", 4)
	for i, w := range words[:min(2, len(words))] {
		switch strings.ToUpper(w) {
		case "PASS", "APOP":
			if i == 0 {
				return w + " ***"
			}
		case "LOGIN":
			if i == 1 {
				tr.login = true
				return words[0] + " " + w + " ***"
			}
		case "AUTH", "AUTHENTICATE":
			tr.login = true
			keep := strings.Join(words[:min(i+2, len(words))], " ")
			if len(words) > i+2 {
				keep += " ***"
			}
			return keep
		}
	}
	if tr.login {
		return "***"
	}
	return s
}

func (tr *tracer) serverLine(s string) string {
	if !tr.login {
		return s
	}
	if s == "+" || strings.HasPrefix(s, "+ ") {
		return "+ ***"
	}
	if !strings.HasPrefix(s, "* ") {
		tr.login = false
	}
	return s
}

// Quiet stops tracing octets while messages or secrets go over the connection;
// drivers then write what may be seen with Note.
func (c *Conn) Quiet(on bool) { c.tracer.quiet.Store(on) }

// Tracing tells whether there is a trace, so that remarks need not be built in vain.
func (c *Conn) Tracing() bool { return c.tracer.t != nil }

// Note writes a remark into the trace, whether it is quiet or not.
func (c *Conn) Note(text string) {
	if c.Tracing() {
		c.tracer.t.Line(c.tracer.conn, "*", text)
	}
}

// TraceLine writes one protocol line that a driver saw itself, without CRLF;
// client says who sent it. Secrets are removed like in all lines.
func (c *Conn) TraceLine(client bool, line string) {
	if !c.Tracing() {
		return
	}
	c.tracer.mu.Lock()
	defer c.tracer.mu.Unlock()
	if client {
		c.tracer.line("C", line)
	} else {
		c.tracer.line("S", line)
	}
}

// Redact has every traced line go through f, which takes known secrets out.
func (c *Conn) Redact(f func(string) string) {
	c.tracer.mu.Lock()
	defer c.tracer.mu.Unlock()
	c.tracer.redact = f
}
