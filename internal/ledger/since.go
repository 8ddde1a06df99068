package ledger

import (
	"context"
	"time"

	"mailhaul/mail"
)

// MessagesAfter yields the messages of a mailbox that were recorded after the one
// with this ledger id, as Messages does.
func (l *Ledger) MessagesAfter(ctx context.Context, mailbox string, after int64, yield func(mail.Held) error) error {
	return l.messages(ctx, mailbox, " AND id > ?4", []any{after}, yield)
}

// Newest returns the ledger id of the message of a mailbox that was recorded last, 0
// if there is none.
func (l *Ledger) Newest(ctx context.Context, mailbox string) (id int64, err error) {
	err = l.read(ctx, "find newest message", func() error {
		mb, err := l.db.int64("SELECT id FROM mailbox WHERE name = ?", mailbox)
		if err != nil || mb == 0 {
			return err
		}
		id, err = l.db.int64("SELECT max(id) FROM message WHERE id BETWEEN ? AND ?", firstID(mb), lastID(mb))
		return err
	})
	return id, err
}

// Latest returns when the message of a mailbox that was recorded last was recorded,
// to the millisecond; the zero time if there is none.
func (l *Ledger) Latest(ctx context.Context, mailbox string) (at time.Time, err error) {
	err = l.read(ctx, "find latest message", func() error {
		mb, err := l.db.int64("SELECT id FROM mailbox WHERE name = ?", mailbox)
		if err != nil || mb == 0 {
			return err
		}
		n, err := l.db.int64("SELECT archived FROM message WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1", firstID(mb), lastID(mb))
		at = fromMillis(n)
		return err
	})
	return at, err
}
