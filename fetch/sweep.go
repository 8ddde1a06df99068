package fetch

import (
	"context"

	"mailhaul/mail"
)

// A mailbox of fewer messages is listed in no time, and one of more is better listed
// first and then shared out among several connections.
const (
	sweepLeast = 100
	sweepMost  = 10_000
)

// Sweeper is a Source that can give the messages of a mailbox of which nothing is
// known yet without listing them first.
type Sweeper interface {
	// Sweep calls deliver for messages of the mailbox as Fetch does, each once, and
	// only with what describes them complete; never with an error. It need not bring all. exists is how many messages the mailbox had, or -1 where
	// that is not certain. What did not come, for whatever reason, is left to List and
	// Fetch, which also tell why; an error is of deliver or ctx.
	Sweep(ctx context.Context, mb mail.Mailbox, deliver Deliver) (exists int64, err error)
}

// sweep fetches a mailbox the archive has nothing of, and nothing that could be
// recognised. n is how many messages came; whole tells that those were all. What came
// is durable and recorded then, unless it was all of the mailbox: to list what is left,
// and find out why, is like going on after a run that was cut off.
func (r *run) sweep(ctx context.Context, mb mail.Mailbox) (n int64, whole bool, err error) {
	s, ok := r.Source.(Sweeper)
	if !ok || r.DryRun || r.Limit > 0 || !r.Selection.All() || r.pipeline.consumes() ||
		mb.UIDValidity == 0 || mb.Messages < sweepLeast || mb.Messages > sweepMost {
		return 0, false, nil
	}
	claims, err := loadClaims(ctx, r.Ledger, r.Source.Account(), mb)
	if err != nil || len(claims.all) > 0 {
		return 0, false, err
	}
	book, err := newBook(ctx, r, mb, claims, false)
	if err != nil || len(book.bySize) > 0 {
		return 0, false, err
	}
	r.Notify(mail.Event{
		Kind: mail.EventMailbox, Ref: mail.Ref{Account: r.Source.Account(), Mailbox: mb.Name}, N: mb.Messages, Octets: max(0, mb.Octets),
	})
	t := &take{run: r, mb: mb, claims: claims, book: book, swept: make(map[string]bool)}
	exists, err := s.Sweep(ctx, mb, t.deliver(ctx))
	t.writing.Wait()
	n = int64(len(t.swept))
	if busy := t.refusal(); busy != nil {
		err = busy
	}
	if err != nil || n == exists {
		return n, err == nil, err
	}
	r.pipeline.commit()
	return n, false, r.pipeline.failed()
}

// less takes out of a listing what a sweep has counted before.
func (l *listing) less(swept int64) {
	if swept == 0 {
		return
	}
	l.counts.Listed -= l.counts.Skipped
	l.counts.Skipped = 0
}
