package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"mailhaul/clean"
	"mailhaul/mail"
)

// copies reads messages back from the destination, many at a time: what clean asks
// of an archive.
type copies struct {
	at    clean.Source // the destination
	spool *spool
	boxes map[string]mail.Mailbox
	where map[int64]copyAt // by message of the ledger
	order []int64          // messages, as they will be asked for

	mu   sync.Mutex
	last []*batch // read and kept, the newest last
	gone map[int64]error
}

// copyAt is where the destination has a message.
type copyAt struct {
	mailbox string
	uid     string
	size    int64
	digest  mail.Digest // of what was sent
	altered bool        // the destination changed the octets
	found   bool        // it was there before we came
}

// learnCopies finds out which messages of the ledger are at the destination now,
// under the UID they got there. Only mailboxes that want tells of are listed.
func learnCopies(ctx context.Context, at clean.Source, account string, l RemoveLedger, s *spool, want func(mail.Mailbox) bool) (*copies, error) {
	c := &copies{at: at, spool: s, boxes: make(map[string]mail.Mailbox), where: make(map[int64]copyAt), gone: make(map[int64]error)}
	all, err := at.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	for _, mb := range all {
		if !want(mb) {
			continue
		}
		if err := c.learn(ctx, account, l, mb); err != nil {
			return nil, err
		}
	}
	for id := range c.where {
		c.order = append(c.order, id)
	}
	slices.Sort(c.order)
	return c, nil
}

func (c *copies) learn(ctx context.Context, account string, l RemoveLedger, mb mail.Mailbox) error {
	sent := make(map[int64]mail.Upload)
	err := l.Uploads(ctx, account, mb.Name, func(u mail.Upload) error {
		sent[u.Message] = u
		return nil
	})
	if err != nil || len(sent) == 0 {
		return err
	}
	type key struct {
		validity uint32
		uid      string
	}
	there := make(map[key]int64)
	for in, err := range c.at.List(ctx, mb) {
		if err != nil {
			return err
		}
		mb.UIDValidity = in.Ref.UIDValidity
		there[key{in.Ref.UIDValidity, in.Ref.UID}] = in.Size
	}
	c.boxes[mb.Name] = mb
	return l.Claims(ctx, account, mb.Name, func(cl mail.Claim) error {
		size, ok := there[key{cl.UIDValidity, cl.UID}]
		if !ok || !cl.Gone.IsZero() {
			return nil
		}
		u := sent[cl.Message]
		c.where[cl.Message] = copyAt{mb.Name, cl.UID, size, u.Digest, !u.Altered.IsZero(), u.UIDNext == 0}
		return nil
	})
}

const copyPlace = "the copy at the destination #"

// placed gives a message a place by which Open finds it.
func placed(h mail.Held) mail.Held {
	h.Receipt.Place = fmt.Sprint(copyPlace, h.Message)
	return h
}

// idOf returns the message of a receipt with such a place, 0 for any other.
func idOf(rc mail.Receipt) (id int64) {
	if _, err := fmt.Sscan(strings.TrimPrefix(rc.Place, copyPlace), &id); err != nil {
		return 0
	}
	return id
}

// Open implements clean.Archive.
func (c *copies) Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	id := idOf(rc)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range slices.Backward(c.last) {
		if r, err := b.open(id); err == nil {
			return r, nil
		}
	}
	if err := c.read(ctx, id); err != nil {
		return nil, err
	}
	if err := c.gone[id]; err != nil {
		return nil, err
	}
	return c.last[len(c.last)-1].open(id)
}

const (
	copiesCount  = 200     // messages read back in one command,
	copiesOctets = 8 << 20 // or so many octets
	copiesKept   = 8       // such batches: readers may still be at the older ones
)

// read reads a message and those that will be asked for next.
func (c *copies) read(ctx context.Context, id int64) error {
	at, ok := c.where[id]
	if !ok {
		return fs.ErrNotExist
	}
	wants := []mail.Want{{UID: at.uid, Size: at.size}}
	ids := map[string]int64{at.uid: id}
	octets := at.size
	from, _ := slices.BinarySearch(c.order, id)
	for _, next := range c.order[min(from+1, len(c.order)):] {
		n := c.where[next]
		if n.mailbox != at.mailbox || len(wants) >= copiesCount || octets+n.size > copiesOctets {
			break
		}
		octets += n.size
		wants = append(wants, mail.Want{UID: n.uid, Size: n.size})
		ids[n.uid] = next
	}
	b := &batch{byID: make(map[int64]*entry)}
	clear(c.gone)
	c.gone[id] = fmt.Errorf("the destination does not give it: %w", fs.ErrNotExist)
	var mu sync.Mutex // several connections may deliver
	err := c.at.Fetch(ctx, c.boxes[at.mailbox], wants, func(in mail.Info, r io.Reader, err error) error {
		id, asked := ids[in.Ref.UID]
		if !asked {
			return nil
		}
		var e *entry
		if err == nil {
			e, err = c.spool.read(r, in.Size)
		}
		mu.Lock()
		defer mu.Unlock()
		switch {
		case mail.KindOf(err) == mail.KindDisk:
			return err
		case errors.Is(err, mail.ErrVanished):
			c.gone[id] = fmt.Errorf("%w: %w", err, fs.ErrNotExist)
		case err != nil: // the driver may ask again
			c.gone[id] = err
		default:
			delete(c.gone, id)
			b.add(id, e)
		}
		return nil
	})
	if err != nil {
		b.close()
		return err
	}
	c.last = append(c.last, b)
	if len(c.last) > copiesKept {
		c.last[0].close()
		c.last = c.last[1:]
	}
	return nil
}

func (c *copies) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.last {
		b.close()
	}
	c.last = nil
}
