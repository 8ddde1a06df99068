package fetch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"mailhaul/mail"
)

// Archive is what Run needs of an archive; package archive says what the methods
// promise. It may also be a Flagger, a Reader and a Learner.
type Archive interface {
	Append(ctx context.Context, in mail.Info, r mail.Octets) error
	Commit(ctx context.Context) (mail.Group, error)
}

// Flagger is an Archive that keeps flags and dates where mail readers see them.
type Flagger interface {
	SetFlags(ctx context.Context, rc mail.Receipt, base, now mail.Flags) (mail.Receipt, error)
	SetDate(ctx context.Context, rc mail.Receipt, date time.Time) error
}

// Learner is an Archive that may hold messages of earlier runs that the ledger lacks.
type Learner interface {
	// Learn brings them on record. It is called before the ledger is asked what the
	// archive holds of a mailbox.
	Learn(ctx context.Context, mailbox string) error
}

// Ledger is what Run needs to know and to record. The callbacks of Claims, Free
// and Messages must not call the ledger.
type Ledger interface {
	// Cursor returns the State a mailbox had when it was last completed, "" if
	// nothing can be concluded.
	Cursor(ctx context.Context, account, mailbox string) (state string, err error)
	// Claims yields all claims of an account on a mailbox, gone ones too.
	Claims(ctx context.Context, account, mailbox string, yield func(mail.Claim) error) error
	// Free yields the archived messages of a mailbox that no live claim of this
	// account on the mailbox holds.
	Free(ctx context.Context, account, mailbox string, yield func(mail.Held) error) error
	// Trashed yields archived messages of other mailboxes that were moved to the
	// trash by us, and that no live claim of this account on it holds.
	Trashed(ctx context.Context, account, trash string, yield func(mail.Held) error) error
	// Same returns archived messages, in any mailbox, that the account's server calls
	// by this ObjectID.
	Same(ctx context.Context, account, object string) ([]mail.Held, error)
	// Message returns one archived message.
	Message(ctx context.Context, id int64) (mail.Held, error)
	// Record records a step in one transaction.
	Record(ctx context.Context, c mail.Change) error
}

// Options says what Run is to do.
type Options struct {
	Source    Source
	Archive   Archive // nil for a dry run into an archive that does not exist
	Ledger    Ledger
	Selection mail.Selection
	// Mailboxes is what Select returned just before for this selection; nil lets Run
	// ask.
	Mailboxes []mail.Mailbox
	DryRun    bool // everything up to the first octet fetched; nothing is written
	// Limit, if not 0, is how many messages are taken at most that are not known
	// yet; Result.More tells whether there are others.
	Limit    int
	Parallel int // mailboxes at once; at least 1
	// Group is how many messages are committed together at most; 0 means 1000.
	Group int
	// Share is how many runs of the process share the memory for messages; 0 means 1.
	Share  int
	Notify mail.Notify
	Now    func() time.Time // nil means time.Now
}

// Counts add up: Listed = Archived + Adopted + Skipped + Failed. Suspicious is
// part of Archived.
type Counts struct {
	Listed     int64 // selected at the source
	Archived   int64 // new in the archive, durable
	Adopted    int64 // already in the archive, recognised by content
	Skipped    int64 // known from an earlier run
	Failed     int64 // could not be had
	Suspicious int64
	Octets     int64 // wire octets of Archived
}

func (c *Counts) add(d Counts) {
	c.Listed += d.Listed
	c.Archived += d.Archived
	c.Adopted += d.Adopted
	c.Skipped += d.Skipped
	c.Failed += d.Failed
	c.Suspicious += d.Suspicious
	c.Octets += d.Octets
}

// Result is what a run did.
type Result struct {
	Counts
	Mailboxes []MailboxResult // in the order of their names
	More      bool            // Options.Limit was reached
	// Back is how many messages were deleted by us over POP3 and are there again, under
	// the same UIDL and with the same octets: the server ignores what it is told.
	Back int64
}

// MailboxResult is what a run did in one mailbox.
type MailboxResult struct {
	Name string
	Counts
	More bool  // Options.Limit was reached
	Err  error // the mailbox could not be completed
}

// giveUpAfter so many mailboxes in a row that failed for lack of a connection,
// the account is left alone for this run.
const giveUpAfter = 3

// Run copies what is new at the source into the archive and records it. It
// returns what was done even with an error: whatever Result counts as archived
// is durable and recorded. The error names mailboxes that could not be read, a
// disk that failed, or the end of ctx; single messages that could not be had are
// only counted (and told by Notify). It does not close source or archive.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	o.Parallel = max(1, o.Parallel)
	mailboxes := o.Mailboxes
	if mailboxes == nil {
		var err error
		if mailboxes, err = Select(ctx, o.Source, o.Selection); err != nil {
			return Result{}, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &run{Options: o, pipeline: newPipeline(ctx, o, cancel), seen: newSeen()}
	results := make([]MailboxResult, len(mailboxes))
	err := r.mailboxes(ctx, mailboxes, results)
	// What was received is archived even if the run was interrupted.
	if pipeErr := r.pipeline.finish(); pipeErr != nil {
		err = pipeErr
	}
	if c, ok := o.Source.(Consumer); ok && err != nil && c.Consumes() {
		c.Abandon() // what could not be stored must not count as taken
	}
	return r.conclude(mailboxes, results, err)
}

type run struct {
	Options
	pipeline *pipeline
	taken    atomic.Int64 // of Limit
	back     int64        // POP3 has one mailbox, whose book guards it
	seen     *seen
}

// allow returns how many of n further messages may be taken.
func (r *run) allow(n int) int {
	if r.Limit <= 0 {
		return n
	}
	over := r.taken.Add(int64(n)) - int64(r.Limit)
	if over <= 0 {
		return n
	}
	over = min(over, int64(n))
	r.taken.Add(-over)
	return n - int(over)
}

// Select lists the source's mailboxes that are selected, and checks that every one
// asked for by name exists. Nothing else is asked of the source: it is how a caller
// finds out whether the server lets it in, before it makes an archive.
func Select(ctx context.Context, source Source, sel mail.Selection) ([]mail.Mailbox, error) {
	all, err := source.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	selected := []mail.Mailbox{}
	for _, mb := range all {
		if sel.MatchMailbox(mb.Name) {
			selected = append(selected, mb)
		}
	}
	return selected, sel.CheckNames(source.Account(), all)
}

// mailboxes works through the mailboxes, some at a time, and fills results. What one
// mailbox may have from another comes when those are archived.
func (r *run) mailboxes(ctx context.Context, mailboxes []mail.Mailbox, results []MailboxResult) error {
	later := make([]*take, len(mailboxes))
	lost := &losses{}
	r.each(ctx, len(mailboxes), lost, func(i int) error {
		res, rest, err := r.mailbox(ctx, mailboxes[i])
		res.Name, res.Err = mailboxes[i].Name, err
		results[i], later[i] = res, rest
		return err
	})
	var rest []int // indexes of those that have some left
	for i, t := range later {
		if t != nil {
			rest = append(rest, i)
			results[i].Listed -= int64(len(t.later)) // until it is begun
		}
	}
	if len(rest) == 0 {
		return context.Cause(ctx)
	}
	r.pipeline.commit()
	begun := r.each(ctx, len(rest), lost, func(k int) error {
		i := rest[k]
		results[i].Listed += int64(len(later[i].later))
		counts, err := later[i].laterOnes(ctx)
		results[i].Counts.add(counts)
		if err != nil {
			results[i].Err = err
		}
		return err
	})
	for _, i := range rest[begun:] { // they belong to the next run
		results[i].Err = &mail.Error{Kind: mail.KindTemporary, Ref: mail.Ref{Account: r.Source.Account(), Mailbox: results[i].Name},
			Op: "fetch messages", Err: errors.New("the server was lost before"), Hint: "run the same command again"}
	}
	return context.Cause(ctx)
}

// losses counts mailboxes in a row that failed for lack of a connection.
type losses struct {
	mu    sync.Mutex
	inRow int
}

func (l *losses) tooMany() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inRow >= giveUpAfter
}

// note takes account of how the work on a mailbox ended.
func (l *losses) note(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, busy := errors.AsType[*archiveBusy](err)
	switch kind := mail.KindOf(err); {
	case busy: // says nothing of the server
	case kind == mail.KindTemporary, kind == mail.KindAuth:
		l.inRow++
	default:
		l.inRow = 0
	}
}

// each calls f for 0 to n-1, some at a time, until the run ends or the server is lost,
// and returns for how many it did.
func (r *run) each(ctx context.Context, n int, lost *losses, f func(i int) error) (begun int) {
	var g errgroup.Group
	g.SetLimit(r.Parallel)
	for i := range n {
		if ctx.Err() != nil || lost.tooMany() {
			break
		}
		begun++
		g.Go(func() error {
			lost.note(f(i))
			return nil
		})
	}
	_ = g.Wait() // every error stands in results
	return begun
}

// conclude adds up and, where all went well, records the states the mailboxes
// had, so that the next run can tell at a glance that nothing is new.
func (r *run) conclude(mailboxes []mail.Mailbox, results []MailboxResult, err error) (Result, error) {
	res := Result{Back: r.back}
	var change mail.Change
	var errs []error
	for i, mr := range results {
		if mr.Name == "" { // never begun
			continue
		}
		mr.Counts.add(r.pipeline.counts(mr.Name))
		res.Counts.add(mr.Counts)
		res.Mailboxes = append(res.Mailboxes, mr)
		if mr.Err != nil {
			errs = append(errs, mr.Err)
		}
		res.More = res.More || mr.More
		if mr.Err == nil && mr.Failed == 0 && !mr.More && err == nil && r.Selection.All() && mailboxes[i].State != "" {
			change.Cursors = append(change.Cursors, mail.Cursor{
				Account: r.Source.Account(), Mailbox: mr.Name, State: mailboxes[i].State,
			})
		}
	}
	slices.SortFunc(res.Mailboxes, func(a, b MailboxResult) int { return strings.Compare(a.Name, b.Name) })
	if err != nil { // it is why mailboxes failed, too
		res.Listed = res.Archived + res.Adopted + res.Skipped + res.Failed
		return res, err
	}
	if len(change.Cursors) > 0 && !r.DryRun {
		if err := r.recordCursors(change); err != nil {
			errs = append(errs, err)
		}
	}
	return res, errors.Join(errs...)
}

// recordCursors writes the cursors that differ: a run with nothing new must not
// touch the ledger.
func (r *run) recordCursors(change mail.Change) error {
	ctx := context.Background()
	var differ []mail.Cursor
	for _, c := range change.Cursors {
		old, err := r.Ledger.Cursor(ctx, c.Account, c.Mailbox)
		if err != nil {
			return err
		}
		if old != c.State {
			differ = append(differ, c)
		}
	}
	if len(differ) == 0 {
		return nil
	}
	return r.Ledger.Record(ctx, mail.Change{Cursors: differ})
}
