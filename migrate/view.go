package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mailhaul/fetch"
	"mailhaul/mail"
	"mailhaul/upload"
)

// view is the messages of a migration as the sending engine sees them: those of
// one group, or all that are at the source.
type view struct {
	mailboxes []mail.Mailbox
	ledger    Ledger
	byMailbox map[string][]mail.Held // of one group
	batch     *batch

	// Without a group the octets are asked for when they are needed.
	source  fetch.Source
	spool   *spool
	batches []*batch // prepared, the newest last
	wants   map[int64]mail.Want
	mu      sync.Mutex
	trouble map[int64]error
}

var (
	_ upload.Messages = (*view)(nil)
	_ upload.Preparer = (*view)(nil)
)

// Mailboxes implements upload.Messages.
func (v *view) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return slices.Clone(v.mailboxes), nil
}

// named gives a message a place by which Open finds it.
func named(h mail.Held) mail.Held {
	h.Receipt.Place = "#" + strconv.FormatInt(h.Message, 10)
	return h
}

// Messages implements upload.Messages.
func (v *view) Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error {
	if v.source == nil {
		for _, h := range v.byMailbox[mailbox] {
			if err := yield(named(h)); err != nil {
				return err
			}
		}
		return nil
	}
	i := slices.IndexFunc(v.mailboxes, func(mb mail.Mailbox) bool { return mb.Name == mailbox })
	if i < 0 {
		return nil
	}
	v.wants = make(map[int64]mail.Want) // one mailbox at a time
	err := v.ledger.Claims(ctx, v.source.Account(), mailbox, func(c mail.Claim) error {
		if c.Gone.IsZero() && c.UIDValidity == v.mailboxes[i].UIDValidity {
			v.wants[c.Message] = mail.Want{UID: c.UID, Size: c.Size}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return v.ledger.Messages(ctx, mailbox, func(h mail.Held) error {
		if _, there := v.wants[h.Message]; !there {
			return nil
		}
		return yield(named(h))
	})
}

// Message implements upload.Messages.
func (v *view) Message(ctx context.Context, id int64) (mail.Held, error) {
	h, err := v.ledger.Message(ctx, id)
	return named(h), err
}

// Open implements upload.Messages.
func (v *view) Open(_ context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	id, err := strconv.ParseInt(strings.TrimPrefix(rc.Place, "#"), 10, 64)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.trouble[id]; err != nil {
		return nil, err
	}
	if v.batch != nil {
		return v.batch.open(id)
	}
	for _, b := range slices.Backward(v.batches) {
		if r, err := b.open(id); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("the source does not give it: %w", fs.ErrNotExist)
}

// keep is how many prepared batches may still be read: the one that is being
// loaded, and the one before, of which a message may still be on its way.
const keep = 2

// Prepare implements upload.Preparer: it reads messages from the source.
func (v *view) Prepare(ctx context.Context, ids []int64) error {
	if v.source == nil {
		return nil
	}
	wants := make(map[string][]mail.Want)
	byUID := make(map[string]mail.Held)
	for _, id := range ids {
		h, err := v.ledger.Message(ctx, id)
		if err != nil {
			return err
		}
		name := h.Receipt.Info.Ref.Mailbox
		w, ok := v.wants[id]
		if !ok {
			continue
		}
		wants[name] = append(wants[name], w)
		byUID[name+"\x00"+w.UID] = h
	}
	b := &batch{byID: make(map[int64]*entry)}
	v.mu.Lock()
	v.batches = append(v.batches, b)
	for len(v.batches) > keep {
		v.batches[0].close()
		v.batches = v.batches[1:]
	}
	v.trouble = make(map[int64]error)
	v.mu.Unlock()
	for _, mb := range v.mailboxes {
		if len(wants[mb.Name]) == 0 {
			continue
		}
		err := v.source.Fetch(ctx, mb, wants[mb.Name], func(in mail.Info, r io.Reader, err error) error {
			h, asked := byUID[mb.Name+"\x00"+in.Ref.UID]
			if !asked {
				return nil
			}
			return v.receive(b, h, r, err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// receive takes one message of the source.
func (v *view) receive(b *batch, h mail.Held, r io.Reader, err error) error {
	var e *entry
	if err == nil {
		c := mail.NewCanonical(r, nil)
		e, err = v.spool.store(c, h.Receipt.Octets)
		switch {
		case mail.KindOf(err) == mail.KindDisk:
			return err
		case err != nil:
			return nil // the driver asks again
		case c.Sums().Digest != h.Receipt.Digest:
			err = errors.New("the source now gives other octets than before")
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.trouble[h.Message] = err
		if e != nil {
			e.file.release()
		}
		return nil
	}
	delete(v.trouble, h.Message)
	e.receipt = h.Receipt
	b.entries = append(b.entries, e)
	b.byID[h.Message] = e
	return nil
}

func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, b := range v.batches {
		b.close()
	}
	v.batches = nil
}
