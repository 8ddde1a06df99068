package clean

import (
	"context"
	"io"
	"slices"
	"sync"

	"mailhaul/mail"
)

// HeaderSource is a Source that can give headers without bodies.
type HeaderSource interface {
	// Headers is like Fetch, but r reads only the header, in wire form.
	Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
}

// letter is what equal messages have in common, as far as a listing and a header tell.
type letter struct {
	size   int64
	header mail.Digest
}

// keepTwins keeps what could be one more copy of a message that is not archived yet:
// that would be taken for the one that was deleted, come back, and not be archived as
// a message of its own. open are the sizes of what is not archived; where a candidate
// has one of them, the headers tell.
func (p *planner) keepTwins(ctx context.Context, m *MailboxPlan, k *known, open map[int64]bool) error {
	sizes := make(map[int64]bool) // that both have
	for _, c := range m.doom {
		if open[c.size] {
			sizes[c.size] = true
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	twins, unknown, err := p.unarchived(ctx, m, k, sizes)
	if err != nil {
		return err
	}
	m.doom = slices.DeleteFunc(m.doom, func(c candidate) bool {
		if err != nil || !sizes[c.size] {
			return false
		}
		twin := unknown[c.size]
		if !twin {
			var held mail.Held
			held, err = p.Ledger.Message(ctx, c.message)
			twin = held.Receipt.Header.IsZero() || twins[letter{c.size, held.Receipt.Header}]
		}
		if twin {
			m.Stay.add(c.size)
			m.Why[WhyTwin]++
		}
		return twin
	})
	return err
}

// unarchived looks at the headers of what has one of these sizes and is not archived.
// unknown are the sizes of those whose header cannot be had.
func (p *planner) unarchived(ctx context.Context, m *MailboxPlan, k *known, sizes map[int64]bool) (twins map[letter]bool, unknown map[int64]bool, err error) {
	headers, ok := p.Source.(HeaderSource)
	if !ok {
		return nil, sizes, nil
	}
	twins, unknown = make(map[letter]bool), make(map[int64]bool)
	var wants []mail.Want
	left := make(map[string]int64) // sizes by UID
	for in, err := range p.Source.List(ctx, m.mb) {
		if err != nil {
			return nil, nil, err
		}
		if sizes[in.Size] && !k.holds(in) {
			wants = append(wants, mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size})
			left[in.Ref.UID] = in.Size
		}
	}
	var mu sync.Mutex
	for part := range slices.Chunk(wants, batch) {
		err := headers.Headers(ctx, m.mb, part, func(in mail.Info, r io.Reader, err error) error {
			if err != nil {
				return nil // it may be anything
			}
			digest, err := mail.HeaderDigest(r)
			mu.Lock()
			defer mu.Unlock()
			if size, asked := left[in.Ref.UID]; err == nil && asked {
				twins[letter{size, digest}] = true
				delete(left, in.Ref.UID)
			}
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
	}
	for _, size := range left {
		unknown[size] = true
	}
	return twins, unknown, nil
}
