package migrate

import (
	"context"
	"errors"
	"time"

	"mailhaul/clean"
	"mailhaul/mail"
	"mailhaul/upload"
)

// Why a message stays, besides what clean says.
const (
	WhyNotThere = "not at the destination"
	WhyAltered  = "the destination altered it"
)

// RemoveLedger is what removing needs to know and to record.
type RemoveLedger interface {
	clean.Ledger
	Accounts(ctx context.Context) ([]string, error)
	Uploads(ctx context.Context, account, mailbox string, yield func(mail.Upload) error) error
}

// RemoveOptions says what RemoveSource and RemoveExtra are to do. The run before
// must have ended without an error that ends all.
type RemoveOptions struct {
	Source clean.Source
	// Copies reads the destination, and deletes there.
	Copies clean.Source
	// Destination puts a message back there that should not have gone; nil leaves its
	// octets in a file in Dir. RemoveSource only.
	Destination upload.Destination
	Account     string // the destination's name in the ledger: Options.Upload.Account of the run
	Ledger      RemoveLedger
	// Selection is that of the run.
	Selection mail.Selection
	Dir       string // for temporary files
	Confirm   func(*clean.Plan) error
	DryRun    bool
	Notify    mail.Notify

	// RemoveExtra only:

	// Listed are the source's mailboxes that the run before listed completely, as
	// they were then.
	Listed []mail.Mailbox
	// Began is when that run began.
	Began time.Time
}

// RemoveSource deletes at the source what the destination has: its copy is read
// back, and goes only if its octets are those that came from there. The order of
// steps is that of clean, but that one message of a mailbox goes first where it might
// be the very mailbox its copies are in.
func RemoveSource(ctx context.Context, o RemoveOptions) (clean.Result, error) {
	s := newSpool(o.Dir)
	defer s.close()
	c, err := learnCopies(ctx, o.Copies, o.Account, o.Ledger, s, func(mail.Mailbox) bool { return true })
	if err != nil {
		return clean.Result{}, err
	}
	defer c.close()
	first := &canary{Source: o.Source, copies: c, dest: o.Destination, dir: o.Dir, sure: make(map[string]bool)}
	if !o.DryRun {
		if err := first.settleKept(ctx, o.Notify); err != nil {
			return clean.Result{}, err
		}
	}
	res, err := clean.Run(ctx, clean.Options{
		Source: first, Archive: c, Ledger: copyLedger{o.Ledger}, Selection: o.Selection, IncludeFlagged: true,
		Mode: mail.ModeExpunge, Rule: "migrate --delete-source", Confirm: o.Confirm, DryRun: o.DryRun, Notify: o.Notify,
		Keep: func(_ mail.Info, message int64) string {
			at, there := c.where[message]
			switch {
			case !there:
				return WhyNotThere
			case at.altered:
				return WhyAltered
			}
			return ""
		},
	})
	return res, aboutCopies(err)
}

// copyLedger names messages by their copies at the destination.
type copyLedger struct{ RemoveLedger }

func (l copyLedger) Message(ctx context.Context, id int64) (mail.Held, error) {
	h, err := l.RemoveLedger.Message(ctx, id)
	return placed(h), err
}

// Messages yields what may be judged by its copy, whether the archive still has it
// or not.
func (l copyLedger) Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error {
	return l.RemoveLedger.Messages(ctx, mailbox, func(h mail.Held) error { return yield(placed(h)) })
}

// aboutCopies words what clean says of an archive for a destination.
func aboutCopies(err error) error {
	e, ok := errors.AsType[*mail.Error](err)
	if !ok || e.Kind != mail.KindIntegrity || errors.Is(err, errOneMailbox) {
		return err
	}
	other := *e
	other.Hint = "it stays; what the destination has of it is not what was sent"
	return &other
}

// RemoveExtra deletes at the destination what the source no longer has. Only what
// was sent by mailhaul goes, if the destination still has the octets that were sent;
// and only if the source, listed completely under the same UIDVALIDITY, lacked the
// message in an earlier run and lacks it in this one, and has other messages in that
// mailbox.
func RemoveExtra(ctx context.Context, o RemoveOptions) (clean.Result, error) {
	extra, err := o.extra(ctx)
	if err != nil {
		return clean.Result{}, err
	}
	var all []mail.Mailbox
	there, err := o.Copies.Mailboxes(ctx)
	if err != nil {
		return clean.Result{}, err
	}
	for _, mb := range there {
		needed, err := o.concerns(ctx, mb, extra)
		if err != nil {
			return clean.Result{}, err
		}
		if needed {
			all = append(all, mb)
		}
	}
	if len(all) == 0 {
		return clean.Result{}, nil
	}
	s := newSpool(o.Dir)
	defer s.close()
	c, err := learnCopies(ctx, o.Copies, o.Account, o.Ledger, s, func(mb mail.Mailbox) bool {
		for _, m := range all {
			if m.Name == mb.Name {
				return true
			}
		}
		return false
	})
	if err != nil {
		return clean.Result{}, err
	}
	defer c.close()
	doomed := make(map[mail.Ref]bool)
	for id := range extra {
		if at, ok := c.where[id]; ok && !at.found && !at.altered {
			doomed[mail.Ref{Mailbox: at.mailbox, UID: at.uid}] = true
		}
	}
	res, err := clean.Run(ctx, clean.Options{
		Source: some{o.Copies, all}, Archive: c, Ledger: renamed{copyLedger{o.Ledger}, o.Account}, IncludeFlagged: true,
		Mode: mail.ModeExpunge, Rule: "migrate --delete-extra", Confirm: o.Confirm, DryRun: o.DryRun, Notify: o.Notify,
		Only: func(in mail.Info) bool { return doomed[mail.Ref{Mailbox: in.Ref.Mailbox, UID: in.Ref.UID}] },
		Keep: func(in mail.Info, message int64) string {
			if in.Flags.Has(mail.Flagged) && !extra[message].Has(mail.Flagged) {
				return clean.WhyFlagged // by the destination's owner
			}
			return ""
		},
	})
	return res, aboutCopies(err)
}

// concerns tells whether a mailbox of the destination is to be looked at: there may
// be something extra, or something of an earlier run is not settled.
func (o *RemoveOptions) concerns(ctx context.Context, mb mail.Mailbox, extra map[int64]mail.Flags) (bool, error) {
	open, err := o.Ledger.OpenDeletions(ctx, o.Account, mb.Name)
	if err != nil || len(open) > 0 {
		return true, err
	}
	if len(extra) == 0 {
		return false, nil
	}
	found := false
	err = o.Ledger.Claims(ctx, o.Account, mb.Name, func(c mail.Claim) error {
		if _, ok := extra[c.Message]; ok && c.Gone.IsZero() {
			found = true
		}
		return nil
	})
	return found, err
}

// extra finds the messages that the source no longer has, with the flags they had
// there.
func (o *RemoveOptions) extra(ctx context.Context) (map[int64]mail.Flags, error) {
	extra := make(map[int64]mail.Flags)
	accounts, err := o.Ledger.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	for _, mb := range o.Listed {
		if mb.UIDValidity == 0 || mb.Messages <= 0 {
			continue // nothing can be concluded, or the mailbox was emptied
		}
		gone := make(map[int64]mail.Flags)
		err := o.Ledger.Claims(ctx, o.Source.Account(), mb.Name, func(c mail.Claim) error {
			if !c.Gone.IsZero() && c.GoneBy == "server" && c.Gone.Before(o.Began) && c.UIDValidity == mb.UIDValidity {
				gone[c.Message] = c.Flags
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if len(gone) == 0 {
			continue
		}
		for _, account := range append(accounts, o.Source.Account()) {
			err := o.Ledger.Claims(ctx, account, mb.Name, func(c mail.Claim) error {
				if c.Gone.IsZero() { // it came back, or another source has it
					delete(gone, c.Message)
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		for id, flags := range gone {
			extra[id] = flags
		}
	}
	return extra, nil
}

// some is a source of which only some mailboxes matter.
type some struct {
	clean.Source
	mailboxes []mail.Mailbox
}

func (s some) Mailboxes(context.Context) ([]mail.Mailbox, error) { return s.mailboxes, nil }

// renamed is the ledger of the destination, which has a name of its own there.
type renamed struct {
	copyLedger
	account string
}

func (r renamed) Claims(ctx context.Context, _, mailbox string, yield func(mail.Claim) error) error {
	return r.copyLedger.Claims(ctx, r.account, mailbox, yield)
}

func (r renamed) OpenDeletions(ctx context.Context, _, mailbox string) ([]mail.Deletion, error) {
	return r.copyLedger.OpenDeletions(ctx, r.account, mailbox)
}
