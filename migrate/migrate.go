// Package migrate moves the mail of one account to another: the engine of fetch
// reads it, that of upload sends it on, and only a little of it is on this machine
// at a time. A ledger without octets remembers how far each message got.
package migrate

import (
	"context"
	"errors"
	"slices"
	"sync"

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
}

// Options says what Run is to do.
type Options struct {
	Source      fetch.Source
	Destination upload.Destination
	Ledger      Ledger
	Selection   mail.Selection
	Upload      upload.Options // Mapping, MarkSeen, Subscribe, DryRun, Plan and Parallel count
	Parallel    int            // mailboxes of the source at once
	Dir         string         // for temporary files
	Notify      mail.Notify
}

// Result is what a run did.
type Result struct {
	upload.Counts
	Suspicious int64 // part of Uploaded and Adopted: they may not be what the source should have sent
	Mailboxes  []upload.MailboxResult
}

// Run sends what is new at the source to the destination. It returns what was done
// even with an error. It closes neither.
func Run(ctx context.Context, o Options) (res Result, err error) {
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	mailboxes, err := o.Source.Mailboxes(ctx)
	if err != nil {
		return Result{}, err
	}
	m := &mover{Options: o, ctx: ctx, mailboxes: mailboxes, spool: newSpool(o.Dir), last: make(map[string]int64)}
	defer m.spool.close()
	fo := fetch.Options{
		Source: listed{o.Source, mailboxes}, Ledger: &recorder{o.Ledger, m}, Selection: o.Selection,
		DryRun: o.Upload.DryRun, Parallel: o.Parallel, Notify: m.fetchEvent,
	}
	if !o.Upload.DryRun {
		fo.Archive = m.spool
	}
	got, err := fetch.Run(ctx, fo)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if m.fatal == nil && ctx.Err() == nil && (err == nil || mail.KindOf(err) != mail.KindUsage) {
		rest, restErr := m.rest(ctx)
		err = errors.Join(err, restErr)
		m.add(rest)
	}
	return m.conclude(got, err)
}

// mover is the state of a run.
type mover struct {
	Options
	ctx       context.Context
	mailboxes []mail.Mailbox // of the source
	spool     *spool

	mu     sync.Mutex
	last   map[string]int64 // by mailbox: the newest message of the ledger
	counts upload.Counts
	boxes  map[string]upload.MailboxResult
	errs   []error
	fatal  error
	warned map[string]bool
}

// listed is the source with the mailboxes it has listed already.
type listed struct {
	fetch.Source
	mailboxes []mail.Mailbox
}

func (l listed) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return slices.Clone(l.mailboxes), nil
}

// Headers lets the engine recognise messages without reading them, if the source can.
func (l listed) Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	h, ok := l.Source.(fetch.HeaderSource)
	if !ok {
		return l.Source.Fetch(ctx, mb, wants, deliver)
	}
	return h.Headers(ctx, mb, wants, deliver)
}

// fetchEvent passes on what the reading side tells; what is done, the sending side
// says.
func (m *mover) fetchEvent(e mail.Event) {
	if e.Kind != mail.EventDone && e.Kind != mail.EventProgress {
		m.Notify(e)
	}
}

// uploadEvent passes on what the sending side tells, warnings once.
func (m *mover) uploadEvent(e mail.Event) {
	switch e.Kind {
	case mail.EventMailbox:
		return
	case mail.EventWarning:
		m.mu.Lock()
		if m.warned == nil {
			m.warned = make(map[string]bool)
		}
		told := m.warned[e.Err.Error()]
		m.warned[e.Err.Error()] = true
		m.mu.Unlock()
		if told {
			return
		}
	}
	m.Notify(e)
}

// recorder records what was read and then sends it on.
type recorder struct {
	Ledger
	m *mover
}

// Record is called for one group after the other.
func (r *recorder) Record(ctx context.Context, c mail.Change) error {
	m := r.m
	if len(c.Archived) == 0 {
		return r.Ledger.Record(ctx, c)
	}
	batch := m.spool.take()
	defer batch.close()
	var names []string
	for _, a := range c.Archived {
		if name := a.Receipt.Info.Ref.Mailbox; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if err := m.newest(ctx, name); err != nil {
			return err
		}
	}
	if err := r.Ledger.Record(ctx, c); err != nil {
		return err
	}
	v := &view{mailboxes: m.mailboxes, batch: batch, ledger: r.Ledger, byMailbox: make(map[string][]mail.Held)}
	for _, name := range names {
		err := r.MessagesAfter(ctx, name, m.last[name], func(h mail.Held) error {
			m.last[name] = h.Message
			if batch.claim(h) {
				v.byMailbox[name] = append(v.byMailbox[name], h)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	res, err := m.upload(m.ctx, v, names, false)
	m.add(res)
	switch mail.KindOf(err) {
	case mail.KindTemporary, mail.KindAuth, mail.KindDisk:
		m.fatal = err
		return err
	}
	if err != nil {
		m.errs = append(m.errs, err)
	}
	if cause := context.Cause(m.ctx); cause != nil {
		return cause
	}
	return nil
}

// newest finds the newest message of a mailbox before more is recorded.
func (m *mover) newest(ctx context.Context, mailbox string) error {
	if _, known := m.last[mailbox]; known {
		return nil
	}
	m.last[mailbox] = 0
	return m.Ledger.Messages(ctx, mailbox, func(h mail.Held) error {
		m.last[mailbox] = h.Message
		return nil
	})
}

// upload sends what a view has for these mailboxes. The last call of a run has the
// whole ledger before it.
func (m *mover) upload(ctx context.Context, v upload.Messages, only []string, last bool) (upload.Result, error) {
	o := m.Options.Upload
	// Source and destination may be one user of one host name, on other ports.
	o.Account = "to:" + m.Destination.Account()
	o.Destination, o.Messages, o.Ledger, o.Only = m.Destination, v, m.Ledger, only
	o.Notify = m.uploadEvent
	if last {
		o.Parallel = 1 // view.Messages is for one mailbox at a time
		o.Selection = m.Selection
		o.Selection.Mailboxes, o.Selection.Exclude = nil, nil
	} else {
		o.Plan = nil
	}
	return upload.Run(ctx, o)
}

// add counts what was sent.
func (m *mover) add(res upload.Result) {
	if m.boxes == nil {
		m.boxes = make(map[string]upload.MailboxResult)
	}
	for _, mr := range res.Mailboxes {
		b := m.boxes[mr.Name]
		b.Name = mr.Name
		for _, from := range mr.From {
			if !slices.Contains(b.From, from) {
				b.From = append(b.From, from)
			}
		}
		b.Uploaded += mr.Uploaded
		b.Adopted += mr.Adopted
		b.Flags += mr.Flags
		b.Altered += mr.Altered
		b.Octets += mr.Octets
		b.Failed = mr.Failed // tried again at the end: that counts
		b.Skipped = mr.Skipped
		if mr.Err != nil {
			b.Err = mr.Err
		}
		m.boxes[mr.Name] = b
	}
	m.counts.Uploaded += res.Uploaded
	m.counts.Adopted += res.Adopted
	m.counts.Flags += res.Flags
	m.counts.Altered += res.Altered
	m.counts.Octets += res.Octets
	m.counts.Failed = res.Failed
}

// rest sends what earlier runs or groups did not, and lets flags follow.
func (m *mover) rest(ctx context.Context) (upload.Result, error) {
	v := &view{mailboxes: m.mailboxes, ledger: m.Ledger, source: m.Source, spool: m.spool}
	defer v.close()
	var only []string
	for _, mb := range m.mailboxes {
		if m.Selection.MatchMailbox(mb.Name) {
			only = append(only, mb.Name)
		}
	}
	if only == nil {
		return upload.Result{}, nil
	}
	return m.upload(ctx, v, only, true)
}

func (m *mover) conclude(got fetch.Result, err error) (Result, error) {
	res := Result{Counts: m.counts, Suspicious: got.Suspicious}
	res.Listed = got.Listed
	res.Failed += got.Failed
	if m.Upload.DryRun {
		res.Uploaded += got.Archived
	}
	if err != nil && res.Uploaded+res.Adopted+res.Failed > res.Listed {
		res.Listed = res.Uploaded + res.Adopted + res.Failed
	}
	res.Skipped = res.Listed - res.Uploaded - res.Adopted - res.Failed
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range m.boxes {
			if !yield(name) {
				return
			}
		}
	}) {
		b := m.boxes[name]
		b.Listed = b.Uploaded + b.Adopted + b.Failed + b.Skipped
		res.Mailboxes = append(res.Mailboxes, b)
	}
	return res, err
}
