package ledger

import (
	"context"
	"database/sql/driver"

	"mailhaul/mail"
)

// Same returns the messages of the archive that an account's server calls by an
// ObjectID, in whatever mailbox they are, oldest first. Missing ones are not among
// them. Where the archive has mail of other accounts, whose servers may mean other
// messages, only those that the account has now are. Some of a great number do.
func (l *Ledger) Same(ctx context.Context, account, object string) (same []mail.Held, err error) {
	const most = 20
	if object == "" {
		return nil, nil
	}
	err = l.read(ctx, "find message", func() error {
		var ids []int64
		err := l.db.query(`SELECT id FROM message WHERE object = ?1 AND place NOT IN ('', '`+dismissed+`')
			AND (NOT EXISTS (SELECT 1 FROM account WHERE source = 1 AND name <> ?2) OR EXISTS (
				SELECT 1 FROM claim c JOIN box b ON b.id = c.id >> 40 JOIN account a ON a.id = b.account
				WHERE c.message = message.id AND c.gone = 0 AND a.name = ?2))
			ORDER BY id LIMIT ?3`,
			[]any{object, account, int64(most)}, func(v []driver.Value) error {
				ids = append(ids, integer(v[0]))
				return nil
			})
		for _, id := range ids {
			h, e := l.message(id)
			if e != nil {
				return e
			}
			same = append(same, h)
		}
		return err
	})
	return same, err
}
