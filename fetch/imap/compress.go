package imap

import (
	"context"
	"errors"
	"time"

	"mailhaul/internal/dial"
	"mailhaul/internal/imapconn"
)

// Compression says when COMPRESS=DEFLATE (RFC 4978) is used where the server has it.
type Compression int32

const (
	CompressAuto   Compression = iota // where the line proves to be the limit
	CompressAlways                    // on every connection
	CompressNever
)

// A line is the limit if most of the time is spent waiting for it and it brings
// less than a processor compresses and inflates with ease.
const (
	slowLine    = 8 << 20              // octets per second
	farAway     = 2 * time.Millisecond // the shortest round trip of a line worth measuring
	skipOctets  = 512 << 10            // before measuring: the line is getting up to speed
	tellOctets  = 512 << 10            // and time that tell something
	tellTime    = 200 * time.Millisecond
	worthOctets = 4 << 20 // still to be asked for, to be worth the pause
	fastTimes   = 4       // measured, and the line is taken for a fast one
	meterSets   = 2       // commands in flight while measuring: what was asked for comes first
)

func (s *Source) compression() Compression { return Compression(s.compress.Load()) }

// compressAtOnce is for new connections.
func (s *Source) compressAtOnce(ctx context.Context, c *imapconn.Conn) error {
	if s.compression() != CompressAlways || !c.OffersCompression() {
		return nil
	}
	return c.Compress(ctx)
}

// noteInflation does without compression where it does not work.
func (s *Source) noteInflation(err error) {
	if errors.Is(err, dial.ErrInflation) {
		s.compress.Store(int32(CompressNever))
	}
}

// meter measures the line of one connection while it brings messages.
type meter struct {
	at     time.Time
	in     int64
	waited time.Duration
	fast   int
	idle   bool // there is nothing to find out
}

// measure decides, as soon as something can be told, whether the account's
// connections are to compress.
func (w *worker) measure() {
	m, s := &w.meter, w.j.s
	if m.idle {
		return
	}
	n := w.c.Net()
	in := n.BytesIn()
	switch {
	case m.at.IsZero() && in < m.in+skipOctets:
		return
	case m.at.IsZero():
		m.at, m.in, m.waited = time.Now(), in, n.Waited()
		return
	case in < m.in+tellOctets:
		return
	}
	took := time.Since(m.at)
	if took < tellTime {
		return
	}
	rate := float64(in-m.in) / took.Seconds()
	if rate < slowLine && 2*(n.Waited()-m.waited) > took {
		s.compress.CompareAndSwap(int32(CompressAuto), int32(CompressAlways))
		m.idle = true
		return
	}
	m.at, m.in, m.waited = time.Now(), in, n.Waited()
	if m.fast++; m.fast >= fastTimes {
		m.idle = true
	}
}

// startMeter begins to measure, where that may change anything.
func (w *worker) startMeter() {
	w.meter = meter{
		in:   w.c.Net().BytesIn(),
		idle: w.j.s.compression() != CompressAuto || !w.c.OffersCompression() || w.c.RoundTrip() < farAway,
	}
}

// toCompress tells whether the connection is to compress from here on.
func (w *worker) toCompress() bool {
	if w.j.s.compression() != CompressAlways || !w.c.OffersCompression() {
		return false
	}
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	return w.j.octets >= worthOctets
}
