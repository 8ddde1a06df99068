package upload

import (
	"context"
	"errors"
	"fmt"

	"mailhaul/mail"
)

// prepare makes and opens the mailbox. If it is another one than was listed, what
// is known of it is looked at anew.
func (b *box) prepare(ctx context.Context) error {
	if !b.job.exists {
		if len(b.todo) == 0 && !b.streaming {
			return nil
		}
		if err := b.create(ctx); err != nil {
			return err
		}
	}
	if b.Subscribe {
		if s, ok := b.Destination.(Subscriber); ok {
			if err := s.Subscribe(ctx, b.job.to); err != nil {
				b.warn(err)
			}
		}
	}
	if err := b.enter(ctx); err != nil {
		return err
	}
	if b.job.exists && b.state.UIDValidity != b.validity {
		return &mail.Error{Kind: mail.KindTemporary, Ref: b.ref(mail.Ref{}), Op: "open mailbox", Err: ErrUIDValidity,
			Hint: "run the same command again"}
	}
	b.job.exists = true
	return b.forget(ctx)
}

// create makes the mailbox, under another name if the destination refuses its own.
func (b *box) create(ctx context.Context) error {
	refused := b.again(ctx, func() error { return b.Destination.Create(ctx, b.job.to) })
	if !refusesName(refused) {
		return refused
	}
	for _, name := range b.job.fallback {
		err := b.again(ctx, func() error { return b.Destination.Create(ctx, name) })
		if refusesName(err) {
			continue
		}
		if err != nil {
			return err
		}
		b.warn(fmt.Errorf("mailbox %s: the destination cannot have such a name; it becomes %s (%w)", b.job.to, name, refused))
		b.job.to = name
		return b.startOver(ctx)
	}
	return refused
}

// refusesName tells whether another name may do.
func refusesName(err error) bool {
	switch mail.KindOf(err) {
	case mail.KindPartial, mail.KindLacking, mail.KindOther:
		var e *mail.Error
		return errors.As(err, &e) && !errors.Is(err, ErrOverQuota)
	}
	return false
}

// startOver looks at the mailbox again, which has another name now and may have
// been there.
func (b *box) startOver(ctx context.Context) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	b.job.exists, b.validity = true, b.state.UIDValidity
	if err := b.know(ctx); err != nil {
		return err
	}
	b.counts, b.todo, b.need, b.flags = Counts{}, nil, need{}, nil
	return b.sort(ctx)
}

// enter asks for the mailbox's state.
func (b *box) enter(ctx context.Context) error {
	return b.again(ctx, func() (err error) {
		b.state, err = b.Destination.Open(ctx, b.job.to)
		return err
	})
}
