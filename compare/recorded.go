package compare

import (
	"context"
	"encoding/binary"
	"slices"

	"mailhaul/mail"
)

// otherForm is what a destination has of a message, where that is not the message's
// own octets.
type otherForm struct {
	digest   mail.Digest
	repaired bool // it was sent so
}

// Repaired is the What of a message of which a repaired copy was sent.
const Repaired = "a repaired copy was sent"

func (f otherForm) words() string {
	if f.repaired {
		return Repaired
	}
	return "what was on record when it was sent"
}

// digests returns the ledger's messages, and of each enough of its digest to tell
// whether another one is the same.
func digests(ctx context.Context, l Ledger) (map[int64]uint64, error) {
	names, err := l.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	here := make(map[int64]uint64)
	for _, name := range names {
		err := l.Messages(ctx, name, func(h mail.Held) error {
			here[h.Message] = start(h.Receipt.Digest)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return here, nil
}

func start(d mail.Digest) uint64 { return binary.BigEndian.Uint64(d[:8]) }

// otherForms returns which messages are on record to be there in another form.
func otherForms(ctx context.Context, l Ledger, here map[int64]uint64, accounts, boxes []string) (map[int64]otherForm, error) {
	known := make(map[int64]otherForm)
	for _, account := range accounts {
		for _, box := range boxes {
			err := l.Uploads(ctx, account, box, func(u mail.Upload) error {
				own, held := here[u.Message]
				switch {
				case !u.Altered.IsZero():
					known[u.Message] = otherForm{digest: u.Altered}
				case held && start(u.Digest) != own:
					known[u.Message] = otherForm{digest: u.Digest, repaired: true}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return known, nil
}

// Migrated is a Side whose messages were sent to the other one, with the ledger of
// that: what was sent in another form is known.
type Migrated struct {
	Side
	Ledger      Ledger
	Destination string // account of the other side in the ledger
	known       map[string]recorded
}

type recorded struct {
	uidValidity uint32
	form        otherForm
}

// Learn reads the ledger. boxes are the mailboxes of the other side.
func (m *Migrated) Learn(ctx context.Context, boxes []mail.Mailbox) error {
	here, err := digests(ctx, m.Ledger)
	if err != nil {
		return err
	}
	names := make([]string, len(boxes))
	for i, mb := range boxes {
		names[i] = mb.Name
	}
	forms, err := otherForms(ctx, m.Ledger, here, []string{m.Destination}, names)
	if err != nil || len(forms) == 0 {
		return err
	}
	from, err := m.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	m.known = make(map[string]recorded)
	slices.Sort(from)
	for _, name := range from {
		err := m.Ledger.Claims(ctx, m.Account(), name, func(c mail.Claim) error {
			if f, ok := forms[c.Message]; ok && c.Gone.IsZero() {
				m.known[name+"\x00"+c.UID] = recorded{c.UIDValidity, f}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Find implements Finder.
func (m *Migrated) Find(ctx context.Context, name string) (mb mail.Mailbox, there bool, err error) {
	if f, ok := m.Side.(Finder); ok {
		return f.Find(ctx, name)
	}
	return mb, false, nil
}

func (m *Migrated) other(mb mail.Mailbox, uid string) (f otherForm, ok bool) {
	r, ok := m.known[mb.Name+"\x00"+uid]
	if r.uidValidity != mb.UIDValidity && r.uidValidity != 0 && mb.UIDValidity != 0 {
		return f, false
	}
	return r.form, ok
}

func (*Migrated) letGo(string, string) bool { return false }
