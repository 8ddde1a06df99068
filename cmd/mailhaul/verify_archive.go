package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

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
	if !slices.Contains(side.Accounts, src.Account()) {
		side.Accounts = append(side.Accounts, src.Account())
	}
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

// located is told where the server has a message of the archive.
func (m *mender) located(left, right mail.Ref, d mail.Digest) {
	if !m.o.repair || len(m.damaged) == 0 || right.UID == "" {
		return
	}
	id, ok := ledgerID(left.UID)
	f, damaged := m.damaged[id]
	if !ok || !damaged || f.Held.Receipt.Digest != d {
		return
	}
	if m.at == nil {
		m.at = make(map[string]map[string]int64)
	}
	if m.at[right.Mailbox] == nil {
		m.at[right.Mailbox] = make(map[string]int64)
	}
	m.at[right.Mailbox][right.UID] = id
}

// fetchAgain fetches what is damaged in the archive and was found at the server.
func (m *mender) fetchAgain(ctx context.Context, src fetch.Source, boxes []mail.Mailbox) error {
	for _, mb := range boxes {
		at := m.at[mb.Name]
		if len(at) == 0 {
			continue
		}
		wants := make([]mail.Want, 0, len(at))
		for uid, id := range at {
			wants = append(wants, mail.Want{UID: uid, Size: m.damaged[id].Held.Receipt.Wire})
		}
		var mu sync.Mutex
		err := src.Fetch(ctx, mb, wants, func(in mail.Info, r io.Reader, err error) error {
			mu.Lock()
			defer mu.Unlock()
			id, asked := at[in.Ref.UID]
			f, damaged := m.damaged[id]
			if err != nil || !asked || !damaged {
				return nil // it stays damaged, and was told
			}
			reader := &watched{Reader: r}
			err = m.v.Mend(ctx, f.Held, mail.NewCanonical(reader, nil))
			switch {
			case reader.err != nil || errors.Is(err, mail.ErrAltered): // not received whole, or another one
				return nil
			case err != nil:
				return err
			}
			delete(m.damaged, id)
			m.repaired++
			m.a.ui.Note("%s: message of %s, SHA-256 %.12s: fetched again", mb.Name, f.Held.Receipt.Info.InternalDate.UTC().Format("2006-01-02 15:04"), f.Held.Receipt.Digest)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// watched remembers what reading said.
type watched struct {
	io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}
