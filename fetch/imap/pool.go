package imap

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"mailhaul/internal/dial"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// pool lends connections. It holds at most limit of them; the limit sinks when the
// server refuses one while it serves others, whatever words it refuses it with:
// some say "wrong password" when they mean "too many connections".
type pool struct {
	dial  func(context.Context) (*imapconn.Conn, error)
	pause time.Duration
	gov   *governor

	mu      sync.Mutex
	limit   int
	open    int // lent, idle or being made
	idle    []*imapconn.Conn
	changed chan struct{} // closed when something came free
	closed  bool
	began   time.Time // of the first attempt to connect
	made    bool      // there was a connection
}

var errPoolClosed = errors.New("source is closed")

func newPool(limit int, pause time.Duration, gov *governor, dial func(context.Context) (*imapconn.Conn, error)) *pool {
	return &pool{dial: dial, pause: pause, gov: gov, limit: limit, changed: make(chan struct{})}
}

func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// givenUp marks an error after which trying again was tried already.
type givenUp struct{ error }

func (g givenUp) Unwrap() error { return g.error }

// gaveUp marks err without hiding what it is.
func gaveUp(err error) error {
	me, ok := err.(*mail.Error)
	if !ok {
		return givenUp{err}
	}
	e := *me
	if e.Err == nil {
		e.Err = errors.New("no connection")
	}
	e.Err = givenUp{e.Err}
	return &e
}

func isGivenUp(err error) bool {
	_, ok := errors.AsType[givenUp](err)
	return ok
}

// get lends a connection, if possible one on which the mailbox raw is selected. It
// waits for one to come free, or makes one.
func (p *pool) get(ctx context.Context, raw string) (*imapconn.Conn, error) {
	wait := p.pause
	for try := 1; ; {
		if err := p.gov.wait(ctx); err != nil {
			return nil, err
		}
		c, changed, err := p.take(raw)
		if c != nil || err != nil {
			return c, err
		}
		if changed != nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		c, alone, err := p.make(ctx)
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !alone:
			continue // another connection will come free
		case p.limited(err):
			continue
		case !p.worthwhile(err) || try >= attempts:
			return nil, gaveUp(err)
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
		try++
		wait *= 2
	}
}

// limited obeys a server that refused the only connection for now.
func (p *pool) limited(err error) bool {
	l, words, ok := imapconn.LimitOf(err)
	if ok {
		p.gov.said(l, words)
	}
	return ok
}

// firstPatience is how long the first connection of all is tried for.
const firstPatience = 10 * time.Second

// worthwhile tells whether to try once more for a connection. A login that was
// refused, or has never been answered, is not repeated: some servers lock accounts.
func (p *pool) worthwhile(err error) bool {
	if _, refused := errors.AsType[*imapconn.Refused](err); refused || mail.KindOf(err) != mail.KindTemporary {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e, _ := errors.AsType[*mail.Error](err)
	first := !p.made && (e.Op == imapconn.OpLogin || time.Since(p.began) > firstPatience)
	return dial.Fleeting(err) && !first
}

// more lends a further connection without waiting; nil if there is none to be had.
func (p *pool) more(ctx context.Context, raw string) *imapconn.Conn {
	if p.gov.holding() {
		return nil
	}
	c, changed, err := p.take(raw)
	if c != nil || err != nil || changed != nil {
		return c
	}
	c, _, _ = p.make(ctx) // refused: the limit has sunk, and the others do the work
	return c
}

// take returns an idle connection; or neither connection nor channel if the caller
// may make one, which is counted as open already.
func (p *pool) take(raw string) (*imapconn.Conn, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, errPoolClosed
	}
	for i := len(p.idle) - 1; i >= 0; i-- {
		c := p.idle[i]
		if c.Selected().Raw == raw || i == 0 {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return c, nil, nil
		}
	}
	if p.open < p.limit {
		p.open++
		if p.began.IsZero() {
			p.began = time.Now()
		}
		return nil, nil, nil
	}
	return nil, p.changed, nil
}

// make makes a connection; alone tells of a failure that no other is open.
func (p *pool) make(ctx context.Context) (c *imapconn.Conn, alone bool, err error) {
	c, err = p.dial(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && !p.closed {
		p.made = true
		return c, false, nil
	}
	if err == nil {
		_ = c.Close() // the source was closed meanwhile
		err = errPoolClosed
	}
	p.open--
	if p.open > 0 && ctx.Err() == nil {
		p.limit = p.open
	}
	p.notify()
	return nil, p.open == 0, err
}

// put takes a connection back.
func (p *pool) put(c *imapconn.Conn) {
	usable := c.Usable()
	p.mu.Lock()
	if usable && !p.closed && p.open <= p.limit {
		p.idle = append(p.idle, c)
	} else {
		p.open--
		usable = false
	}
	p.notify()
	p.mu.Unlock()
	if !usable {
		_ = c.Close()
	}
}

// keep lets no more connections be made than are open now, or one.
func (p *pool) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = max(1, min(p.limit, p.open))
}

// shrink allows fewer connections than are open: one less if they are too many,
// half as many if the server wants less of everything.
func (p *pool) shrink(kind imapconn.LimitKind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(p.limit, p.open)
	if kind == imapconn.LimitConnections {
		p.limit = max(1, n-1)
	} else {
		p.limit = max(1, (n+1)/2)
	}
}

// crowded tells whether more connections are open than are allowed.
func (p *pool) crowded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open > p.limit
}

func (p *pool) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.open -= len(idle)
	p.closed = true
	p.notify()
	p.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
	}
}
