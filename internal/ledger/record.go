package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"mailhaul/mail"
)

// Record records one step of a run in one transaction: all of it or nothing. It
// is durable when Record returns nil; a step that changes nothing writes nothing.
// What is recorded is already true, so it is recorded even if ctx has ended.
//
// An archived message that was missing before takes its old row and claim again.
// Anchors do not take back a mark of MarkOpen.
func (l *Ledger) Record(ctx context.Context, c mail.Change) error {
	ctx = context.WithoutCancel(ctx)
	if l.alreadySo(ctx, c) {
		return nil
	}
	err := l.write(ctx, "record", func() error {
		for i := range c.Archived {
			if err := l.archived(&c.Archived[i]); err != nil {
				return err
			}
		}
		for i := range c.Adopted {
			if err := l.adopted(&c.Adopted[i]); err != nil {
				return err
			}
		}
		for _, id := range c.Gone {
			if err := l.gone(id); err != nil {
				return err
			}
		}
		for _, id := range c.Fetched {
			if err := l.db.exec("UPDATE claim SET fetched = 1 WHERE id = ? AND gone = 0", id); err != nil {
				return err
			}
		}
		for _, id := range c.Wrong {
			if err := l.wrong(id); err != nil {
				return err
			}
		}
		for _, id := range c.Cleared {
			if err := l.db.exec("UPDATE message SET suspicious = NULL WHERE id = ?", id); err != nil {
				return err
			}
		}
		for _, id := range c.Returned {
			if err := l.returned(id); err != nil {
				return err
			}
		}
		if err := l.undo(c.Undone); err != nil {
			return err
		}
		for i := range c.Flags {
			if err := l.flagged(&c.Flags[i]); err != nil {
				return err
			}
		}
		for _, cu := range c.Cursors {
			if err := l.cursor(cu); err != nil {
				return err
			}
		}
		for name, a := range c.Anchors {
			if err := l.anchor(name, a, true); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		l.recorded.Add(int64(len(c.Archived)))
	}
	return err
}

// alreadySo tells whether a change is empty, or only repeats cursors: most runs
// find nothing new and should not even begin a transaction.
func (l *Ledger) alreadySo(ctx context.Context, c mail.Change) bool {
	if len(c.Archived)+len(c.Adopted)+len(c.Gone)+len(c.Fetched)+len(c.Wrong)+len(c.Cleared)+len(c.Returned)+len(c.Undone)+len(c.Flags)+len(c.Anchors) > 0 {
		return false
	}
	for _, cu := range c.Cursors {
		if state, err := l.Cursor(ctx, cu.Account, cu.Mailbox); err != nil || state != cu.State {
			return false
		}
	}
	return true
}

func (l *Ledger) archived(a *mail.Archived) error {
	in := a.Receipt.Info
	if a.Receipt.Digest.IsZero() || a.Receipt.Place == "" {
		return fmt.Errorf("receipt without digest or place: %s", in.Ref)
	}
	if a.UID != "" {
		in.Ref.UID = a.UID
	}
	lost, err := l.losses()
	if err != nil {
		return err
	}
	id, err := l.revived(lost, a)
	if err == nil && id == 0 {
		id, err = l.insertMessage(in.Ref.Mailbox, a.Receipt, a.Suspicious)
	}
	if err != nil {
		return err
	}
	if err := l.isSource(in.Ref.Account); err != nil {
		return err
	}
	return l.claimAgain(lost, in, id, !a.Copied)
}

// revived returns the missing message that was fetched again, at its new place;
// 0 if there is none.
func (l *Ledger) revived(lost *lost, a *mail.Archived) (int64, error) {
	if len(lost.ids) == 0 {
		return 0, nil
	}
	mb, err := l.mailboxID(a.Receipt.Info.Ref.Mailbox)
	if err != nil {
		return 0, err
	}
	id := lost.revive(mb, a.Receipt.Digest)
	if id == 0 {
		return 0, nil
	}
	return id, l.moveTo(id, a.Receipt.Place)
}

// claimAgain adds a claim; the claim that the same UID had on a missing message is
// used again.
func (l *Ledger) claimAgain(lost *lost, in mail.Info, message int64, fetched bool) error {
	if len(lost.claims) == 0 {
		return l.insertClaim(in, message, fetched)
	}
	box, err := l.boxID(in.Ref.Account, in.Ref.Mailbox)
	if err != nil {
		return err
	}
	key := lostClaim{box, int64(in.Ref.UIDValidity), in.Ref.UID}
	id := lost.claims[key]
	if id == 0 || in.Ref.UID == "" {
		return l.insertClaim(in, message, fetched)
	}
	delete(lost.claims, key)
	return l.renew(id, in, message, fetched)
}

// isSource notes that mail was copied from an account.
func (l *Ledger) isSource(account string) error {
	if l.sources[account] {
		return nil
	}
	id, err := l.accountID(account)
	if err == nil {
		err = l.db.exec("UPDATE account SET source = 1 WHERE id = ? AND source = 0", id)
	}
	if err == nil {
		l.sources[account] = true
	}
	return err
}

func (l *Ledger) insertMessage(mailbox string, rc mail.Receipt, suspicious string) (int64, error) {
	mb, err := l.mailboxID(mailbox)
	if err != nil {
		return 0, err
	}
	id, err := l.nextID(mb, "message")
	if err != nil {
		return 0, err
	}
	flags, err := l.flagsID(rc.Info.Flags)
	if err != nil {
		return 0, err
	}
	inexact := int64(0)
	if rc.Inexact {
		inexact = 1
	}
	return id, l.db.exec(`INSERT INTO message (id, digest, header, octets, wire, date, source, flags, inexact, place,
		suspicious, object, archived) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)`,
		id, rc.Digest[:], rc.Header[:], rc.Octets, rc.Wire,
		nanos(rc.Info.InternalDate), int64(max(0, slices.Index(dateSources, rc.Info.DateFrom))), flags, inexact, rc.Place,
		null(suspicious), null(rc.Info.ObjectID), l.stamp())
}

func (l *Ledger) insertClaim(in mail.Info, message int64, fetched bool) error {
	box, err := l.boxID(in.Ref.Account, in.Ref.Mailbox)
	if err != nil {
		return err
	}
	id, err := l.nextID(box, "claim")
	if err != nil {
		return err
	}
	flags, err := l.flagsID(in.Flags)
	if err != nil {
		return err
	}
	return l.db.exec(`INSERT INTO claim (id, uidvalidity, uid, message, size, flags, fetched, gone, gone_by)
		VALUES (?,?,?,?,?,?,?,0,0)`,
		id, int64(in.Ref.UIDValidity), uidValue(in.Ref.UID), message, in.Size, flags, boolean(fetched))
}

// adopted adds a claim on a message of the archive. The claim it takes over keeps
// its id if it belongs to the same mailbox.
func (l *Ledger) adopted(a *mail.Adoption) error {
	m, err := l.message(a.Message)
	if err != nil {
		return err
	}
	var base mail.Flags
	switch {
	case a.Takes == 0:
		err = l.insertClaim(a.Info, a.Message, a.Fetched)
	default:
		base, err = l.take(a)
	}
	if err != nil {
		return err
	}
	if a.Confirmed {
		if err := l.db.exec("UPDATE message SET suspicious = NULL WHERE id = ? AND suspicious IS NOT NULL", a.Message); err != nil {
			return err
		}
	}
	flags := mail.MergeFlags(base, a.Info.Flags, m.Receipt.Info.Flags)
	if err := l.setFlags(a.Message, flags, a.Place); err != nil {
		return err
	}
	// The server's own date wins over one read from the message.
	if a.Info.DateFrom != mail.DateInternal || m.Receipt.Info.DateFrom == mail.DateInternal || a.Info.InternalDate.IsZero() {
		return nil
	}
	return l.db.exec("UPDATE message SET date = ?, source = ? WHERE id = ?",
		nanos(a.Info.InternalDate), int64(slices.Index(dateSources, mail.DateInternal)), a.Message)
}

func (l *Ledger) take(a *mail.Adoption) (base mail.Flags, err error) {
	c, found, err := l.claim(a.Takes)
	if err != nil {
		return "", err
	}
	switch {
	case !found:
		return "", fmt.Errorf("claim %d to be taken over does not exist", a.Takes)
	case c.Gone.IsZero():
		return "", fmt.Errorf("claim %d to be taken over is not gone", a.Takes)
	}
	if err := l.undone(a.Takes); err != nil {
		return "", err
	}
	box, err := l.boxID(a.Info.Ref.Account, a.Info.Ref.Mailbox)
	if err != nil {
		return "", err
	}
	if a.Takes>>idBits != box {
		if err := l.db.exec("DELETE FROM claim WHERE id = ?", a.Takes); err != nil {
			return "", err
		}
		return c.Flags, l.insertClaim(a.Info, a.Message, a.Fetched)
	}
	return c.Flags, l.renew(a.Takes, a.Info, a.Message, a.Fetched)
}

// renew points a claim to a message, under the UID in says, as being there.
func (l *Ledger) renew(id int64, in mail.Info, message int64, fetched bool) error {
	flags, err := l.flagsID(in.Flags)
	if err != nil {
		return err
	}
	return l.db.exec(`UPDATE claim SET uidvalidity = ?, uid = ?, message = ?, size = ?, flags = ?,
		fetched = ?, gone = 0, gone_by = 0 WHERE id = ?`,
		int64(in.Ref.UIDValidity), uidValue(in.Ref.UID), message, in.Size, flags, boolean(fetched), id)
}

// gone notes that a claim is no longer at the server: by us if we were about to
// delete it and do not know yet what came of that.
func (l *Ledger) gone(id int64) error {
	return l.db.exec(`UPDATE claim SET gone = ?, gone_by =
		CASE WHEN EXISTS (SELECT 1 FROM deletion WHERE claim = claim.id AND state = 0) THEN 2 ELSE 1 END
		WHERE id = ? AND gone = 0`, l.stamp(), id)
}

// wrong notes that a claim is on another message than the server has. The mailbox
// is to be listed by the next run.
func (l *Ledger) wrong(id int64) error {
	return errors.Join(
		l.db.exec("UPDATE claim SET size = ?, fetched = 0 WHERE id = ? AND gone = 0", int64(mail.OtherMessage), id),
		l.db.exec("UPDATE box SET cursor = '' WHERE id = ?", id>>idBits))
}

func (l *Ledger) returned(id int64) error {
	if err := l.undone(id); err != nil {
		return err
	}
	return l.db.exec("UPDATE claim SET gone = 0, gone_by = 0 WHERE id = ? AND gone <> 0", id)
}

// undone notes that the message of a claim is at the server again: there is
// nothing left to undo, and nothing open.
func (l *Ledger) undone(claim int64) error {
	return l.db.exec("UPDATE deletion SET state = 3 WHERE claim = ? AND state IN (0, 1)", claim)
}

func (l *Ledger) flagged(f *mail.FlagChange) error {
	c, found, err := l.claim(f.Claim)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("claim %d whose flags changed does not exist", f.Claim)
	}
	m, err := l.message(f.Message)
	if err != nil {
		return err
	}
	flags, err := l.flagsID(f.Flags)
	if err != nil {
		return err
	}
	if err := l.db.exec("UPDATE claim SET flags = ?1 WHERE id = ?2 AND flags <> ?1", flags, f.Claim); err != nil {
		return err
	}
	return l.setFlags(f.Message, mail.MergeFlags(c.Flags, f.Flags, m.Receipt.Info.Flags), f.Place)
}

// setFlags records a message's flags, and its place if that is not "".
func (l *Ledger) setFlags(message int64, flags mail.Flags, place string) error {
	id, err := l.flagsID(flags)
	if err != nil {
		return err
	}
	if place != "" {
		err = l.db.exec("UPDATE message SET place = ?1 WHERE id = ?2 AND place <> ?1", place, message)
	}
	return errors.Join(err, l.db.exec("UPDATE message SET flags = ?1 WHERE id = ?2 AND flags <> ?1", id, message))
}

func (l *Ledger) cursor(c mail.Cursor) error {
	box, err := l.boxID(c.Account, c.Mailbox)
	if err != nil {
		return err
	}
	if c.State != "" {
		if err := l.isSource(c.Account); err != nil {
			return err
		}
	}
	return l.db.exec("UPDATE box SET cursor = ?1 WHERE id = ?2 AND cursor <> ?1", c.State, box)
}

// Names and sets that get a number at their first use.

func (l *Ledger) mailboxID(name string) (int64, error) {
	if id := l.mailboxes[name]; id != 0 {
		return id, nil
	}
	id, err := l.intern("SELECT id FROM mailbox WHERE name = ?", "INSERT INTO mailbox (name) VALUES (?)", name)
	if err == nil {
		l.mailboxes[name] = id
	}
	return id, err
}

func (l *Ledger) accountID(name string) (int64, error) {
	if id := l.accounts[name]; id != 0 {
		return id, nil
	}
	id, err := l.intern("SELECT id FROM account WHERE name = ?", "INSERT INTO account (name) VALUES (?)", name)
	if err == nil {
		l.accounts[name] = id
	}
	return id, err
}

func (l *Ledger) boxID(account, name string) (int64, error) {
	key := boxKey{account, name}
	if id := l.boxes[key]; id != 0 {
		return id, nil
	}
	acc, err := l.accountID(account)
	if err != nil {
		return 0, err
	}
	id, err := l.intern("SELECT id FROM box WHERE account = ? AND name = ?",
		"INSERT INTO box (account, name) VALUES (?, ?)", acc, name)
	if err == nil {
		l.boxes[key] = id
	}
	return id, err
}

// maxFlagSets bounds what is remembered of sets of flags, which a server makes up.
const maxFlagSets = 4096

func (l *Ledger) flagsID(f mail.Flags) (int64, error) {
	if f == "" {
		return 0, nil
	}
	if id := l.flagIDs[f]; id != 0 {
		return id, nil
	}
	id, err := l.intern("SELECT id FROM flags WHERE value = ?", "INSERT INTO flags (value) VALUES (?)", string(f))
	if err == nil && len(l.flagIDs) < maxFlagSets {
		l.flagIDs[f] = id
	}
	return id, err
}

func (l *Ledger) intern(find, insert string, args ...any) (int64, error) {
	id, err := l.db.int64(find, args...)
	if err != nil || id != 0 {
		return id, err
	}
	if err := l.db.exec(insert, args...); err != nil {
		return 0, err
	}
	return l.db.int64("SELECT last_insert_rowid()")
}

// nextID gives out the next id of a mailbox's range. A negative key tells claims
// from messages.
func (l *Ledger) nextID(mailbox int64, table string) (int64, error) {
	if mailbox <= 0 || mailbox > math.MaxInt64>>idBits {
		return 0, fmt.Errorf("%w: mailbox number %d", ErrDamaged, mailbox)
	}
	key, q := mailbox, "SELECT max(id) FROM message WHERE id BETWEEN ? AND ?"
	if table == "claim" {
		key, q = -mailbox, "SELECT max(id) FROM claim WHERE id BETWEEN ? AND ?"
	}
	id := l.next[key]
	if id == 0 {
		top, err := l.db.int64(q, firstID(mailbox), lastID(mailbox))
		if err != nil {
			return 0, err
		}
		id = max(top, firstID(mailbox)) + 1
	}
	l.next[key] = id + 1
	return id, nil
}

// uidValue stores a UID as a number where that gives the same text back.
func uidValue(uid string) any {
	if n, err := strconv.ParseInt(uid, 10, 64); err == nil && strconv.FormatInt(n, 10) == uid {
		return n
	}
	return uid
}

func uidText(v driver.Value) string {
	if n, ok := v.(int64); ok {
		return strconv.FormatInt(n, 10)
	}
	return text(v)
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
