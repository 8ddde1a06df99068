package ledger

import (
	"context"
	"database/sql/driver"
	"iter"

	"mailhaul/mail"
)

// Anchor returns the record of a mailbox on disk; the zero Anchor if there is
// none.
func (l *Ledger) Anchor(ctx context.Context, mailbox string) (a mail.Anchor, err error) {
	err = l.read(ctx, "read anchor", func() error {
		return l.db.query("SELECT open, length, mtime FROM mailbox WHERE name = ?", []any{mailbox}, func(v []driver.Value) error {
			a = mail.Anchor{Open: integer(v[0]) != 0, Length: integer(v[1]), ModTime: fromNanos(integer(v[2]))}
			return nil
		})
	})
	return a, err
}

// MarkOpen records that a mailbox is about to be written to, from a on. It is
// durable when MarkOpen returns nil. It makes a Ledger an archive.Anchors.
func (l *Ledger) MarkOpen(mailbox string, a mail.Anchor) error {
	a.Open = true
	return l.write(context.Background(), "mark open", func() error { return l.anchor(mailbox, a, false) })
}

// CloseAnchors takes back all marks of MarkOpen. It is called at the clean end of
// a run, when everything appended is committed and recorded or was dropped.
func (l *Ledger) CloseAnchors(ctx context.Context) error {
	return l.write(context.WithoutCancel(ctx), "close anchors", func() error {
		return l.db.exec("UPDATE mailbox SET open = 0 WHERE open <> 0")
	})
}

// anchor records a; with keepOpen it leaves a mark of MarkOpen as it is.
func (l *Ledger) anchor(mailbox string, a mail.Anchor, keepOpen bool) error {
	id, err := l.mailboxID(mailbox)
	if err != nil {
		return err
	}
	if keepOpen && !a.Open {
		n, err := l.db.int64("SELECT open FROM mailbox WHERE id = ?", id)
		if err != nil {
			return err
		}
		a.Open = n != 0
	}
	return l.db.exec(`UPDATE mailbox SET open = ?1, length = ?2, mtime = ?3 WHERE id = ?4
		AND (open <> ?1 OR length <> ?2 OR mtime <> ?3)`, boolean(a.Open), a.Length, nanos(a.ModTime), id)
}

// Reanchor brings the messages of a mailbox together with what was found on disk
// and records a, all in one transaction.
//
// If all is true, receipts are everything that is there: messages on record are
// found again by digest, as many of each as there are, preferably at the place
// they had; what is new is added; what is not found becomes missing (its place is
// ""), and comes back when a later call finds it. If all is false, receipts are
// added, except those whose place is on record with their digest. No row is ever
// deleted.
func (l *Ledger) Reanchor(ctx context.Context, mailbox string, receipts []mail.Receipt, all bool, a mail.Anchor) error {
	return l.reanchor(ctx, mailbox, func(yield func(mail.Receipt, error) bool) {
		for _, rc := range receipts {
			if !yield(rc, nil) {
				return
			}
		}
	}, all, a)
}

// ReanchorAll is Reanchor with all set, for receipts that are not in memory. The
// sequence must not use the ledger; an error in it undoes everything.
func (l *Ledger) ReanchorAll(ctx context.Context, mailbox string, receipts iter.Seq2[mail.Receipt, error], a mail.Anchor) error {
	return l.reanchor(ctx, mailbox, receipts, true, a)
}

func (l *Ledger) reanchor(ctx context.Context, mailbox string, receipts iter.Seq2[mail.Receipt, error], all bool, a mail.Anchor) error {
	return l.write(ctx, "reanchor", func() error {
		l.lost = nil
		id, err := l.mailboxID(mailbox)
		if err != nil {
			return err
		}
		if err := l.match(id, mailbox, receipts, all); err != nil {
			return err
		}
		return l.anchor(mailbox, a, false)
	})
}

// matcher finds messages on record again, by place first, then by digest.
type matcher struct {
	byPlace  map[string]row
	byDigest map[mail.Digest][]int64 // not found yet, and free to be found elsewhere
	found    map[int64]bool
	moved    []mail.Receipt // not at their place on record, but their digest is known
}

type row struct {
	id     int64
	digest mail.Digest
}

func (l *Ledger) matcher(mailbox int64, all bool) (*matcher, error) {
	m := &matcher{byPlace: map[string]row{}, byDigest: map[mail.Digest][]int64{}, found: map[int64]bool{}}
	err := l.db.query("SELECT id, digest, place FROM message WHERE id BETWEEN ? AND ?",
		[]any{firstID(mailbox), lastID(mailbox)}, func(v []driver.Value) error {
			r, place := row{id: integer(v[0]), digest: digest(v[1])}, text(v[2])
			if place == dismissed {
				return nil
			}
			if place != "" {
				m.byPlace[place] = r
			}
			// A message on record elsewhere is only known to have moved if
			// everything was looked at.
			if all || place == "" {
				m.byDigest[r.digest] = append(m.byDigest[r.digest], r.id)
			}
			return nil
		})
	return m, err
}

// take returns a message with the digest that was not found yet.
func (m *matcher) take(d mail.Digest) (id int64, ok bool) {
	ids := m.byDigest[d]
	for len(ids) > 0 && !ok {
		id, ids = ids[0], ids[1:]
		ok = !m.found[id]
	}
	m.byDigest[d] = ids
	m.found[id] = m.found[id] || ok
	return id, ok
}

func (l *Ledger) match(id int64, mailbox string, receipts iter.Seq2[mail.Receipt, error], all bool) error {
	m, err := l.matcher(id, all)
	if err != nil {
		return err
	}
	for rc, err := range receipts {
		if err != nil {
			return err
		}
		r, known := m.byPlace[rc.Place]
		switch {
		case known && r.digest == rc.Digest:
			m.found[r.id] = true
		case len(m.byDigest[rc.Digest]) == 0:
			_, err = l.insertMessage(mailbox, rc, "")
		default: // equal messages must not change places: those at theirs come first
			m.moved = append(m.moved, rc)
		}
		if err != nil {
			return err
		}
	}
	for _, rc := range m.moved {
		if id, ok := m.take(rc.Digest); ok {
			err = l.moveTo(id, rc.Place)
		} else {
			_, err = l.insertMessage(mailbox, rc, "")
		}
		if err != nil {
			return err
		}
	}
	if !all {
		return nil
	}
	var lost []int64
	for _, ids := range m.byDigest {
		for _, id := range ids {
			if !m.found[id] {
				lost = append(lost, id)
			}
		}
	}
	return l.loseAll(lost)
}

// loseAll marks messages as missing. Nothing may be concluded from cursors then:
// the next run has to list, to fetch again what the servers still have.
func (l *Ledger) loseAll(messages []int64) error {
	if len(messages) == 0 {
		return nil
	}
	for _, id := range messages {
		if err := l.moveTo(id, ""); err != nil {
			return err
		}
	}
	return l.db.exec("UPDATE box SET cursor = '' WHERE cursor <> ''")
}

func (l *Ledger) moveTo(id int64, place string) error {
	return l.db.exec("UPDATE message SET place = ?1 WHERE id = ?2 AND place <> ?1", place, id)
}

// Lost records that the archive no longer holds messages at their place, or not
// as they were: they are missing from now on, and fetched again where they still
// are at a server.
func (l *Ledger) Lost(ctx context.Context, messages []int64) error {
	return l.write(context.WithoutCancel(ctx), "record losses", func() error {
		l.lost = nil
		return l.loseAll(messages)
	})
}

// Dismiss records that messages are wanted to be gone from the archive, or to be
// other than they were: they are neither missing nor fetched again, and Messages
// does not yield them any more. A copy that comes later is a new message.
func (l *Ledger) Dismiss(ctx context.Context, messages []int64) error {
	return l.write(context.WithoutCancel(ctx), "record removals", func() error {
		l.lost = nil
		for _, id := range messages {
			if err := l.moveTo(id, dismissed); err != nil {
				return err
			}
		}
		return nil
	})
}

// lost is what is missing from the archive, to recognise it when it is fetched
// again; it is only in memory while a run archives and something is missing.
type lost struct {
	messages map[lostMessage][]int64
	claims   map[lostClaim]int64
	ids      map[int64]bool
}

type lostMessage struct {
	mailbox int64
	digest  mail.Digest
}

type lostClaim struct {
	box, uidvalidity int64
	uid              string
}

func (l *Ledger) losses() (*lost, error) {
	if l.lost != nil {
		return l.lost, nil
	}
	lo := &lost{messages: map[lostMessage][]int64{}, claims: map[lostClaim]int64{}, ids: map[int64]bool{}}
	err := l.db.query("SELECT id, digest FROM message WHERE place = ''", nil, func(v []driver.Value) error {
		id := integer(v[0])
		lo.ids[id] = true
		key := lostMessage{id >> idBits, digest(v[1])}
		lo.messages[key] = append(lo.messages[key], id)
		return nil
	})
	if err == nil {
		err = l.db.query(`SELECT c.id, c.uidvalidity, c.uid FROM message m JOIN claim c ON c.message = m.id AND c.gone = 0
			WHERE m.place = ''`, nil, func(v []driver.Value) error {
			lo.claims[lostClaim{integer(v[0]) >> idBits, integer(v[1]), uidText(v[2])}] = integer(v[0])
			return nil
		})
	}
	if err == nil {
		l.lost = lo
	}
	return lo, err
}

// revive gives a missing message, fetched again, its new place; 0 if nothing with
// this digest is missing in the mailbox.
func (lo *lost) revive(mailbox int64, d mail.Digest) int64 {
	key := lostMessage{mailbox, d}
	ids := lo.messages[key]
	if len(ids) == 0 {
		return 0
	}
	lo.messages[key] = ids[1:]
	delete(lo.ids, ids[0])
	return ids[0]
}
