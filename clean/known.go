package clean

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"

	"mailhaul/mail"
)

// known is what the ledger has of one mailbox, as compact as can be: there may be
// hundreds of thousands of messages.
type known struct {
	seed    maphash.Seed
	rows    []row            // live claims, by key
	reasons map[int64]string // why messages are suspicious
	open    []mail.Deletion
	ours    map[place]bool       // of open
	listed  map[place]mail.Flags // what the server shows now of open
}

// place is a message at the server.
type place struct {
	validity uint32
	uid      string
}

// row is a claim and the message that it holds.
type row struct {
	key            uint64 // hash of its place, of a secret seed
	claim, message int64
	size           int64 // as listed when it was claimed
	date           int64 // Unix seconds
	state          state
}

type state uint8

const (
	fetched state = 1 << iota // its octets came under this UID
	held                      // the message was looked up
	dated                     // INTERNALDATE is more than the time of fetching
	missing                   // the archive has lost the message
)

func newKnown() *known {
	return &known{seed: maphash.MakeSeed(), reasons: make(map[int64]string)}
}

func (p *planner) known(ctx context.Context, mb mail.Mailbox) (*known, error) {
	k := newKnown()
	account := p.Source.Account()
	err := p.Ledger.Claims(ctx, account, mb.Name, func(c mail.Claim) error {
		if !c.Gone.IsZero() {
			return nil
		}
		r := row{key: k.key(place{c.UIDValidity, c.UID}), claim: c.ID, message: c.Message, size: c.Size}
		if c.Fetched {
			r.state |= fetched
		}
		k.rows = append(k.rows, r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := p.hold(ctx, k, mb.Name); err != nil {
		return nil, err
	}
	slices.SortFunc(k.rows, func(a, b row) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(b.claim, a.claim)) })
	open, err := p.Ledger.OpenDeletions(ctx, account, mb.Name)
	k.expect(open)
	return k, err
}

// hold looks up the messages that are claimed: side by side with those of the
// mailbox, and one by one what lies in another mailbox of the archive. What was moved
// to the trash is claimed there, and stays where it was archived.
func (p *planner) hold(ctx context.Context, k *known, mailbox string) error {
	slices.SortFunc(k.rows, func(a, b row) int { return cmp.Compare(a.message, b.message) })
	next := 0
	err := p.Ledger.Messages(ctx, mailbox, func(h mail.Held) error {
		for next < len(k.rows) && k.rows[next].message < h.Message {
			next++
		}
		for next < len(k.rows) && k.rows[next].message == h.Message {
			k.hold(next, h)
			next++
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range k.rows {
		if k.rows[i].state&held != 0 {
			continue
		}
		h, err := p.Ledger.Message(ctx, k.rows[i].message)
		if err != nil {
			return err
		}
		k.hold(i, h)
	}
	return nil
}

func (k *known) hold(i int, h mail.Held) {
	r, in := &k.rows[i], h.Receipt.Info
	r.state |= held
	r.date = in.InternalDate.Unix()
	if !in.InternalDate.IsZero() && in.DateFrom != mail.DateFetched && in.DateFrom != mail.DateUnknown {
		r.state |= dated
	}
	if h.Receipt.Place == "" {
		r.state |= missing
	}
	if h.Suspicious != "" {
		k.reasons[h.Message] = h.Suspicious
	}
}

func (k *known) key(at place) uint64 { return maphash.Comparable(k.seed, at) }

// find returns the newest claim on a message at the server.
func (k *known) find(at place) (r row, claimed bool) {
	i, claimed := slices.BinarySearchFunc(k.rows, k.key(at), func(r row, key uint64) int { return cmp.Compare(r.key, key) })
	if !claimed {
		return row{}, false
	}
	return k.rows[i], true
}

// expect takes the open intents.
func (k *known) expect(open []mail.Deletion) {
	k.open = open
	k.ours = make(map[place]bool, len(open))
	k.listed = make(map[place]mail.Flags, len(open))
	for _, d := range open {
		k.ours[place{d.Claim.UIDValidity, d.Claim.UID}] = true
	}
}

// note remembers what is shown of a message with an open intent.
func (k *known) note(at place, flags mail.Flags) {
	if k.ours[at] {
		k.listed[at] = flags
	}
}

// settle records what a complete listing says of intents whose outcome was not
// known: the message is there or it is not. One that is there with \Deleted stays
// open: the mark is ours, and what is to come of it is for a later order.
func (k *known) settle(ctx context.Context, ledger Ledger) (open map[int64][]int64, err error) {
	open = make(map[int64][]int64)
	var results []mail.DeletionResult
	for _, d := range k.open {
		flags, there := k.listed[place{d.Claim.UIDValidity, d.Claim.UID}]
		if there && flags.Has(mail.Deleted) {
			open[d.Claim.ID] = append(open[d.Claim.ID], d.ID)
			continue
		}
		results = append(results, mail.DeletionResult{ID: d.ID, Gone: !there})
	}
	if len(results) == 0 {
		return open, nil
	}
	return open, ledger.SettleDeletions(ctx, results)
}

// holds tells whether a message is archived under its UID, as far as can be told.
func (k *known) holds(in mail.Info) bool {
	claim, claimed := k.find(place{in.Ref.UIDValidity, in.Ref.UID})
	return in.Ref.UID == "" || claimed && (claim.size < 0 || in.Size < 0 || claim.size == in.Size)
}
