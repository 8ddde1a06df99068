package migrate

import (
	"context"
	"slices"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// listed is the source with the mailboxes it has listed already.
type listed struct {
	fetch.Source
	mailboxes []mail.Mailbox
}

func (l listed) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return slices.Clone(l.mailboxes), nil
}

// Headers lets the engine recognise messages without reading them, if the source can.
func (l listed) Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	h, ok := l.Source.(fetch.HeaderSource)
	if !ok {
		return l.Source.Fetch(ctx, mb, wants, deliver)
	}
	return h.Headers(ctx, mb, wants, deliver)
}

// Changes tells what changed since a state, if the source can.
func (l listed) Changes(ctx context.Context, mb mail.Mailbox, since string) ([]mail.Info, int64, bool, error) {
	c, ok := l.Source.(fetch.ChangeSource)
	if !ok {
		return nil, 0, false, nil
	}
	return c.Changes(ctx, mb, since)
}

// Consumes tells whether reading a message may use it up.
func (l listed) Consumes() bool {
	c, ok := l.Source.(fetch.Consumer)
	return ok && c.Consumes()
}

// Abandon ends the session so that what was read does not count as taken.
func (l listed) Abandon() {
	if c, ok := l.Source.(fetch.Consumer); ok {
		c.Abandon()
	}
}
