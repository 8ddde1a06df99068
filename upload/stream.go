package upload

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"mailhaul/mail"
)

// Stream is a Run to which messages are given while they become known. End does
// the rest of what Run does: it finds what is in the ledger and was not given, and
// lets flags follow.
type Stream struct {
	*run
	flows map[string]*flow // by mailbox of the source
	boxes []*box           // of the flows, in the order of their names
}

// flow is a mailbox of the destination that messages go to.
type flow struct {
	*box
	mu     sync.Mutex
	sender *sender
	begun  bool
}

// stream is what a box needs to know of the stream it is part of.
type stream struct {
	streaming bool
	strangers int64            // messages that were there and are not known
	listed    map[uint32]int64 // their sizes by UID; nil: not asked for
	refused   map[int64]bool   // not to be sent again in this run
}

// Begin makes the plan, as Run does, and sends nothing yet. o.Messages must know
// what Send is given, and must be safe for concurrent use.
func Begin(ctx context.Context, o Options) (*Stream, error) {
	r, jobs, err := begin(ctx, o)
	if err != nil {
		return nil, err
	}
	s := &Stream{run: r, flows: make(map[string]*flow)}
	for _, j := range jobs {
		f := &flow{box: &box{run: r, job: j, stream: stream{streaming: true, refused: make(map[int64]bool)}}}
		s.boxes = append(s.boxes, f.box)
		for _, from := range j.from {
			s.flows[from] = f
		}
	}
	return s, nil
}

// Ready makes and opens the mailbox that messages of this one go to, so that Send
// need not. An error is told by Send.
func (s *Stream) Ready(ctx context.Context, mailbox string) {
	f := s.flows[mailbox]
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && !f.begun {
		f.err = f.begin(ctx, nil)
	}
}

// Send sends messages of one mailbox, in this order. It may be called concurrently;
// what goes to one mailbox is sent one call after the other. It returns when the
// destination has answered; whether it tells the truth is found out later, at the
// latest by End. A message that is refused is no error. After an error the mailbox
// is left alone.
func (s *Stream) Send(ctx context.Context, mailbox string, ids []int64) error {
	f := s.flows[mailbox]
	if f == nil {
		return fmt.Errorf("mailbox %q is not part of the plan", mailbox)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = f.more(ctx, ids)
	}
	return f.err
}

// Settle finds out what became of everything that was sent from a mailbox, and
// returns how many of these messages the destination does not have.
func (s *Stream) Settle(ctx context.Context, mailbox string, ids []int64) (lacking int, err error) {
	f := s.flows[mailbox]
	if f == nil || f.sender == nil {
		return len(ids), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = f.sender.check(ctx)
	}
	arrived := make(map[int64]bool)
	for _, a := range f.arrived {
		arrived[a.message] = true
	}
	for _, id := range ids {
		if !arrived[id] {
			lacking++
		}
	}
	return lacking, f.err
}

// begin learns what is known of the mailbox and opens it.
func (f *flow) begin(ctx context.Context, ids []int64) error {
	b := f.box
	if err := b.recall(ctx); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	b.counts, b.todo, b.flags = Counts{}, ids, nil // prepare may have looked at all there is
	b.strangers = b.state.Messages - int64(len(b.arrived))
	if len(b.open) > 0 {
		if err := b.again(ctx, func() error { return b.settleOpen(ctx, b.open) }); err != nil {
			return err
		}
	}
	f.sender, f.begun = &sender{box: b}, true
	return nil
}

// more sends further messages.
func (f *flow) more(ctx context.Context, ids []int64) error {
	f.todo = ids
	if !f.begun {
		if err := f.begin(ctx, ids); err != nil {
			return err
		}
	}
	f.Notify(mail.Event{Kind: mail.EventMailbox, Ref: f.ref(mail.Ref{}), N: int64(len(ids))})
	if err := f.again(ctx, func() error { return f.adopt(ctx) }); err != nil {
		return err
	}
	return f.sender.pump(ctx)
}

// End completes every mailbox but those that skip says are complete already: it is
// told the mailbox, its UIDVALIDITY at the destination, and those whose messages go
// there. A mailbox that messages were given for is never skipped. If ctx has ended,
// only what was sent is settled, as far as that is quickly done.
func (s *Stream) End(ctx context.Context, skip func(to string, validity uint32, from []string) bool) (Result, error) {
	byBox := make(map[*box]*flow)
	for _, f := range s.flows {
		byBox[f.box] = f
	}
	var work []*box
	for _, b := range s.boxes {
		f := byBox[b]
		switch {
		case f.begun, b.err != nil:
			work = append(work, b)
		case ctx.Err() == nil && !(b.job.exists && b.job.there.UIDValidity != 0 && skip != nil && skip(b.job.to, b.job.there.UIDValidity, b.job.from)):
			work = append(work, b)
		}
	}
	if ctx.Err() != nil {
		for _, b := range work {
			if f := byBox[b]; f.begun {
				_ = f.sender.finish(ctx) // what is not settled now, the next run settles
			}
		}
		return conclude(ctx, work)
	}
	s.each(ctx, work, func(b *box, ctx context.Context) error { return b.do(ctx, byBox[b].end) })
	return conclude(ctx, work)
}

// end completes one mailbox.
func (f *flow) end(ctx context.Context) error {
	b := f.box
	if !f.begun {
		b.streaming = false
		if err := b.survey(ctx); err != nil {
			return err
		}
		return b.work(ctx)
	}
	if err := f.sender.finish(ctx); err != nil {
		return err
	}
	b.streaming = false
	b.sortArrived()
	b.todo, b.flags, b.need = nil, nil, need{}
	if err := b.sort(ctx); err != nil {
		return err
	}
	if len(b.todo) > 0 {
		b.state.Messages = b.strangers + int64(len(b.arrived)) // what is known now
		if err := b.again(ctx, func() error { return b.adopt(ctx) }); err != nil {
			return err
		}
		if err := b.send(ctx); err != nil {
			return err
		}
	}
	if err := b.setFlags(ctx); err != nil {
		return err
	}
	b.tellDropped()
	return b.lostError()
}

// hasStrangers tells whether there may be messages at the destination that nobody
// knows.
func (b *box) hasStrangers() bool {
	if b.streaming {
		return b.strangers > 0
	}
	return b.state.Messages > 0 && b.state.Messages != int64(len(b.arrived))
}

// listStrangers tells of the messages at the destination, in a stream once for all
// that nobody knew when it began.
func (b *box) listStrangers(ctx context.Context, take func(uid uint32, size int64)) error {
	if b.streaming && b.listed != nil {
		for uid, size := range b.listed {
			take(uid, size)
		}
		return nil
	}
	keep := make(map[uint32]int64)
	err := b.Destination.List(ctx, b.state, 1, func(in mail.Info) error {
		uid := number(in.Ref.UID)
		if b.streaming && !b.isClaimed(uid) {
			keep[uid] = in.Size
		}
		take(uid, in.Size)
		return nil
	})
	if err == nil && b.streaming {
		b.listed = keep
	}
	return err
}

// final notes that a message is not to be tried again in this run.
func (b *box) final(message int64) {
	if b.refused != nil {
		b.refused[message] = true
	}
}

// uidValidity is that of the mailbox at the destination as far as it is known.
func (b *box) uidValidity() uint32 {
	if b.state.UIDValidity != 0 {
		return b.state.UIDValidity
	}
	return b.validity
}

// Targets returns where each mailbox goes, by the names of the source.
func (s *Stream) Targets() map[string]string {
	to := make(map[string]string, len(s.flows))
	for from, f := range s.flows {
		to[from] = f.job.to
	}
	return to
}

// From returns the mailboxes of the source that are part of the plan, sorted.
func (s *Stream) From() []string {
	var all []string
	for from := range s.flows {
		all = append(all, from)
	}
	slices.Sort(all)
	return all
}
