package compare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"mailhaul/mail"
)

// Run compares the two sides. It returns what it found even with an error, which
// means that the comparison is not complete. Memory grows with the listing of the
// largest mailbox and with what is not equal, some 100 octets a message.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	if o.Share <= 0 || o.Share > 1 {
		o.Share = 1
	}
	c := &comparison{Options: o, seed: maphash.MakeSeed()}
	pairs, err := c.pairs(ctx)
	if err != nil {
		return Result{}, err
	}
	c.res.Mailboxes = make([]Mailbox, 0, len(pairs))
	for _, p := range pairs {
		if err := c.pair(ctx, p); err != nil {
			return c.result(), err
		}
	}
	err = c.leftovers(ctx)
	return c.result(), err
}

type comparison struct {
	Options
	seed     maphash.Seed
	res      Result
	left     []leftover // what has no equal in its mailbox
	right    []leftover
	findings []pending
}

func (c *comparison) result() Result {
	for _, m := range c.res.Mailboxes {
		c.res.Counts.add(m.Counts)
	}
	return c.res
}

// pair is a mailbox of the right side and those whose messages belong there.
type pair struct {
	left  []mail.Mailbox
	right mail.Mailbox
	here  bool // the right side has it
}

// pairs decides which mailboxes are held against each other.
func (c *comparison) pairs(ctx context.Context) ([]pair, error) {
	right, err := c.Right.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	left, err := c.Left.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.Selection.CheckNames("", left); err != nil {
		return nil, err
	}
	byName := make(map[string]int)
	var pairs []pair
	for _, mb := range right {
		if c.Only == nil || c.Only(mb.Name) {
			byName[mb.Name] = len(pairs)
			pairs = append(pairs, pair{right: mb, here: true})
		}
	}
	for i, to := range c.targets(left, right) {
		if !c.Selection.MatchMailbox(left[i].Name) || c.Only != nil && !c.Only(to) {
			continue
		}
		at, ok := byName[to]
		if !ok {
			at = len(pairs)
			byName[to] = at
			pairs = append(pairs, pair{right: mail.Mailbox{Name: to}})
		}
		pairs[at].left = append(pairs[at].left, left[i])
	}
	// What was not asked for is not compared.
	pairs = slices.DeleteFunc(pairs, func(p pair) bool { return len(p.left) == 0 && !c.Selection.MatchMailbox(p.right.Name) })
	slices.SortFunc(pairs, func(a, b pair) int { return strings.Compare(a.right.Name, b.right.Name) })
	return pairs, nil
}

func (c *comparison) targets(left, right []mail.Mailbox) []string {
	if c.Map != nil {
		return c.Map(left, right)
	}
	names := make([]string, len(left))
	for i, mb := range left {
		names[i] = mb.Name
	}
	return names
}

// state is how far an item got.
type state uint8

const (
	unread   state = iota
	leftOut        // not to be read: not in the sample, or not selected
	read           // its digest is known
	matched        // the other side has it
	vanished       // it went while we looked
	failed         // it cannot be read
	settled        // counted otherwise
)

// item is one listed message; compact, since there may be hundreds of thousands.
type item struct {
	digest mail.Digest
	want   mail.Want
	date   int64 // Unix seconds; 0 none
	box    uint16
	state  state
	need   Need
	// widened says that it was left out and read only because it may be equal to
	// something on the other side.
	widened bool
}

// list is the listing of one side of a pair.
type list struct {
	side   Side
	boxes  []mail.Mailbox
	items  []item
	errs   []failure
	listed Sum
}

// failure is a message that could not be read.
type failure struct {
	ref  mail.Ref
	want mail.Want
	err  error
}

func (l *list) ref(it *item) mail.Ref {
	mb := l.boxes[it.box]
	return mail.Ref{Account: l.side.Account(), Mailbox: mb.Name, UIDValidity: mb.UIDValidity, UID: it.want.UID}
}

// pair compares one pair of mailboxes.
func (c *comparison) pair(ctx context.Context, p pair) error {
	m := Mailbox{Right: p.right.Name, Here: p.here}
	for _, mb := range p.left {
		m.Left = append(m.Left, mb.Name)
	}
	l, r := &list{side: c.Left, boxes: p.left}, &list{side: c.Right}
	if p.here {
		r.boxes = []mail.Mailbox{p.right}
	}
	err := both(ctx, func(ctx context.Context) error { return c.list(ctx, l, true) },
		func(ctx context.Context) error { return c.list(ctx, r, false) })
	m.Counts.Left, m.Counts.Right = l.listed, r.listed
	if err == nil {
		err = c.digests(ctx, &m, l, r)
	}
	if err == nil {
		err = c.again(ctx, &m, l, r)
	}
	if err == nil {
		err = c.settle(ctx, &m, l, r)
	}
	c.res.Mailboxes = append(c.res.Mailboxes, m)
	return err
}

func both(ctx context.Context, f, g func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f(ctx) })
	group.Go(func() error { return g(ctx) })
	return group.Wait()
}

// maxItems bounds what one mailbox may list.
const maxItems = 20_000_000

func (c *comparison) list(ctx context.Context, l *list, isLeft bool) error {
	for i, mb := range l.boxes {
		err := l.side.List(ctx, mb, func(it Item) error {
			if len(l.items) >= maxItems {
				return fmt.Errorf("%s lists more than %d messages", mb.Name, maxItems)
			}
			sel, known := c.Selection.Match(mail.Info{Size: it.Want.Size, InternalDate: it.Date, Flags: it.Flags})
			chosen := sel || !known
			if isLeft && !chosen {
				return nil
			}
			e := item{digest: it.Digest, want: it.Want, box: uint16(i), need: it.Need}
			if !it.Date.IsZero() {
				e.date = it.Date.Unix()
			}
			if chosen {
				l.listed.add(it.Want.Size)
			} else {
				e.state = leftOut
			}
			l.items = append(l.items, e)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// digests reads what is to be compared and pairs what is equal.
func (c *comparison) digests(ctx context.Context, m *Mailbox, l, r *list) error {
	c.sample(l, r)
	c.plan(l, r)
	err := both(ctx, func(ctx context.Context) error { return c.read(ctx, l) }, func(ctx context.Context) error { return c.read(ctx, r) })
	if err != nil {
		return err
	}
	c.match(m, l, r)
	return c.beyond(ctx, m, l, r)
}

// sample leaves out what the sample does not want. Messages of one size are
// chosen together on both sides, so that a message and its copy both are; at
// least one size of each mailbox is, and those of which one side has more.
func (c *comparison) sample(l, r *list) {
	if c.Share >= 1 {
		return
	}
	limit := uint64(c.Share * (1 << 63) * 2)
	lowest := ^uint64(0)
	score := func(size int64) uint64 { return maphash.Comparable(c.seed, size) }
	for i := range l.items {
		lowest = min(lowest, score(l.items[i].want.Size))
	}
	limit = max(limit, lowest)
	uneven := unevenSizes(l, r)
	for _, side := range []*list{l, r} {
		for i := range side.items {
			if it := &side.items[i]; score(it.want.Size) > limit && !uneven[it.want.Size] {
				it.state = leftOut
			}
		}
	}
}

// fewUneven is how many messages of uneven sizes are still the exception; where it
// is the rule, a server's sizes tell nothing.
const fewUneven = 200

// unevenSizes returns the sizes that one side has more messages of: something is
// missing there, or altered.
func unevenSizes(l, r *list) map[int64]bool {
	more := make(map[int64]int)
	for i := range l.items {
		more[l.items[i].want.Size]++
	}
	for i := range r.items {
		more[r.items[i].want.Size]--
	}
	uneven, n := make(map[int64]bool), 0
	for size, d := range more {
		if d != 0 {
			uneven[size] = true
			n += max(d, -d)
		}
	}
	if n > fewUneven {
		return nil
	}
	return uneven
}

// plan tells what is going to be read.
func (c *comparison) plan(lists ...*list) {
	for _, l := range lists {
		if len(l.boxes) == 0 {
			continue
		}
		var s Sum
		for i := range l.items {
			if it := &l.items[i]; it.state == unread && it.digest.IsZero() {
				s.add(it.want.Size)
			}
		}
		c.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Account: l.side.Account(), Mailbox: l.boxes[0].Name}, N: s.Messages, Octets: s.Octets})
	}
}

// read gets the digests of a list that are not on record.
func (c *comparison) read(ctx context.Context, l *list) error {
	for i := range l.items {
		if it := &l.items[i]; it.state == unread && !it.digest.IsZero() {
			it.state = read
		}
	}
	var ids []int
	for i := range l.items {
		if l.items[i].state == unread {
			ids = append(ids, i)
		}
	}
	return c.look(ctx, l, ids, Whole, func(i int, k Look) {
		l.items[i].digest, l.items[i].state = k.Sums.Digest, read
	})
}

// atOnce is how many messages a side is asked for in one call: enough for several
// connections, few enough to keep the bookkeeping small.
const atOnce = 20_000

// look looks at items, mailbox by mailbox, and notes what could not be read.
func (c *comparison) look(ctx context.Context, l *list, ids []int, depth Depth, take func(i int, k Look)) error {
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(l.items[a].box, l.items[b].box) })
	for len(ids) > 0 {
		box := l.items[ids[0]].box
		n := 1
		for n < len(ids) && l.items[ids[n]].box == box {
			n++
		}
		for part := range slices.Chunk(ids[:n], atOnce) {
			if err := c.lookIn(ctx, l, l.boxes[box], part, depth, take); err != nil {
				return err
			}
		}
		ids = ids[n:]
	}
	return nil
}

func (c *comparison) lookIn(ctx context.Context, l *list, mb mail.Mailbox, ids []int, depth Depth, take func(i int, k Look)) error {
	wants := make([]mail.Want, len(ids))
	for i, id := range ids {
		wants[i] = l.items[id].want
	}
	taken := make([]bool, len(ids))
	ref := mail.Ref{Account: l.side.Account(), Mailbox: mb.Name}
	err := l.side.Look(ctx, mb, wants, depth, func(k Look) {
		id := ids[k.I]
		if taken[k.I] {
			return
		}
		taken[k.I] = true
		switch {
		case errors.Is(k.Err, mail.ErrVanished):
			l.items[id].state = vanished
		case errors.Is(k.Err, fs.ErrNotExist) && depth != Whole: // what is missing of an archive, verifying it names
		case k.Err != nil:
			l.fail(id, k.Err)
		default:
			take(id, k)
		}
		if depth == Whole {
			c.Notify(mail.Event{Kind: mail.EventProgress, Ref: ref, N: 1, Octets: max(wants[k.I].Size, 0)})
		}
	})
	if err != nil {
		return err
	}
	for i, ok := range taken {
		if !ok {
			l.fail(ids[i], errNotGiven)
		}
	}
	return nil
}

func (l *list) fail(i int, err error) {
	it := &l.items[i]
	it.state = failed
	l.errs = append(l.errs, failure{l.ref(it), it.want, err})
}
