package fetch

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"

	"mailhaul/mail"
)

// claim is the compact form of mail.Claim: a run may hold hundreds of thousands.
type claim struct {
	id      int64
	message int64
	size    int64
	flags   uint32 // index into claims.flags
	gone    bool
	byUs    bool // gone, and it was us who deleted it
	freed   bool // gone since this run's listing
	listed  bool // seen in this run's listing
	missing bool // the archive has lost the message: it is fetched again
	content bool // claimed by content, the server gives no UID
}

// claims is what an account holds of one mailbox, by UID under the present
// UIDVALIDITY.
type claims struct {
	uidValidity uint32
	all         []claim
	uids        []byte   // of all, one behind the other
	ends        []uint32 // where each ends
	validity    []uint32 // of all
	flags       []mail.Flags
	byUID       []uint32        // indexes into all, by UID: those that can be found
	next        int             // index into byUID: listings come in the order of UIDs
	live        map[int64]int32 // live claims by message; built when first needed
}

func loadClaims(ctx context.Context, ledger Ledger, account string, mb mail.Mailbox) (*claims, error) {
	c := &claims{}
	flags := make(map[mail.Flags]uint32) // few different ones
	err := ledger.Claims(ctx, account, mb.Name, func(m mail.Claim) error {
		f, ok := flags[m.Flags]
		if !ok {
			f = uint32(len(c.flags))
			flags[m.Flags] = f
			c.flags = append(c.flags, m.Flags)
		}
		c.all = append(c.all, claim{
			id: m.ID, message: m.Message, size: m.Size, flags: f,
			gone: !m.Gone.IsZero(), byUs: m.GoneBy == "us", missing: m.Missing, content: strings.HasPrefix(m.UID, contentUID),
		})
		c.uids = append(c.uids, m.UID...)
		c.ends = append(c.ends, uint32(len(c.uids)))
		c.validity = append(c.validity, m.UIDValidity)
		return nil
	})
	c.setUIDValidity(mb.UIDValidity)
	return c, err
}

// uid returns the UID of claim i; the octets must not be changed.
func (c *claims) uid(i uint32) []byte {
	from := uint32(0)
	if i > 0 {
		from = c.ends[i-1]
	}
	return c.uids[from:c.ends[i]]
}

// compareUIDs puts shorter ones first: numbers are in their order then, as they
// mostly are already.
func compareUIDs(a, b []byte) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), bytes.Compare(a, b))
}

// setUIDValidity frees all claims made under another UIDVALIDITY (RFC 4549
// section 4.1).
func (c *claims) setUIDValidity(v uint32) {
	c.uidValidity, c.next = v, 0
	c.byUID = c.byUID[:0]
	for i := range c.all {
		if c.validity[i] == v {
			c.byUID = append(c.byUID, uint32(i))
		}
	}
	order := func(a, b uint32) int { return cmp.Or(compareUIDs(c.uid(a), c.uid(b)), cmp.Compare(a, b)) }
	if !slices.IsSortedFunc(c.byUID, order) {
		slices.SortFunc(c.byUID, order)
	}
	// A UIDL used again has several claims: the live one counts.
	kept := c.byUID[:0]
	for _, i := range c.byUID {
		last := len(kept) - 1
		switch {
		case last < 0 || !bytes.Equal(c.uid(kept[last]), c.uid(i)):
			kept = append(kept, i)
		case c.all[kept[last]].gone:
			kept[last] = i
		}
	}
	c.byUID = kept
}

func (c *claims) find(uid string) *claim {
	if uid == "" {
		return nil
	}
	if c.next >= len(c.byUID) || string(c.uid(c.byUID[c.next])) != uid {
		key := []byte(uid)
		i, ok := slices.BinarySearchFunc(c.byUID, key, func(i uint32, key []byte) int { return compareUIDs(c.uid(i), key) })
		if !ok {
			return nil
		}
		c.next = i
	}
	m := &c.all[c.byUID[c.next]]
	c.next++
	return m
}

// flagsOf returns the flags a claim was last seen with.
func (c *claims) flagsOf(m *claim) mail.Flags { return c.flags[m.flags] }

// whole tells whether every live claim is by a UID that is valid now, on a message
// the archive has.
func (c *claims) whole() bool {
	for i := range c.all {
		m := &c.all[i]
		if !m.gone && (m.missing || m.content || c.find(string(c.uid(uint32(i)))) != m) {
			return false
		}
	}
	return true
}

// count returns how many claims are live.
func (c *claims) count() int64 {
	var n int64
	for i := range c.all {
		if !c.all[i].gone {
			n++
		}
	}
	return n
}

// listRest takes the live claims that are not listed for listed, and counts them.
func (c *claims) listRest() int64 {
	var n int64
	for i := range c.all {
		if m := &c.all[i]; !m.gone && !m.listed {
			m.listed = true
			n++
		}
	}
	return n
}

// missing returns the live claims that were not listed, and frees them. Claims by
// content are left alone while there are messages without UID: their octets decide.
func (c *claims) missing(unidentified bool) []int64 {
	var gone []int64
	for i := range c.all {
		m := &c.all[i]
		if m.gone || m.listed || m.content && unidentified {
			continue
		}
		m.gone, m.freed = true, true
		gone = append(gone, m.id)
	}
	c.live = nil
	return gone
}

// heldLive tells whether a live claim holds the message.
func (c *claims) heldLive(message int64) bool {
	if c.live == nil {
		c.live = make(map[int64]int32)
		for i := range c.all {
			if m := &c.all[i]; !m.gone {
				c.live[m.message]++
			}
		}
	}
	return c.live[message] > 0
}

func (c *claims) revive(m *claim) {
	m.gone = false
	if c.live != nil {
		c.live[m.message]++
	}
}
