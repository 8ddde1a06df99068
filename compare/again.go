package compare

import (
	"context"
	"slices"
	"strings"

	"mailhaul/mail"
)

// again looks a second time for messages that the right side seems to lack: servers
// are known to leave a mailbox out of a list, or to show it as it was, for a moment.
// What the first listing had is not read again.
func (c *comparison) again(ctx context.Context, m *Mailbox, l, r *list) error {
	sizes := make(map[int64]bool)
	for i := range l.items {
		if it := &l.items[i]; it.state == read && it.need == Needed && !it.widened {
			sizes[it.want.Size] = true
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	if len(r.boxes) == 0 {
		f, ok := c.Right.(Finder)
		if !ok {
			return nil
		}
		mb, there, err := f.Find(ctx, m.Right)
		if err != nil || !there {
			return err
		}
		m.Here, r.boxes = true, []mail.Mailbox{mb}
	}
	fresh := &list{side: r.side, boxes: r.boxes}
	if err := c.list(ctx, fresh, false); err != nil {
		return err
	}
	seen := r.byUID()
	for i := range fresh.items {
		it := &fresh.items[i]
		if it.want.UID == "" || r.has(seen, it.want.UID) {
			continue
		}
		if it.state != leftOut {
			r.listed.add(it.want.Size)
		}
		if c.Share < 1 && !sizes[it.want.Size] {
			it.state = leftOut
		}
		r.items = append(r.items, *it)
	}
	m.Counts.Right = r.listed
	if err := c.read(ctx, r); err != nil {
		return err
	}
	c.match(m, l, r)
	return nil
}

// byUID returns the indexes of the items, sorted by UID.
func (l *list) byUID() []int32 {
	all := make([]int32, len(l.items))
	for i := range all {
		all[i] = int32(i)
	}
	slices.SortFunc(all, func(a, b int32) int { return strings.Compare(l.items[a].want.UID, l.items[b].want.UID) })
	return all
}

func (l *list) has(byUID []int32, uid string) bool {
	_, found := slices.BinarySearchFunc(byUID, uid, func(i int32, uid string) int { return strings.Compare(l.items[i].want.UID, uid) })
	return found
}

// undecided takes messages for unreadable, not for missing, whose copy may be one
// that the right side has and does not give.
func (c *comparison) undecided(l, r *list) {
	refused := make(map[int64]int)
	for i := range r.items {
		if it := &r.items[i]; it.state == failed {
			refused[it.want.Size]++
		}
	}
	if len(refused) == 0 {
		return
	}
	for i := range l.items {
		it := &l.items[i]
		if it.state != read || it.need != Needed || it.widened {
			continue
		}
		for _, size := range []int64{it.want.Size, -1} { // -1: the server does not say
			if refused[size] > 0 {
				refused[size]--
				l.fail(i, errRefusedThere)
				break
			}
		}
	}
}
