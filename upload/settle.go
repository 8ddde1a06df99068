package upload

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailhaul/mail"
)

func errFull(n int64) error {
	return fmt.Errorf("the destination has no space left: %d messages were not sent", n)
}

// settleOpen finds out what arrived of what an earlier run may have sent.
func (b *box) settleOpen(ctx context.Context, open []mail.Upload) error {
	var pend []*pending
	for _, u := range open {
		h, err := b.Messages.Message(ctx, u.Message)
		if err != nil {
			return err
		}
		repaired := h.Receipt.Digest != u.Digest
		h.Receipt.Digest = u.Digest // what was sent then
		p := &pending{intent: u.ID, from: u.UIDNext, held: h, wire: -1}
		if u.UIDValidity != b.state.UIDValidity || u.UIDNext > b.state.UIDNext {
			p.from = 1 // compared with all there is
		}
		if u.UIDNext == 0 || !b.job.exists {
			p.from = 0 // nothing was sent, or there is nothing
		}
		if !h.Receipt.Inexact && !repaired {
			p.wire = h.Receipt.Wire
		}
		pend = append(pend, p)
	}
	return b.settle(ctx, pend)
}

// settle finds out what became of messages that were sent or may have been, and
// records it. It changes nothing if it fails.
func (b *box) settle(ctx context.Context, pend []*pending) error {
	flags, err := b.look(ctx, pend)
	if err != nil {
		return err
	}
	if err := b.restoreFlags(ctx, pend, flags); err != nil {
		return err
	}
	results := make([]mail.Uploaded, len(pend))
	for i, p := range pend {
		results[i] = mail.Uploaded{ID: p.intent, Arrived: p.arrived, Altered: p.altered, Info: mail.Info{
			Ref:  mail.Ref{UIDValidity: b.state.UIDValidity},
			Size: p.size, Flags: p.held.Receipt.Info.Flags.Without(mail.Deleted),
		}}
		if p.uid != 0 {
			results[i].Info.Ref.UID = strconv.FormatUint(uint64(p.uid), 10)
		}
	}
	if err := b.Ledger.SettleUploads(ctx, results); err != nil {
		return err
	}
	b.account(pend)
	return nil
}

// looks is how often in all a server is asked for what it said it has stored: a busy
// one may show the mailbox as it was, for a moment.
const looks = 3

// look finds out where messages are, if they are, and with which flags.
func (b *box) look(ctx context.Context, pend []*pending) (flags map[uint32]mail.Flags, err error) {
	for n := 1; ; n++ {
		var sizes map[uint32]int64
		if sizes, flags, err = b.since(ctx, pend); err != nil {
			return nil, err
		}
		if err := b.confirm(ctx, pend, sizes); err != nil {
			return nil, err
		}
		if err := b.match(ctx, pend, sizes); err != nil {
			return nil, err
		}
		if n >= looks || !slices.ContainsFunc(pend, func(p *pending) bool { return p.missing }) {
			return flags, nil
		}
		if err := b.pause(ctx, time.Duration(n)*b.Pause, errNotShown, errNotShown.Error()); err != nil {
			return nil, err
		}
	}
}

var errNotShown = errors.New("the server does not show what it says it has stored, looking again")

// since lists what came to the mailbox since the first of these was to be sent and
// is not known.
func (b *box) since(ctx context.Context, pend []*pending) (map[uint32]int64, map[uint32]mail.Flags, error) {
	sizes, flags := make(map[uint32]int64), make(map[uint32]mail.Flags)
	from := uint32(0)
	for _, p := range pend {
		if p.from != 0 && (from == 0 || p.from < from) {
			from = p.from
		}
	}
	if from == 0 {
		return sizes, flags, nil
	}
	next := b.state.UIDNext
	err := b.Destination.List(ctx, b.state, from, func(in mail.Info) error {
		uid := number(in.Ref.UID)
		if !b.isClaimed(uid) {
			sizes[uid], flags[uid] = in.Size, in.Flags
		}
		if uid >= next && uid < math.MaxUint32 {
			next = uid + 1
		}
		return nil
	})
	if err == nil {
		b.state.UIDNext = next // what is sent from now on lies above
	}
	return sizes, flags, err
}

// restoreFlags stores the flags that servers do not take with a message: Exchange
// forgets \Flagged.
func (b *box) restoreFlags(ctx context.Context, pend []*pending, there map[uint32]mail.Flags) error {
	f, ok := b.Destination.(Flagger)
	if !ok {
		return nil
	}
	var changes []FlagChange
	for _, p := range pend {
		has, listed := there[p.uid]
		if lacking := lacking(p.flags, has); p.arrived && listed && lacking != "" {
			changes = append(changes, FlagChange{UID: p.uid, Add: lacking})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	err := f.SetFlags(ctx, b.state, changes)
	if err != nil && mail.KindOf(err) != mail.KindTemporary {
		b.warn(err)
		return nil
	}
	return err
}

// lacking returns the flags that has lacks, in whatever case (RFC 9051 section 2.3.2).
func lacking(flags, has mail.Flags) mail.Flags {
	if flags == has {
		return ""
	}
	there := has.List()
	return mail.NewFlags(slices.DeleteFunc(flags.List(), func(f string) bool {
		return slices.ContainsFunc(there, func(g string) bool { return strings.EqualFold(f, g) })
	})...)
}

// confirm checks what the server says it stored, and where: that it is there, and
// as long as it should be; octets where it is not or where servers alter them.
func (b *box) confirm(ctx context.Context, pend []*pending, sizes map[uint32]int64) error {
	var look []uint32
	forgetDoubled(pend)
	for _, p := range pend {
		p.arrived, p.missing, p.altered = false, false, mail.Digest{}
		if !p.answer.Stored || p.answer.UID == 0 {
			continue
		}
		size, there := sizes[p.answer.UID]
		delete(sizes, p.answer.UID)
		p.arrived, p.missing, p.uid, p.size = there, !there, p.answer.UID, size
		if there && (size != p.wire || p.risky) {
			look = append(look, p.uid)
		}
	}
	found, err := b.octets(ctx, look)
	if err != nil {
		return err
	}
	for _, p := range pend {
		if s, looked := found[p.uid]; looked && p.arrived && s.Digest != p.held.Receipt.Digest {
			p.altered = s.Digest
		}
	}
	return nil
}

// forgetDoubled forgets a UID that the server gave to several messages: it does not
// have them all, and only their octets tell which.
func forgetDoubled(pend []*pending) {
	given := make(map[uint32]int, len(pend))
	for _, p := range pend {
		given[p.answer.UID]++
	}
	for _, p := range pend {
		if given[p.answer.UID] > 1 {
			p.answer.UID = 0
		}
	}
}

// match looks among what else is there for messages of which the server did not
// say where they are, each counted once.
func (b *box) match(ctx context.Context, pend []*pending, sizes map[uint32]int64) error {
	var open []*pending
	for _, p := range pend {
		if !p.arrived && !p.missing && p.from != 0 && p.answer.Unsent == nil {
			open = append(open, p)
		}
	}
	if len(open) == 0 {
		return nil
	}
	if err := b.matchHeaders(ctx, open, sizes); err != nil {
		return err
	}
	open = slices.DeleteFunc(open, func(p *pending) bool { return p.arrived })
	var look []uint32
	for uid, size := range sizes {
		if slices.ContainsFunc(open, func(p *pending) bool { return p.fits(size) || p.answer.Stored }) {
			look = append(look, uid)
		}
	}
	found, err := b.octets(ctx, look)
	if err != nil {
		return err
	}
	slices.Sort(look)
	take := func(p *pending, is func(mail.Sums) bool) {
		for i, uid := range look {
			s, there := found[uid]
			if !there || p.arrived || !is(s) {
				continue
			}
			p.arrived, p.uid, p.size = true, uid, sizes[uid]
			if s.Digest != p.held.Receipt.Digest {
				p.altered = s.Digest
			}
			look = slices.Delete(look, i, i+1)
			delete(sizes, uid)
			return
		}
	}
	for _, p := range open {
		take(p, func(s mail.Sums) bool { return s.Digest == p.held.Receipt.Digest })
	}
	for _, p := range open { // what the server altered
		if p.arrived {
			continue
		}
		risky, err := b.isRisky(ctx, p)
		if err != nil {
			return err
		}
		if risky {
			take(p, func(s mail.Sums) bool { return s.Header == p.held.Receipt.Header && p.near(s.Wire) })
		}
	}
	b.trust(open, look, found, sizes)
	return nil
}

// trust settles what the server says it stored, without saying where, and what is
// not found by its octets: the server rewrites messages. They lie in order.
func (b *box) trust(open []*pending, left []uint32, found map[uint32]mail.Sums, sizes map[uint32]int64) {
	for _, p := range open {
		if p.arrived || !p.answer.Stored {
			continue
		}
		if len(left) == 0 {
			p.missing = true
			continue
		}
		uid := left[0]
		left = left[1:]
		p.arrived, p.uid, p.size, p.altered = true, uid, sizes[uid], found[uid].Digest
	}
}

// matchHeaders finds what the server says it stored by size and header.
func (b *box) matchHeaders(ctx context.Context, open []*pending, sizes map[uint32]int64) error {
	type key struct {
		size   int64
		header mail.Digest
	}
	wanted := make(map[key][]*pending)
	bySize := make(map[int64]bool)
	for _, p := range open {
		if p.answer.Stored && !p.risky && p.wire >= 0 {
			k := key{p.wire, p.held.Receipt.Header}
			wanted[k] = append(wanted[k], p)
			bySize[p.wire] = true
		}
	}
	var look []uint32
	for uid, size := range sizes {
		if bySize[size] {
			look = append(look, uid)
		}
	}
	slices.Sort(look)
	headers, err := b.headers(ctx, look)
	if err != nil {
		return err
	}
	for _, uid := range look {
		k := key{sizes[uid], headers[uid]}
		if list := wanted[k]; len(list) > 0 {
			p := list[0]
			wanted[k] = list[1:]
			p.arrived, p.uid, p.size = true, uid, sizes[uid]
			delete(sizes, uid)
		}
	}
	return nil
}

// fits tells whether a message of this size may be the one that was sent.
func (p *pending) fits(size int64) bool {
	if p.wire >= 0 {
		return p.near(size)
	}
	return size >= p.held.Receipt.Octets-2 && size <= 2*p.held.Receipt.Octets+2
}

// near allows for the octets that servers add or take away.
func (p *pending) near(size int64) bool {
	const slack = 16
	wire := p.wire
	if wire < 0 {
		wire = p.held.Receipt.Wire
	}
	return size >= wire-slack-wire/100 && size <= wire+slack
}

// isRisky tells whether there are octets in the message that servers alter.
func (b *box) isRisky(ctx context.Context, p *pending) (bool, error) {
	if p.item != nil || p.held.Receipt.Place == "" {
		return p.risky, nil
	}
	r, err := b.Messages.Open(ctx, p.held.Receipt)
	if err != nil {
		return false, nil // it will be told when it is to be sent
	}
	defer r.Close()
	var it item
	if _, err := it.scan(r); err != nil {
		return false, nil
	}
	return it.risky, nil
}

// account counts and tells what was settled.
func (b *box) account(pend []*pending) {
	gone := make(map[int64]bool)
	todo := make(map[int64]bool)
	if len(pend) > 0 && pend[0].item == nil {
		for _, id := range b.todo {
			todo[id] = true
		}
	}
	var n, octets int64
	for _, p := range pend {
		ref := p.held.Receipt.Info.Ref
		switch {
		case p.truncated():
			b.known(p.held.Message, p.uid) // not to be sent again and again
			b.cut++
			b.failed(ref, &mail.Error{Kind: mail.KindIntegrity, Ref: b.ref(mail.Ref{UID: uidText(p.uid)}), Op: "append " + describe(p.held),
				Err: fmt.Errorf("the server kept %d of %d octets", p.size, p.wire)})
		case p.arrived:
			b.known(p.held.Message, p.uid)
			if !p.altered.IsZero() {
				b.counts.Altered++
				b.Notify(mail.Event{Kind: mail.EventWarning, Ref: b.ref(mail.Ref{}), Err: &mail.Error{Ref: b.ref(mail.Ref{UID: uidText(p.uid)}),
					Op: "upload", Err: fmt.Errorf("the server changed the octets of %s", describe(p.held))}})
			}
			switch {
			case p.item != nil:
				b.counts.Uploaded++
				b.counts.Octets += p.wire
				if p.item.repaired {
					b.counts.Repaired++
					b.Notify(mail.Event{Kind: mail.EventWarning, Ref: b.ref(mail.Ref{}), Err: &mail.Error{Ref: b.ref(mail.Ref{UID: uidText(p.uid)}),
						Op: "upload", Err: fmt.Errorf("a repaired copy of %s was sent: %w", describeReceipt(p.item.original), p.item.refusal)}})
				}
				n++
				octets += p.wire
			case todo[p.held.Message]:
				b.counts.Adopted++
				gone[p.held.Message] = true
			}
		case p.item == nil, p.retry:
		case p.missing:
			b.lost++
			b.final(p.held.Message) // it may be there under another UID: look before sending again
			b.failed(ref, &mail.Error{Kind: mail.KindIntegrity, Ref: b.ref(mail.Ref{}), Op: "append " + describe(p.held),
				Err: fmt.Errorf("the server said OK, and the message is not there")})
		case p.answer.Unsent != nil:
			b.failed(ref, &mail.Error{Kind: mail.KindIntegrity, Ref: b.ref(mail.Ref{}), Op: "read " + describe(p.held), Err: p.answer.Unsent})
		case p.answer.Refused != nil && !p.answer.Group:
			b.final(p.held.Message)
			b.failed(ref, fmt.Errorf("%s: %w", describe(p.held), p.answer.Refused))
		}
	}
	b.drop(gone)
	if n > 0 {
		b.Notify(mail.Event{Kind: mail.EventDone, Ref: b.ref(mail.Ref{}), N: n, Octets: octets})
	}
}

// truncated tells whether the server kept less than it was sent, of octets that no
// server has a reason to alter.
func (p *pending) truncated() bool {
	return p.arrived && p.item != nil && !p.risky && !p.altered.IsZero() && p.size < p.wire
}

func uidText(uid uint32) string {
	if uid == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(uid), 10)
}

// octets reads messages back and computes what can be compared.
func (b *box) octets(ctx context.Context, uids []uint32) (map[uint32]mail.Sums, error) {
	found := make(map[uint32]mail.Sums, len(uids))
	err := b.read(ctx, uids, false, func(uid uint32, s mail.Sums) { found[uid] = s })
	return found, err
}

func (b *box) headers(ctx context.Context, uids []uint32) (map[uint32]mail.Digest, error) {
	found := make(map[uint32]mail.Digest, len(uids))
	err := b.read(ctx, uids, true, func(uid uint32, s mail.Sums) { found[uid] = s.Header })
	return found, err
}

func (b *box) read(ctx context.Context, uids []uint32, header bool, take func(uint32, mail.Sums)) error {
	if len(uids) == 0 {
		return nil
	}
	slices.Sort(uids)
	return b.Destination.Read(ctx, b.state, uids, header, take)
}
