package imap

import (
	"context"
	"io"
	"slices"

	"mailhaul/internal/imapconn"
)

// worker fetches over one connection. It is an imapconn.FetchHandler.
type worker struct {
	j        *job
	c        *imapconn.Conn
	items    string
	out      *outbox
	inFlight []*batch
	octets   int64 // of inFlight
	held     int   // octets at the end of the outbox's parcel that belong to the response being read
	holding  bool
	meter    meter
}

func newWorker(j *job, c *imapconn.Conn) *worker {
	return &worker{j: j, c: c, items: items(c, " BODY.PEEK["+j.section+"]"), out: newOutbox(j)}
}

func (w *worker) run(ctx context.Context) error {
	h := &imapconn.Handler{Fetch: w}
	w.startMeter()
	for {
		if err := w.fill(ctx); err != nil {
			return w.lost(ctx, err)
		}
		if len(w.inFlight) == 0 {
			return nil
		}
		tag, res, err := w.c.Next(h)
		w.out.flush()
		if err != nil {
			return w.lost(ctx, err)
		}
		i := slices.IndexFunc(w.inFlight, func(b *batch) bool { return b.tag == tag })
		b := w.inFlight[i]
		w.inFlight = slices.Delete(w.inFlight, i, i+1)
		w.octets -= b.octets
		if err := w.answered(ctx, b, res); err != nil {
			return w.lost(ctx, err)
		}
	}
}

// fill keeps the line busy: the next sets are asked for while one is read.
func (w *worker) fill(ctx context.Context) error {
	for {
		n := len(w.inFlight)
		if n > 0 && w.j.s.gov.holding() || w.j.s.pool.crowded() {
			return nil
		}
		if err := w.j.s.gov.wait(ctx); err != nil {
			return err
		}
		if w.toCompress() {
			if n > 0 {
				return nil // what is in flight comes first
			}
			if err := w.c.Compress(ctx); err != nil {
				return err
			}
		}
		if n >= windowSingle || n > 1 && w.octets >= windowOctets ||
			n >= w.sets() && len(w.inFlight[n-1].wants) > 1 {
			return nil
		}
		b := w.j.next()
		if b == nil {
			return nil
		}
		w.inFlight = append(w.inFlight, b)
		w.octets += b.octets
		verb := "UID FETCH "
		if b.bySeq {
			verb = "FETCH "
		}
		var err error
		if b.tag, err = w.c.Send(verb + b.set.String() + " " + w.items); err != nil {
			return err
		}
	}
}

// sets is how many sets are asked for ahead.
func (w *worker) sets() int {
	if w.meter.idle {
		return windowSets
	}
	return meterSets
}

// answered looks at what a command did not bring.
func (w *worker) answered(ctx context.Context, b *batch, res imapconn.Result) error {
	open := b.open()
	if len(open) < len(b.wants) {
		w.j.s.gov.came()
	}
	if l, ok := res.Limit(); ok {
		w.j.s.limited(l, res.Condition+" "+res.Text)
		w.j.again(b)
		return nil
	}
	if len(open) == 0 {
		return nil
	}
	if !res.OK() && res.Busy() && b.tries < attempts {
		b.tries++
		if err := sleep(ctx, w.j.s.cfg.Pause<<b.tries); err != nil {
			return err
		}
		w.j.again(b)
		return nil
	}
	if len(b.wants) > 1 {
		w.j.singly(b, res)
		return nil
	}
	if !res.OK() {
		open[0].words = res
	}
	w.j.suspect(open[0])
	return nil
}

// lost puts back what was asked for and has not come. Where the connection ended
// without bringing anything, one of the messages may be the reason; so may one that
// it ended in again and again, which is given up.
func (w *worker) lost(ctx context.Context, err error) error {
	for i, b := range slices.Backward(w.inFlight) {
		for _, x := range b.open() {
			if x.cuts < attempts || ctx.Err() != nil {
				continue
			}
			if e := w.j.giveUp(x, brokeOver(err)); e != nil {
				return e
			}
		}
		switch {
		case i > 0 || len(b.open()) < len(b.wants):
			w.j.again(b)
		case len(b.wants) > 1:
			w.j.singly(b, imapconn.Result{})
		default:
			one := b.wants[0]
			if one.tries++; one.tries < 2 {
				w.j.again(b)
			} else {
				w.j.suspect(one)
			}
		}
	}
	w.inFlight = nil
	return err
}

// find looks for the message a response is about.
func (w *worker) find(f *imapconn.Fetch) *want {
	for _, b := range w.inFlight {
		if x := b.find(f); x != nil {
			return x
		}
	}
	return nil
}

// Body takes the octets of a message. Small ones wait in memory for the end of the
// response, since UID and flags may come behind them; large ones are delivered as
// they come, if what describes them came before.
func (w *worker) Body(f *imapconn.Fetch, b *imapconn.Body) error {
	w.holding = false
	if !isSection(b.Section, w.j.section) || b.Partial || b.Nil() {
		return nil
	}
	if b.Size() <= smallMessage {
		into := w.out.room(int(b.Size()))
		if _, err := io.ReadFull(b, into); err != nil {
			return err
		}
		w.held, w.holding = len(into), true
		return nil
	}
	x := w.find(f)
	if x == nil || x.merged(f).Has&imapconn.ItemsMeta != imapconn.ItemsMeta {
		return nil // later, alone
	}
	return w.j.stream(x, x.merged(f), b.Whole(nil))
}

// End takes what a response says.
func (w *worker) End(f *imapconn.Fetch) error {
	w.measure()
	x := w.find(f)
	holding := w.holding
	w.holding = false
	switch {
	case x == nil:
		// Unsolicited, or a second time.
	case !holding:
		x.meta = x.merged(f)
		if f.Has&imapconn.ItemBody != 0 {
			x.nodat = true
		}
	case w.held == 0 && x.merged(f).Size > 0:
		x.meta, x.nodat = x.merged(f), true // no octets where there should be some
	default:
		x.done = true
		w.j.settled()
		w.out.add(w.j.info(x, x.merged(f)), w.held)
	}
	if w.out.ready(w.c.Buffered() == 0) {
		w.out.flush()
	}
	return nil
}

// merged adds what earlier responses said.
func (x *want) merged(f *imapconn.Fetch) imapconn.Fetch {
	m := *f
	lacks := x.meta.Has &^ f.Has
	if lacks&imapconn.ItemUID != 0 {
		m.UID = x.meta.UID
	}
	if lacks&imapconn.ItemFlags != 0 {
		m.Flags = x.meta.Flags
	}
	if lacks&imapconn.ItemDate != 0 {
		m.InternalDate = x.meta.InternalDate
	}
	if lacks&imapconn.ItemSize != 0 {
		m.Size = x.meta.Size
	}
	if m.ObjectID == "" {
		m.ObjectID = x.meta.ObjectID
	}
	m.Has |= x.meta.Has
	return m
}
