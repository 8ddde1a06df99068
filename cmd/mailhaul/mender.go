package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"mailhaul/fetch"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// mender takes the findings in an archive, tells them, and mends what it may.
type mender struct {
	a       *app
	v       *vault.Vault
	o       verifyFlags
	rep     *report
	damaged map[int64]vault.Finding // by ledger id

	at map[string]map[string]int64 // mailbox and UID at the server -> ledger id

	accepted, aside, repaired int64
}

// ledgerID reads what compare calls a message of an archive.
func ledgerID(s string) (int64, bool) {
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil
}

func (a *app) mender(v *vault.Vault, o verifyFlags, rep *report) *mender {
	return &mender{a: a, v: v, o: o, rep: rep, damaged: make(map[int64]vault.Finding)}
}

func (m *mender) found(f vault.Finding) {
	told := finding(m.v.Path(), f, m.o.accept || m.o.repair)
	if f.Kind != vault.Extra && len(m.damaged) < maxMended {
		m.damaged[f.Held.Message] = f
	}
	m.a.ui.Finding(told)
	m.rep.archiveFinding(f)
}

// alone mends without a server.
func (m *mender) alone(ctx context.Context) error {
	if m.o.accept {
		return m.accept(ctx)
	}
	live, err := m.live(ctx)
	if err != nil {
		return err
	}
	for id, f := range m.damaged {
		if f.Kind == vault.Unreadable || !live[id] {
			continue
		}
		if err := m.v.SetAside(ctx, f.Held); err != nil {
			return err
		}
		m.aside++
	}
	if rest := int64(len(m.damaged)) - m.aside; rest > 0 {
		m.a.ui.Note("%s no server is known to have: what there is of it stays where it is", ui.Plural(rest, "message"))
	}
	if m.aside > 0 {
		m.a.ui.Note("the next backup fetches %s again; or name the server: mailhaul verify ARCHIVE SERVER --repair", ui.Plural(m.aside, "message"))
	}
	return nil
}

// accept records that what is missing or altered is wanted so.
func (m *mender) accept(ctx context.Context) error {
	for id, f := range m.damaged {
		if f.Kind == vault.Unreadable { // nobody wanted that
			continue
		}
		if err := m.v.Accept(ctx, f); err != nil {
			return err
		}
		m.accepted++
		delete(m.damaged, id)
	}
	return nil
}

// live returns which of the damaged messages are still at a server, so far as is
// known.
func (m *mender) live(ctx context.Context) (map[int64]bool, error) {
	live := make(map[int64]bool)
	accounts, err := m.v.Ledger.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	names, err := m.v.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	for _, account := range accounts {
		for _, name := range names {
			err := m.v.Ledger.Claims(ctx, account, name, func(c mail.Claim) error {
				if _, ok := m.damaged[c.Message]; ok && c.Gone.IsZero() {
					live[c.Message] = true
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return live, nil
}

// verdict is what is left to be said of the archive.
func (m *mender) verdict(sum vault.Summary) error {
	unreadable := int64(0)
	for _, f := range m.damaged {
		if f.Kind == vault.Unreadable {
			unreadable++
		}
	}
	switch {
	case len(m.damaged) == 0:
		return nil
	case unreadable == int64(len(m.damaged)):
		return &mail.Error{Kind: mail.KindDisk, Op: "verify", Err: errors.New("the disk does not give every message")}
	}
	return errDamaged
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
