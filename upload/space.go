package upload

import (
	"context"
	"fmt"

	"mailhaul/mail"
)

// Quoter is a Destination that tells how much space is left.
type Quoter interface {
	// Space returns what the account's INBOX can still take. A server that does not
	// say is no error.
	Space(ctx context.Context) (Space, error)
}

// Space is what a destination can still take; -1 where it does not say.
type Space struct {
	Octets, Messages int64
}

// Unlimited is the Space of a destination that does not say.
var Unlimited = Space{-1, -1}

// Forecast is what is to be sent, and what of it will not fit.
type Forecast struct {
	Messages, Octets int64 // to be sent, without those that are too big
	TooBig           int64 // messages with more octets than Limit, which are not sent
	Limit            int64 // octets of one message that the destination takes; 0: it does not say
	Space            Space
	Uncompared       int64 // messages that are there and may be some of these: equal ones are not sent
}

// Excess returns the messages and octets that there is no space for, the messages
// being estimated from their mean size where octets are lacking.
func (f Forecast) Excess() (messages, octets int64) {
	if f.Space.Octets >= 0 && f.Octets > f.Space.Octets {
		octets = f.Octets - f.Space.Octets
		messages = max(1, int64(float64(f.Messages)*float64(octets)/float64(f.Octets)))
	}
	if f.Space.Messages >= 0 && f.Messages > f.Space.Messages {
		messages = max(messages, f.Messages-f.Space.Messages)
	}
	return messages, octets
}

// Err is a warning about what will not fit, nil if all will.
func (f Forecast) Err(account string) error {
	messages, octets := f.Excess()
	var what error
	switch {
	case octets > 0:
		what = fmt.Errorf("%d octets are to be sent, and the destination has space for %d (quota): about %d messages will not fit",
			f.Octets, f.Space.Octets, messages)
	case messages > 0:
		what = fmt.Errorf("%d messages are to be sent, and the destination has space for %d (quota)", f.Messages, f.Space.Messages)
	default:
		return nil
	}
	return &mail.Error{Kind: mail.KindPartial, Ref: mail.Ref{Account: account}, Op: "check space", Err: what,
		Hint: "make room at the destination, or select less; what does not fit is kept for the next run"}
}

// CheckSpace completes a forecast by what the destination says of its space. It
// asks only where something is to be sent and the destination can tell.
func CheckSpace(ctx context.Context, d Destination, f Forecast) (Forecast, error) {
	f.Space = Unlimited
	if l, ok := d.(Limiter); ok {
		f.Limit = l.MaxMessage()
	}
	q, ok := d.(Quoter)
	if !ok || f.Messages == 0 {
		return f, nil
	}
	s, err := q.Space(ctx)
	if err == nil {
		f.Space = s
	}
	return f, err
}

// need is what messages need at the destination.
type need struct{ messages, octets, tooBig int64 }

func (n *need) add(wire, limit int64) {
	if limit > 0 && wire > limit {
		n.tooBig++
		return
	}
	n.messages++
	n.octets += wire
}

// forecast tells what will not fit. That it is not known is no reason to stop.
func (r *run) forecast(ctx context.Context, boxes []*box) {
	if r.Only != nil {
		return
	}
	var f Forecast
	for _, b := range boxes {
		f.Messages += b.need.messages
		f.Octets += b.need.octets
		f.TooBig += b.need.tooBig
	}
	if f.Messages+f.TooBig == 0 {
		return
	}
	f, err := CheckSpace(ctx, r.Destination, f)
	if err != nil {
		if ctx.Err() == nil {
			r.warn(fmt.Errorf("the destination's space is not known: %w", err))
		}
		f.Space = Unlimited
	}
	if r.Forecast != nil {
		r.Forecast(f)
		return
	}
	if err := f.Err(r.Destination.Account()); err != nil {
		r.warn(err)
	}
}
