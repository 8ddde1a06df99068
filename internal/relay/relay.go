// Package relay is a TCP relay for tests and benchmarks: it adds delay without
// narrowing the window, and cuts, resets or stalls connections after so many
// octets.
package relay

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Never is the limit that is never reached.
const Never = 0

// Options says what the relay does to every connection.
type Options struct {
	Delay time.Duration // added to each direction
	Rate  int64         // octets per second each direction of a connection lets through; 0 means any

	// A connection ends after so many octets up (from the client) or down: what
	// lies before is delivered. Never means no limit.
	CutUp, CutDown int64
	// Stall holds the connection open and silent at the limit instead of closing it.
	Stall bool
	// Reset ends it by RST instead of FIN.
	Reset bool
	// Broken is how many connections the limits apply to; 0 means all.
	Broken int64
}

// Relay passes connections on to one target. All methods may be called from
// several goroutines.
type Relay struct {
	l      net.Listener
	target string
	opts   Options

	up, down, accepted atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]bool
	done  chan struct{}
	wg    sync.WaitGroup
}

// Start listens on a free port of 127.0.0.1. Whoever calls it calls Close.
func Start(target string, o Options) (*Relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Relay{l: l, target: target, opts: o, conns: map[net.Conn]bool{}, done: make(chan struct{})}
	r.wg.Go(r.accept)
	return r, nil
}

// Addr is where clients connect.
func (r *Relay) Addr() string { return r.l.Addr().String() }

// Port is the port of Addr.
func (r *Relay) Port() int { return r.l.Addr().(*net.TCPAddr).Port }

// Octets returns what was delivered so far, up and down.
func (r *Relay) Octets() (up, down int64) { return r.up.Load(), r.down.Load() }

// Connections returns how many were accepted.
func (r *Relay) Connections() int64 { return r.accepted.Load() }

// Close ends all connections and waits until nothing runs any more.
func (r *Relay) Close() error {
	r.mu.Lock()
	select {
	case <-r.done:
		r.mu.Unlock()
		return nil
	default:
	}
	close(r.done)
	err := r.l.Close()
	for c := range r.conns {
		err = errors.Join(err, ignoreClosed(c.Close()))
	}
	r.mu.Unlock()
	r.wg.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (r *Relay) accept() {
	for {
		c, err := r.l.Accept()
		if err != nil {
			return
		}
		n := r.accepted.Add(1)
		if r.keep(c) {
			r.wg.Go(func() { r.serve(c, n) })
		}
	}
}

// keep records a connection, so that Close ends it; false after Close.
func (r *Relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		_ = c.Close()
		return false
	default:
		r.conns[c] = true
		return true
	}
}

func (r *Relay) drop(c net.Conn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	_ = c.Close() // the other direction may have closed it
}

func (r *Relay) serve(client net.Conn, n int64) {
	defer r.drop(client)
	server, err := net.Dial("tcp", r.target)
	if err != nil || !r.keep(server) {
		return
	}
	defer r.drop(server)
	cutUp, cutDown := r.opts.CutUp, r.opts.CutDown
	if r.opts.Broken > 0 && n > r.opts.Broken {
		cutUp, cutDown = Never, Never
	}
	end := func() {
		if r.opts.Stall {
			<-r.done
		}
		if r.opts.Reset {
			_ = client.(*net.TCPConn).SetLinger(0) // fails only if it is closed already
			_ = server.(*net.TCPConn).SetLinger(0)
		}
		_, _ = client.Close(), server.Close()
	}
	var wg sync.WaitGroup
	wg.Go(func() { r.pass(server, client, cutUp, &r.up, end) })
	wg.Go(func() { r.pass(client, server, cutDown, &r.down, end) })
	wg.Wait()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

type chunk struct {
	b   []byte
	due time.Time
}

// pass moves octets one way. Between reader and writer lies a queue of octets
// stamped with the time they are due, so what is in flight is bounded by memory
// (64 MiB), not by a window.
func (r *Relay) pass(dst, src net.Conn, limit int64, count *atomic.Int64, end func()) {
	queue := make(chan chunk, 1024)
	gone := make(chan struct{}) // the writer ended
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(gone)
		r.write(dst, queue, limit, count, end)
	})
	defer wg.Wait()
	defer close(queue)
	for {
		b := make([]byte, 64<<10)
		n, err := src.Read(b)
		if n > 0 {
			select {
			case queue <- chunk{b[:n:n], time.Now().Add(r.opts.Delay)}:
			case <-gone:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (r *Relay) write(dst net.Conn, queue <-chan chunk, limit int64, count *atomic.Int64, end func()) {
	var passed int64
	var free time.Time // when the line is free again
	for c := range queue {
		if r.opts.Rate > 0 {
			free = later(free, time.Now()).Add(time.Duration(len(c.b)) * time.Second / time.Duration(r.opts.Rate))
			c.due = later(c.due, free)
		}
		if wait := time.Until(c.due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-r.done:
				return
			}
		}
		b := c.b
		cut := limit != Never && passed+int64(len(b)) >= limit
		if cut {
			b = b[:limit-passed]
		}
		count.Add(int64(len(b))) // before, so that who has an octet finds it counted
		n, err := dst.Write(b)
		passed += int64(n)
		count.Add(int64(n - len(b)))
		if cut {
			end()
			return
		}
		if err != nil {
			end()
			return
		}
	}
	if t, ok := dst.(*net.TCPConn); ok {
		_ = t.CloseWrite() // fails only if it is closed already
	}
}
