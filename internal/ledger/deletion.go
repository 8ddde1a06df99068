package ledger

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"mailhaul/mail"
)

// How a message is deleted, and the values of deletions; package mail says what
// they mean.
const (
	ModeExpunge = mail.ModeExpunge
	ModeTrash   = mail.ModeTrash
)

type (
	Doomed   = mail.Doomed
	Deletion = mail.Deletion
	Deleted  = mail.DeletionResult
)

// IntendDeletions records, before anything is sent to the server, what is about
// to be deleted and returns the ids of the intents, in order. It is durable then.
//
// It refuses, as an error of KindIntegrity and for all of them, what is not
// proven to be the message of its claim, and a claim that was not fetched by us
// or is gone.
func (l *Ledger) IntendDeletions(ctx context.Context, list []Doomed, rule, mode string) (ids []int64, err error) {
	if mode != ModeExpunge && mode != ModeTrash {
		return nil, wrap("intend deletions", fmt.Errorf("unknown mode %q", mode))
	}
	err = l.write(ctx, "intend deletions", func() error {
		for _, d := range list {
			id, err := l.intendDeletion(d, rule, mode)
			if err != nil {
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

func (l *Ledger) intendDeletion(d Doomed, rule, mode string) (int64, error) {
	c, found, err := l.claim(d.Claim)
	if err != nil {
		return 0, err
	}
	refuse := func(why string) error {
		return &mail.Error{Kind: mail.KindIntegrity, Ref: mail.Ref{UIDValidity: c.UIDValidity, UID: c.UID},
			Op: "prepare deletion", Err: fmt.Errorf("claim %d: %s", d.Claim, why)}
	}
	rc, ok := d.Proof.Receipt()
	switch {
	case !ok:
		return 0, refuse("its message was not read back from the archive")
	case !found:
		return 0, refuse("it does not exist")
	case !c.Gone.IsZero():
		return 0, refuse("its message is no longer at the server")
	case !c.Fetched:
		return 0, refuse("its octets were not fetched from this server under this UID")
	}
	m, err := l.message(c.Message)
	if err != nil {
		return 0, err
	}
	switch {
	case m.Receipt.Digest != rc.Digest || m.Receipt.Octets != rc.Octets:
		return 0, refuse("the octets read back are those of another message")
	case m.Receipt.Place == "":
		return 0, refuse("the archive lacks its message")
	case m.Suspicious != "":
		return 0, refuse("its message is suspicious: " + m.Suspicious)
	}
	if err := l.db.exec("INSERT INTO deletion (claim, message, rule, mode, at, state) VALUES (?,?,?,?,?,?)",
		d.Claim, c.Message, rule, mode, l.stamp(), int64(stateOpen)); err != nil {
		return 0, err
	}
	return l.db.int64("SELECT last_insert_rowid()")
}

// SettleDeletions records what came of intents. The claim of a message that is
// gone is gone by us from then on; one that went to a known place in the trash is
// claimed there. It is recorded even if ctx has ended.
func (l *Ledger) SettleDeletions(ctx context.Context, results []Deleted) error {
	return l.write(context.WithoutCancel(ctx), "settle deletions", func() error {
		for i := range results {
			if err := l.settleDeletion(&results[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (l *Ledger) settleDeletion(r *Deleted) error {
	state := int64(stateVoid)
	if r.Gone {
		state = stateDone
		// Before the intent's state, which they ask for.
		err := l.db.exec(`UPDATE claim SET gone = CASE gone WHEN 0 THEN ?1 ELSE gone END, gone_by = 2
			WHERE id = (SELECT claim FROM deletion WHERE id = ?2 AND state = 0)`, l.stamp(), r.ID)
		if err == nil && r.Moved.Ref.UID != "" {
			err = l.claimTrashed(r)
		}
		if err == nil {
			err = l.relist(r.ID)
		}
		if err != nil {
			return err
		}
	}
	return l.db.exec("UPDATE deletion SET state = ? WHERE id = ? AND state = 0", state, r.ID)
}

// relist has the next run look at what a POP3 mailbox lists, even if that is what it
// was before the deletion: then the server has ignored it.
func (l *Ledger) relist(deletion int64) error {
	return l.db.exec(`UPDATE box SET cursor = '' WHERE id = (SELECT claim >> 40 FROM deletion WHERE id = ?) AND cursor <> ''
		AND account IN (SELECT id FROM account WHERE name LIKE 'pop3:%')`, deletion)
}

// claimTrashed claims a message where it lies in the trash.
func (l *Ledger) claimTrashed(r *Deleted) error {
	var account string
	var message int64
	err := l.db.query(`SELECT a.name, d.message FROM deletion d JOIN box b ON b.id = d.claim >> 40
		JOIN account a ON a.id = b.account WHERE d.id = ? AND d.state = 0`, []any{r.ID}, func(v []driver.Value) error {
		account, message = text(v[0]), integer(v[1])
		return nil
	})
	if err != nil || account == "" { // settled before
		return err
	}
	in := r.Moved
	in.Ref.Account = account
	return l.insertClaim(in, message, false)
}

// Trashed yields the messages of an account that were moved to its trash, or may
// have been, and that no claim on that mailbox holds: the trash may show them, under
// UIDs that are not known.
func (l *Ledger) Trashed(ctx context.Context, account, trash string, yield func(mail.Held) error) error {
	return l.deletions(ctx, `WHERE d.state IN (0, 1) AND d.mode = 'trash' AND a.name = ?3 AND b.name <> ?4 AND NOT EXISTS (
		SELECT 1 FROM claim k JOIN box kb ON kb.id = k.id >> 40
		WHERE k.message = d.message AND k.gone = 0 AND kb.account = b.account AND kb.name = ?4)`,
		[]any{account, trash}, func(d Deletion) error { return yield(d.Held) })
}

// OpenDeletions returns the intents in an account's mailbox of which it is not
// known what came of them: a run ended between asking and hearing.
func (l *Ledger) OpenDeletions(ctx context.Context, account, mailbox string) (list []Deletion, err error) {
	box, err := l.boxOf(ctx, account, mailbox)
	if err != nil || box == 0 {
		return nil, err
	}
	err = l.deletions(ctx, `WHERE d.state = 0 AND d.claim BETWEEN ?3 AND ?4`, []any{firstID(box), lastID(box)},
		func(d Deletion) error {
			list = append(list, d)
			return nil
		})
	return list, err
}

// Deletions yields what was deleted at an account by us since a time (the zero
// time for ever) and is not back there, oldest first. Intents that were never
// settled are among them if the message is gone.
func (l *Ledger) Deletions(ctx context.Context, account string, since time.Time, yield func(Deletion) error) error {
	return l.deletions(ctx, `WHERE d.state IN (0, 1) AND c.gone <> 0 AND c.gone_by = 2 AND a.name = ?3 AND d.at >= ?4`,
		[]any{account, millis(since)}, yield)
}

func (l *Ledger) deletions(ctx context.Context, where string, args []any, yield func(Deletion) error) error {
	read := func(after int64, page []Deletion) ([]Deletion, error) {
		err := l.db.query(`SELECT d.id, a.name, b.name, d.claim, d.message, d.rule, d.mode, d.at, d.state
			FROM deletion d JOIN claim c ON c.id = d.claim AND c.message = d.message
			JOIN box b ON b.id = c.id >> 40 JOIN account a ON a.id = b.account `+where+`
			AND d.id > ?1 ORDER BY d.id LIMIT ?2`,
			append([]any{after, int64(pageRows)}, args...), func(v []driver.Value) error {
				page = append(page, Deletion{
					ID: integer(v[0]), Account: text(v[1]), Mailbox: text(v[2]),
					Claim: mail.Claim{ID: integer(v[3])}, Held: mail.Held{Message: integer(v[4])},
					Rule: text(v[5]), Mode: text(v[6]), At: fromMillis(integer(v[7])), Open: integer(v[8]) == stateOpen,
				})
				return nil
			})
		for i := range page {
			if err != nil {
				break
			}
			d := &page[i]
			if d.Claim, _, err = l.claim(d.Claim.ID); err == nil {
				d.Held, err = l.message(d.Held.Message)
			}
		}
		return page, err
	}
	return paged(ctx, l, "read deletions", 0, func(d Deletion) int64 { return d.ID }, read, yield)
}

// undo notes that deletions are undone: their messages are at the server again,
// under other claims.
func (l *Ledger) undo(deletions []int64) error {
	for _, id := range deletions {
		if err := l.db.exec("UPDATE deletion SET state = ? WHERE id = ? AND state IN (0, 1)", int64(stateUndone), id); err != nil {
			return err
		}
	}
	return nil
}
