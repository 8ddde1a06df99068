package clean

import (
	"context"
	"iter"

	"mailhaul/mail"
)

// Lister is what Settle needs of the server.
type Lister interface {
	Account() string
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)
	List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error]
}

// Settle finds out what came of deletions that an earlier run began and did not hear
// of, by listing the mailboxes they are in. It deletes nothing.
func Settle(ctx context.Context, src Lister, ledger Ledger) error {
	mailboxes, err := src.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for _, mb := range mailboxes {
		open, err := ledger.OpenDeletions(ctx, src.Account(), mb.Name)
		if err != nil {
			return err
		}
		if len(open) == 0 {
			continue
		}
		k := newKnown()
		k.expect(open)
		for in, err := range src.List(ctx, mb) {
			if err != nil {
				return err
			}
			k.note(place{in.Ref.UIDValidity, in.Ref.UID}, in.Flags)
		}
		if _, err := k.settle(ctx, ledger); err != nil {
			return err
		}
	}
	return nil
}
