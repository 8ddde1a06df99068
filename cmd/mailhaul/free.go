package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/clean"
	"mailhaul/fetch"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// turn is how many new messages backup --delete copies before it deletes: a night
// that is cut short has freed something.
const turn = 10_000

// freeFlags are those of backup that delete afterwards.
type freeFlags struct {
	on      bool
	keep    time.Time // what is younger stays; zero keeps nothing
	ceiling ceiling
	rule    *rule
}

func (o *freeFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	now := time.Now()
	o.rule = record(f, func() {
		f.BoolVar(&o.on, "delete", false, "afterwards delete at the server what this archive proves to hold, except flagged mail")
		f.Func("keep", "with --delete: leave what is younger than this `AGE` (90d, 6m, 2y)", func(v string) (err error) {
			o.keep, err = parseAge(v, now)
			return err
		})
	})
	o.ceiling.register(f)
}

func (o *freeFlags) check() error {
	if !o.on && (!o.keep.IsZero() || o.ceiling.set) {
		return usage("add --delete, or leave them out", "--keep and --max-delete say what --delete may do")
	}
	return nil
}

// fetchAndFree copies and, if asked to, deletes what the archive proves, in turns.
// v is nil in a dry run without archive.
func (a *app) fetchAndFree(ctx context.Context, o fetch.Options, free freeFlags, v *vault.Vault, s *ui.Summary) (fetch.Result, error) {
	if !free.on {
		return fetch.Run(ctx, o)
	}
	src, ok := o.Source.(clean.Source)
	if !ok {
		return fetch.Result{}, &mail.Error{Kind: mail.KindLacking, Ref: mail.Ref{Account: o.Source.Account()}, Err: errors.New("nothing can be deleted over this protocol")}
	}
	s.Deleted = new(int64)
	if !free.ceiling.set && !o.DryRun && !takesAllLabels(ctx, o.Source.Account(), src) { // a ceiling is for the whole
		o.Limit = turn
	}
	f := &freeing{app: a, src: src, flags: free, vault: v, dryRun: o.DryRun, selection: o.Selection, notify: o.Notify, deleted: s.Deleted}
	var total fetch.Result
	for {
		res, err := fetch.Run(ctx, o)
		o.Mailboxes = nil // what they were before the next turn
		progress := res.Archived+res.Adopted > 0
		unbalanced := err == nil && res.Listed != res.Archived+res.Adopted+res.Skipped+res.Failed
		merge(&total, res)
		if unbalanced {
			return total, ui.ErrUnbalanced
		}
		if err != nil && endsAll(ctx, err) || v == nil {
			return total, err
		}
		if res.Back > 0 {
			return total, errors.Join(err, ignored(o.Source.Account(), res.Back, "nothing was deleted"))
		}
		err = errors.Join(err, f.run(ctx))
		if err != nil || !res.More || !progress {
			f.tell()
			return total, err
		}
	}
}

// takesAllLabels tells whether what is deleted in one mailbox is gone from others, as
// at Gmail, which has a trash only: then all are to be archived before anything goes.
func takesAllLabels(ctx context.Context, account string, src clean.Source) bool {
	if !strings.HasPrefix(account, "imap:") {
		return false
	}
	mode, err := src.CanDelete(ctx, mail.ModeExpunge)
	return err == nil && mode == mail.ModeTrash // an error is told when something is to go
}

// ignored says that the server does not do what it is told, and what was done then.
func ignored(account string, n int64, done string) error {
	return &mail.Error{
		Kind: mail.KindLacking, Ref: mail.Ref{Account: account}, Op: "delete messages",
		Err:  fmt.Errorf("%s deleted before %s there again: the server ignores DELE, or its mail was restored", ui.Plural(n, "message"), isOrAre(n)),
		Hint: done + "; look at the POP3 settings of the account, or clean it over IMAP",
	}
}

func isOrAre(n int64) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// endsAll tells whether after this error nothing should be deleted: what remains
// are mailboxes that could not be read, which do not keep the others from being
// freed.
func endsAll(ctx context.Context, err error) bool {
	switch mail.KindOf(err) {
	case mail.KindOther, mail.KindPartial, mail.KindLacking:
		return ctx.Err() != nil
	}
	return true
}

// merge adds a further turn: what it skipped was counted by the turn before, what
// failed failed again.
func merge(total *fetch.Result, res fetch.Result) {
	if total.Mailboxes == nil {
		*total = res
		return
	}
	add := func(t *fetch.Counts, c fetch.Counts) {
		t.Archived += c.Archived
		t.Adopted += c.Adopted
		t.Suspicious += c.Suspicious
		t.Octets += c.Octets
		t.Failed = c.Failed
		t.Listed = t.Archived + t.Adopted + t.Skipped + t.Failed
	}
	add(&total.Counts, res.Counts)
	total.More = res.More
	for _, m := range res.Mailboxes {
		i := slices.IndexFunc(total.Mailboxes, func(t fetch.MailboxResult) bool { return t.Name == m.Name })
		if i < 0 {
			total.Mailboxes = append(total.Mailboxes, m)
			continue
		}
		add(&total.Mailboxes[i].Counts, m.Counts)
		total.Mailboxes[i].Err, total.Mailboxes[i].More = m.Err, m.More
	}
}

// freeing is the deleting part of backup --delete.
type freeing struct {
	app       *app
	src       clean.Source
	flags     freeFlags
	vault     *vault.Vault
	dryRun    bool
	selection mail.Selection
	notify    mail.Notify

	deleted *int64
	octets  int64
	last    clean.Result
}

func (f *freeing) run(ctx context.Context) error {
	selection := f.selection
	if keep := f.flags.keep; !keep.IsZero() && (selection.Before.IsZero() || keep.Before(selection.Before)) {
		selection.Before = keep
	}
	res, err := clean.Run(ctx, clean.Options{
		Source: f.src, Archive: f.vault.Archive, Ledger: f.vault.Ledger, Selection: selection,
		Mode: mail.ModeExpunge, Rule: "backup " + f.flags.rule.String(), DryRun: f.dryRun, Copies: f.dryRun,
		Confirm: f.flags.ceiling.check,
		Notify: func(e mail.Event) {
			if e.Kind == mail.EventFailed || e.Kind == mail.EventWarning {
				f.notify(e)
			}
		},
	})
	f.last = res
	if f.dryRun && res.Plan != nil {
		res.Deleted, res.Octets = res.Plan.Go.Messages, res.Plan.Go.Octets
	}
	*f.deleted += res.Deleted
	f.octets += res.Octets
	if err == nil && !f.dryRun && res.Listed != res.Deleted+res.Skipped+res.Failed {
		err = fmt.Errorf("%w: %d to be deleted, but %d deleted, %d stayed and %d failed", ui.ErrUnbalanced, res.Listed, res.Deleted, res.Skipped, res.Failed)
	}
	if res.Failed > 0 && mail.KindOf(err) != mail.KindIntegrity { // which was told of these
		err = errors.Join(err, &mail.Error{Kind: mail.KindPartial, Ref: mail.Ref{Account: f.src.Account()}, Op: "delete messages",
			Err:  fmt.Errorf("%s could not be deleted at the server", ui.Plural(res.Failed, "message")),
			Hint: "nothing is lost, the archive holds what should have gone; run the same command again"})
	}
	return err
}

// tell says what was freed and why the rest stayed.
func (f *freeing) tell() {
	mode := ""
	if f.last.Plan != nil {
		mode = f.last.Plan.Mode
	}
	f.app.ui.Freed(mail.AccountLabel(f.src.Account()), ui.Freed{Deleted: *f.deleted, Octets: f.octets, Mode: mode, DryRun: f.dryRun, Stayed: f.last.Stayed})
}
