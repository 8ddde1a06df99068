package ledger

import (
	"context"
	"database/sql/driver"
	"fmt"

	"mailhaul/mail"
)

// pageRows is how many rows are read while the ledger is held.
const pageRows = 1024

// paged yields rows in the order of their ids, those behind after. read is called with
// the ledger held and appends at most pageRows of them to page; yield may use the ledger.
func paged[T any](ctx context.Context, l *Ledger, what string, after int64, id func(T) int64, read func(after int64, page []T) ([]T, error), yield func(T) error) error {
	for page := []T(nil); ; {
		err := l.read(ctx, what, func() (err error) {
			page, err = read(after, page[:0])
			return err
		})
		if err != nil {
			return err
		}
		for _, row := range page {
			if err := yield(row); err != nil {
				return err
			}
		}
		if len(page) < pageRows {
			return nil
		}
		after = id(page[len(page)-1])
	}
}

const claimColumns = "id, uidvalidity, uid, message, size, flags, fetched, gone, gone_by"

// Claims yields every claim of an account's mailbox, those that are gone too, in
// the order in which they were recorded. An error of yield ends it and is
// returned. A claim recorded meanwhile may be yielded, one that is already there
// is yielded exactly once.
func (l *Ledger) Claims(ctx context.Context, account, mailbox string, yield func(mail.Claim) error) error {
	box, err := l.boxOf(ctx, account, mailbox)
	if err != nil || box == 0 {
		return err
	}
	missing := map[int64]bool{}
	err = l.read(ctx, "read losses", func() error {
		return l.db.query("SELECT id FROM message WHERE place = ''", nil, func(v []driver.Value) error {
			missing[integer(v[0])] = true
			return nil
		})
	})
	if err != nil {
		return err
	}
	read := func(after int64, page []mail.Claim) ([]mail.Claim, error) {
		err := l.db.query("SELECT "+claimColumns+" FROM claim WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
			[]any{after, lastID(box), int64(pageRows)}, func(v []driver.Value) error {
				c, err := l.scanClaim(v)
				c.Missing = missing[c.Message]
				page = append(page, c)
				return err
			})
		return page, err
	}
	return paged(ctx, l, "read claims", firstID(box), func(c mail.Claim) int64 { return c.ID }, read, yield)
}

// boxOf returns the number of an account's mailbox, 0 if the ledger has none.
func (l *Ledger) boxOf(ctx context.Context, account, mailbox string) (box int64, err error) {
	err = l.read(ctx, "find mailbox", func() (err error) {
		box, err = l.db.int64(`SELECT id FROM box WHERE name = ?
			AND account = (SELECT id FROM account WHERE name = ?)`, mailbox, account)
		return err
	})
	return box, err
}

func (l *Ledger) scanClaim(v []driver.Value) (mail.Claim, error) {
	flags, err := l.flagSet(integer(v[5]))
	return mail.Claim{
		ID:          integer(v[0]),
		UIDValidity: uint32(integer(v[1])),
		UID:         uidText(v[2]),
		Message:     integer(v[3]),
		Size:        integer(v[4]),
		Flags:       flags,
		Fetched:     integer(v[6]) != 0,
		Gone:        fromMillis(integer(v[7])),
		GoneBy:      element(goneBy, integer(v[8])),
	}, err
}

func (l *Ledger) claim(id int64) (c mail.Claim, found bool, err error) {
	err = l.db.query("SELECT "+claimColumns+" FROM claim WHERE id = ?", []any{id}, func(v []driver.Value) (err error) {
		found = true
		c, err = l.scanClaim(v)
		return err
	})
	return c, found, err
}

// flagSet returns the set of flags with a number.
func (l *Ledger) flagSet(id int64) (mail.Flags, error) {
	if f, ok := l.flagSets[id]; ok {
		return f, nil
	}
	s, err := l.db.string("SELECT value FROM flags WHERE id = ?", id)
	if err == nil && len(l.flagSets) < maxFlagSets {
		l.flagSets[id] = mail.Flags(s)
	}
	return mail.Flags(s), err
}

const messageColumns = "id, digest, header, octets, wire, date, source, flags, inexact, place, suspicious, object"

// dismissed is the place of a message that a person removed for good: nobody sees
// it any more, but the claims on it stay, so that it is not fetched again.
const dismissed = "-"

// Messages yields every message of a mailbox of the archive, in the order in
// which they were recorded. Receipt.Info.Ref has the mailbox only, since several
// accounts may claim a message; Receipt.Info.Size is the length of the wire form;
// Receipt.Place is "" for a message that is missing from the archive.
func (l *Ledger) Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error {
	return l.messages(ctx, mailbox, "", nil, yield)
}

// Free yields the messages of a mailbox of the archive, as Messages does, that no
// claim of the account on this mailbox holds which is still at the server. Missing
// ones are not among them.
func (l *Ledger) Free(ctx context.Context, account, mailbox string, yield func(mail.Held) error) error {
	return l.messages(ctx, mailbox, ` AND place <> '' AND NOT EXISTS (
		SELECT 1 FROM claim c JOIN box b ON b.id = c.id >> 40
		WHERE c.message = message.id AND c.gone = 0 AND b.name = ?5
		AND b.account = (SELECT id FROM account WHERE name = ?4))`, []any{account, mailbox}, yield)
}

func (l *Ledger) messages(ctx context.Context, mailbox, where string, more []any, yield func(mail.Held) error) error {
	var mb int64
	err := l.read(ctx, "find mailbox", func() (err error) {
		mb, err = l.db.int64("SELECT id FROM mailbox WHERE name = ?", mailbox)
		return err
	})
	if err != nil || mb == 0 {
		return err
	}
	read := func(after int64, page []mail.Held) ([]mail.Held, error) {
		err := l.db.query("SELECT "+messageColumns+" FROM message WHERE id > ?1 AND id <= ?2 AND place <> '"+dismissed+"'"+where+" ORDER BY id LIMIT ?3",
			append([]any{after, lastID(mb), int64(pageRows)}, more...), func(v []driver.Value) error {
				h, err := l.scanMessage(v, mailbox)
				page = append(page, h)
				return err
			})
		return page, err
	}
	return paged(ctx, l, "read messages", firstID(mb), func(h mail.Held) int64 { return h.Message }, read, yield)
}

func (l *Ledger) scanMessage(v []driver.Value, mailbox string) (mail.Held, error) {
	flags, err := l.flagSet(integer(v[7]))
	return mail.Held{
		Message: integer(v[0]),
		Receipt: mail.Receipt{
			Info: mail.Info{
				Ref:          mail.Ref{Mailbox: mailbox},
				Size:         integer(v[4]),
				InternalDate: fromNanos(integer(v[5])),
				DateFrom:     element(dateSources, integer(v[6])),
				Flags:        flags,
				ObjectID:     text(v[11]),
			},
			Place: placeOf(text(v[9])),
			Sums: mail.Sums{
				Digest:  digest(v[1]),
				Header:  digest(v[2]),
				Octets:  integer(v[3]),
				Wire:    integer(v[4]),
				Inexact: integer(v[8]) != 0,
			},
		},
		Suspicious: text(v[10]),
	}, err
}

func placeOf(place string) string {
	if place == dismissed {
		return ""
	}
	return place
}

// Message returns one message of the archive; an unknown one is an error.
func (l *Ledger) Message(ctx context.Context, id int64) (h mail.Held, err error) {
	err = l.read(ctx, "read message", func() (err error) {
		h, err = l.message(id)
		return err
	})
	return h, err
}

func (l *Ledger) message(id int64) (h mail.Held, err error) {
	mailbox, err := l.db.string("SELECT name FROM mailbox WHERE id = ?", id>>idBits)
	if err != nil {
		return h, err
	}
	found := false
	err = l.db.query("SELECT "+messageColumns+" FROM message WHERE id = ?", []any{id}, func(v []driver.Value) (err error) {
		found = true
		h, err = l.scanMessage(v, mailbox)
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("no message %d", id)
	}
	return h, err
}
