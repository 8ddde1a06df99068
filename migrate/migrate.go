// Package migrate moves the mail of one account to another: the engine of fetch
// reads it, that of upload sends it on meanwhile, and only a little of it is on this
// machine at a time. A ledger without octets remembers how far each message got. Or
// the messages are kept in an archive on the way, and its ledger remembers.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"mailhaul/fetch"
	"mailhaul/mail"
	"mailhaul/upload"
)

// Ledger is what Run needs to know and to record.
type Ledger interface {
	fetch.Ledger
	upload.Ledger
	Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error
	MessagesAfter(ctx context.Context, mailbox string, after int64, yield func(mail.Held) error) error
	// Newest returns the message of a mailbox that was recorded last, 0 if none was.
	Newest(ctx context.Context, mailbox string) (int64, error)
	// Note returns what was noted under a key, "" if nothing was.
	Note(ctx context.Context, key string) (string, error)
	// SetNotes notes values; it does nothing if they are noted already.
	SetNotes(ctx context.Context, notes map[string]string) error
}

// Archive keeps the messages on the way.
type Archive interface {
	fetch.Archive
	Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)
}

// Subscribed is a Source that knows which mailboxes its owner has subscribed to.
type Subscribed interface {
	// Subscribed returns their names.
	Subscribed(ctx context.Context) ([]string, error)
}

// Options says what Run is to do.
type Options struct {
	Source      fetch.Source
	Destination upload.Destination
	Ledger      Ledger
	Archive     Archive // nil: nothing is kept
	Selection   mail.Selection
	// Upload says how to send: Mapping, MarkSeen, Subscribe, SendRepaired, DryRun,
	// Plan, Forecast, Parallel and Pause count.
	Upload   upload.Options
	Parallel int    // mailboxes of the source at once
	Dir      string // for temporary files
	Notify   mail.Notify
	Now      func() time.Time // nil means time.Now
}

// AccountOf is the name that the destination has in the ledger: source and
// destination may be one user of one host name, on other ports.
func AccountOf(destination string) string { return "to:" + destination }

// Result is what a run did.
type Result struct {
	upload.Counts
	Suspicious int64 // part of Uploaded and Adopted: they may not be what the source should have sent
	Mailboxes  []upload.MailboxResult
	// Complete are the source's mailboxes that were listed completely, as they were
	// when the run began.
	Complete []mail.Mailbox
	Began    time.Time
}

// Run sends what is new at the source to the destination. It returns what was done
// even with an error. It closes neither.
func Run(ctx context.Context, o Options) (res Result, err error) {
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Parallel = max(1, o.Parallel)
	o.Upload.Parallel = max(1, o.Upload.Parallel)
	m := &mover{Options: o, began: o.Now(), last: make(map[string]int64), warned: make(map[string]bool)}
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	defer m.cancel(nil)
	if err := m.begin(); err != nil {
		return Result{}, err
	}
	defer m.view.close()
	if m.Upload.DryRun {
		return m.foresee()
	}
	return m.run()
}

// mover is the state of a run.
type mover struct {
	Options
	ctx    context.Context // ended by the caller, or when nothing can be sent any more
	cancel context.CancelCauseFunc
	began  time.Time

	mailboxes  []mail.Mailbox // of the source, selected or not
	subscribed []string
	there      []mail.Mailbox // at the destination when the run began
	spool      *spool
	view       *view
	stream     *upload.Stream
	queues     *queues
	space      spaceWatch

	last map[string]int64 // by mailbox: the newest message of the ledger

	mu     sync.Mutex
	warned map[string]bool
}

// begin looks at both sides, which is most of the round trips of a run with nothing
// new, so both at once.
func (m *mover) begin() error {
	var wg sync.WaitGroup
	var fromErr, toErr error
	wg.Go(func() {
		if m.mailboxes, fromErr = m.Source.Mailboxes(m.ctx); fromErr != nil {
			return
		}
		if s, ok := m.Source.(Subscribed); ok {
			m.subscribed, fromErr = s.Subscribed(m.ctx)
		}
	})
	wg.Go(func() { m.there, toErr = m.Destination.Mailboxes(m.ctx) })
	wg.Wait()
	if err := m.why(errors.Join(fromErr, toErr)); err != nil {
		return err
	}
	m.spool = newSpool(m.Dir)
	m.view = newView(m.Source, m.Ledger, m.Archive, m.spool, m.mailboxes)
	o := m.Upload
	o.Account = m.account()
	o.Destination, o.Messages, o.Ledger = listedDestination(m.Destination, m.there), m.view, m.Ledger
	o.Selection = mail.Selection{Mailboxes: m.Selection.Mailboxes, Exclude: m.Selection.Exclude}
	o.Notify = m.uploadEvent
	var err error
	m.stream, err = upload.Begin(m.ctx, o)
	return err
}

// account is the destination's name in the ledger.
func (m *mover) account() string {
	if m.Upload.Account != "" {
		return m.Upload.Account
	}
	return AccountOf(m.Destination.Account())
}

// why is the error that ended the run, rather than what it made fail.
func (m *mover) why(err error) error {
	if err != nil && m.ctx.Err() != nil {
		return context.Cause(m.ctx)
	}
	return err
}

// groupCount is how many messages are sent on together at most: reading and sending
// are to overlap in small mailboxes, too.
const groupCount = 100

func (m *mover) run() (Result, error) {
	m.queues = newQueues(m)
	m.readyAll()
	got, err := fetch.Run(m.ctx, fetch.Options{
		Source: listed{m.Source, m.mailboxes}, Archive: m.archive(), Ledger: &recorder{m.Ledger, m}, Selection: m.Selection,
		Parallel: m.Parallel, Group: groupCount, Notify: m.fetchEvent, Now: m.Now,
	})
	m.queues.finish()
	m.space.asked.Wait()
	if m.ctx.Err() != nil {
		err = context.Cause(m.ctx)
	}
	ctx := m.ctx
	if err != nil && m.ctx.Err() == nil && endsAll(err) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		cancel() // only what was sent is settled
	}
	sent, sentErr := m.stream.End(ctx, m.isComplete)
	if m.ctx.Err() != nil { // perhaps since then
		err = context.Cause(m.ctx)
	}
	if ctx.Err() != nil {
		sentErr = nil // err says why
	}
	res := m.conclude(got, sent, errors.Join(err, sentErr))
	err = errors.Join(err, sentErr)
	if err == nil {
		err = errors.Join(m.makeEmpty(), m.subscribe())
	}
	if err == nil || !endsAll(err) {
		err = errors.Join(err, m.noteComplete(got, sent))
	}
	return res, err
}

// endsAll tells whether after this error nothing more is to be tried: what remains
// are mailboxes that could not be read or written.
func endsAll(err error) bool {
	switch mail.KindOf(err) {
	case mail.KindOther, mail.KindPartial, mail.KindLacking, mail.KindIntegrity:
		return false
	}
	return true
}

func (m *mover) archive() fetch.Archive {
	if m.Archive == nil {
		return m.spool
	}
	return m.Archive
}

// readyAll opens the destination's mailboxes while the source is still being listed.
func (m *mover) readyAll() {
	for _, mb := range m.mailboxes {
		if mb.Messages <= 0 || !m.Selection.MatchMailbox(mb.Name) || !m.Selection.All() {
			continue
		}
		state, err := m.Ledger.Cursor(m.ctx, m.Source.Account(), mb.Name)
		if err == nil && state == "" { // never completed: there is something to send
			m.queues.ready(mb.Name)
		}
	}
}

// foresee tells what a run would do.
func (m *mover) foresee() (Result, error) {
	var planned int64
	var mu sync.Mutex
	src := &counting{listed: listed{m.Source, m.mailboxes}}
	if l, ok := m.Destination.(upload.Limiter); ok {
		src.limit = l.MaxMessage()
	}
	got, err := fetch.Run(m.ctx, fetch.Options{
		Source: src, Ledger: m.Ledger, Selection: m.Selection, DryRun: true, Parallel: m.Parallel, Now: m.Now,
		Notify: func(e mail.Event) {
			if e.Kind == mail.EventMailbox {
				mu.Lock()
				planned += e.Octets
				mu.Unlock()
			}
			m.fetchEvent(e)
		},
	})
	if err != nil && endsAll(err) {
		return Result{}, m.why(err)
	}
	sent, sentErr := m.stream.End(m.ctx, m.isComplete)
	err = errors.Join(err, sentErr)
	f := upload.Forecast{Messages: got.Archived + sent.Uploaded, Octets: planned + sent.Octets, TooBig: src.tooBig()}
	res := m.conclude(got, sent, err)
	res.Uploaded += got.Archived
	res.Adopted += got.Adopted
	res.Skipped -= got.Archived + got.Adopted
	res.Octets += planned
	if m.ctx.Err() != nil {
		return res, context.Cause(m.ctx)
	}
	var strangersErr error
	f.Uncompared, strangersErr = m.strangers(got)
	err = errors.Join(err, strangersErr)
	f, spaceErr := upload.CheckSpace(m.ctx, m.Destination, f)
	if spaceErr != nil {
		m.warn(fmt.Errorf("the destination's space is not known: %w", spaceErr))
		f.Space = upload.Unlimited
	}
	if m.Upload.Forecast != nil {
		m.Upload.Forecast(f)
	}
	if over := f.Err(m.Destination.Account()); over != nil {
		m.warn(over)
	}
	return res, err
}

// strangers counts the messages that nobody knows in the mailboxes that something is to
// go to. A dry run cannot compare them: it has no octets of the source.
func (m *mover) strangers(got fetch.Result) (all int64, err error) {
	to := m.stream.Targets()
	targets := make(map[string]bool)
	for _, mr := range got.Mailboxes {
		if target, part := to[mr.Name]; part && mr.Archived > 0 {
			targets[target] = true
		}
	}
	for _, mb := range m.there {
		if !targets[mb.Name] {
			continue
		}
		n := mb.Messages
		err = errors.Join(err, m.Ledger.Claims(m.ctx, m.account(), mb.Name, func(c mail.Claim) error {
			if c.Gone.IsZero() && (mb.UIDValidity == 0 || c.UIDValidity == mb.UIDValidity) {
				n--
			}
			return nil
		}))
		all += max(0, n)
	}
	return all, err
}

// fetchEvent passes on what the reading side tells; what is done, the sending side
// says.
func (m *mover) fetchEvent(e mail.Event) {
	switch e.Kind {
	case mail.EventDone, mail.EventProgress:
		return
	case mail.EventMailbox:
		m.space.add(m, e.N, e.Octets)
	}
	m.Notify(e)
}

// uploadEvent passes on what the sending side tells, warnings once.
func (m *mover) uploadEvent(e mail.Event) {
	switch e.Kind {
	case mail.EventMailbox:
		return
	case mail.EventWarning:
		m.mu.Lock()
		told := m.warned[e.Err.Error()]
		m.warned[e.Err.Error()] = true
		m.mu.Unlock()
		if told {
			return
		}
	}
	m.Notify(e)
}

func (m *mover) warn(err error) {
	m.uploadEvent(mail.Event{Kind: mail.EventWarning, Ref: mail.Ref{Account: m.Destination.Account()}, Err: err})
}

// conclude adds up what was listed at the source and what came of it.
func (m *mover) conclude(got fetch.Result, sent upload.Result, err error) Result {
	res := Result{Counts: sent.Counts, Suspicious: got.Suspicious, Began: m.began}
	res.Listed = got.Listed
	res.Failed += got.Failed
	if done := res.Uploaded + res.Adopted + res.Failed; err != nil && done > res.Listed {
		res.Listed = done
	}
	res.Skipped = res.Listed - res.Uploaded - res.Adopted - res.Failed
	told := make(map[string]bool)
	for _, b := range sent.Mailboxes {
		b.Listed = b.Uploaded + b.Adopted + b.Failed + b.Skipped
		res.Mailboxes = append(res.Mailboxes, b)
		told[b.Name] = true
	}
	unchanged := make(map[string]*upload.MailboxResult)
	to := m.stream.Targets()
	for _, mr := range got.Mailboxes {
		if mb, ok := m.view.mailbox(mr.Name); ok && mr.Err == nil && !mr.More {
			res.Complete = append(res.Complete, mb)
		}
		name, ok := to[mr.Name]
		if !ok || told[name] {
			continue
		}
		if unchanged[name] == nil {
			unchanged[name] = &upload.MailboxResult{Name: name}
		}
		b := unchanged[name]
		b.From = append(b.From, mr.Name)
		b.Listed += mr.Listed
		b.Skipped += mr.Listed - mr.Failed
		b.Failed += mr.Failed
	}
	for _, b := range unchanged {
		res.Mailboxes = append(res.Mailboxes, *b)
	}
	slices.SortFunc(res.Mailboxes, func(a, b upload.MailboxResult) int { return strings.Compare(a.Name, b.Name) })
	return res
}
