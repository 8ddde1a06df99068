package main

import (
	"context"
	"errors"
	"slices"

	"mailhaul/compare"
	"mailhaul/fetch"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// archive compares an archive with a server.
func (w *verifying) archive(ctx context.Context, left, right string) (err error) {
	ac, err := w.a.account(ctx, right, w.o.secret, w.o.limit)
	if err != nil {
		return err
	}
	w.o.dest.apply(&ac)
	if s := w.o.dest.secret; s.command != "" || s.file != "" {
		ac.secret.Command, ac.secret.File = s.command, s.file
	}
	w.s.Dest, w.label = ac.key(), ac.label()
	v, err := w.a.openToVerify(ctx, left, w.o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	w.s.Archive = v.Path()
	src, err := w.open(ctx, ac)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	boxes, err := src.Mailboxes(ctx) // before an hour of reading
	if err == nil {
		err = consumes(src)
	}
	if err != nil {
		return err
	}
	w.rep.begin("Comparison of an archive and an account", v.Path(), src.Account())
	m := w.a.mender(v, w.o, w.rep)
	sum, err := w.a.verifyVault(ctx, v, w.ofArchive(), w.o.share, m)
	if err != nil {
		return err
	}
	if w.o.accept {
		if err := m.accept(ctx); err != nil {
			return err
		}
	}
	res, err := w.against(ctx, v, src, boxes, ac, m)
	if err == nil && w.o.repair {
		err = m.fetchAgain(ctx, src, boxes)
	}
	err = w.conclude(res, err)
	damaged := int64(len(m.damaged))
	w.s.Verified, w.s.Damaged = &sum.Verified, &damaged
	if w.o.repair {
		w.s.Repaired = &m.repaired
	}
	if err == nil {
		err = m.verdict(sum)
	}
	return err
}

// ofArchive is the part of the selection that an archive is verified by.
func (w *verifying) ofArchive() mail.Selection {
	return mail.Selection{Mailboxes: w.selection.Mailboxes, Exclude: w.selection.Exclude}
}

// against compares an archive that was read back with a server.
func (w *verifying) against(ctx context.Context, v *vault.Vault, src fetch.Source, boxes []mail.Mailbox, ac account, m *mender) (compare.Result, error) {
	accounts, err := v.Ledger.Accounts(ctx)
	if err != nil {
		return compare.Result{}, err
	}
	side := &compare.Archive{Ledger: v.Ledger, Open: v.Archive.Open, Path: v.Path()}
	mapped := len(w.o.maps) > 0 || w.o.prefix != "" // then it is meant as a destination
	for _, held := range accounts {
		if vault.SameUser(held, src.Account()) && !mapped {
			side.Accounts, side.Source = append(side.Accounts, held), true
		}
	}
	side.Accounts = slices.DeleteFunc(side.Accounts, func(held string) bool { return held == src.Account() })
	side.Accounts = append([]string{src.Account()}, side.Accounts...) // it knows best what was there
	if side.Boxes, err = boxNames(ctx, v, boxes); err != nil {
		return compare.Result{}, err
	}
	o := compare.Options{Left: side, Right: compare.Server(src), Both: side.Source, Matched: m.located}
	if ac.server.Protocol == "pop3" {
		o.Only = func(right string) bool { return right == "INBOX" }
	} else if !side.Source {
		fit, closeFit, err := w.fit(ctx, ac)
		if err != nil {
			return compare.Result{}, err
		}
		defer closeFit()
		o.Map = w.mapping(fit, func(name string) bool { return claimed(ctx, v, src.Account(), name) })
	}
	return w.compare(ctx, o)
}

// boxNames are the mailboxes that the ledger may know something of at a server.
func boxNames(ctx context.Context, v *vault.Vault, boxes []mail.Mailbox) ([]string, error) {
	names, err := v.Ledger.Mailboxes(ctx)
	for _, b := range boxes {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

var errEnough = errors.New("enough")

// claimed tells whether the ledger knows of a message in a mailbox at a server.
func claimed(ctx context.Context, v *vault.Vault, account, mailbox string) bool {
	err := v.Ledger.Claims(ctx, account, mailbox, func(mail.Claim) error { return errEnough })
	return errors.Is(err, errEnough)
}
