package upload

import (
	"context"
	"errors"
	"time"

	"mailhaul/mail"
)

// again does what may be repeated, while the connection is lost.
func (b *box) again(ctx context.Context, f func() error) error {
	pause := b.Pause
	for try := 1; ; try++ {
		err := f()
		if err == nil || try >= attempts || mail.KindOf(err) != mail.KindTemporary || errors.Is(err, ErrUIDValidity) {
			return err
		}
		if t, ok := errors.AsType[*Throttled](err); ok {
			if err := b.throttled(ctx, t, err); err != nil {
				return err
			}
			continue
		}
		if err := b.wait(ctx, pause, err); err != nil {
			return err
		}
		pause *= 2
	}
}

// throttled waits as long as the server wants.
func (b *box) throttled(ctx context.Context, t *Throttled, why error) error {
	d := t.Wait
	if d <= 0 {
		d = throttlePauses * b.Pause
	}
	d = min(d, longestWait)
	return b.pause(ctx, d, why, "the server asks for "+d.Round(time.Second).String())
}

func (b *box) wait(ctx context.Context, d time.Duration, why error) error {
	return b.pause(ctx, d, why, "connection lost, trying again")
}

func (b *box) pause(ctx context.Context, d time.Duration, why error, text string) error {
	b.Notify(mail.Event{Kind: mail.EventWaiting, Ref: b.ref(mail.Ref{}), Err: why, Waiting: text})
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
