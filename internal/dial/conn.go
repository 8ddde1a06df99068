package dial

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"mailhaul/mail"
)

// readSize is the size of the read buffer: one TLS record and more.
const readSize = 64 << 10

// ErrAnswerTooLong is returned by Read when an answer exceeds the Budget.
var ErrAnswerTooLong = errors.New("answer of the server is longer than allowed")

// Conn is a connection to a server. It is a net.Conn, so that a protocol library
// can be put on top, with rules of its own:
//
//   - Deadlines are idle times: each Read that waits and each Write gets
//     Server.Timeout. SetDeadline and its kin do nothing, so that a library's
//     absolute deadlines cannot kill a transfer that moves.
//   - A Read waits without a deadline while nothing is owed (Owed).
//   - A connection ended by its context (Bind) stays ended.
//
// One goroutine may read and one write at the same time; the switches (Owed,
// Quiet, Lines, Budget) may be called from any, StartTLS and Lines only while
// nobody reads.
type Conn struct {
	srv Server

	raw     net.Conn      // TCP, or TLS over it
	br      *bufio.Reader // over raw
	inflate *inflater     // over br; nil without compression
	deflate *deflater     // likewise

	lines   atomic.Bool
	patient atomic.Bool
	budget  atomic.Int64 // octets still allowed; negative means no limit
	in      atomic.Int64
	out     atomic.Int64
	waited  atomic.Int64 // nanoseconds

	mu    sync.Mutex // guards what decides on deadlines
	owed  bool
	ended error // why nothing works any more

	life    context.Context // ends with the connection; rate limit waits under it
	endLife context.CancelFunc
	tracer  tracer
	secure  bool
	closed  sync.Once
}

var _ net.Conn = (*Conn)(nil)

// NewConn puts an existing connection under the rules of Conn. Dial does this;
// tests may do it over a pipe.
func NewConn(nc net.Conn, s Server) *Conn {
	c := &Conn{srv: s, raw: nc, owed: true}
	c.br = bufio.NewReaderSize(timed{c}, readSize)
	c.budget.Store(-1)
	c.lines.Store(s.Security == StartTLS)
	c.life, c.endLife = context.WithCancel(context.Background())
	c.tracer = tracer{t: s.Trace, conn: s.Trace.nextConn()}
	return c
}

// timed is the raw connection with the idle deadline, seen from the read buffer.
type timed struct{ c *Conn }

func (t timed) Read(p []byte) (int, error) {
	c := t.c
	if l := c.srv.Limit; l != nil {
		p = p[:min(len(p), max(1, l.Burst()))]
	}
	if err := c.armRead(); err != nil {
		return 0, err
	}
	began := time.Now()
	n, err := c.raw.Read(p)
	c.in.Add(int64(n))
	if n > 0 {
		if c.srv.Count != nil {
			c.srv.Count(n)
		}
		if werr := c.throttle(n); werr != nil && err == nil {
			err = werr
		}
	}
	c.waited.Add(int64(time.Since(began)))
	return n, c.cause(err)
}

// armRead and armWrite set the idle deadline, unless the connection was ended.
func (c *Conn) armRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	return c.raw.SetReadDeadline(c.deadline(c.owed))
}

func (c *Conn) armWrite() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	return c.raw.SetWriteDeadline(c.deadline(!c.patient.Load()))
}

func (c *Conn) deadline(limited bool) time.Time {
	if !limited {
		return time.Time{}
	}
	return time.Now().Add(c.srv.timeout())
}

// cause prefers the reason the connection was ended for over what the socket says.
func (c *Conn) cause(err error) error {
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	return err
}

func (c *Conn) throttle(n int) error {
	l := c.srv.Limit
	if l == nil {
		return nil
	}
	for n > 0 {
		k := min(n, max(1, l.Burst()))
		if err := l.WaitN(c.life, k); err != nil {
			return c.cause(err)
		}
		n -= k
	}
	return nil
}

// Read reads octets of the server; at most one line while Lines is on.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b := c.budget.Load(); b >= 0 {
		if b == 0 {
			return 0, ErrAnswerTooLong
		}
		p = p[:min(int64(len(p)), b)]
	}
	n, err := c.read(p)
	if n > 0 {
		if c.budget.Load() >= 0 {
			c.budget.Add(int64(-n))
		}
		c.tracer.in(p[:n])
	}
	return n, err
}

func (c *Conn) read(p []byte) (int, error) {
	if c.inflate != nil {
		return c.inflate.Read(p)
	}
	if !c.lines.Load() {
		return c.br.Read(p)
	}
	if _, err := c.br.Peek(1); err != nil {
		return 0, err
	}
	b, _ := c.br.Peek(min(len(p), c.br.Buffered()))
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i+1]
	}
	n := copy(p, b)
	_, err := c.br.Discard(n)
	return n, err
}

// Write sends octets, waiting at most the timeout for each piece to go.
func (c *Conn) Write(p []byte) (int, error) {
	c.tracer.out(p)
	if c.deflate == nil || len(p) == 0 {
		return c.write(p)
	}
	b, err := c.deflate.piece(p)
	if err == nil {
		_, err = c.write(b)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *Conn) write(p []byte) (int, error) {
	done := 0
	for {
		piece := p[done:]
		if l := c.srv.Limit; l != nil {
			piece = piece[:min(len(piece), max(1, l.Burst()))]
		}
		piece = piece[:min(len(piece), readSize)]
		if err := c.throttle(len(piece)); err != nil {
			return done, err
		}
		if err := c.armWrite(); err != nil {
			return done, err
		}
		n, err := c.raw.Write(piece)
		c.out.Add(int64(n))
		done += n
		if err != nil {
			return done, c.cause(err)
		}
		if done >= len(p) {
			return done, nil
		}
	}
}

// Owed says whether the server owes an answer, which it does at first. While it
// does not, a Read waits for ever; a Read that waits already is armed at once.
func (c *Conn) Owed(owed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owed == owed {
		return
	}
	c.owed = owed
	if c.ended != nil {
		return
	}
	c.raw.SetReadDeadline(c.deadline(owed))
}

// Patient lets Write wait as long as it takes. It is for commands sent ahead while
// another goroutine reads: a server busy sending takes none, and one that is dead
// is noticed by the reader, which then must Close.
func (c *Conn) Patient(on bool) { c.patient.Store(on) }

// Bind ends the connection as soon as ctx is done: blocked calls return its cause,
// and so does everything after. Call release when the work under ctx is over; it
// tells whether the connection was left alone. If not, the connection has ended by
// then, and not a moment later, when somebody else may have it.
func (c *Conn) Bind(ctx context.Context) (release func() bool) {
	if ctx.Err() != nil {
		c.end(context.Cause(ctx))
	}
	stop := context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
	return sync.OnceValue(func() bool {
		alone := stop()
		if !alone {
			c.end(context.Cause(ctx))
		}
		return alone
	})
}

// Ended tells whether nothing works any more: a context it was bound to is done, or
// it was closed.
func (c *Conn) Ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended != nil
}

func (c *Conn) end(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = why
	}
	c.endLife()
	c.raw.SetDeadline(time.Unix(1, 0))
}

// Lines makes each Read return at most one line, so that a buffering library
// never holds more than the answer it asked for. It is on at first where StartTLS
// is to come, and off otherwise and after StartTLS.
func (c *Conn) Lines(on bool) { c.lines.Store(on) }

// Budget limits the octets that may be read from now on; past it Read returns
// ErrAnswerTooLong. A negative number means no limit.
func (c *Conn) Budget(octets int64) { c.budget.Store(max(octets, -1)) }

// Buffered returns how many octets of the server have come in and were not read; with
// compression, as they came in.
func (c *Conn) Buffered() int { return c.br.Buffered() }

// BytesIn and BytesOut count the octets of the protocol, without TLS's own.
func (c *Conn) BytesIn() int64  { return c.in.Load() }
func (c *Conn) BytesOut() int64 { return c.out.Load() }

// Server returns what the connection was made with.
func (c *Conn) Server() Server { return c.srv }

// Secure tells whether TLS is up and verified.
func (c *Conn) Secure() bool { return c.secure }

// StartTLS changes to TLS after the server agreed to STLS or STARTTLS. Octets that
// came in clear text behind that answer are refused (RFC 2595 section 2.4 and
// 4: they could be an attacker's), KindAuth. Capabilities known before must be
// forgotten.
func (c *Conn) StartTLS(ctx context.Context) error {
	if n := c.br.Buffered(); n > 0 {
		return &mail.Error{
			Kind: mail.KindAuth,
			Op:   "TLS with " + c.srv.Addr(),
			Err:  fmt.Errorf("%d octets in clear text after the server agreed to TLS: somebody on the way may be injecting them", n),
			Hint: "use TLS from the first octet (" + c.srv.Protocol + "s://) if the server has it",
		}
	}
	return c.handshake(ctx)
}

func (c *Conn) handshake(ctx context.Context) error {
	cfg, err := c.srv.tlsConfig()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.raw.SetDeadline(time.Now().Add(c.srv.timeout()))
	tc := tls.Client(c.raw, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return c.srv.trustError(ctx, err)
	}
	c.mu.Lock()
	c.raw = tc
	c.secure = true
	c.raw.SetDeadline(time.Time{})
	c.mu.Unlock()
	c.br.Reset(timed{c})
	c.lines.Store(false)
	c.Note("TLS " + tls.VersionName(tc.ConnectionState().Version))
	return nil
}

// PeerCertificates returns the server's chain, leaf first; nil without TLS.
func (c *Conn) PeerCertificates() []*x509.Certificate {
	st, _ := c.ConnectionState()
	return st.PeerCertificates
}

// ConnectionState returns the state of TLS; ok is false without it.
func (c *Conn) ConnectionState() (st tls.ConnectionState, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	tc, ok := c.raw.(*tls.Conn)
	if !ok {
		return st, false
	}
	return tc.ConnectionState(), true
}

// Close closes the connection; blocked calls return net.ErrClosed.
func (c *Conn) Close() error {
	err := net.ErrClosed
	c.closed.Do(func() { err = c.close() })
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *Conn) close() error {
	c.mu.Lock()
	raw := c.raw
	ended := c.ended != nil
	if !ended {
		c.ended = net.ErrClosed
	}
	c.mu.Unlock()
	c.endLife()
	tc, ok := raw.(*tls.Conn)
	if !ok {
		return raw.Close()
	}
	if !ended {
		// TLS says good-bye; a dead peer is not waited for.
		raw.SetDeadline(time.Now().Add(time.Second))
		_ = tc.Close()
	}
	return tc.NetConn().Close()
}

// LocalAddr returns the local address.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the server's address.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline does nothing: a Conn keeps its own deadlines.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing: a Conn keeps its own deadlines.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing: a Conn keeps its own deadlines.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// UnexpectedEOF turns io.EOF, which would look like a proper end to whoever reads
// a message, into io.ErrUnexpectedEOF.
func UnexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Fail turns an error of Read or Write into one a person can act on. The end of a
// context and errors that are *mail.Error already are returned as they are.
func (c *Conn) Fail(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if _, ok := errors.AsType[*mail.Error](err); ok {
		return err
	}
	e := &mail.Error{Kind: mail.KindTemporary, Op: op, Err: UnexpectedEOF(err), Hint: "run the same command again: it goes on where this one stopped"}
	var ne net.Error
	switch {
	case errors.As(err, &ne) && ne.Timeout():
		e.Err = silence(fmt.Sprintf("%s did not answer for %v", c.srv.Addr(), c.srv.timeout()))
		e.Hint = "try again later, or allow more time with --timeout"
	case isAlert(err): // TLS 1.3 servers refuse after the handshake seemed to be over
		e.Kind = mail.KindAuth
		e.Hint = "the server ended TLS; " + c.srv.certificateHint()
	case errors.Is(err, ErrAnswerTooLong):
		e.Kind = mail.KindOther
		e.Hint = "this server does not speak the protocol: check host and port"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e.Err = fmt.Errorf("%s closed the connection: %w", c.srv.Addr(), io.ErrUnexpectedEOF)
	}
	return e
}

// silence is a mail.ErrSilent that says who and how long.
type silence string

func (s silence) Error() string { return string(s) }

func (silence) Is(target error) bool { return target == mail.ErrSilent }
