package fetch

import (
	"context"
	"errors"

	"mailhaul/mail"
)

// listing is what one listing of a mailbox says, held against the claims of the
// ledger.
type listing struct {
	incomplete   error  // ErrIncomplete: told when what came is archived
	counts       Counts // Listed and Skipped
	wants        []mail.Want
	octets       int64 // of wants
	unidentified int   // wants without UID
	more         bool  // the limit left some out
	undated      map[string]bool
	other        map[string]bool   // UIDs: not the messages that were claimed, whatever their headers say
	deleted      map[string]bool   // UIDLs under which we deleted something
	doubles      map[string]string // ObjectIDs by UID, of wants that may be copied
	claims       *claims
	change       mail.Change // Gone, Returned
	flags        []flagChange
}

// cut leaves all but the first n messages to a later run.
func (l *listing) cut(n int) {
	if n >= len(l.wants) {
		return
	}
	for _, w := range l.wants[n:] {
		l.octets -= max(0, w.Size)
		l.counts.Listed--
	}
	l.wants, l.more = l.wants[:n], true
}

type flagChange struct {
	claim   int64
	message int64
	base    mail.Flags
	now     mail.Flags
}

// list sorts the messages of the mailbox into known and wanted ones. Where the
// source can tell what changed since everything was archived, it does not list the
// rest.
func (r *run) list(ctx context.Context, mb mail.Mailbox, since string) (*listing, error) {
	claims, err := loadClaims(ctx, r.Ledger, r.Source.Account(), mb)
	if err != nil {
		return nil, err
	}
	l := &listing{claims: claims}
	if done, err := r.listChanges(ctx, mb, since, l); done || err != nil {
		return l, err
	}
	for in, err := range r.Source.List(ctx, mb) {
		if errors.Is(err, ErrIncomplete) {
			l.incomplete = err
			break
		}
		if err != nil {
			return nil, err
		}
		if mb.UIDValidity == 0 && in.Ref.UIDValidity != 0 && claims.uidValidity != in.Ref.UIDValidity {
			claims.setUIDValidity(in.Ref.UIDValidity)
		}
		r.sort(ctx, l, in)
	}
	if l.incomplete == nil {
		l.change.Gone = claims.missing(l.unidentified > 0)
	}
	return l, nil
}

// listChanges does without a listing. It does nothing, and returns false, unless
// the count proves that every message known is still there: messages come with
// ever higher UIDs, and all of those before the state were claimed when it was
// recorded, so as many as are claimed are the same ones.
func (r *run) listChanges(ctx context.Context, mb mail.Mailbox, since string, l *listing) (done bool, err error) {
	source, ok := r.Source.(ChangeSource)
	if !ok || since == "" || mb.UIDValidity == 0 || !l.claims.whole() {
		return false, nil
	}
	changed, exists, ok, err := source.Changes(ctx, mb, since)
	if err != nil || !ok {
		return false, err
	}
	total := l.claims.count()
	for _, in := range changed {
		c := l.claims.find(in.Ref.UID)
		if c == nil && in.Size < 0 || c != nil && (c.gone || in.Size >= 0 && c.size >= 0 && c.size != in.Size) {
			return false, nil // something is not as it was recorded
		}
		if c == nil {
			total++
		}
	}
	if total != exists {
		return false, nil
	}
	for _, in := range changed {
		r.sort(ctx, l, in)
	}
	n := l.claims.listRest()
	l.counts.Listed += n
	l.counts.Skipped += n
	return true, nil
}

// sort puts one message where it belongs: known, wanted, or not selected.
func (r *run) sort(ctx context.Context, l *listing, in mail.Info) {
	s := r.Selection
	known := l.seen(in)
	match, sure := s.Match(in)
	if !match {
		return
	}
	if !known && !sure && s.NeedsDate() && in.InternalDate.IsZero() {
		if l.undated == nil {
			l.undated = make(map[string]bool)
		}
		l.undated[wantKey(in.Ref.UID, in.Seq)] = true
	}
	l.counts.Listed++
	if known {
		l.counts.Skipped++
		return
	}
	l.wants = append(l.wants, mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size})
	l.octets += max(0, in.Size)
	if in.Ref.UID == "" {
		l.unidentified++
	}
	if !l.other[in.Ref.UID] && r.copies(ctx, in) {
		if l.doubles == nil {
			l.doubles = make(map[string]string)
		}
		l.doubles[in.Ref.UID] = in.ObjectID
	}
}

// seen tells whether a listed message is held already, and notes what changed.
func (l *listing) seen(in mail.Info) bool {
	c := l.claims.find(in.Ref.UID)
	if c == nil || c.listed {
		return false
	}
	if c.size == mail.OtherMessage && !c.gone {
		if l.other == nil {
			l.other = make(map[string]bool)
		}
		l.other[in.Ref.UID] = true
		return false
	}
	if c.size >= 0 && in.Size >= 0 && c.size != in.Size {
		return false // a UIDL used again for another message
	}
	if c.missing {
		c.listed = true
		return false
	}
	if c.gone {
		if in.Ref.UIDValidity == 0 {
			if c.byUs {
				if l.deleted == nil {
					l.deleted = make(map[string]bool)
				}
				l.deleted[in.Ref.UID] = true
			}
			return false // a UIDL may be used again: the octets tell
		}
		if l.claims.heldLive(c.message) {
			return false // its copy went to another UID meanwhile
		}
		l.change.Returned = append(l.change.Returned, c.id)
		l.claims.revive(c)
	}
	c.listed = true
	if base, now := l.claims.flagsOf(c), in.Flags; now != base {
		l.flags = append(l.flags, flagChange{claim: c.id, message: c.message, base: base, now: now})
	}
	return true
}

// recordListing applies what the listing says of known messages.
func (r *run) recordListing(ctx context.Context, mb mail.Mailbox, l *listing) error {
	if r.DryRun {
		return nil
	}
	for _, f := range l.flags {
		fc, err := r.setFlags(ctx, f)
		if err != nil {
			return err
		}
		r.pipeline.flagged(fc)
	}
	c := l.change
	if len(c.Gone)+len(c.Returned) == 0 {
		return nil
	}
	return r.Ledger.Record(ctx, c)
}

// setFlags writes changed flags where mail readers see them, durable with the next
// group. A message that a person removed from the archive keeps its change in the
// ledger only.
func (r *run) setFlags(ctx context.Context, f flagChange) (mail.FlagChange, error) {
	fc := mail.FlagChange{Claim: f.claim, Message: f.message, Flags: f.now}
	flagger, ok := r.Archive.(Flagger)
	if !ok {
		return fc, nil
	}
	held, err := r.Ledger.Message(ctx, f.message)
	if err != nil {
		return fc, err
	}
	rc, err := flagger.SetFlags(ctx, held.Receipt, f.base, f.now)
	r.pipeline.moved()
	if err != nil {
		if isNotExist(err) {
			return fc, nil
		}
		return fc, err
	}
	if rc.Place != held.Receipt.Place {
		fc.Place = rc.Place
	}
	return fc, nil
}
