package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"mailhaul/mail"
)

// Messages is where messages come from.
type Messages interface {
	// Mailboxes lists what there is; Name and SpecialUse count.
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)
	// Messages yields every message of a mailbox. An empty place says that its
	// octets are lost.
	Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error
	// Message returns one of them again.
	Message(ctx context.Context, id int64) (mail.Held, error)
	// Open opens the canonical octets.
	Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)
}

// Preparer is a source of Messages that gives many at a time faster than one by
// one.
type Preparer interface {
	// Prepare is told which messages will be opened next, in this order. What cannot
	// be had, Open says. It returns an error only if no message can be had any more.
	Prepare(ctx context.Context, ids []int64) error
}

// Vanished is a source of Messages that knows which of them were no longer where
// they came from when that was last listed completely, and were not deleted there
// by us. Messages whose origin is not known are not among them.
type Vanished interface {
	Vanished(ctx context.Context, yield func(id int64) error) error
}

// Ledger is what Run needs to know and to record. The callbacks must not call it.
type Ledger interface {
	// Accounts returns the accounts that mail was copied from.
	Accounts(ctx context.Context) ([]string, error)
	// Claims yields what is known of the messages in a mailbox at the destination.
	Claims(ctx context.Context, account, mailbox string, yield func(mail.Claim) error) error
	// Uploads yields what is known to have arrived there.
	Uploads(ctx context.Context, account, mailbox string, yield func(mail.Upload) error) error
	// OpenUploads returns what may have arrived there.
	OpenUploads(ctx context.Context, account, mailbox string) ([]mail.Upload, error)
	// IntendUploads is durable when it returns.
	IntendUploads(ctx context.Context, s mail.Sending) (ids []int64, err error)
	// SettleUploads records what came of intents, even if ctx has ended.
	SettleUploads(ctx context.Context, results []mail.Uploaded) error
	// Record records flags.
	Record(ctx context.Context, c mail.Change) error
}

// Options says what Run is to do.
type Options struct {
	Destination Destination
	Messages    Messages
	Ledger      Ledger
	Account     string // the destination's name in the ledger; "" for Destination.Account()
	Selection   mail.Selection
	Mapping     Mapping
	// MarkSeen gives \Seen to messages that come from where there are no flags.
	MarkSeen  bool
	Subscribe bool // subscribe to every mailbox that gets messages
	// Present leaves out what Vanished tells of; else it is only counted.
	Present bool
	// SendRepaired sends a repaired copy of a message that the destination refuses,
	// where a repair is known; each is told by Notify.
	SendRepaired bool
	DryRun       bool // show the plan, and change nothing on either side
	Parallel     int  // mailboxes at once; at least 1
	// Only, if not nil, are the mailboxes to be worked on. The plan is made of all.
	// The destination's space is then not asked for: see CheckSpace.
	Only []string
	// Plan, if not nil, is told where each mailbox goes before anything is sent.
	Plan func([]Target)
	// Forecast, if not nil, is told what is to be sent and what of it will not fit,
	// before anything is sent, if anything is; else Notify is, if something will not.
	Forecast func(Forecast)
	Notify   mail.Notify
	Pause    time.Duration // before a lost connection is made again; 0 means one second
}

// Counts add up: Listed = Uploaded + Adopted + Skipped + Failed.
type Counts struct {
	Listed   int64 // selected
	Uploaded int64 // sent, and at the destination; in a dry run: to be sent
	Adopted  int64 // found at the destination, recognised by content
	Skipped  int64 // known to be there from an earlier run
	Failed   int64 // refused, or could not be read
	Flags    int64 // known ones whose flags were changed at the destination
	Gone     int64 // of Vanished: part of Listed, or left out with Present
	Repaired int64 // part of Uploaded: a repaired copy was sent
	Altered  int64 // part of Uploaded and Adopted: the destination changed their octets
	Octets   int64 // of Uploaded, on the wire
}

func (c *Counts) add(d Counts) {
	c.Listed += d.Listed
	c.Uploaded += d.Uploaded
	c.Adopted += d.Adopted
	c.Skipped += d.Skipped
	c.Failed += d.Failed
	c.Flags += d.Flags
	c.Gone += d.Gone
	c.Repaired += d.Repaired
	c.Altered += d.Altered
	c.Octets += d.Octets
}

// Result is what a run did.
type Result struct {
	Counts
	Mailboxes []MailboxResult // in the order of their names
}

// MailboxResult is what a run did in one mailbox of the destination.
type MailboxResult struct {
	Name string
	From []string // mailboxes whose messages go there
	Counts
	// UIDValidity and UIDNext of the mailbox at the destination, 0 if they are not
	// known; the UIDNEXT may be higher by now.
	UIDValidity, UIDNext uint32
	Err                  error // the mailbox could not be completed
	// Complete says that the work on it came to its end. Without, and without Err, the
	// run was ended, or gave up, before.
	Complete bool
}

const (
	giveUpAfter  = 3 // mailboxes in a row that failed for lack of a connection
	quotaRefusal = 3 // messages in a row refused for lack of space: no more are sent
	attempts     = 4 // for a mailbox whose connection is lost without anything arriving
)

// Run sends what the destination lacks and records it. It returns what was done
// even with an error; a message that was refused is only counted and told by
// Notify. It closes nothing.
func Run(ctx context.Context, o Options) (Result, error) {
	r, jobs, err := begin(ctx, o)
	if err != nil {
		return Result{}, err
	}
	return r.all(ctx, jobs)
}

// begin makes the plan.
func begin(ctx context.Context, o Options) (*run, []*job, error) {
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	if o.Pause <= 0 {
		o.Pause = time.Second
	}
	if o.Account == "" {
		o.Account = o.Destination.Account()
	}
	o.Parallel = max(1, o.Parallel)
	r := &run{Options: o, slabs: make(chan []byte, 2*o.Parallel)}
	jobs, err := r.plan(ctx)
	if err == nil {
		err = r.learnVanished(ctx)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return r, jobs, err
}

type run struct {
	Options
	slabs     chan []byte // of loaders, used again
	restoring bool        // the destination is where the messages came from
	full      atomic.Int32
	limit     int64   // octets of one message; 0: not known
	vanished  []int64 // ascending
}

var errEnough = errors.New("enough")

// learnVanished asks which messages are gone where they came from.
func (r *run) learnVanished(ctx context.Context) error {
	v, ok := r.Messages.(Vanished)
	if !ok || r.restoring { // then what is gone is what is to be put back
		return nil
	}
	err := v.Vanished(ctx, func(id int64) error {
		r.vanished = append(r.vanished, id)
		return nil
	})
	slices.Sort(r.vanished)
	return err
}

func (r *run) isVanished(id int64) bool {
	_, found := slices.BinarySearch(r.vanished, id)
	return found
}

// job is one mailbox of the destination and those that go there.
type job struct {
	to     string
	exists bool
	there  mail.Mailbox
	from   []string

	fallback []string // other names
}

func (r *run) plan(ctx context.Context) ([]*job, error) {
	from, err := r.selected(ctx)
	if err != nil {
		return nil, err
	}
	there, err := r.Destination.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	accounts, err := r.Ledger.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	r.restoring = slices.Contains(accounts, r.Account)
	if l, ok := r.Destination.(Limiter); ok {
		r.limit = l.MaxMessage()
	}
	var asked error
	targets := r.Mapping.plan(from, there, r.Destination.Fit, func(name string) bool {
		used := false
		err := r.Ledger.Claims(ctx, r.Account, name, func(mail.Claim) error {
			used = true
			return errEnough
		})
		if !errors.Is(err, errEnough) {
			asked = errors.Join(asked, err)
		}
		return used
	})
	if asked != nil {
		return nil, asked
	}
	if r.Plan != nil {
		r.Plan(targets)
	}
	for _, t := range targets {
		if t.Altered && !t.Exists { // once
			r.warn(fmt.Errorf("mailbox %s: the destination cannot have such a name; it becomes %s", t.From, t.To))
		}
	}
	if r.Only != nil {
		targets = slices.DeleteFunc(targets, func(t Target) bool { return !slices.Contains(r.Only, t.From) })
	}
	return jobsOf(targets, there), nil
}

func jobsOf(targets []Target, there []mail.Mailbox) []*job {
	var jobs []*job
	by := make(map[string]*job)
	for _, t := range targets {
		j := by[t.To]
		if j == nil {
			j = &job{to: t.To, exists: t.Exists, fallback: t.fallback}
			for _, mb := range there {
				if mb.Name == t.To {
					j.there = mb
				}
			}
			by[t.To] = j
			jobs = append(jobs, j)
		}
		j.from = append(j.from, t.From)
	}
	slices.SortFunc(jobs, func(a, b *job) int { return strings.Compare(a.to, b.to) })
	return jobs
}

func (r *run) warn(err error) {
	r.Notify(mail.Event{Kind: mail.EventWarning, Ref: mail.Ref{Account: r.Destination.Account()}, Err: err})
}

// selected returns the mailboxes to be sent; one asked for by name must exist.
func (r *run) selected(ctx context.Context) ([]mail.Mailbox, error) {
	all, err := r.Messages.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.Selection.CheckNames("", all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(mb mail.Mailbox) bool { return !r.Selection.MatchMailbox(mb.Name) }), nil
}

// all looks at every mailbox and then works through them, some at a time.
func (r *run) all(ctx context.Context, jobs []*job) (Result, error) {
	boxes := make([]*box, len(jobs))
	for i, j := range jobs {
		boxes[i] = &box{run: r, job: j}
	}
	r.each(ctx, boxes, (*box).survey)
	if ctx.Err() == nil {
		r.forecast(ctx, boxes)
	}
	// What is sent to any other mailbox of such a server is in that one, too, and is to
	// be found there (docs/quirks.md, Gmail).
	isAll := func(b *box) bool { return b.job.there.SpecialUse == `\All` }
	work := func(b *box, ctx context.Context) error { return b.do(ctx, b.work) }
	r.each(ctx, slices.DeleteFunc(slices.Clone(boxes), isAll), work)
	r.each(ctx, slices.DeleteFunc(slices.Clone(boxes), func(b *box) bool { return !isAll(b) }), work)
	return conclude(ctx, boxes)
}

// each does something with every mailbox that has not failed. It ends when
// mailboxes fail one after the other for lack of a connection.
func (r *run) each(ctx context.Context, boxes []*box, f func(*box, context.Context) error) {
	var g errgroup.Group
	g.SetLimit(r.Parallel)
	var mu sync.Mutex
	lost := 0
	for _, b := range boxes {
		if b.err != nil {
			continue
		}
		mu.Lock()
		stop := lost >= giveUpAfter
		mu.Unlock()
		if ctx.Err() != nil || stop {
			b.err = errNotReached
			continue
		}
		g.Go(func() error {
			b.err = f(b, ctx)
			mu.Lock()
			defer mu.Unlock()
			switch mail.KindOf(b.err) {
			case mail.KindTemporary, mail.KindAuth:
				lost++
			default:
				lost = 0
			}
			return nil
		})
	}
	_ = g.Wait() // every error stands in its box
}

// errNotReached marks mailboxes that nothing was done about: others say why.
var errNotReached = errors.New("not reached")

func conclude(ctx context.Context, boxes []*box) (Result, error) {
	var res Result
	var errs []error
	for _, b := range boxes {
		mr := MailboxResult{Name: b.job.to, From: b.job.from, Counts: b.counts, UIDValidity: b.uidValidity(), UIDNext: max(b.state.UIDNext, b.job.there.UIDNext), Err: b.err, Complete: b.done}
		if mr.Err != nil {
			// What was not reached is neither sent nor failed.
			mr.Listed = mr.Uploaded + mr.Adopted + mr.Skipped + mr.Failed
		}
		if mr.Err == errNotReached {
			mr.Err = nil
		}
		if mr.Err != nil {
			errs = append(errs, mr.Err)
		}
		res.Counts.add(mr.Counts)
		if b.err != errNotReached || mr.Listed > 0 {
			res.Mailboxes = append(res.Mailboxes, mr)
		}
	}
	if ctx.Err() != nil {
		return res, context.Cause(ctx)
	}
	return res, errors.Join(errs...)
}

// isFull tells whether the destination has no space left.
func (r *run) isFull() bool { return r.full.Load() >= quotaRefusal }
