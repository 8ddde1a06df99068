package fetch

import (
	"context"
	"io"
	"strconv"
	"sync"

	"mailhaul/mail"
)

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
	if mail.HintOf(err) == "" {
		err = &mail.Error{Kind: mail.KindOf(err), Err: err, Hint: "it is not archived, and will not be deleted; the next run asks for it again"}
	}
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
