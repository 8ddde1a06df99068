// Package undo puts back at a server what was deleted there on the word of an
// archive: what lies in the trash is moved back, the rest is appended by the engine
// of upload. Each message comes back once, also if a run is ended and run again; what
// is back is on record as such together with its new claim, and is never put back a
// second time because somebody removed it again.
package undo

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"mailhaul/clean"
	"mailhaul/mail"
	"mailhaul/upload"
)

// Ledger is what Run needs to know and to record.
type Ledger interface {
	clean.Ledger
	upload.Ledger
	// Deletions yields what was deleted at an account by us since a time and is not
	// back there, oldest first.
	Deletions(ctx context.Context, account string, since time.Time, yield func(mail.Deletion) error) error
}

// Restorer is a Source that can move messages back from the trash.
type Restorer interface {
	// Restore moves messages to a mailbox, as many of each as are wanted; back is
	// told where they are now. Those of which it is not told are to be appended. What
	// lies in the mailbox already, and is not known, counts as back.
	Restore(ctx context.Context, to mail.Mailbox, wanted []mail.Receipt, known func(mail.Ref) bool, back func(i int, in mail.Info) error) error
}

// Options says what Run is to do.
type Options struct {
	Source      clean.Lister       // the account; it may be a Restorer
	Destination upload.Destination // the same account
	Archive     clean.Archive
	Ledger      Ledger
	// Accounts are those whose deletions are put back: the account itself, and the
	// same mailboxes by another protocol.
	Accounts []string
	Since    time.Time // only what was deleted from then on; zero for all
	DryRun   bool
	Parallel int // mailboxes at once; at least 1
	Notify   mail.Notify
	Pause    time.Duration // as upload's
}

// Result is what a run did. Adopted counts what was moved back or was found to be
// back already.
type Result struct {
	upload.Counts
	Moved     int64 // part of Adopted: by Restore
	Mailboxes []upload.MailboxResult
}

// Run puts back what was deleted. It returns what was done even with an error. It
// closes nothing.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	r := &run{Options: o, deleted: newDeleted(o.Ledger, o.Archive), boxes: make(map[string]*upload.MailboxResult)}
	if !o.DryRun {
		if err := clean.Settle(ctx, o.Source, o.Ledger); err != nil {
			return Result{}, err
		}
	}
	for _, account := range o.Accounts {
		err := o.Ledger.Deletions(ctx, account, o.Since, func(d mail.Deletion) error {
			r.deleted.add(d)
			return nil
		})
		if err != nil {
			return Result{}, err
		}
	}
	if len(r.deleted.all) == 0 {
		return Result{}, nil
	}
	err := r.there(ctx)
	if err == nil {
		var res upload.Result
		res, err = upload.Run(ctx, upload.Options{
			Destination: o.Destination, Messages: r.deleted, Ledger: newRecorder(o.Ledger, r.deleted),
			Mapping: upload.Mapping{NoSpecialUse: true}, DryRun: o.DryRun, Parallel: o.Parallel, Notify: o.Notify, Pause: o.Pause,
		})
		r.add(res)
	}
	return r.result(), err
}

type run struct {
	Options
	deleted *deleted
	boxes   map[string]*upload.MailboxResult
	moved   int64
}

func (r *run) box(name string) *upload.MailboxResult {
	b := r.boxes[name]
	if b == nil {
		b = &upload.MailboxResult{Name: name, From: []string{name}}
		r.boxes[name] = b
	}
	return b
}

func (r *run) add(res upload.Result) {
	for _, m := range res.Mailboxes {
		b := r.box(m.Name)
		m.Listed += b.Listed
		m.Adopted += b.Adopted
		m.Skipped += b.Skipped
		*b = m
	}
}

func (r *run) result() Result {
	res := Result{Moved: r.moved}
	for _, b := range r.boxes {
		res.Mailboxes = append(res.Mailboxes, *b)
		res.Listed += b.Listed
		res.Uploaded += b.Uploaded
		res.Adopted += b.Adopted
		res.Skipped += b.Skipped
		res.Failed += b.Failed
		res.Altered += b.Altered
		res.Octets += b.Octets
	}
	slices.SortFunc(res.Mailboxes, func(a, b upload.MailboxResult) int { return strings.Compare(a.Name, b.Name) })
	return res
}

// there finds out what is back already, moves back what lies in the trash, and takes
// both off the list.
func (r *run) there(ctx context.Context) error {
	all, err := r.Source.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for _, mb := range all {
		if len(r.deleted.boxes[mb.Name]) == 0 {
			continue
		}
		claims, err := r.claims(ctx, mb)
		if err != nil {
			return err
		}
		if err := r.alreadyBack(ctx, mb.Name, claims); err != nil {
			return err
		}
		if restorer, ok := r.Source.(Restorer); ok && !r.DryRun {
			if err := r.moveBack(ctx, restorer, mb, claims); err != nil {
				return err
			}
		}
	}
	return nil
}

// claimed is what the account holds of a mailbox.
type claimed struct {
	refs     map[mail.Ref]bool // UIDVALIDITY and UID
	messages map[int64]bool    // of the deleted ones
}

func refOf(validity uint32, uid string) mail.Ref { return mail.Ref{UIDValidity: validity, UID: uid} }

// claims reads what the ledger has of a mailbox. If it says that something deleted is
// there, the server is asked, and claims that it does not bear out are gone.
func (r *run) claims(ctx context.Context, mb mail.Mailbox) (claimed, error) {
	c := claimed{refs: make(map[mail.Ref]bool), messages: make(map[int64]bool)}
	live := make(map[mail.Ref]mail.Claim)
	err := r.Ledger.Claims(ctx, r.Source.Account(), mb.Name, func(m mail.Claim) error {
		if !m.Gone.IsZero() {
			return nil
		}
		ref := refOf(m.UIDValidity, m.UID)
		c.refs[ref] = true
		if d := r.deleted.all[m.Message]; d != nil && d.mailbox == mb.Name {
			live[ref] = m
		}
		return nil
	})
	if err != nil || len(live) == 0 {
		return c, err
	}
	for in, err := range r.Source.List(ctx, mb) {
		if err != nil {
			return c, err
		}
		ref := refOf(in.Ref.UIDValidity, in.Ref.UID)
		if m, ok := live[ref]; ok && (m.Size < 0 || in.Size < 0 || m.Size == in.Size) {
			c.messages[m.Message] = true
			delete(live, ref)
		}
	}
	var gone []int64
	for ref, m := range live {
		delete(c.refs, ref)
		gone = append(gone, m.ID)
	}
	if r.DryRun || len(gone) == 0 {
		return c, nil
	}
	return c, r.Ledger.Record(ctx, mail.Change{Gone: gone})
}

// alreadyBack records what is at the server again, by whatever way.
func (r *run) alreadyBack(ctx context.Context, mailbox string, c claimed) error {
	if len(c.messages) == 0 {
		return nil
	}
	var undone []int64
	for m := range c.messages {
		undone = append(undone, r.deleted.all[m].ids...)
	}
	r.deleted.drop(mailbox, c.messages)
	b := r.box(mailbox)
	b.Listed += int64(len(c.messages))
	b.Skipped += int64(len(c.messages))
	if r.DryRun {
		return nil
	}
	return r.Ledger.Record(ctx, mail.Change{Undone: undone})
}

// moveBack moves back what still lies in the trash, and claims it.
func (r *run) moveBack(ctx context.Context, restorer Restorer, mb mail.Mailbox, c claimed) error {
	var wanted []mail.Receipt
	var messages []int64
	for _, m := range r.deleted.boxes[mb.Name] {
		d := r.deleted.all[m]
		if d.mode != mail.ModeTrash || d.account != r.Source.Account() {
			continue
		}
		h, err := r.Ledger.Message(ctx, m)
		if err != nil {
			return err
		}
		h.Receipt.Info.Size = d.size
		wanted, messages = append(wanted, h.Receipt), append(messages, m)
	}
	if len(wanted) == 0 {
		return nil
	}
	var change mail.Change
	back := make(map[int64]bool)
	err := restorer.Restore(ctx, mb, wanted, func(ref mail.Ref) bool { return c.refs[refOf(ref.UIDValidity, ref.UID)] }, func(i int, in mail.Info) error {
		d := r.deleted.all[messages[i]]
		in.Ref.Account, in.Ref.Mailbox = r.Source.Account(), mb.Name
		in.Flags = d.flags // the next backup sees what they are now
		change.Adopted = append(change.Adopted, mail.Adoption{Info: in, Message: messages[i], Takes: d.claim})
		change.Undone = append(change.Undone, d.ids...)
		back[messages[i]] = true
		return nil
	})
	if len(back) == 0 {
		return err
	}
	r.deleted.drop(mb.Name, back)
	b := r.box(mb.Name)
	b.Listed += int64(len(back))
	b.Adopted += int64(len(back))
	r.moved += int64(len(back))
	if rerr := r.Ledger.Record(ctx, change); rerr != nil {
		return rerr
	}
	return err
}

// deletion is one message that was deleted, in the mailbox where it was.
type deletion struct {
	ids     []int64 // what is on record about it
	account string
	mailbox string
	claim   int64 // that is gone
	size    int64 // as the server listed it
	flags   mail.Flags
	mode    string
}

// deleted is the archived messages that were deleted at the server. It implements
// upload.Messages.
type deleted struct {
	Ledger
	archive clean.Archive
	all     map[int64]*deletion // by message
	boxes   map[string][]int64  // messages by mailbox
	known   map[mail.Flags]mail.Flags
}

func newDeleted(l Ledger, archive clean.Archive) *deleted {
	return &deleted{Ledger: l, archive: archive, all: make(map[int64]*deletion), boxes: make(map[string][]int64), known: make(map[mail.Flags]mail.Flags)}
}

// add takes one deletion. One message may have several: in its mailbox, then in the
// trash; the first one says where it was.
func (l *deleted) add(d mail.Deletion) {
	m := d.Held.Message
	if have := l.all[m]; have != nil {
		have.ids = append(have.ids, d.ID)
		return
	}
	e := &deletion{ids: []int64{d.ID}, account: d.Account, mailbox: d.Mailbox, claim: d.Claim.ID, size: d.Claim.Size, mode: d.Mode, flags: d.Held.Receipt.Info.Flags}
	if strings.HasPrefix(d.Account, "imap:") { // POP3 has no flags
		e.flags = d.Claim.Flags
	}
	if f, ok := l.known[e.flags]; ok {
		e.flags = f
	}
	l.known[e.flags] = e.flags
	l.all[m] = e
	l.boxes[d.Mailbox] = append(l.boxes[d.Mailbox], m)
}

// drop takes messages off the list of a mailbox.
func (l *deleted) drop(mailbox string, messages map[int64]bool) {
	l.boxes[mailbox] = slices.DeleteFunc(l.boxes[mailbox], func(m int64) bool { return messages[m] })
	for m := range messages {
		delete(l.all, m)
	}
}

// Mailboxes lists where something was deleted.
func (l *deleted) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	var all []mail.Mailbox
	for name, messages := range l.boxes {
		if len(messages) > 0 {
			all = append(all, mail.Mailbox{Name: name})
		}
	}
	slices.SortFunc(all, func(a, b mail.Mailbox) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Messages yields what was deleted in a mailbox.
func (l *deleted) Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error {
	for _, id := range l.boxes[mailbox] {
		h, err := l.Message(ctx, id)
		if err != nil {
			return err
		}
		if err := yield(h); err != nil {
			return err
		}
	}
	return nil
}

// Message returns one of them with the flags it had at the server.
func (l *deleted) Message(ctx context.Context, id int64) (mail.Held, error) {
	h, err := l.Ledger.Message(ctx, id)
	if d := l.all[id]; d != nil {
		h.Receipt.Info.Flags = d.flags
	}
	return h, err
}

// Open opens the archived octets.
func (l *deleted) Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	return l.archive.Open(ctx, rc)
}
