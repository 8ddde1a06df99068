package ledger

import (
	"context"
	"database/sql/driver"
	"fmt"

	"mailhaul/mail"
)

// What is recorded of uploads.
type (
	Sending  = mail.Sending
	Outgoing = mail.Outgoing
	Upload   = mail.Upload
	Uploaded = mail.Uploaded
)

// IntendUploads records, before anything is sent, what is about to be and returns
// the ids of the intents, in order. It is durable then.
func (l *Ledger) IntendUploads(ctx context.Context, s Sending) (ids []int64, err error) {
	err = l.write(ctx, "intend uploads", func() error {
		box, err := l.boxID(s.Account, s.Mailbox)
		if err != nil {
			return err
		}
		top, err := l.db.int64("SELECT max(id) FROM upload")
		if err != nil {
			return err
		}
		for i, m := range s.Messages {
			if m.Digest.IsZero() {
				return fmt.Errorf("message %d to be uploaded has no digest", m.Message)
			}
			id := top + int64(i) + 1
			if err := l.db.exec(`INSERT INTO upload (id, box, grp, uidvalidity, uidnext, message, digest, at, state)
				VALUES (?,?,?,?,?,?,?,?,?)`, id, box, top+1, int64(s.UIDValidity), int64(s.UIDNext), m.Message,
				m.Digest[:], l.stamp(), int64(stateOpen)); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// SettleUploads records what came of intents. A message that arrived is claimed
// from then on by the destination's account. It is recorded even if ctx has ended.
func (l *Ledger) SettleUploads(ctx context.Context, results []Uploaded) error {
	return l.write(context.WithoutCancel(ctx), "settle uploads", func() error {
		for i := range results {
			if err := l.settleUpload(&results[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *Ledger) settleUpload(r *Uploaded) error {
	var account, mailbox string
	var message int64
	err := l.db.query(`SELECT a.name, b.name, u.message FROM upload u JOIN box b ON b.id = u.box
		JOIN account a ON a.id = b.account WHERE u.id = ? AND u.state = 0`, []any{r.ID}, func(v []driver.Value) error {
		account, mailbox, message = text(v[0]), text(v[1]), integer(v[2])
		return nil
	})
	if err != nil || account == "" { // settled before
		return err
	}
	if !r.Arrived {
		return l.db.exec("UPDATE upload SET state = ? WHERE id = ?", int64(stateVoid), r.ID)
	}
	if err := l.undo(r.Undoes); err != nil {
		return err
	}
	var altered any
	if !r.Altered.IsZero() {
		altered = r.Altered[:]
	}
	if err := l.db.exec(`UPDATE upload SET state = ?, uid = ?, altered = ?,
		uidvalidity = CASE ?4 WHEN 0 THEN uidvalidity ELSE ?4 END WHERE id = ?5`,
		int64(stateDone), uidValue(r.Info.Ref.UID), altered, int64(r.Info.Ref.UIDValidity), r.ID); err != nil {
		return err
	}
	if r.Info.Ref.UID == "" { // nothing to recognise it by: the next listing adopts it
		return nil
	}
	in := r.Info
	in.Ref.Account, in.Ref.Mailbox = account, mailbox
	return l.insertClaim(in, message, false)
}

// OpenUploads returns the intents for a mailbox at a destination of which it is
// not known what came of them, in the order in which they were sent.
func (l *Ledger) OpenUploads(ctx context.Context, account, mailbox string) (list []Upload, err error) {
	err = l.uploads(ctx, account, mailbox, stateOpen, func(u Upload) error {
		list = append(list, u)
		return nil
	})
	return list, err
}

// Uploads yields what is known to have arrived in a mailbox at a destination, in
// the order in which it was sent.
func (l *Ledger) Uploads(ctx context.Context, account, mailbox string, yield func(Upload) error) error {
	return l.uploads(ctx, account, mailbox, stateDone, yield)
}

func (l *Ledger) uploads(ctx context.Context, account, mailbox string, state int64, yield func(Upload) error) error {
	box, err := l.boxOf(ctx, account, mailbox)
	if err != nil || box == 0 {
		return err
	}
	read := func(after int64, page []Upload) ([]Upload, error) {
		err := l.db.query(`SELECT id, grp, message, digest, uidvalidity, uidnext, uid, altered, at FROM upload
			WHERE box = ? AND state = ? AND id > ? ORDER BY id LIMIT ?`,
			[]any{box, state, after, int64(pageRows)}, func(v []driver.Value) error {
				page = append(page, Upload{
					ID: integer(v[0]), Group: integer(v[1]), Message: integer(v[2]), Digest: digest(v[3]),
					UIDValidity: uint32(integer(v[4])), UIDNext: uint32(integer(v[5])), UID: uidText(v[6]),
					Altered: digest(v[7]), At: fromMillis(integer(v[8])),
				})
				return nil
			})
		return page, err
	}
	return paged(ctx, l, "read uploads", 0, func(u Upload) int64 { return u.ID }, read, yield)
}
