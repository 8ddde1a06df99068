package upload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailhaul/mail"
)

// box is the work on one mailbox of the destination.
type box struct {
	*run
	job    *job
	counts Counts
	err    error // why it could not be completed

	validity uint32 // UIDVALIDITY of what is known
	state    Box    // zero until opened
	open     []mail.Upload
	arrived  []arrival
	claimed  map[uint32]bool // UIDs of claims; built when first needed
	stale    map[int64]int64 // claims of another UIDVALIDITY: size at the destination, by message
	lost     int             // messages the server said it had, and has not
	cut      int             // messages of which it has a part only

	todo    []int64 // ids of messages that the destination may lack
	need    need    // of todo
	flags   []flagWork
	dropped map[string]int // flags that the mailbox cannot store, and at how many messages
	stream
}

// arrival is a message known to be at the destination.
type arrival struct {
	message int64
	claim   int64 // 0: its UID is not known
	uid     uint32
	size    int64      // at the destination
	flags   mail.Flags // at the source when it was sent
	fresh   bool       // by this very run
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

// know loads what the ledger has of the mailbox under this UIDVALIDITY.
func (b *box) know(ctx context.Context) (err error) {
	b.arrived, b.claimed, b.stale = nil, nil, nil
	shared := make(map[mail.Flags]mail.Flags) // few different ones
	account := b.Account
	err = b.Ledger.Claims(ctx, account, b.job.to, func(c mail.Claim) error {
		if !b.job.exists || c.UIDValidity != b.validity {
			if b.stale == nil {
				b.stale = make(map[int64]int64)
			}
			b.stale[c.Message] = c.Size
			return nil
		}
		if !c.Gone.IsZero() {
			return nil
		}
		f, ok := shared[c.Flags]
		if !ok {
			f = c.Flags
			shared[f] = f
		}
		uid, _ := strconv.ParseUint(c.UID, 10, 32) // 0: unknown
		b.arrived = append(b.arrived, arrival{message: c.Message, claim: c.ID, uid: uint32(uid), size: c.Size, flags: f})
		return nil
	})
	if err != nil {
		return err
	}
	err = b.Ledger.Uploads(ctx, account, b.job.to, func(u mail.Upload) error {
		if u.UID == "" && b.job.exists && u.UIDValidity == b.validity {
			b.arrived = append(b.arrived, arrival{message: u.Message})
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.sortArrived()
	b.open, err = b.Ledger.OpenUploads(ctx, account, b.job.to)
	return err
}

func (b *box) sortArrived() {
	slices.SortFunc(b.arrived, func(x, y arrival) int {
		switch {
		case x.message != y.message && x.message < y.message:
			return -1
		case x.message != y.message:
			return 1
		}
		return int(min(max(y.claim-x.claim, -1), 1)) // the newest claim first
	})
}

func (b *box) find(message int64) (arrival, bool) {
	i, ok := slices.BinarySearchFunc(b.arrived, message, func(a arrival, m int64) int {
		switch {
		case a.message < m:
			return -1
		case a.message > m:
			return 1
		}
		return 0
	})
	if !ok {
		return arrival{}, false
	}
	return b.arrived[i], true
}

// stillThere drops what the server no longer has: it is to be put back.
func (b *box) stillThere(ctx context.Context) error {
	if len(b.arrived) == 0 {
		return nil
	}
	if err := b.enter(ctx); err != nil {
		return err
	}
	sizes := make(map[uint32]int64)
	err := b.Destination.List(ctx, b.state, 1, func(in mail.Info) error {
		sizes[number(in.Ref.UID)] = in.Size
		return nil
	})
	if err != nil {
		return err
	}
	b.arrived = slices.DeleteFunc(b.arrived, func(a arrival) bool {
		size, there := sizes[a.uid]
		return a.uid != 0 && (!there || size != a.size)
	})
	return nil
}

func number(uid string) uint32 {
	n, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
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

// prepare makes and opens the mailbox. If it is another one than was listed, what
// is known of it is looked at anew.
func (b *box) prepare(ctx context.Context) error {
	if !b.job.exists {
		if len(b.todo) == 0 && !b.streaming {
			return nil
		}
		if err := b.create(ctx); err != nil {
			return err
		}
	}
	if b.Subscribe {
		if s, ok := b.Destination.(Subscriber); ok {
			if err := s.Subscribe(ctx, b.job.to); err != nil {
				b.warn(err)
			}
		}
	}
	if err := b.enter(ctx); err != nil {
		return err
	}
	if b.job.exists && b.state.UIDValidity != b.validity {
		return &mail.Error{Kind: mail.KindTemporary, Ref: b.ref(mail.Ref{}), Op: "open mailbox", Err: ErrUIDValidity,
			Hint: "run the same command again"}
	}
	b.job.exists = true
	return nil
}

// create makes the mailbox, under another name if the destination refuses its own.
func (b *box) create(ctx context.Context) error {
	refused := b.again(ctx, func() error { return b.Destination.Create(ctx, b.job.to) })
	if !refusesName(refused) {
		return refused
	}
	for _, name := range b.job.fallback {
		err := b.again(ctx, func() error { return b.Destination.Create(ctx, name) })
		if refusesName(err) {
			continue
		}
		if err != nil {
			return err
		}
		b.warn(fmt.Errorf("mailbox %s: the destination cannot have such a name; it becomes %s (%w)", b.job.to, name, refused))
		b.job.to = name
		return b.startOver(ctx)
	}
	return refused
}

// refusesName tells whether another name may do.
func refusesName(err error) bool {
	switch mail.KindOf(err) {
	case mail.KindPartial, mail.KindLacking, mail.KindOther:
		var e *mail.Error
		return errors.As(err, &e) && !errors.Is(err, ErrOverQuota)
	}
	return false
}

// startOver looks at the mailbox again, which has another name now and may have
// been there.
func (b *box) startOver(ctx context.Context) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	b.job.exists, b.validity = true, b.state.UIDValidity
	if err := b.know(ctx); err != nil {
		return err
	}
	b.counts, b.todo, b.need, b.flags = Counts{}, nil, need{}, nil
	return b.sort(ctx)
}

// enter asks for the mailbox's state.
func (b *box) enter(ctx context.Context) error {
	return b.again(ctx, func() (err error) {
		b.state, err = b.Destination.Open(ctx, b.job.to)
		return err
	})
}

// again does what may be repeated, while the connection is lost.
func (b *box) again(ctx context.Context, f func() error) error {
	pause := b.Pause
	for try := 1; ; try++ {
		err := f()
		if err == nil || try >= attempts || mail.KindOf(err) != mail.KindTemporary || errors.Is(err, ErrUIDValidity) {
			return err
		}
		if t, ok := errors.AsType[*Throttled](err); ok {
			if err := b.throttled(ctx, t, err); err != nil {
				return err
			}
			continue
		}
		if err := b.wait(ctx, pause, err); err != nil {
			return err
		}
		pause *= 2
	}
}

// throttled waits as long as the server wants.
func (b *box) throttled(ctx context.Context, t *Throttled, why error) error {
	d := t.Wait
	if d <= 0 {
		d = throttlePauses * b.Pause
	}
	d = min(d, longestWait)
	return b.pause(ctx, d, why, "the server asks for "+d.Round(time.Second).String())
}

func (b *box) wait(ctx context.Context, d time.Duration, why error) error {
	return b.pause(ctx, d, why, "connection lost, trying again")
}

func (b *box) pause(ctx context.Context, d time.Duration, why error, text string) error {
	b.Notify(mail.Event{Kind: mail.EventWaiting, Ref: b.ref(mail.Ref{}), Err: why, Waiting: text})
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isClaimed tells whether a UID is that of a known message.
func (b *box) isClaimed(uid uint32) bool {
	if b.claimed == nil {
		b.claimed = make(map[uint32]bool, len(b.arrived))
		for _, a := range b.arrived {
			if a.uid != 0 {
				b.claimed[a.uid] = true
			}
		}
	}
	return b.claimed[uid]
}

// known notes that messages have arrived.
func (b *box) known(message int64, uid uint32) {
	b.isClaimed(0)
	if uid != 0 {
		b.claimed[uid] = true
	}
	b.arrived = append(b.arrived, arrival{message: message, uid: uid, fresh: true})
}

// drop takes what has arrived off the list.
func (b *box) drop(arrived map[int64]bool) {
	b.todo = slices.DeleteFunc(b.todo, func(id int64) bool { return arrived[id] })
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
