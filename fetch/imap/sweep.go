package imap

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"mailhaul/fetch"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// Bounds of a sweep. It is one connection's work, so what is large or comes slowly is
// left to Fetch.
const (
	sweepSet     = 250              // messages in one command
	sweepAhead   = 20               // commands in flight
	sweepOctets  = 64 << 20         // received, after which no more is asked for
	sweepAverage = 32 << 10         // octets of a message, likewise
	sweepTime    = 10 * time.Second // likewise
)

var _ fetch.Sweeper = (*Source)(nil)

// Sweep asks for descriptions and octets at once, by message number: a response
// counts only if it names its UID and everything else itself.
func (s *Source) Sweep(ctx context.Context, mb mail.Mailbox, deliver fetch.Deliver) (exists int64, err error) {
	if mb.Octets > sweepOctets || s.labelsIn(mb) != nil {
		return -1, nil
	}
	c, err := s.pool.get(ctx, mb.Raw)
	if err != nil {
		return -1, nil // List will say so
	}
	defer s.pool.put(c)
	if s.mayCompress(c, mb.Octets) || c.Has("OBJECTID") || c.Has("X-GM-EXT-1") {
		return -1, nil // what is in other mailboxes, too, is not to be fetched twice
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.Bind(ctx)()
	j := &job{s: s, mb: mb, deliver: deliver, cancel: cancel}
	w := &sweep{worker: worker{j: j, c: c, items: items(c, " BODY.PEEK[]"), out: newOutbox(j)}}
	whole, err := w.run(ctx)
	w.out.finish()
	if c.InFlight() > 0 {
		_ = c.Close()
	}
	switch {
	case j.failure() != nil:
		return -1, j.failure()
	case ctx.Err() != nil:
		return -1, context.Cause(ctx)
	case err != nil || !whole:
		s.heed(err)
		return -1, nil
	}
	return w.exists, nil
}

// mayCompress tells whether a connection may turn out to be worth compressing, which
// Fetch finds out.
func (s *Source) mayCompress(c *imapconn.Conn, octets int64) bool {
	return c.OffersCompression() && s.compression() != CompressNever && c.RoundTrip() >= farAway &&
		(octets < 0 || octets >= worthOctets)
}

// sweep is one Sweep. It is an imapconn.FetchHandler; the worker in it takes the
// octets.
type sweep struct {
	worker
	exists int64
	asked  int64 // messages asked for
	octets int64
	uids   uidSet
}

// next is the command for the next n messages, of which there are exists.
func (w *sweep) next(n, exists int64) string {
	from := w.asked + 1
	w.asked = min(w.asked+n, exists)
	return fmt.Sprintf("FETCH %d:%d %s", from, w.asked, w.items)
}

func (w *sweep) run(ctx context.Context) (whole bool, err error) {
	began := time.Now()
	first := int64(sweepSet)
	if w.c.RoundTrip() >= farAway {
		first = 2 * sweepSet // something to read until the next ones bring something
	}
	sel, _, err := w.c.Examine(ctx, w.j.mb.Raw, w.next(first, w.j.mb.Messages))
	if err != nil {
		return false, err
	}
	if sel.UIDValidity != w.j.mb.UIDValidity || sel.NoUIDs || sel.Exists < w.j.mb.Messages {
		return false, nil // not what the list of mailboxes showed: List looks again
	}
	w.j.uidValidity, w.exists = sel.UIDValidity, sel.Exists
	for flying := 1; flying > 0; flying-- {
		_, res, err := w.c.Next(&imapconn.Handler{Fetch: w})
		w.out.flush()
		if err != nil {
			return false, err
		}
		if l, limited := res.Limit(); limited {
			w.j.s.limited(l, res.Condition+" "+res.Text)
			return false, nil
		}
		if !res.OK() {
			return false, nil
		}
		w.j.s.gov.came()
		enough := w.octets > sweepOctets || w.average() > sweepAverage || time.Since(began) > sweepTime || w.j.s.gov.holding()
		for ; !enough && flying <= w.ahead() && w.asked < sel.Exists; flying++ {
			if _, err := w.c.Send(w.next(sweepSet, sel.Exists)); err != nil {
				return false, err
			}
		}
	}
	return w.asked >= sel.Exists && int64(w.uids.len()) == sel.Exists && w.c.Selected().Expunged == sel.Expunged, nil
}

// average is how large the messages were that have come.
func (w *sweep) average() int64 { return w.octets / max(1, int64(w.uids.len())) }

// ahead is how many commands may be in flight.
func (w *sweep) ahead() int {
	return int(max(1, min(sweepAhead, windowOctets/(sweepSet*max(1, w.average())))))
}

// Body takes the octets of a message, as a worker does.
func (w *sweep) Body(f *imapconn.Fetch, b *imapconn.Body) error {
	w.holding = false
	if b.Section != "" || b.Partial || b.Nil() {
		return nil
	}
	w.octets += b.Size()
	if b.Size() <= smallMessage {
		into := w.out.room(int(b.Size()))
		if _, err := io.ReadFull(b, into); err != nil {
			return err
		}
		w.held, w.holding = len(into), true
		return nil
	}
	if !described(f) || !w.uids.add(f.UID) {
		return nil
	}
	return w.j.stream(named(f), *f, b.Whole(nil))
}

// described tells whether a response says all there is to say about its message.
func described(f *imapconn.Fetch) bool {
	return f.Has&imapconn.ItemsMeta == imapconn.ItemsMeta && f.UID != 0
}

// named makes the want of a message that is known by its response.
func named(f *imapconn.Fetch) *want {
	return &want{Want: mail.Want{UID: strconv.FormatUint(uint64(f.UID), 10), Seq: f.Seq, Size: f.Size}, uid: f.UID}
}

// End delivers a message whose octets are held.
func (w *sweep) End(f *imapconn.Fetch) error {
	holding := w.holding
	w.holding = false
	if holding && described(f) && (w.held > 0 || f.Size == 0) && w.uids.add(f.UID) {
		w.out.add(w.j.info(named(f), *f), w.held)
	}
	if w.out.ready(w.c.Buffered() == 0) {
		w.out.flush()
	}
	return nil
}
