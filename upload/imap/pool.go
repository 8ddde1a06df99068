package imap

import (
	"context"
	"errors"
	"sync"

	"mailhaul/internal/imapconn"
)

// pool lends connections, at most limit at a time. The limit sinks when the server
// refuses one while others are open.
type pool struct {
	dial func(context.Context) (*imapconn.Conn, error)

	mu      sync.Mutex
	limit   int
	open    int // lent, idle or being made
	idle    []*imapconn.Conn
	changed chan struct{} // closed when something came free
	closed  bool
}

var errClosed = errors.New("destination is closed")

func (p *pool) get(ctx context.Context) (*imapconn.Conn, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		c, wait, err := p.take()
		if c != nil || err != nil {
			return c, err
		}
		if wait == nil {
			c, err := p.make(ctx)
			if c != nil || err != nil {
				return c, err
			}
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// take returns an idle connection, or what to wait for; neither if the caller may
// make one, which is counted already.
func (p *pool) take() (*imapconn.Conn, <-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, nil, errClosed
	case len(p.idle) > 0:
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		return c, nil, nil
	case p.open < p.limit:
		p.open++
		return nil, nil, nil
	}
	return nil, p.changed, nil
}

// make makes a connection; neither connection nor error if others are open and one
// of them is to be waited for.
func (p *pool) make(ctx context.Context) (*imapconn.Conn, error) {
	c, err := p.dial(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && !p.closed {
		return c, nil
	}
	if err == nil {
		_ = c.Close() // closed meanwhile
		err = errClosed
	}
	p.open--
	p.notify()
	if p.open > 0 && ctx.Err() == nil && !p.closed {
		p.limit = p.open
		return nil, nil
	}
	return nil, err
}

func (p *pool) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// put takes a connection back; one of no more use is closed.
func (p *pool) put(c *imapconn.Conn) {
	p.mu.Lock()
	keep := !p.closed && c.Usable()
	if keep {
		p.idle = append(p.idle, c)
	} else {
		p.open--
	}
	p.notify()
	p.mu.Unlock()
	if !keep {
		_ = c.Close() // nothing depends on how it ends
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.notify()
	p.mu.Unlock()
	var errs []error
	for _, c := range idle {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
