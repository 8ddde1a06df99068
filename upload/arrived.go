package upload

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"mailhaul/mail"
)

// arrival is a message known to be at the destination.
type arrival struct {
	message int64
	claim   int64 // 0: its UID is not known
	uid     uint32
	size    int64      // at the destination
	flags   mail.Flags // at the source when it was sent
	fresh   bool       // by this very run
}

// know loads what the ledger has of the mailbox under this UIDVALIDITY.
func (b *box) know(ctx context.Context) (err error) {
	b.arrived, b.claimed, b.stale, b.untrue = nil, nil, nil, nil
	shared := make(map[mail.Flags]mail.Flags) // few different ones
	account := b.Account
	err = b.Ledger.Claims(ctx, account, b.job.to, func(c mail.Claim) error {
		if !b.job.exists || c.UIDValidity != b.validity || !c.Gone.IsZero() {
			if b.stale == nil {
				b.stale = make(map[int64]int64)
			}
			b.stale[c.Message] = c.Size
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
	if err := b.doubt(ctx); err != nil {
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

// doubt finds out whether the mailbox was set back, by a backup of the server or for
// another one that has its UIDVALIDITY by chance: UIDs that messages had are still to
// be given. Then nothing that is known of it holds.
func (b *box) doubt(ctx context.Context) error {
	if !b.job.exists || b.restoring {
		return nil
	}
	var top uint32
	for _, a := range b.arrived {
		top = max(top, a.uid)
	}
	isBack := func(next uint32) bool { return next != 0 && next <= top }
	if b.state.UIDValidity == 0 && isBack(b.job.there.UIDNext) { // the listing may be late
		if err := b.enter(ctx); err != nil {
			return err
		}
	}
	if b.state.UIDValidity != b.validity || !isBack(b.state.UIDNext) {
		return nil
	}
	if b.stale == nil {
		b.stale = make(map[int64]int64)
	}
	for _, a := range b.arrived {
		b.stale[a.message] = a.size
		b.untrue = append(b.untrue, a.claim)
	}
	b.arrived = nil
	return nil
}

// forget records what doubt found.
func (b *box) forget(ctx context.Context) error {
	if len(b.untrue) == 0 {
		return nil
	}
	b.warn(&mail.Error{Ref: b.ref(mail.Ref{}), Op: "open mailbox",
		Err: fmt.Errorf("it was set back: it will give UIDs again that %d messages had; what is there is recognised by content", len(b.untrue))})
	err := b.Ledger.Record(ctx, mail.Change{Gone: b.untrue})
	if err == nil {
		b.untrue = nil
	}
	return err
}

func (b *box) sortArrived() {
	slices.SortFunc(b.arrived, func(x, y arrival) int {
		return cmp.Or(cmp.Compare(x.message, y.message), cmp.Compare(y.claim, x.claim)) // the newest claim first
	})
}

func (b *box) find(message int64) (arrival, bool) {
	i, ok := slices.BinarySearchFunc(b.arrived, message, func(a arrival, m int64) int { return cmp.Compare(a.message, m) })
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
