package vault

import (
	"context"
	"hash/maphash"
	"slices"

	"mailhaul/mail"
)

// recover puts right what an earlier run left, and what somebody else changed, in
// the mailboxes where that can be.
func (v *Vault) recover(ctx context.Context, notify mail.Notify) error {
	rebuild := v.Ledger.Opened().Rebuild
	names, err := v.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	if rebuild {
		found, err := v.raw.Mailboxes(ctx)
		if err != nil {
			return err
		}
		names = append(names, found...)
		slices.Sort(names)
		names = slices.Compact(names)
	}
	for _, name := range names {
		if err := v.recoverMailbox(ctx, name, rebuild); err != nil {
			return err
		}
	}
	if !rebuild {
		return nil
	}
	if len(names) > 0 {
		v.tellRebuilt(ctx, names, notify)
	}
	return v.Ledger.Rebuilt(ctx)
}

func (v *Vault) recoverMailbox(ctx context.Context, name string, rebuild bool) error {
	anchor, err := v.Ledger.Anchor(ctx, name)
	if err != nil {
		return err
	}
	// A Maildir that no run was writing to has nothing to recover; whether an
	// mbox was changed by somebody else the driver sees by its size and mtime.
	if !rebuild && !anchor.Open && anchor.Length == 0 && anchor.ModTime.IsZero() {
		return nil
	}
	places := &places{v: v, ctx: ctx, mailbox: name}
	found, err := v.raw.Recover(ctx, name, anchor, places.known)
	if err == nil {
		err = places.err
	}
	if err != nil {
		return err
	}
	switch {
	case found.All || !rebuild && (len(found.Receipts) > 0 || !same(found.Anchor, anchor)):
		return v.Ledger.Reanchor(ctx, name, found.Receipts, found.All, found.Anchor)
	case rebuild:
		return v.Ledger.ReanchorAll(ctx, name, v.raw.Receipts(ctx, name), found.Anchor)
	}
	return nil
}

func same(a, b mail.Anchor) bool {
	return a.Open == b.Open && a.Length == b.Length && a.ModTime.Equal(b.ModTime)
}

func (v *Vault) tellRebuilt(ctx context.Context, names []string, notify mail.Notify) {
	n := int64(0)
	for _, name := range names {
		_ = v.Ledger.Messages(ctx, name, func(mail.Held) error { n++; return nil })
	}
	if n > 0 {
		notify(mail.Event{Kind: mail.EventWarning, N: n, Err: errRebuilt})
	}
}

// places answers whether the ledger has a message at a place; it reads them when
// first asked, and keeps eight octets of each.
type places struct {
	v       *Vault
	ctx     context.Context
	mailbox string
	seed    maphash.Seed
	set     map[uint64]struct{}
	err     error
}

func (p *places) known(place string) bool {
	if p.set == nil {
		p.set = map[uint64]struct{}{}
		p.seed = maphash.MakeSeed()
		p.err = p.v.Ledger.Messages(p.ctx, p.mailbox, func(h mail.Held) error {
			if h.Receipt.Place != "" {
				p.set[maphash.String(p.seed, h.Receipt.Place)] = struct{}{}
			}
			return nil
		})
	}
	_, ok := p.set[maphash.String(p.seed, place)]
	return ok
}
