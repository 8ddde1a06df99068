package upload

import (
	"context"
	"io"
	"slices"
	"strconv"

	"mailhaul/mail"
)

const (
	// adoptCount is how many adoptions are recorded at a time.
	adoptCount = 500
	// surelySame is the size from which two messages with one header and one size,
	// the only ones of their kind, are taken for equal without reading both if they
	// were delivered.
	surelySame = 64 << 10
	// headerStart is how many octets of a header are looked at for the trace of a delivery.
	headerStart = 16 << 10
)

// likeness is what messages are first compared by.
type likeness struct {
	size   int64
	header mail.Digest
}

// adopt finds messages to be sent among those that are at the destination and
// nobody claims, each counted once.
func (b *box) adopt(ctx context.Context) error {
	if len(b.todo) == 0 || !b.hasStrangers() {
		return nil
	}
	wanted, odd, err := b.wanted(ctx)
	if err != nil {
		return err
	}
	forms, err := b.otherForms(ctx, wanted)
	if err != nil {
		return err
	}
	foreign := make(map[uint32]int64)
	err = b.listStrangers(ctx, func(uid uint32, size int64) {
		_, ok := wanted[size]
		_, longer := wanted[size+finalNewline]
		_, marked := wanted[size-markWire]
		if (ok || longer || marked || odd.mayHave(size)) && !b.isClaimed(uid) {
			foreign[uid] = size
		}
	})
	if err != nil || len(foreign) == 0 {
		return err
	}
	found, err := b.compare(ctx, wanted, odd, foreign)
	if err != nil {
		return err
	}
	if b.DryRun { // other forms of a message are found by its octets only
		b.foreseeAdoptions(found)
		return nil
	}
	more, err := b.compareForms(ctx, forms, foreign, found)
	if err != nil {
		return err
	}
	found = append(found, more...)
	marked, err := b.compareMarked(ctx, wanted, foreign, found)
	if err != nil {
		return err
	}
	return b.recordAdoptions(ctx, append(found, marked...))
}

// form is what an earlier run sent of a message or found that the destination made
// of it, where that is not the message's own octets.
type form struct {
	held    mail.Held
	digest  mail.Digest
	altered bool // by the destination; else a repaired copy was sent
}

// otherForms returns the other forms of messages that were there under another
// UIDVALIDITY, and adds their sizes to wanted.
func (b *box) otherForms(ctx context.Context, wanted map[int64][]int64) ([]form, error) {
	if len(b.stale) == 0 {
		return nil, nil
	}
	todo := make(map[int64]bool, len(b.todo))
	for _, id := range b.todo {
		todo[id] = true
	}
	var sent []mail.Upload
	err := b.Ledger.Uploads(ctx, b.Account, b.job.to, func(u mail.Upload) error {
		if todo[u.Message] {
			sent = append(sent, u)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var forms []form
	for _, u := range sent {
		h, err := b.Messages.Message(ctx, u.Message)
		if err != nil {
			return nil, err
		}
		f := form{held: h, digest: u.Digest}
		if !u.Altered.IsZero() {
			f.digest, f.altered = u.Altered, true
		}
		if f.digest == h.Receipt.Digest {
			continue
		}
		size := b.stale[u.Message]
		if _, ok := wanted[size]; !ok {
			wanted[size] = nil
		}
		forms = append(forms, f)
	}
	return forms, nil
}

// compareForms finds messages by their other forms, unless found has them already.
func (b *box) compareForms(ctx context.Context, forms []form, foreign map[uint32]int64, found []found) ([]found, error) {
	taken, settled := make(map[uint32]bool), make(map[int64]bool)
	for _, f := range found {
		taken[f.uid], settled[f.message] = true, true
	}
	sizes := make(map[int64]bool)
	for _, f := range forms {
		if !settled[f.held.Message] {
			sizes[b.stale[f.held.Message]] = true
		}
	}
	var look []uint32
	for uid, size := range foreign {
		if sizes[size] && !taken[uid] {
			look = append(look, uid)
		}
	}
	octets, err := b.octets(ctx, look)
	if err != nil {
		return nil, err
	}
	found = found[:0:0]
	for _, f := range forms {
		if settled[f.held.Message] {
			continue
		}
		for _, uid := range look {
			if s, read := octets[uid]; read && !taken[uid] && s.Digest == f.digest {
				a := adoption(f.held, uid, foreign[uid])
				if f.altered {
					a.altered = f.digest
				} else {
					a.digest = f.digest
				}
				found = append(found, a)
				taken[uid], settled[f.held.Message] = true, true
				break
			}
		}
	}
	return found, nil
}

// finalNewline is what a copy without the newline at the end is shorter by: one
// that came over POP3 always has it.
const finalNewline = 2

// inexact are messages to be sent that are not sent as they came: their size at the
// destination depends on who put them there.
type inexact struct {
	by       map[mail.Digest][]int64 // by header
	min, max int64                   // sizes they may have
}

func (x *inexact) add(h mail.Held) {
	low, high := sizesOf(h)
	if len(x.by) == 0 {
		x.by, x.min, x.max = make(map[mail.Digest][]int64), low, high
	}
	x.min, x.max = min(x.min, low), max(x.max, high)
	x.by[h.Receipt.Header] = append(x.by[h.Receipt.Header], h.Message)
}

func (x *inexact) mayHave(size int64) bool {
	return len(x.by) > 0 && size >= x.min && size <= x.max
}

// sizesOf are the least and the most octets that a message may have on the wire:
// without its last LF, and with a CR for each.
func sizesOf(h mail.Held) (low, high int64) { return h.Receipt.Octets - 1, 2 * h.Receipt.Octets }

// wanted are the messages to be sent, by size, and which of them may have another.
func (b *box) wanted(ctx context.Context) (map[int64][]int64, *inexact, error) {
	by, odd := make(map[int64][]int64), new(inexact)
	for _, id := range b.todo {
		h, err := b.Messages.Message(ctx, id)
		if err != nil {
			return nil, nil, err
		}
		by[h.Receipt.Wire] = append(by[h.Receipt.Wire], id)
		if h.Receipt.Inexact {
			odd.add(h)
		}
	}
	return by, odd, nil
}

// found is a message of the destination that is one of ours.
type found struct {
	message int64
	digest  mail.Digest // of what was sent
	altered mail.Digest // of what the destination made of that; zero if nothing
	flags   mail.Flags
	uid     uint32
	size    int64
}

func (b *box) compare(ctx context.Context, wanted map[int64][]int64, odd *inexact, foreign map[uint32]int64) ([]found, error) {
	ours := make(map[likeness][]mail.Held)
	sizes := make(map[int64]bool)
	uids := make([]uint32, 0, len(foreign))
	for uid, size := range foreign {
		uids = append(uids, uid)
		sizes[size] = true
	}
	for size := range sizes {
		for _, id := range slices.Concat(wanted[size], wanted[size+finalNewline]) {
			h, err := b.Messages.Message(ctx, id)
			if err != nil {
				return nil, err
			}
			k := likeness{size, h.Receipt.Header}
			ours[k] = append(ours[k], h)
		}
	}
	headers, err := b.headers(ctx, uids)
	if err != nil {
		return nil, err
	}
	theirs := make(map[likeness][]uint32)
	for _, uid := range uids { // sorted by headers
		if header, ok := headers[uid]; ok {
			k := likeness{foreign[uid], header}
			theirs[k] = append(theirs[k], uid)
		}
	}
	for k := range theirs {
		for _, id := range odd.by[k.header] {
			h, err := b.Messages.Message(ctx, id)
			if err != nil {
				return nil, err
			}
			low, high := sizesOf(h)
			if k.size >= low && k.size <= high && !slices.ContainsFunc(ours[k], func(o mail.Held) bool { return o.Message == id }) {
				ours[k] = append(ours[k], h)
			}
		}
	}
	return b.pair(ctx, ours, theirs)
}

// pair pairs messages that are alike; their octets decide, unless there is no doubt.
func (b *box) pair(ctx context.Context, ours map[likeness][]mail.Held, theirs map[likeness][]uint32) ([]found, error) {
	var out []found
	var look []uint32
	paired := make(map[int64]bool)
	add := func(h mail.Held, uid uint32, size int64) {
		paired[h.Message] = true
		out = append(out, adoption(h, uid, size))
	}
	for k, uids := range theirs {
		switch {
		case len(ours[k]) == 0:
		case b.DryRun: // only headers are read for a plan
			for _, uid := range uids {
				if i := slices.IndexFunc(ours[k], func(h mail.Held) bool { return !paired[h.Message] }); i >= 0 {
					add(ours[k][i], uid, k.size)
				}
			}
		case len(uids) == 1 && b.surely(ctx, ours[k], k.size):
			add(ours[k][0], uids[0], k.size)
		default:
			look = append(look, uids...)
		}
	}
	octets, err := b.octets(ctx, look)
	if err != nil {
		return nil, err
	}
	for k, uids := range theirs {
		for _, uid := range uids {
			s, read := octets[uid]
			if !read {
				continue
			}
			i := slices.IndexFunc(ours[k], func(h mail.Held) bool { return !paired[h.Message] && h.Receipt.Digest == s.Digest })
			if i >= 0 {
				add(ours[k][i], uid, k.size)
			}
		}
	}
	return out, nil
}

// surely tells whether a message of this size with the header of these is one of
// them, without reading it: a large one that was delivered, the only of its kind.
// In a stream others may come.
func (b *box) surely(ctx context.Context, alike []mail.Held, size int64) bool {
	return len(alike) == 1 && alike[0].Receipt.Wire == size && !alike[0].Receipt.Inexact && size >= surelySame && !b.streaming && b.delivered(ctx, alike[0])
}

// delivered tells whether the header has the trace of a delivery (RFC 5321 section
// 4.4). One without may be a draft: edited, it often keeps its header.
func (b *box) delivered(ctx context.Context, h mail.Held) bool {
	r, err := b.Messages.Open(ctx, h.Receipt)
	if err != nil {
		return false
	}
	defer r.Close() // read only
	top := make([]byte, headerStart)
	n, err := io.ReadFull(r, top)
	if err != nil && err != io.ErrUnexpectedEOF {
		return false
	}
	_, from := mail.HeaderDate(top[:n])
	return from == mail.DateReceived
}

func adoption(h mail.Held, uid uint32, size int64) found {
	return found{message: h.Message, digest: h.Receipt.Digest, flags: h.Receipt.Info.Flags.Without(mail.Deleted), uid: uid, size: size}
}

// foreseeAdoptions counts what a run would adopt.
func (b *box) foreseeAdoptions(all []found) {
	gone := make(map[int64]bool, len(all))
	for _, f := range all {
		gone[f.message] = true
	}
	b.counts.Adopted += int64(len(all))
	b.drop(gone)
}

func (b *box) recordAdoptions(ctx context.Context, all []found) error {
	slices.SortFunc(all, func(x, y found) int { return int(int64(x.uid) - int64(y.uid)) })
	gone := make(map[int64]bool)
	for part := range slices.Chunk(all, adoptCount) {
		s := mail.Sending{Account: b.Account, Mailbox: b.job.to, UIDValidity: b.state.UIDValidity}
		for _, f := range part {
			s.Messages = append(s.Messages, mail.Outgoing{Message: f.message, Digest: f.digest})
		}
		ids, err := b.Ledger.IntendUploads(ctx, s)
		if err != nil {
			return err
		}
		results := make([]mail.Uploaded, len(part))
		for i, f := range part {
			results[i] = mail.Uploaded{ID: ids[i], Arrived: true, Altered: f.altered, Info: mail.Info{
				Ref: mail.Ref{UIDValidity: b.state.UIDValidity, UID: strconv.FormatUint(uint64(f.uid), 10)}, Size: f.size, Flags: f.flags,
			}}
		}
		if err := b.Ledger.SettleUploads(ctx, results); err != nil {
			return err
		}
		for _, f := range part {
			b.known(f.message, f.uid)
			b.counts.Adopted++
			gone[f.message] = true
		}
	}
	b.drop(gone)
	return nil
}

// setFlags follows flags that changed at the source since they were sent. Those
// that changed at the destination stay: only what differs is sent.
func (b *box) setFlags(ctx context.Context) error {
	f, ok := b.Destination.(Flagger)
	if !ok || len(b.flags) == 0 {
		return nil
	}
	for part := range slices.Chunk(b.flags, adoptCount) {
		var changes []FlagChange
		var record mail.Change
		for _, w := range part {
			added, removed := w.now.Without(w.flags.List()...), w.flags.Without(w.now.List()...)
			added, removed = b.storable(added), b.state.Storable(removed)
			if added != "" || removed != "" {
				changes = append(changes, FlagChange{UID: w.uid, Add: added, Remove: removed})
			}
			record.Flags = append(record.Flags, mail.FlagChange{Claim: w.claim, Message: w.message, Flags: w.now})
		}
		if len(changes) > 0 {
			if err := b.again(ctx, func() error { return f.SetFlags(ctx, b.state, changes) }); err != nil {
				return err
			}
		}
		if err := b.Ledger.Record(ctx, record); err != nil {
			return err
		}
		b.counts.Flags += int64(len(changes))
	}
	return nil
}
