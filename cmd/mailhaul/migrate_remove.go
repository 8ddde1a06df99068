package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"mailhaul/clean"
	"mailhaul/internal/ui"
	"mailhaul/mail"
	"mailhaul/migrate"
)

// remove deletes what was asked to be deleted after the messages were moved.
func (m *migration) remove(ctx context.Context, res migrate.Result) (err error) {
	src, ok := m.src.(clean.Source)
	if !ok {
		return cannotDelete(m.src.Account())
	}
	again, err := m.reread()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, again.Close()) }()
	copies, ok := again.(clean.Source)
	if !ok {
		return cannotDelete(again.Account())
	}
	o := migrate.RemoveOptions{
		Source: src, Copies: copies, Destination: m.dest, Account: m.options.Upload.Account, Ledger: m.ledger, Selection: m.options.Selection,
		Dir: m.options.Dir, DryRun: m.flags.dryRun, Listed: res.Complete, Began: res.Began,
	}
	if o.Account == "" {
		o.Account = migrate.AccountOf(m.dest.Account())
	}
	if m.flags.remove.source {
		err = m.removeSource(ctx, o)
	}
	if m.flags.remove.extra && (err == nil || !endsAll(ctx, err)) {
		err = errors.Join(err, m.removeExtra(ctx, o))
	}
	return err
}

func cannotDelete(account string) error {
	return &mail.Error{Kind: mail.KindLacking, Ref: mail.Ref{Account: account}, Err: errors.New("nothing can be deleted over this protocol")}
}

// removeSource frees the source.
func (m *migration) removeSource(ctx context.Context, o migrate.RemoveOptions) error {
	run, end := m.show(mail.AccountLabel(m.src.Account()))
	defer end()
	o.Notify = troubleOnly(run.Notify)
	o.Confirm = func(p *clean.Plan) error { return m.refused(m.flags.remove.ceiling.check(p)) }
	res, err := migrate.RemoveSource(ctx, o)
	end()
	m.s.Deleted = &res.Deleted
	mode := ""
	if res.Plan != nil {
		mode = res.Plan.Mode
		if o.DryRun {
			res.Deleted, res.Octets = res.Plan.Go.Messages, res.Plan.Go.Octets
		}
	}
	if err == nil || res.Deleted > 0 {
		m.ui.Freed(mail.AccountLabel(m.src.Account()), ui.Freed{Deleted: res.Deleted, Octets: res.Octets, Mode: mode, DryRun: o.DryRun, Stayed: res.Stayed})
	}
	return m.balance(res, o.DryRun, err)
}

// removeExtra removes at the destination what the source no longer has.
func (m *migration) removeExtra(ctx context.Context, o migrate.RemoveOptions) error {
	var run *ui.Run
	end := func() {}
	asked := cleanFlags{yes: m.flags.remove.yes, ceiling: m.flags.remove.ceiling, dryRun: o.DryRun}
	o.Confirm = func(p *clean.Plan) error {
		if p.Go.Messages == 0 && !o.DryRun {
			return nil
		}
		if err := m.refused(m.confirm(ctx, p, asked)); err != nil {
			return err
		}
		run, end = m.show(mail.AccountLabel(m.dest.Account()))
		return nil
	}
	o.Notify = func(e mail.Event) {
		if run != nil {
			run.Notify(e)
		}
	}
	res, err := migrate.RemoveExtra(ctx, o)
	end()
	if o.DryRun && res.Plan != nil {
		res.Deleted = res.Plan.Go.Messages
	}
	m.s.Removed = &res.Deleted
	return m.balance(res, o.DryRun, err)
}

// refused gives the hint that fits here to a plan that is not wanted.
func (m *migration) refused(err error) error {
	e, ok := errors.AsType[*mail.Error](err)
	if !ok || !strings.Contains(e.Hint, "mailhaul clean") {
		return err
	}
	other := *e
	other.Hint = "look at the plan with --dry-run, then raise --max-delete if it is wanted"
	return &other
}

// balance makes sure that every message to be deleted is accounted for, and counts
// those that failed.
func (m *migration) balance(res clean.Result, dryRun bool, err error) error {
	if res.Failed > 0 && m.s.Failed != nil {
		err = errors.Join(err, &mail.Error{Kind: mail.KindPartial, Op: "delete",
			Err: fmt.Errorf("%s could not be compared or deleted; each stays unless named otherwise", ui.Plural(res.Failed, "message"))})
	}
	if err == nil && !dryRun && res.Listed != res.Deleted+res.Skipped+res.Failed {
		err = fmt.Errorf("%w: %d to be deleted, but %d deleted, %d stayed and %d failed", ui.ErrUnbalanced, res.Listed, res.Deleted, res.Skipped, res.Failed)
	}
	return err
}

// troubleOnly passes on what a person must know.
func troubleOnly(notify mail.Notify) mail.Notify {
	return func(e mail.Event) {
		if e.Kind == mail.EventFailed || e.Kind == mail.EventWarning {
			notify(e)
		}
	}
}
