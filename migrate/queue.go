package migrate

import (
	"context"
	"fmt"
	"sync"

	"mailhaul/mail"
	"mailhaul/upload"
)

// queuedMessages is how many messages may wait to be sent; more are not read.
const queuedMessages = 2000

// queues hold, by mailbox, what was read and is to be sent, and send it: some
// mailboxes at a time, each in its order.
type queues struct {
	m     *mover
	slots chan struct{} // one for each mailbox that is being sent to

	mu      sync.Mutex
	changed *sync.Cond
	waiting int // messages
	busy    int // workers
	by      map[string]*queue
}

type queue struct {
	name    string
	parts   []part
	ready   bool // the mailbox is to be opened
	working bool
}

// part is what one group has for a mailbox.
type part struct {
	ids   []int64
	batch *batch
}

func newQueues(m *mover) *queues {
	q := &queues{m: m, slots: make(chan struct{}, m.Upload.Parallel), by: make(map[string]*queue)}
	q.changed = sync.NewCond(&q.mu)
	return q
}

func (q *queues) get(name string) *queue {
	one := q.by[name]
	if one == nil {
		one = &queue{name: name}
		q.by[name] = one
	}
	return one
}

// start lets somebody work on a queue. It is called with mu held.
func (q *queues) start(one *queue) {
	if one.working {
		return
	}
	one.working = true
	q.busy++
	go q.work(one)
}

// ready has a mailbox opened at the destination.
func (q *queues) ready(name string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	one := q.get(name)
	one.ready = true
	q.start(one)
}

// add queues messages, and waits while there are too many.
func (q *queues) add(name string, ids []int64, b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.waiting > queuedMessages && q.m.ctx.Err() == nil {
		q.changed.Wait()
	}
	one := q.get(name)
	one.parts = append(one.parts, part{ids, b})
	q.waiting += len(ids)
	q.start(one)
}

// work sends what is queued until nothing is.
func (q *queues) work(one *queue) {
	q.slots <- struct{}{}
	defer func() { <-q.slots }()
	for {
		q.mu.Lock()
		parts, ready := one.parts, one.ready
		one.parts, one.ready = nil, false
		if len(parts) == 0 && !ready {
			one.working = false
			q.busy--
			q.changed.Broadcast()
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		if ready && len(parts) == 0 {
			q.m.stream.Ready(q.m.ctx, one.name)
			continue
		}
		var ids []int64
		for _, p := range parts {
			ids = append(ids, p.ids...)
		}
		q.send(one.name, ids)
		for _, p := range parts {
			q.m.view.release(p.batch)
		}
		q.mu.Lock()
		q.waiting -= len(ids)
		q.changed.Broadcast()
		q.mu.Unlock()
	}
}

// send sends messages; what fails only here, the end of the run says.
func (q *queues) send(name string, ids []int64) {
	if q.m.ctx.Err() != nil {
		return // the next run sends them
	}
	q.stop(q.m.stream.Send(q.m.ctx, name, ids))
}

// stop ends the run if nothing can be sent any more.
func (q *queues) stop(err error) {
	switch mail.KindOf(err) {
	case mail.KindTemporary, mail.KindAuth, mail.KindDisk:
		q.m.cancel(err)
	}
}

// sendNow sends messages and returns when they are at the destination: the source
// forgets what was read.
func (q *queues) sendNow(parts map[string][]int64, b *batch) error {
	for name, ids := range parts {
		err := q.m.stream.Send(q.m.ctx, name, ids)
		lacking := 0
		if err == nil {
			lacking, err = q.m.stream.Settle(q.m.ctx, name, ids)
		}
		q.m.view.release(b)
		if err != nil {
			return err
		}
		if lacking > 0 {
			return &mail.Error{Kind: mail.KindPartial, Ref: mail.Ref{Account: q.m.Source.Account(), Mailbox: name}, Op: "migrate",
				Err:  fmt.Errorf("the destination did not take %d messages, and this server forgets what was read", lacking),
				Hint: "use --archive DIR, which keeps them"}
		}
	}
	return nil
}

// finish returns when everything that was queued is sent, or will not be.
func (q *queues) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	stop := context.AfterFunc(q.m.ctx, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.changed.Broadcast()
	})
	defer stop()
	for q.busy > 0 {
		q.changed.Wait()
	}
}

// spaceWatch warns as soon as it is known that not everything will fit.
type spaceWatch struct {
	mu    sync.Mutex
	asked sync.WaitGroup // somebody is asking for space
	begun bool
	told  bool
	sum   upload.Forecast
	space *upload.Space // nil: not known yet
}

// add counts what a mailbox of the source has that is new.
func (s *spaceWatch) add(m *mover, messages, octets int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Messages += messages
	s.sum.Octets += octets
	if messages == 0 || m.Upload.DryRun {
		return
	}
	if !s.begun {
		s.begun = true
		s.asked.Go(func() { s.ask(m) })
	}
	s.compare(m)
}

// ask finds out how much space there is.
func (s *spaceWatch) ask(m *mover) {
	f, err := upload.CheckSpace(m.ctx, m.Destination, upload.Forecast{Messages: 1})
	if err != nil {
		return // what does not fit is refused
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space = &f.Space
	s.compare(m)
}

// compare warns, once. It is called with mu held.
func (s *spaceWatch) compare(m *mover) {
	if s.told || s.space == nil {
		return
	}
	s.sum.Space = *s.space
	if err := s.sum.Err(m.Destination.Account()); err != nil {
		s.told = true
		m.warn(err)
	}
}
