package dial

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"

	kflate "github.com/klauspost/compress/flate"
	"github.com/mjl-/flate"
)

// ErrInflation is returned by Read when what a server compressed does not end in
// data, is no deflate stream, or swells beyond reason. Without compression the same
// server may do.
var ErrInflation = errors.New("server's compressed data cannot be used")

const (
	// inflateFree octets may come out whatever goes in; past them inflateRatio for
	// each. Mail compresses ten times at best; what a hostile server sends, a
	// thousand times.
	inflateFree  = 16 << 20
	inflateRatio = 100
)

// Compress puts deflate (RFC 1951, without header) under both directions, as
// COMPRESS=DEFLATE (RFC 4978) does from the octet behind the server's OK on. Lines
// must have been on for that answer, so that nothing behind it has been handed out.
// It may be called only while nobody reads or writes.
func (c *Conn) Compress() {
	c.deflate = new(deflater)
	c.inflate = newInflater(c.br, &c.in)
	c.lines.Store(false)
}

// Compressed tells whether Compress was called.
func (c *Conn) Compressed() bool { return c.inflate != nil }

// Waited returns how long Read has waited for the server so far, the rate limit
// included.
func (c *Conn) Waited() time.Duration { return time.Duration(c.waited.Load()) }

// deflater compresses what is written. Every piece stands for itself and ends in a
// flush: commands are few, and no state is kept for them.
type deflater struct{ buf bytes.Buffer }

func (d *deflater) piece(p []byte) ([]byte, error) {
	d.buf.Reset()
	err := kflate.StatelessDeflate(&d.buf, p, false, nil)
	return d.buf.Bytes(), err
}

// inflater reads what the server compressed. Its reader delivers all that a partial
// flush brought; those of the standard library would wait for more.
type inflater struct {
	r    io.Reader
	in   *atomic.Int64 // octets of the connection,
	from int64         // before compression
	out  int64
	err  error
}

func newInflater(r *bufio.Reader, in *atomic.Int64) *inflater {
	return &inflater{r: flate.NewReaderPartial(r), in: in, from: in.Load()}
}

func (i *inflater) Read(p []byte) (int, error) {
	if i.err != nil {
		return 0, i.err
	}
	n, err := i.r.Read(p)
	i.out += int64(n)
	if i.out > inflateFree+inflateRatio*(i.in.Load()-i.from) {
		n, err = 0, ErrInflation
	}
	_, corrupt := errors.AsType[flate.CorruptInputError](err)
	_, internal := errors.AsType[flate.InternalError](err)
	if corrupt || internal || err == io.EOF { // a server that goes on does not declare the end
		err = ErrInflation
	}
	i.err = err
	if n > 0 {
		return n, nil
	}
	return n, err
}
