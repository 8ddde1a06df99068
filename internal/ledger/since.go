package ledger

import (
	"context"

	"mailhaul/mail"
)

// MessagesAfter yields the messages of a mailbox that were recorded after the one
// with this ledger id, as Messages does.
func (l *Ledger) MessagesAfter(ctx context.Context, mailbox string, after int64, yield func(mail.Held) error) error {
	return l.messages(ctx, mailbox, " AND id > ?4", []any{after}, yield)
}
