package fetch

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"mailhaul/mail"
)

// contentUID is the prefix under which messages that the server gives no usable
// UID are claimed: by digest and number of the copy. No UID or UIDL begins so:
// RFC 1939 section 7 allows no octet below 0x21 in a UIDL.
const contentUID = "\x01content:"

// mailbox brings one mailbox of the source into the archive. The counts it
// returns are those known before anything is fetched; the pipeline counts the
// rest.
//
// Where messages are left for when the other mailboxes are archived, it returns the
// take that has them.
func (r *run) mailbox(ctx context.Context, mb mail.Mailbox) (res MailboxResult, later *take, err error) {
	account := r.Source.Account()
	var state string // in which everything was archived
	if mb.State != "" && r.Selection.All() {
		if state, err = r.Ledger.Cursor(ctx, account, mb.Name); err != nil {
			return res, nil, err
		}
		if state == mb.State {
			n := max(0, mb.Messages)
			res.Listed, res.Skipped = n, n
			return res, nil, nil
		}
	}
	swept, whole, err := r.sweep(ctx, mb)
	res.Listed = swept
	if whole || err != nil {
		return res, nil, err
	}
	l, err := r.list(ctx, mb, state)
	if err != nil {
		return res, nil, err
	}
	l.less(swept)
	if l.unidentified == 0 { // else the same ones would come first every time
		l.cut(r.allow(len(l.wants)))
	}
	res.Counts.add(l.counts)
	res.More = l.more
	if err := r.recordListing(ctx, mb, l); err != nil {
		return res, nil, err
	}
	left := int64(0) // told already
	if swept > 0 {
		left = mb.Messages - swept
	}
	r.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Account: account, Mailbox: mb.Name}, N: int64(len(l.wants)) - left, Octets: l.octets})
	if len(l.wants) == 0 && l.unidentified == 0 {
		return res, nil, l.incomplete
	}
	t := &take{run: r, mb: mb, claims: l.claims, deleted: l.deleted}
	counts, err := t.all(ctx, l)
	res.Counts.add(counts)
	if err == nil {
		err = l.incomplete
	}
	if len(t.later) > 0 {
		later = t
	}
	return res, later, err
}

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
		r.take(ctx, l, in)
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
		r.take(ctx, l, in)
	}
	n := l.claims.listRest()
	l.counts.Listed += n
	l.counts.Skipped += n
	return true, nil
}

// take sorts one message.
func (r *run) take(ctx context.Context, l *listing, in mail.Info) {
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

// take is the fetching of one mailbox's wants.
type take struct {
	*run
	mb      mail.Mailbox
	claims  *claims
	book    *book
	deleted map[string]bool // as listing's
	asked   *asked          // several goroutines, under book.mu
	swept   map[string]bool // instead of asked, where nothing was listed: what came, by wantKey
	counts  Counts          // likewise
	busy    error           // why nothing more is archived here in this run, likewise
	writing sync.WaitGroup  // messages handed to a writer
	later   []double        // left for when the other mailboxes are archived
}

func wantKey(uid string, seq uint32) string {
	if uid != "" {
		return uid
	}
	return contentUID + "#" + strconv.FormatUint(uint64(seq), 10)
}

// all recognises what the archive already has and fetches the rest.
func (t *take) all(ctx context.Context, l *listing) (Counts, error) {
	var err error
	if t.book, err = newBook(ctx, t.run, t.mb, t.claims, l.unidentified > 0); err != nil {
		return t.counts, err
	}
	wants, err := t.recognise(ctx, l)
	if err != nil {
		return t.counts, err
	}
	if t.DryRun {
		t.counts.Archived += int64(len(wants))
		return t.counts, nil
	}
	wants, t.later = l.apart(wants)
	t.asked = newAsked(wants)
	_, err = t.end(t.fetch(ctx, wants))
	if err != nil {
		t.counts.Listed -= int64(len(t.later))
		t.later = nil
		return t.counts, err
	}
	if l.unidentified > 0 && t.counts.Failed == 0 && !l.more {
		err = t.book.forget(ctx)
	}
	return t.counts, err
}

// end waits for what was handed to writers. After it nothing of t.asked is to come.
func (t *take) end(err error) (Counts, error) {
	t.writing.Wait()
	if busy := t.refusal(); busy != nil {
		err = busy
	}
	if err != nil {
		return t.unasked(), err
	}
	t.nameUndelivered()
	return t.counts, nil
}

// unasked takes the messages that were not asked about before the session was
// lost out of the sum: they belong to the next run.
func (t *take) unasked() Counts {
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	for range t.asked.pending() {
		t.counts.Listed--
	}
	return t.counts
}

// nameUndelivered counts messages as failed that a source silently left out.
func (t *take) nameUndelivered() {
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	for w := range t.asked.pending() {
		t.failLocked(t.ref(w.UID), &mail.Error{Kind: mail.KindPartial, Ref: t.ref(w.UID), Err: errNotDelivered})
	}
}

func (t *take) ref(uid string) mail.Ref {
	return mail.Ref{Account: t.Source.Account(), Mailbox: t.mb.Name, UIDValidity: t.claims.uidValidity, UID: uid}
}

func (t *take) failLocked(ref mail.Ref, err error) {
	t.counts.Failed++
	t.Notify(mail.Event{Kind: mail.EventFailed, Ref: ref, Err: err})
}

// begin notes that a message was delivered; false if it was not asked for, or
// came before.
func (t *take) begin(in mail.Info) bool {
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	if t.swept == nil {
		return t.asked.take(in.Ref.UID, in.Seq)
	}
	key := wantKey(in.Ref.UID, in.Seq)
	came := t.swept[key]
	t.swept[key] = true
	return !came
}

// again takes begin back: the reader failed, the driver will try once more.
func (t *take) again(in mail.Info) {
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	t.giveBackLocked(in)
}

func (t *take) giveBackLocked(in mail.Info) {
	if t.swept == nil {
		t.asked.giveBack(in.Ref.UID, in.Seq)
		return
	}
	delete(t.swept, wantKey(in.Ref.UID, in.Seq))
}

// refuse ends the fetching of this mailbox, and of no other: the archive cannot
// take its messages now. The message belongs to the next run.
func (t *take) refuse(in mail.Info, err error) {
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	t.giveBackLocked(in)
	if t.busy == nil {
		t.busy = &archiveBusy{err}
	}
}

func (t *take) refusal() error {
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	return t.busy
}

// archiveBusy says that a mailbox of the archive is in use by another program.
type archiveBusy struct{ error }

func (a *archiveBusy) Unwrap() error { return a.error }

func (t *take) fetch(ctx context.Context, wants []mail.Want) error {
	if len(wants) == 0 {
		return nil
	}
	return t.Source.Fetch(ctx, t.mb, wants, t.deliver(ctx))
}

// deliver takes what the source brings.
func (t *take) deliver(ctx context.Context) Deliver {
	return func(in mail.Info, r io.Reader, err error) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := t.refusal(); err != nil {
			return err
		}
		if !t.begin(in) {
			return nil
		}
		if err != nil {
			t.refused(in, err)
			return nil
		}
		t.date(&in)
		return t.pipeline.take(ctx, t, in, r)
	}
}

func (t *take) refused(in mail.Info, err error) {
	t.book.mu.Lock()
	defer t.book.mu.Unlock()
	if isVanished(err) {
		t.counts.Listed--
		return
	}
	t.failLocked(in.Ref, err)
}
