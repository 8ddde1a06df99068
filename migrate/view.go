package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mailhaul/fetch"
	"mailhaul/mail"
	"mailhaul/upload"
)

// view is the messages of a migration as the sending engine sees them: those that
// the source has now. Octets come from the groups that were just read, from the
// archive, or are asked for at the source again.
type view struct {
	source    fetch.Source
	ledger    Ledger
	archive   Archive // nil: nothing is kept
	spool     *spool
	mailboxes []mail.Mailbox

	mu     sync.Mutex
	held   map[*batch]int // groups that are being sent, and by how many mailboxes
	at     map[int64]*batch
	boxes  map[string]*shelf
	closed bool
}

// shelf is what was asked for again of one mailbox.
type shelf struct {
	wants   map[int64]mail.Want
	batches []*batch // prepared, the newest last
	trouble map[int64]error
}

var (
	_ upload.Messages = (*view)(nil)
	_ upload.Preparer = (*view)(nil)
)

func newView(source fetch.Source, ledger Ledger, archive Archive, s *spool, mailboxes []mail.Mailbox) *view {
	return &view{
		source: source, ledger: ledger, archive: archive, spool: s, mailboxes: mailboxes,
		held: make(map[*batch]int), at: make(map[int64]*batch), boxes: make(map[string]*shelf),
	}
}

// hold keeps a group until so many mailboxes have released it.
func (v *view) hold(b *batch, mailboxes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if mailboxes == 0 {
		b.close()
		return
	}
	v.held[b] = mailboxes
	for id := range b.byID {
		v.at[id] = b
	}
}

func (v *view) release(b *batch) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.held[b]--; v.held[b] > 0 {
		return
	}
	v.drop(b)
}

// drop is called with mu held.
func (v *view) drop(b *batch) {
	delete(v.held, b)
	for id := range b.byID {
		delete(v.at, id)
	}
	b.close()
}

// Mailboxes implements upload.Messages.
func (v *view) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return slices.Clone(v.mailboxes), nil
}

func (v *view) mailbox(name string) (mail.Mailbox, bool) {
	i := slices.IndexFunc(v.mailboxes, func(mb mail.Mailbox) bool { return mb.Name == name })
	if i < 0 {
		return mail.Mailbox{}, false
	}
	return v.mailboxes[i], true
}

// named gives a message a place by which Open finds it, unless the archive has one.
func (v *view) named(h mail.Held) mail.Held {
	if v.archive == nil {
		h.Receipt.Place = "#" + strconv.FormatInt(h.Message, 10)
	}
	return h
}

// Messages implements upload.Messages: what the source has of a mailbox.
func (v *view) Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error {
	mb, ok := v.mailbox(mailbox)
	if !ok {
		return nil
	}
	s := &shelf{wants: make(map[int64]mail.Want), trouble: make(map[int64]error)}
	err := v.ledger.Claims(ctx, v.source.Account(), mailbox, func(c mail.Claim) error {
		if c.Gone.IsZero() && (mb.UIDValidity == 0 || c.UIDValidity == mb.UIDValidity) {
			s.wants[c.Message] = mail.Want{UID: c.UID, Size: c.Size}
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.mu.Lock()
	if old := v.boxes[mailbox]; old != nil {
		old.close()
	}
	v.boxes[mailbox] = s
	v.mu.Unlock()
	return v.ledger.Messages(ctx, mailbox, func(h mail.Held) error {
		if _, there := s.wants[h.Message]; !there {
			return nil
		}
		return yield(v.named(h))
	})
}

// Message implements upload.Messages.
func (v *view) Message(ctx context.Context, id int64) (mail.Held, error) {
	v.mu.Lock()
	if b := v.at[id]; b != nil {
		defer v.mu.Unlock()
		return v.named(b.byID[id].held), nil
	}
	v.mu.Unlock()
	h, err := v.ledger.Message(ctx, id)
	return v.named(h), err
}

// Open implements upload.Messages.
func (v *view) Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	if v.archive != nil {
		return v.archive.Open(ctx, rc)
	}
	id, err := strconv.ParseInt(strings.TrimPrefix(rc.Place, "#"), 10, 64)
	if err != nil {
		return nil, fs.ErrNotExist
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if b := v.at[id]; b != nil {
		return b.open(id)
	}
	if s := v.boxes[rc.Info.Ref.Mailbox]; s != nil {
		if err := s.trouble[id]; err != nil {
			return nil, err
		}
		for _, b := range slices.Backward(s.batches) {
			if r, err := b.open(id); err == nil {
				return r, nil
			}
		}
	}
	return nil, fmt.Errorf("the source does not give it: %w", fs.ErrNotExist)
}

// keep is how many prepared batches may still be read: those of the group that is
// being loaded, of the one that waits, and of the one that is on its way.
const keep = 4

// Prepare implements upload.Preparer: it reads messages from the source that are
// not here.
func (v *view) Prepare(ctx context.Context, ids []int64) error {
	if v.archive != nil {
		return nil
	}
	wants := make(map[string][]mail.Want)
	byUID := make(map[string]mail.Held)
	for _, id := range ids {
		v.mu.Lock()
		here := v.at[id] != nil
		v.mu.Unlock()
		if here {
			continue
		}
		h, err := v.ledger.Message(ctx, id)
		if err != nil {
			return err
		}
		name := h.Receipt.Info.Ref.Mailbox
		v.mu.Lock()
		var w mail.Want
		if s := v.boxes[name]; s != nil {
			w = s.wants[id]
		}
		v.mu.Unlock()
		if w.UID == "" {
			continue
		}
		wants[name] = append(wants[name], w)
		byUID[name+"\x00"+w.UID] = h
	}
	for name, list := range wants {
		if err := v.ask(ctx, name, list, byUID); err != nil {
			return err
		}
	}
	return nil
}

// ask asks the source for messages of one mailbox.
func (v *view) ask(ctx context.Context, name string, wants []mail.Want, byUID map[string]mail.Held) error {
	mb, ok := v.mailbox(name)
	if !ok {
		return nil
	}
	b := &batch{byID: make(map[int64]*entry)}
	v.mu.Lock()
	s := v.boxes[name]
	s.batches = append(s.batches, b)
	for len(s.batches) > keep {
		s.batches[0].close()
		s.batches = s.batches[1:]
	}
	s.trouble = make(map[int64]error)
	v.mu.Unlock()
	return v.source.Fetch(ctx, mb, wants, func(in mail.Info, r io.Reader, err error) error {
		h, asked := byUID[name+"\x00"+in.Ref.UID]
		if !asked {
			return nil
		}
		return v.receive(s, b, h, r, err)
	})
}

// receive takes one message of the source.
func (v *view) receive(s *shelf, b *batch, h mail.Held, r io.Reader, err error) error {
	var e *entry
	if err == nil {
		e, err = v.spool.read(r, h.Receipt.Octets)
		switch {
		case mail.KindOf(err) == mail.KindDisk:
			return err
		case err != nil:
			return nil // the driver asks again
		case e.receipt.Digest != h.Receipt.Digest:
			err = errors.New("the source now gives other octets than before")
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil || v.closed {
		s.trouble[h.Message] = err
		if e != nil {
			e.file.release()
		}
		return nil
	}
	delete(s.trouble, h.Message)
	b.add(h.Message, e)
	return nil
}

// close gives all octets up.
func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	for b := range v.held {
		v.drop(b)
	}
	for _, s := range v.boxes {
		s.close()
	}
	v.spool.close()
}

func (s *shelf) close() {
	for _, b := range s.batches {
		b.close()
	}
	s.batches = nil
}
