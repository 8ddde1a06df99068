package migrate

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"

	"mailhaul/mail"
	"mailhaul/upload"
)

// known is a destination whose mailboxes were listed already.
type known struct {
	upload.Destination
	there []mail.Mailbox
}

func (k known) Mailboxes(context.Context) ([]mail.Mailbox, error) { return slices.Clone(k.there), nil }

// MaxMessage implements upload.Limiter.
func (k known) MaxMessage() int64 {
	if l, ok := k.Destination.(upload.Limiter); ok {
		return l.MaxMessage()
	}
	return 0
}

// ReadUnmarked implements upload.Unmarker.
func (k known) ReadUnmarked(ctx context.Context, box upload.Box, uids []uint32, take func(uid uint32, stored, unmarked mail.Sums)) error {
	if u, ok := k.Destination.(upload.Unmarker); ok {
		return u.ReadUnmarked(ctx, box, uids, take)
	}
	return nil
}

// flagged is one with flags, subscribed one with subscriptions, as well.
type (
	flagged struct {
		known
		upload.Flagger
	}
	subscribed struct {
		known
		upload.Subscriber
	}
	both struct {
		known
		upload.Flagger
		upload.Subscriber
	}
)

// listedDestination keeps what else a destination can do.
func listedDestination(d upload.Destination, there []mail.Mailbox) upload.Destination {
	k := known{d, there}
	f, canFlag := d.(upload.Flagger)
	s, canSubscribe := d.(upload.Subscriber)
	switch {
	case canFlag && canSubscribe:
		return both{k, f, s}
	case canFlag:
		return flagged{k, f}
	case canSubscribe:
		return subscribed{k, s}
	}
	return k
}

// counting is a source that notes how many of the messages it lists are longer than
// the destination takes.
type counting struct {
	listed
	limit int64
	big   atomic.Int64
}

func (c *counting) tooBig() int64 { return c.big.Load() }

func (c *counting) List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for in, err := range c.listed.List(ctx, mb) {
			if err == nil && c.limit > 0 && in.Size > c.limit {
				c.big.Add(1)
			}
			if !yield(in, err) {
				return
			}
		}
	}
}
