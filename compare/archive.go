package compare

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strconv"

	"mailhaul/mail"
)

// Ledger is what is needed of an archive's records.
type Ledger interface {
	Mailboxes(ctx context.Context) ([]string, error)
	Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error
	Message(ctx context.Context, id int64) (mail.Held, error)
	Claims(ctx context.Context, account, mailbox string, yield func(mail.Claim) error) error
	Uploads(ctx context.Context, account, mailbox string, yield func(mail.Upload) error) error
}

// Archive is a Side that takes what an archive has on record. That its files hold
// those octets is for the caller to verify.
type Archive struct {
	Ledger Ledger
	Open   func(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)
	Path   string
	// Accounts are the names in the ledger of the account on the other side, its own
	// first, which decides where it knows a message, and Boxes its mailboxes: what the
	// ledger knows of them says which messages need not be there.
	Accounts []string
	Boxes    []string
	// Source says that the archive was filled from that account: only what came
	// from there, or was sent there, must be there.
	Source bool

	fate  map[int64]Need
	known map[int64]otherForm // messages that the other side is known to have in another form
	let   map[string]bool     // mailbox and UID there of messages whose removal from the archive was accepted
}

// Account returns the archive's path.
func (a *Archive) Account() string { return a.Path }

// Mailboxes returns the mailboxes on record.
func (a *Archive) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	names, err := a.Ledger.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]mail.Mailbox, len(names))
	for i, name := range names {
		list[i] = mail.Mailbox{Name: name, Messages: -1, Octets: -1}
	}
	return list, a.readFates(ctx)
}

// readFates learns from the claims which messages need not be at the other side.
func (a *Archive) readFates(ctx context.Context) error {
	a.fate, a.let = make(map[int64]Need), make(map[string]bool)
	here, err := digests(ctx, a.Ledger)
	if err != nil {
		return err
	}
	if a.known, err = otherForms(ctx, a.Ledger, here, a.Accounts, a.Boxes); err != nil {
		return err
	}
	for _, account := range a.Accounts {
		fate := make(map[int64]Need) // of this account: one live claim is enough
		for _, box := range a.Boxes {
			err := a.Ledger.Claims(ctx, account, box, func(c mail.Claim) error {
				if _, ok := here[c.Message]; !ok && c.Gone.IsZero() {
					a.let[box+"\x00"+c.UID] = true
				}
				need := Needed
				switch {
				case c.Gone.IsZero():
				case c.GoneBy == "us":
					need = DeletedByUs
				case a.Source:
					need = GoneBefore
				}
				if old, known := fate[c.Message]; !known || need < old {
					fate[c.Message] = need
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		for id, need := range fate {
			if _, known := a.fate[id]; !known {
				a.fate[id] = need
			}
		}
	}
	return nil
}

// letGo tells whether the archive had a message of the other side, and a person
// wanted it removed or changed.
func (a *Archive) letGo(mailbox, uid string) bool { return a.let[mailbox+"\x00"+uid] }

// other returns the form in which the other side has a message, if that was recorded
// when it was sent.
func (a *Archive) other(_ mail.Mailbox, uid string) (f otherForm, ok bool) {
	id, err := strconv.ParseInt(uid, 10, 64)
	if err != nil {
		return f, false
	}
	f, ok = a.known[id]
	return f, ok
}

func (a *Archive) need(id int64) Need {
	n, known := a.fate[id]
	if !known && a.Source {
		return NotOurs
	}
	return n
}

// List yields what is on record, what is missing from the files too.
func (a *Archive) List(ctx context.Context, mb mail.Mailbox, yield func(Item) error) error {
	return a.Ledger.Messages(ctx, mb.Name, func(h mail.Held) error {
		return yield(Item{
			Want:   mail.Want{UID: strconv.FormatInt(h.Message, 10), Size: h.Receipt.Wire},
			Digest: h.Receipt.Digest, Date: h.Receipt.Info.InternalDate, Flags: h.Receipt.Info.Flags, Need: a.need(h.Message),
		})
	})
}

// Look reads the archive's files.
func (a *Archive) Look(ctx context.Context, _ mail.Mailbox, wants []mail.Want, depth Depth, take func(Look)) error {
	for i, w := range wants {
		if err := ctx.Err(); err != nil {
			return err
		}
		id, err := strconv.ParseInt(w.UID, 10, 64)
		if err != nil {
			return err
		}
		h, err := a.Ledger.Message(ctx, id)
		if err != nil {
			return err
		}
		l, err := a.look(ctx, h.Receipt, depth)
		l.I, l.Err = i, err
		l.Sums = h.Receipt.Sums
		take(l)
	}
	return nil
}

func (a *Archive) look(ctx context.Context, rc mail.Receipt, depth Depth) (l Look, err error) {
	if rc.Place == "" {
		return l, fs.ErrNotExist
	}
	r, err := a.Open(ctx, rc)
	if err != nil {
		return l, err
	}
	l, err = lookAt(r, depth)
	return l, errors.Join(err, r.Close())
}
