package ledger

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
)

// fromSources are the mailboxes that mail was copied from.
const fromSources = "IN (SELECT b.id FROM box b JOIN account a ON a.id = b.account WHERE a.source = 1)"

// Vanished yields the messages that were no longer at their source when it was
// last listed completely, and were not deleted there by us. A message that several
// claims hold is yielded only if all of them are gone.
func (l *Ledger) Vanished(ctx context.Context, yield func(id int64) error) error {
	var ids []int64
	err := l.read(ctx, "read vanished messages", func() error {
		return l.db.query(`SELECT DISTINCT message FROM claim WHERE gone <> 0 AND gone_by <> ?1 AND id >> 40 `+fromSources+`
			AND NOT EXISTS (SELECT 1 FROM claim l WHERE l.message = claim.message AND l.gone = 0 AND l.id >> 40 `+fromSources+`)
			AND message NOT IN (SELECT message FROM claim WHERE gone <> 0 AND gone_by = ?1 AND id >> 40 `+fromSources+`)
			ORDER BY message`, []any{int64(slices.Index(goneBy, GoneByUs))}, func(v []driver.Value) error {
			ids = append(ids, integer(v[0]))
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := yield(id); err != nil {
			return err
		}
	}
	return nil
}

// UIDL is the identity of a message at a POP3 source and the one it has at a
// destination.
type UIDL struct {
	UIDL        string
	Mailbox     string // of the destination
	UIDValidity uint32
	UID         string
}

// UIDLs yields, for every message of a POP3 source that is known to be at the
// destination account, both identities, by the destination's mailboxes and UIDs,
// each once. Messages that are gone at the destination are left out, those gone at
// the source are not. yield must not call the ledger.
func (l *Ledger) UIDLs(ctx context.Context, account string, yield func(UIDL) error) error {
	var last UIDL
	q := fmt.Sprintf(`SELECT s.uid, b.name, d.uidvalidity, d.uid
		FROM box b CROSS JOIN claim d ON d.id > b.id << %[1]d AND d.id <= (b.id << %[1]d | %[2]d)
		JOIN claim s ON s.message = d.message
		JOIN box sb ON sb.id = s.id >> %[1]d JOIN account a ON a.id = sb.account
		WHERE b.account = (SELECT id FROM account WHERE name = ?1) AND d.gone = 0
		AND d.uidvalidity = (SELECT n.uidvalidity FROM claim n WHERE n.id > b.id << %[1]d AND n.id <= (b.id << %[1]d | %[2]d) ORDER BY n.id DESC LIMIT 1)
		AND a.source = 1 AND a.name LIKE 'pop3:%%'
		ORDER BY b.name, d.uid, s.gone <> 0, s.id DESC`, idBits, int64(1)<<idBits-1)
	return l.read(ctx, "read UIDLs", func() error {
		return l.db.query(q, []any{account}, func(v []driver.Value) error {
			u := UIDL{UIDL: uidText(v[0]), Mailbox: text(v[1]), UIDValidity: uint32(integer(v[2])), UID: uidText(v[3])}
			if u.Mailbox == last.Mailbox && u.UID == last.UID {
				return nil
			}
			last = u
			return yield(u)
		})
	})
}
