package migrate

import (
	"context"
	"slices"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// recorder records what was read and hands it to those who send it on.
type recorder struct {
	Ledger
	m *mover
}

// Record is called for one group after the other.
func (r *recorder) Record(ctx context.Context, c mail.Change) error {
	m := r.m
	if len(c.Archived) == 0 {
		return r.Ledger.Record(ctx, c)
	}
	b := &batch{byID: make(map[int64]*entry)}
	if m.Archive == nil {
		b = m.spool.take()
	}
	var names []string
	for _, a := range c.Archived {
		if name := a.Receipt.Info.Ref.Mailbox; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if err := m.newest(ctx, name); err != nil {
			b.close()
			return err
		}
	}
	if err := r.Ledger.Record(ctx, c); err != nil {
		b.close()
		return err
	}
	parts := make(map[string][]int64)
	for _, name := range names {
		err := r.MessagesAfter(ctx, name, m.last[name], func(h mail.Held) error {
			m.last[name] = h.Message
			if m.Archive != nil || b.claim(h) {
				parts[name] = append(parts[name], h.Message)
			}
			return nil
		})
		if err != nil {
			b.close()
			return err
		}
	}
	m.view.hold(b, len(parts))
	if s, ok := m.Source.(fetch.Consumer); ok && s.Consumes() && m.Archive == nil {
		return m.queues.sendNow(parts, b)
	}
	for _, name := range names {
		if ids := parts[name]; len(ids) > 0 {
			m.queues.add(name, ids, b)
		}
	}
	return nil
}

// newest finds the newest message of a mailbox before more is recorded.
func (m *mover) newest(ctx context.Context, mailbox string) error {
	if _, known := m.last[mailbox]; known {
		return nil
	}
	id, err := m.Ledger.Newest(ctx, mailbox)
	m.last[mailbox] = id
	return err
}
