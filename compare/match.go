package compare

import (
	"bytes"
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"time"

	"mailhaul/internal/headline"
	"mailhaul/mail"
)

// match pairs messages of one digest, each once. Those that must be on the right
// side come first.
func (c *comparison) match(m *Mailbox, l, r *list) {
	byDigest := func(a, b item) int {
		if d := cmp.Compare(rank(a.state), rank(b.state)); d != 0 {
			return d
		}
		return cmp.Or(bytes.Compare(a.digest[:], b.digest[:]), cmp.Compare(a.need, b.need), cmp.Compare(a.want.Seq, b.want.Seq))
	}
	slices.SortFunc(l.items, byDigest)
	slices.SortFunc(r.items, byDigest)
	i, j := 0, 0
	for i < len(l.items) && j < len(r.items) && l.items[i].state == read && r.items[j].state == read {
		a, b := &l.items[i], &r.items[j]
		switch d := bytes.Compare(a.digest[:], b.digest[:]); {
		case d < 0:
			i++
		case d > 0:
			j++
		default:
			a.state, b.state = matched, matched
			m.Same++
			m.Counts.Octets += max(a.want.Size, 0)
			if c.Matched != nil {
				c.Matched(l.ref(a), r.ref(b), a.digest)
			}
			i, j = i+1, j+1
		}
	}
}

// rank sorts what can be matched to the front.
func rank(s state) int {
	if s == read {
		return 0
	}
	return 1
}

// beyond looks for what has no equal so far among what was left out on the other
// side: sizes a server states wrong, and dates that differ, are no loss.
func (c *comparison) beyond(ctx context.Context, m *Mailbox, l, r *list) error {
	for _, way := range [][2]*list{{l, r}, {r, l}} {
		if err := c.widen(ctx, way[0], way[1]); err != nil {
			return err
		}
	}
	c.match(m, l, r)
	return nil
}

// widen reads those messages that were left out of in which may be equal to
// messages of of.
func (c *comparison) widen(ctx context.Context, of, in *list) error {
	wanted, out := of.with(func(it *item) bool { return it.state == read && !it.widened && it.need == Needed }), in.with(func(it *item) bool { return it.state == leftOut })
	if len(wanted) == 0 || len(out) == 0 {
		return nil
	}
	digests := make(map[mail.Digest]bool, len(wanted))
	for _, i := range wanted {
		digests[of.items[i].digest] = true
	}
	var ask []int
	for _, i := range out {
		switch it := &in.items[i]; {
		case it.digest.IsZero():
			ask = append(ask, i)
		case digests[it.digest]:
			it.state, it.widened = read, true
		}
	}
	if len(ask) == 0 {
		return nil
	}
	headers := make(map[mail.Digest]bool, len(wanted))
	if err := c.look(ctx, of, wanted, Header, func(_ int, k Look) { headers[k.Sums.Header] = true }); err != nil {
		return err
	}
	var like []int
	if err := c.look(ctx, in, ask, Header, func(i int, k Look) {
		if headers[k.Sums.Header] {
			like = append(like, i)
		}
	}); err != nil {
		return err
	}
	return c.look(ctx, in, like, Whole, func(i int, k Look) {
		in.items[i].digest, in.items[i].state, in.items[i].widened = k.Sums.Digest, read, true
	})
}

func (l *list) with(f func(*item) bool) (ids []int) {
	for i := range l.items {
		if f(&l.items[i]) {
			ids = append(ids, i)
		}
	}
	return ids
}

// known is what a message that has no equal is recognised by.
type known struct {
	i     int
	loose mail.Digest
	body  uint64 // body and head
	head  uint64 // what authors write into the header; 0 if there is nothing
	marks marks
}

// settle pairs what a server altered, and keeps the rest for the end.
func (c *comparison) settle(ctx context.Context, m *Mailbox, l, r *list) error {
	alone := func(it *item) bool { return it.state == read && it.need == Needed }
	c.onRecord(m, l, r, l.with(alone), r.with(alone))
	ours, theirs := l.with(alone), r.with(alone)
	if len(ours) > 0 && len(theirs) > 0 {
		a, err := c.deep(ctx, l, ours)
		if err != nil {
			return err
		}
		b, err := c.deep(ctx, r, theirs)
		if err != nil {
			return err
		}
		c.altered(m, l, r, a, b)
	}
	c.undecided(l, r)
	c.keep(m, l, r)
	return nil
}

// keep counts what is decided, and keeps the rest for the end.
func (c *comparison) keep(m *Mailbox, l, r *list) {
	at := len(c.res.Mailboxes)
	for i := range l.items {
		it := &l.items[i]
		switch {
		case it.state == leftOut, it.state == read && it.widened:
			m.Unsampled++
			continue
		case it.state == vanished:
			m.Vanished++
			continue
		case it.state == failed:
			continue
		case it.state == read:
			c.left = append(c.left, leftover{pair: at, mailbox: l.boxes[it.box], item: *it})
		}
		m.Compared++
	}
	for i := range r.items {
		switch it := &r.items[i]; {
		case it.state == vanished:
			m.Vanished++
		case it.state == read && !it.widened:
			c.right = append(c.right, leftover{pair: at, mailbox: r.boxes[it.box], item: *it})
		}
	}
	for _, side := range []*list{l, r} {
		for _, f := range side.errs {
			m.Unreadable++
			c.findings = append(c.findings, pending{Finding: Finding{Kind: Unreadable, Ref: f.ref, Size: f.want.Size, What: f.err.Error()}})
		}
	}
}

// recorder is a Side that knows what the other one made of its messages.
type recorder interface {
	other(mb mail.Mailbox, uid string) (otherForm, bool)
	letGo(mailbox, uid string) bool
}

// onRecord pairs what is on record to have another form at the right side.
func (c *comparison) onRecord(m *Mailbox, l, r *list, ours, theirs []int) {
	rec, ok := c.Left.(recorder)
	if !ok {
		return
	}
	by := make(map[mail.Digest][]int)
	for _, i := range theirs {
		by[r.items[i].digest] = append(by[r.items[i].digest], i)
	}
	for _, i := range ours {
		f, ok := rec.other(l.boxes[l.items[i].box], l.items[i].want.UID)
		if list := by[f.digest]; ok && len(list) > 0 {
			m.Known++
			c.differs(Known, f.words(), l, r, known{i: i}, known{i: list[0]})
			by[f.digest] = list[1:]
		}
	}
}

func (c *comparison) deep(ctx context.Context, l *list, ids []int) ([]known, error) {
	out := make([]known, 0, len(ids))
	err := c.look(ctx, l, ids, Deep, func(i int, k Look) {
		n := known{i: i, loose: k.form.loose, marks: k.form.marks, head: c.headKey(k.Head)}
		n.body = maphash.Comparable(c.seed, [2]any{k.form.body, n.head})
		out = append(out, n)
	})
	return out, err
}

// headKey is 0 for a header that says nothing of its message.
func (c *comparison) headKey(h headline.Headline) uint64 {
	if h.MessageID == "" && (h.Date == "" || h.From() == "") {
		return 0
	}
	return maphash.Comparable(c.seed, h) | 1
}

// altered pairs messages without an equal: first those that differ only as servers
// are known to make them, then those of one author, subject, date and Message-ID.
func (c *comparison) altered(m *Mailbox, l, r *list, a, b []known) {
	pairUp(a, b, func(k known) (mail.Digest, bool) { return k.loose, true }, func(x, y known) {
		m.Known++
		c.differs(Known, (x.marks | y.marks).words(), l, r, x, y)
	})
	a = slices.DeleteFunc(a, func(k known) bool { return l.items[k.i].state == settled })
	b = slices.DeleteFunc(b, func(k known) bool { return r.items[k.i].state == settled })
	pairUp(a, b, func(k known) (uint64, bool) { return k.body, k.head != 0 }, func(x, y known) {
		m.Altered++
		c.differs(Altered, "the header", l, r, x, y)
	})
	a = slices.DeleteFunc(a, func(k known) bool { return l.items[k.i].state == settled })
	b = slices.DeleteFunc(b, func(k known) bool { return r.items[k.i].state == settled })
	pairUp(a, b, func(k known) (uint64, bool) { return k.head, k.head != 0 }, func(x, y known) {
		m.Altered++
		c.differs(Altered, "the body", l, r, x, y)
	})
}

// pairUp calls f for pairs of equal keys, each message once.
func pairUp[K comparable](a, b []known, key func(known) (K, bool), f func(x, y known)) {
	by := make(map[K][]known)
	for _, y := range b {
		if k, ok := key(y); ok {
			by[k] = append(by[k], y)
		}
	}
	for _, x := range a {
		k, ok := key(x)
		if list := by[k]; ok && len(list) > 0 {
			f(x, list[0])
			by[k] = list[1:]
		}
	}
}

func (c *comparison) differs(kind Kind, what string, l, r *list, x, y known) {
	a, b := &l.items[x.i], &r.items[y.i]
	a.state, b.state = settled, settled
	c.findings = append(c.findings, pending{
		Finding: finding(kind, l.ref(a), a), side: c.Left, mailbox: l.boxes[a.box], want: a.want,
	})
	f := &c.findings[len(c.findings)-1].Finding
	f.Other, f.What = r.ref(b), what
}

func finding(kind Kind, ref mail.Ref, it *item) Finding {
	f := Finding{Kind: kind, Ref: ref, Size: it.want.Size, Digest: it.digest}
	if it.date != 0 {
		f.Date = time.Unix(it.date, 0).UTC()
	}
	return f
}

// leftover is a message without an equal in its mailbox.
type leftover struct {
	pair    int // index into the result's mailboxes
	mailbox mail.Mailbox
	item    item
}

func (o *leftover) ref(account string) mail.Ref {
	return mail.Ref{Account: account, Mailbox: o.mailbox.Name, UIDValidity: o.mailbox.UIDValidity, UID: o.item.want.UID}
}

// pending is a finding that has no name yet.
type pending struct {
	Finding
	side    Side // that has it; nil if it need not be looked at
	mailbox mail.Mailbox
	want    mail.Want
}

// leftovers decides upon what has no equal in its own mailbox, once all mailboxes
// were seen, and tells all findings.
func (c *comparison) leftovers(ctx context.Context) error {
	byDigest := func(a, b leftover) int {
		return cmp.Or(bytes.Compare(a.item.digest[:], b.item.digest[:]), cmp.Compare(a.item.need, b.item.need), cmp.Compare(a.pair, b.pair))
	}
	slices.SortFunc(c.left, byDigest)
	slices.SortFunc(c.right, byDigest)
	j := 0
	for i := range c.left {
		o := &c.left[i]
		for j < len(c.right) && bytes.Compare(c.right[j].item.digest[:], o.item.digest[:]) < 0 {
			c.surplus(&c.right[j], c.Both)
			j++
		}
		elsewhere := j < len(c.right) && c.right[j].item.digest == o.item.digest
		c.lacking(o, elsewhere, j)
		if elsewhere {
			if o.item.need != Needed { // the left side has it, if elsewhere
				c.surplus(&c.right[j], false)
			}
			j++
		}
	}
	for ; j < len(c.right); j++ {
		c.surplus(&c.right[j], c.Both)
	}
	c.left, c.right = nil, nil
	return c.tell(ctx)
}

func (c *comparison) lacking(o *leftover, elsewhere bool, j int) {
	m := &c.res.Mailboxes[o.pair]
	if o.item.need != Needed {
		m.Explained++
		if o.item.need == DeletedByUs {
			m.Deleted++
		}
		return
	}
	p := pending{Finding: finding(Missing, o.ref(c.Left.Account()), &o.item), side: c.Left, mailbox: o.mailbox, want: o.item.want}
	if elsewhere {
		p.Kind, p.Other = Moved, c.right[j].ref(c.Right.Account())
		m.Moved++
	} else {
		m.Missing++
	}
	c.findings = append(c.findings, p)
}

func (c *comparison) surplus(o *leftover, wanted bool) {
	m := &c.res.Mailboxes[o.pair]
	p := pending{Finding: finding(Extra, o.ref(c.Right.Account()), &o.item), side: c.Right, mailbox: o.mailbox, want: o.item.want}
	if rec, ok := c.Left.(recorder); ok && rec.letGo(o.mailbox.Name, o.item.want.UID) {
		p.What, wanted = "removed from the archive or changed there, and accepted", false
	}
	if wanted {
		p.Kind = Unarchived
		m.Unarchived++
	} else {
		m.Extra++
	}
	c.findings = append(c.findings, p)
}

// order is that of findings: what is wrong first.
var order = []Kind{Missing, Unarchived, Altered, Unreadable, Known, Moved, Extra}

// tell names the first findings in full and tells all of them.
func (c *comparison) tell(ctx context.Context) error {
	if c.Found == nil {
		return nil
	}
	slices.SortStableFunc(c.findings, func(a, b pending) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)),
			cmp.Compare(a.Ref.Mailbox, b.Ref.Mailbox), a.Date.Compare(b.Date))
	})
	if err := c.name(ctx, c.findings[:min(len(c.findings), NamedInFull)]); err != nil {
		return err
	}
	for i := range c.findings {
		c.Found(c.findings[i].Finding)
	}
	return nil
}

// name reads the headers of findings, a mailbox at a time.
func (c *comparison) name(ctx context.Context, all []pending) error {
	type place struct {
		side Side
		name string
	}
	groups := make(map[place][]int)
	var keys []place
	for i, p := range all {
		if p.side == nil {
			continue
		}
		k := place{p.side, p.mailbox.Name}
		if groups[k] == nil {
			keys = append(keys, k)
		}
		groups[k] = append(groups[k], i)
	}
	for _, k := range keys {
		ids := groups[k]
		wants := make([]mail.Want, len(ids))
		for i, id := range ids {
			wants[i] = all[id].want
		}
		err := k.side.Look(ctx, all[ids[0]].mailbox, wants, Header, func(l Look) {
			if l.Err == nil {
				all[ids[l.I]].From, all[ids[l.I]].Subject = l.Head.From(), l.Head.Subject
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
