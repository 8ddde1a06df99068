package upload

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mailhaul/mail"
)

// box is the work on one mailbox of the destination.
type box struct {
	*run
	job    *job
	counts Counts
	err    error // why it could not be completed
	done   bool  // it was: what was not reached, or was interrupted, need not have an error

	validity uint32 // UIDVALIDITY of what is known
	state    Box    // zero until opened
	open     []mail.Upload
	arrived  []arrival
	claimed  map[uint32]bool // UIDs of claims; built when first needed
	untrue   []int64         // claims on UIDs that the mailbox has not given: it was set back
	stale    map[int64]int64 // claims that do not hold any more: size at the destination, by message
	lost     int             // messages the server said it had, and has not
	cut      int             // messages of which it has a part only

	todo    []int64 // ids of messages that the destination may lack
	need    need    // of todo
	flags   []flagWork
	dropped map[string]int // flags that the mailbox cannot store, and at how many messages
	stream
}

type flagWork struct {
	arrival
	now mail.Flags
}

func (b *box) ref(in mail.Ref) mail.Ref {
	return mail.Ref{Account: b.Destination.Account(), Mailbox: b.job.to, UID: in.UID}
}

// survey finds out what is to be done, without changing anything.
func (b *box) survey(ctx context.Context) error {
	if err := b.recall(ctx); err != nil {
		return err
	}
	if err := b.sort(ctx); err != nil {
		return err
	}
	if err := b.recognise(ctx); err != nil {
		return err
	}
	b.Notify(mail.Event{Kind: mail.EventMailbox, Ref: b.ref(mail.Ref{}), N: int64(len(b.todo)), Octets: b.need.octets})
	if !b.hasWork() {
		b.arrived = nil // all mailboxes are looked at before the first is worked on
	}
	return nil
}

// recall learns what is known of the mailbox, under its UIDVALIDITY.
func (b *box) recall(ctx context.Context) error {
	b.validity = b.job.there.UIDValidity
	if b.job.exists && b.validity == 0 { // the list did not tell
		if err := b.enter(ctx); err != nil {
			return err
		}
		b.validity = b.state.UIDValidity
	}
	if err := b.know(ctx); err != nil {
		return err
	}
	if b.restoring && b.job.exists {
		return b.stillThere(ctx)
	}
	return nil
}

func (b *box) hasWork() bool { return len(b.todo)+len(b.open)+len(b.flags) > 0 }

// do does the last of the work.
func (b *box) do(ctx context.Context, last func(context.Context) error) error {
	err := last(ctx)
	b.done = err == nil && ctx.Err() == nil
	return err
}

// work brings the mailbox up to date.
func (b *box) work(ctx context.Context) error {
	switch {
	case b.DryRun:
		return b.foresee(ctx)
	case !b.hasWork():
		return nil
	case !b.job.exists && b.isFull(): // do not make what stays empty
		return b.send(ctx)
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if len(b.open) > 0 {
		if err := b.again(ctx, func() error { return b.settleOpen(ctx, b.open) }); err != nil {
			return err
		}
	}
	if err := b.again(ctx, func() error { return b.adopt(ctx) }); err != nil {
		return err
	}
	err := b.send(ctx)
	if err == nil {
		err = b.setFlags(ctx)
	}
	b.tellDropped()
	if err == nil {
		err = b.lostError()
	}
	return err
}

// lostError tells of messages that the server said it had, and has not, or not
// whole.
func (b *box) lostError() error {
	if b.cut > 0 {
		return &mail.Error{Kind: mail.KindIntegrity, Ref: b.ref(mail.Ref{}), Op: "upload",
			Err:  fmt.Errorf("the server kept a part only of %d messages", b.cut),
			Hint: "they are not sent again; see what the server does to large or odd messages, and remove the parts there"}
	}
	if b.lost == 0 {
		return nil
	}
	return &mail.Error{Kind: mail.KindIntegrity, Ref: b.ref(mail.Ref{}), Op: "upload",
		Err:  fmt.Errorf("the server said that it has %d messages that are not there", b.lost),
		Hint: "run the same command again to send them again"}
}

// sort looks at every selected message: it is there, or it is to be sent.
func (b *box) sort(ctx context.Context) error {
	for _, from := range b.job.from {
		err := b.Messages.Messages(ctx, from, func(h mail.Held) error {
			rc := h.Receipt
			if match, _ := b.Selection.Match(rc.Info); !match {
				return nil
			}
			if b.isVanished(h.Message) {
				b.counts.Gone++
				if b.Present {
					return nil
				}
			}
			b.counts.Listed++
			a, there := b.find(h.Message)
			switch {
			case there && a.fresh: // counted when it arrived
				return nil
			case b.refused[h.Message]: // likewise
				return nil
			case there:
				b.counts.Skipped++
				now := rc.Info.Flags.Without(mail.Deleted)
				if a.claim != 0 && a.uid != 0 && a.flags != now && !b.restoring {
					b.flags = append(b.flags, flagWork{a, now})
				}
			case rc.Place == "":
				b.failed(rc.Info.Ref, &mail.Error{Kind: mail.KindIntegrity, Ref: b.ref(rc.Info.Ref), Op: "read message",
					Err:  fmt.Errorf("the archive has lost the message with the digest %s", rc.Digest),
					Hint: "mailhaul verify names what is missing"})
			default:
				b.todo = append(b.todo, h.Message)
				b.need.add(rc.Wire, b.limit)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *box) failed(ref mail.Ref, err error) {
	b.counts.Failed++
	b.Notify(mail.Event{Kind: mail.EventFailed, Ref: b.ref(ref), Err: err})
}

// recognise finds out, in a dry run, what of it all is there already: by size and
// header. A run compares the octets of most, too, and finds those that mbsync marked
// or the server altered. The mailbox is not selected: that would end \Recent.
func (b *box) recognise(ctx context.Context) error {
	if !b.DryRun || !b.job.exists || b.job.there.Messages == 0 || len(b.todo) == 0 {
		return nil
	}
	if there := b.job.there; b.state.UIDValidity == 0 { // else the list did not tell
		b.state = Box{Name: b.job.to, UIDValidity: there.UIDValidity, UIDNext: there.UIDNext, Messages: there.Messages}
	}
	if err := b.again(ctx, func() error { return b.adopt(ctx) }); err != nil {
		return err
	}
	b.need = need{}
	for _, id := range b.todo {
		h, err := b.Messages.Message(ctx, id)
		if err != nil {
			return err
		}
		b.need.add(h.Receipt.Wire, b.limit)
	}
	return nil
}

// foresee counts what a run would send.
func (b *box) foresee(ctx context.Context) error {
	for _, id := range b.todo {
		h, err := b.Messages.Message(ctx, id)
		if err != nil {
			return err
		}
		if err := b.tooBig(h); err != nil {
			b.failed(h.Receipt.Info.Ref, err)
			continue
		}
		b.counts.Uploaded++
		b.counts.Octets += h.Receipt.Wire
	}
	b.counts.Flags = int64(len(b.flags))
	return nil
}

func (b *box) tooBig(h mail.Held) error {
	if b.limit == 0 || h.Receipt.Wire <= b.limit {
		return nil
	}
	return &mail.Error{Kind: mail.KindPartial, Ref: b.ref(mail.Ref{}), Op: "append " + describe(h),
		Err: fmt.Errorf("it has %d octets, and the server takes %d (APPENDLIMIT)", h.Receipt.Wire, b.limit)}
}

// describe names a message that has no UID at the destination yet.
func describe(h mail.Held) string { return describeReceipt(h.Receipt) }

func describeReceipt(rc mail.Receipt) string {
	s := fmt.Sprintf("message %.12s", rc.Digest)
	if rc.Info.Ref.Mailbox != "" {
		s = rc.Info.Ref.Mailbox + " " + s
	}
	if rc.Place != "" {
		s += " (" + rc.Place + ")"
	}
	return s
}

// storable returns what the mailbox can store of flags, and counts the rest.
func (b *box) storable(flags mail.Flags) mail.Flags {
	keep := b.state.Storable(flags)
	if keep != flags {
		for _, f := range flags.Without(mail.Deleted).Without(keep.List()...).List() {
			if b.dropped == nil {
				b.dropped = make(map[string]int)
			}
			b.dropped[f]++
		}
	}
	return keep
}

// tellDropped says which flags the mailbox cannot store.
func (b *box) tellDropped() {
	if len(b.dropped) == 0 {
		return
	}
	var all []string
	for _, f := range slices.Sorted(maps.Keys(b.dropped)) {
		all = append(all, fmt.Sprintf("%s (%d messages)", f, b.dropped[f]))
	}
	b.Notify(mail.Event{Kind: mail.EventWarning, Ref: b.ref(mail.Ref{}), Err: &mail.Error{Ref: b.ref(mail.Ref{}), Op: "upload",
		Err: fmt.Errorf("the mailbox cannot store these flags: %s", strings.Join(all, ", "))}})
}
