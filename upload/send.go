package upload

import (
	"context"
	"errors"
	"io"
	"time"

	"mailhaul/mail"
)

const (
	// checkEvery so many messages the destination is asked whether it has them.
	checkEvery = 1000
	// grace is how long a run that is ended may take to ask that.
	grace = 3 * time.Second
	// throttles is how often in a row a server may ask a mailbox's work to wait.
	throttles = 5
	// longestWait is the longest pause a server is given.
	longestWait = time.Hour
	// throttlePauses is the pause, in units of Options.Pause, if it names none.
	throttlePauses = 30
)

// pending is a message that was sent, or may have been, and is not settled.
type pending struct {
	intent int64
	from   uint32 // the destination's UIDNEXT before
	held   mail.Held
	wire   int64 // octets as sent; -1 if that is not known any more
	risky  bool
	flags  mail.Flags // as they were sent
	item   *item      // nil: of an earlier run
	retry  bool       // if it did not arrive, a repaired copy is sent
	answer Answer

	// What was found out.
	arrived bool
	missing bool // the server said that it has it
	uid     uint32
	size    int64
	altered mail.Digest
}

// send sends what is to be sent.
func (b *box) send(ctx context.Context) (err error) {
	if len(b.todo) == 0 {
		return nil
	}
	s := &sender{box: b}
	err = s.pump(ctx)
	return errors.Join(err, s.finish(ctx))
}

// pump sends what is to be sent and settles it no sooner than it must.
func (s *sender) pump(ctx context.Context) (err error) {
	b := s.box
	if b.isFull() {
		s.leave(len(b.todo))
		return nil
	}
	loading, stop := context.WithCancel(ctx)
	l := b.load(loading)
	defer func() {
		stop()
		for range l.out { // ends when the loader does
		}
	}()
	for g := range l.out {
		if g.err != nil {
			err = g.err
			break
		}
		if err = s.deliver(ctx, s.readable(g.items)); err != nil {
			break
		}
		l.giveBack(g.slab)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

// sender sends groups and keeps what is not settled.
type sender struct {
	*box
	pend   []*pending
	losses int // of the connection in a row, without anything arriving
	waits  int // because the server asked for it, likewise
	unsent int64
}

// readable drops what was told to be unreadable or is too big.
func (s *sender) readable(items []*item) []*item {
	keep := items[:0]
	for _, it := range items {
		switch {
		case it.wire >= 0:
			keep = append(keep, it)
		case s.tooBig(it.held) != nil:
			s.final(it.held.Message)
			s.failed(it.held.Receipt.Info.Ref, s.tooBig(it.held))
		case !s.streaming: // else the end of the stream tries again, and counts
			s.counts.Failed++ // was told
		}
	}
	return keep
}

// deliver sends items, in parts if the group is refused.
func (s *sender) deliver(ctx context.Context, items []*item) error {
	for len(items) > 0 {
		if s.isFull() {
			s.leave(len(items))
			return nil
		}
		pend, err := s.once(ctx, items)
		refused := len(pend) > 1 && pend[0].answer.Group
		switch {
		case err != nil:
			tried, rerr := s.repairable(ctx, pend)
			if rerr != nil {
				return errors.Join(err, rerr)
			}
			if items, err = s.afterLoss(ctx, pend, err); err != nil {
				giveUp(tried)
				return err
			}
			if err := s.resend(ctx, tried); err != nil {
				return err
			}
			continue
		case refused:
			// All or nothing (RFC 3502); but a server that says NO may have stored it.
			if err := s.check(ctx); err != nil {
				return err
			}
			rest := notArrived(pend)
			if err := s.deliver(ctx, rest[:len(rest)/2]); err != nil {
				return err
			}
			items = rest[len(rest)/2:]
		default:
			s.losses, s.waits = 0, 0
			if err := s.repair(ctx, pend); err != nil {
				return err
			}
			if len(s.pend) >= checkEvery {
				if err := s.check(ctx); err != nil {
					return err
				}
			}
			items = items[len(pend):]
		}
	}
	return nil
}

// leave counts messages that there is no space for.
func (s *sender) leave(n int) {
	if s.streaming { // the end of the stream tries again, and counts
		return
	}
	s.counts.Failed += int64(n)
	s.unsent += int64(n)
}

func notArrived(pend []*pending) (rest []*item) {
	for _, p := range pend {
		if !p.arrived && p.item != nil {
			rest = append(rest, p.item)
		}
	}
	return rest
}

// once records what is about to be sent and sends it.
func (s *sender) once(ctx context.Context, items []*item) ([]*pending, error) {
	pend, err := s.intend(ctx, items)
	if err != nil {
		return nil, err
	}
	s.pend = append(s.pend, pend...)
	msgs := make([]Message, len(items))
	var octets int64
	for i, it := range items {
		in := it.held.Receipt.Info
		flags := in.Flags
		if s.MarkSeen && in.DateFrom != mail.DateInternal {
			flags = flags.With(mail.Seen)
		}
		pend[i].flags = s.storable(flags)
		msgs[i] = Message{
			Flags: pend[i].flags, InternalDate: in.InternalDate, Wire: it.wire, NUL: it.nul,
			Open: func() (io.ReadCloser, error) { return it.open(ctx, s.Messages) },
		}
	}
	answers, err := s.Destination.Append(ctx, s.state, msgs)
	for i, a := range answers {
		pend[i].answer = a
		octets += items[i].wire
		s.watchQuota(a)
	}
	if err == nil && len(answers) < len(pend) {
		pend, err = s.unsend(ctx, pend, len(answers))
	}
	if err == nil {
		s.Notify(mail.Event{Kind: mail.EventProgress, Ref: s.ref(mail.Ref{}), N: int64(len(pend)), Octets: octets})
	}
	return pend, err
}

// unsend takes back the intents of the last group beyond the first n: the
// destination did not get to them.
func (s *sender) unsend(ctx context.Context, pend []*pending, n int) ([]*pending, error) {
	if n == 0 { // it would never end
		return pend, &mail.Error{Ref: s.ref(mail.Ref{}), Op: "append", Err: errors.New("nothing was answered")}
	}
	rest := make([]mail.Uploaded, 0, len(pend)-n)
	for _, p := range pend[n:] {
		rest = append(rest, mail.Uploaded{ID: p.intent})
	}
	if err := s.Ledger.SettleUploads(ctx, rest); err != nil {
		return pend, err
	}
	s.pend = s.pend[:len(s.pend)-len(rest)]
	return pend[:n], nil
}

func (s *sender) watchQuota(a Answer) {
	switch {
	case a.Stored:
		s.full.Store(0)
	case !a.Group && errors.Is(a.Refused, ErrOverQuota):
		s.full.Add(1)
	}
}

func (s *sender) intend(ctx context.Context, items []*item) ([]*pending, error) {
	sending := mail.Sending{
		Account: s.Account, Mailbox: s.job.to, UIDValidity: s.state.UIDValidity, UIDNext: s.state.UIDNext,
	}
	pend := make([]*pending, len(items))
	for i, it := range items {
		sending.Messages = append(sending.Messages, mail.Outgoing{Message: it.held.Message, Digest: it.held.Receipt.Digest})
		pend[i] = &pending{from: s.state.UIDNext, held: it.held, wire: it.wire, risky: it.risky, item: it}
	}
	ids, err := s.Ledger.IntendUploads(ctx, sending)
	if err != nil {
		return nil, err
	}
	for i := range pend {
		pend[i].intent = ids[i]
	}
	return pend, nil
}

// afterLoss finds out what arrived of everything that is in doubt and returns what
// of the last group did not.
func (s *sender) afterLoss(ctx context.Context, last []*pending, cause error) ([]*item, error) {
	if ctx.Err() != nil || len(last) == 0 || mail.KindOf(cause) != mail.KindTemporary {
		return nil, cause
	}
	if errors.Is(cause, mail.ErrSilent) {
		// A server that is only slow may store what it has been sent after we have
		// looked: what is in doubt is left to another run.
		return nil, cause
	}
	if t, ok := errors.AsType[*Throttled](cause); ok {
		if s.waits++; s.waits > throttles {
			return nil, cause
		}
		if err := s.throttled(ctx, t, cause); err != nil {
			return nil, err
		}
	} else {
		if s.losses++; s.losses >= attempts {
			return nil, cause
		}
		if err := s.wait(ctx, s.Pause<<(s.losses-1), cause); err != nil {
			return nil, err
		}
	}
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	var rest []*item
	for _, p := range last {
		switch {
		case p.arrived:
			s.losses, s.waits = 0, 0
		case p.answer.Refused != nil:
			s.losses = 0 // Exchange ends the connection after ten refusals
		case p.answer.Unsent == nil && !p.missing:
			rest = append(rest, p.item)
		}
	}
	return rest, nil
}

// check finds out what became of everything that is not settled.
func (s *sender) check(ctx context.Context) error {
	if len(s.pend) == 0 {
		return nil
	}
	pend := s.pend
	if err := s.again(ctx, func() error { return s.settle(ctx, pend) }); err != nil {
		return err
	}
	s.pend = s.pend[:0:0]
	return nil
}

// finish settles what is left; a run that is being ended takes a little time for
// it, and what is left then the next run settles.
func (s *sender) finish(ctx context.Context) error {
	if s.unsent > 0 {
		s.Notify(mail.Event{Kind: mail.EventWarning, Ref: s.ref(mail.Ref{}), Err: &mail.Error{
			Kind: mail.KindPartial, Ref: s.ref(mail.Ref{}), Op: "upload", Err: errFull(s.unsent),
			Hint: "make room at the destination, then run the same command again"}})
	}
	if ctx.Err() != nil {
		ended, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if len(s.pend) > 0 {
			_ = s.settle(ended, s.pend) // what is not settled is looked for by the next run
		}
		return nil
	}
	return s.check(ctx)
}
