package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// fakeMessage is one message at the fake server.
type fakeMessage struct {
	uid    string
	wire   string
	size   int64 // as listed; 0 means the true one
	flags  mail.Flags
	date   time.Time
	refuse error // given instead of the octets
	breaks int   // so many times the reader breaks off
	silent bool  // listed, never delivered
	mod    int   // of the last change, for changeSource
	object string
}

// fakeSource is a server in memory with one mailbox or more.
type fakeSource struct {
	account   string
	validity  map[string]uint32
	messages  map[string][]*fakeMessage
	state     map[string]string
	trash     string // name of the \Trash mailbox
	noHeaders bool
	consumes  bool
	listErr   error

	mu      sync.Mutex
	fetched int // bodies given
	headers int
	lists   int
	abandon bool
	onFetch func(n int)
}

func newSource(account string) *fakeSource {
	return &fakeSource{account: account, validity: map[string]uint32{}, messages: map[string][]*fakeMessage{}, state: map[string]string{}}
}

func (s *fakeSource) Account() string { return s.account }
func (s *fakeSource) Close() error    { return nil }
func (s *fakeSource) Consumes() bool  { return s.consumes }
func (s *fakeSource) Abandon()        { s.abandon = true }

func (s *fakeSource) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	var out []mail.Mailbox
	for name, list := range s.messages {
		out = append(out, mail.Mailbox{Name: name, UIDValidity: s.validity[name], Messages: int64(len(list)), Octets: -1, State: s.state[name]})
		if name == s.trash {
			out[len(out)-1].SpecialUse = `\Trash`
		}
	}
	slices.SortFunc(out, func(a, b mail.Mailbox) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (s *fakeSource) info(mb mail.Mailbox, i int) mail.Info {
	m := s.messages[mb.Name][i]
	size := m.size
	if size == 0 {
		size = int64(len(m.wire))
	}
	in := mail.Info{
		Ref: mail.Ref{Account: s.account, Mailbox: mb.Name, UIDValidity: s.validity[mb.Name], UID: m.uid},
		Seq: uint32(i + 1), Size: size, InternalDate: m.date, Flags: m.flags, ObjectID: m.object,
	}
	if !m.date.IsZero() {
		in.DateFrom = mail.DateInternal
	}
	return in
}

func (s *fakeSource) List(_ context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		s.mu.Lock()
		s.lists++
		s.mu.Unlock()
		for i := range s.messages[mb.Name] {
			if !yield(s.info(mb, i), nil) {
				return
			}
		}
		if s.listErr != nil {
			yield(mail.Info{}, s.listErr)
		}
	}
}

func (s *fakeSource) Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	for _, w := range wants {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := slices.IndexFunc(s.messages[mb.Name], func(m *fakeMessage) bool { return w.UID != "" && m.uid == w.UID })
		if w.UID == "" {
			i = int(w.Seq) - 1
		}
		if i < 0 {
			if err := deliver(mail.Info{Ref: mail.Ref{Account: s.account, Mailbox: mb.Name, UIDValidity: s.validity[mb.Name], UID: w.UID}}, nil, mail.ErrVanished); err != nil {
				return err
			}
			continue
		}
		if err := s.give(mb, i, deliver); err != nil {
			return err
		}
	}
	return nil
}

func (s *fakeSource) give(mb mail.Mailbox, i int, deliver fetch.Deliver) error {
	m, in := s.messages[mb.Name][i], s.info(mb, i)
	if m.silent {
		return nil
	}
	if m.refuse != nil {
		return deliver(in, nil, m.refuse)
	}
	for range m.breaks {
		broken := io.MultiReader(strings.NewReader(m.wire[:len(m.wire)/2]), errReader{io.ErrUnexpectedEOF})
		if err := deliver(in, broken, nil); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.fetched++
	n := s.fetched
	s.mu.Unlock()
	if s.onFetch != nil {
		s.onFetch(n)
	}
	return deliver(in, strings.NewReader(m.wire), nil)
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// headerSource adds Headers.
type headerSource struct{ *fakeSource }

func (s headerSource) Headers(_ context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	for _, w := range wants {
		for i, m := range s.messages[mb.Name] {
			if w.UID != "" && m.uid == w.UID || w.UID == "" && int(w.Seq) == i+1 {
				s.mu.Lock()
				s.headers++
				s.mu.Unlock()
				head, _, _ := strings.Cut(m.wire, "\r\n\r\n")
				if err := deliver(s.info(mb, i), strings.NewReader(head+"\r\n\r\n"), nil); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// changeSource is an IMAP server with CONDSTORE and UIDs that are numbers.
type changeSource struct {
	headerSource
	next    map[string]int // UIDNEXT
	mod     int            // the last change
	changes int            // times Changes was asked
	lie     int64          // added to the count
}

func newChangeSource(s *fakeSource) *changeSource {
	return &changeSource{headerSource: headerSource{s}, next: map[string]int{}}
}

// touch notes that a message, or the mailbox for nil, has changed.
func (s *changeSource) touch(m *fakeMessage) {
	s.mod++
	if m != nil {
		m.mod = s.mod
	}
}

func (s *changeSource) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	all, err := s.fakeSource.Mailboxes(ctx)
	for i := range all {
		mb := &all[i]
		for _, m := range s.messages[mb.Name] {
			s.next[mb.Name] = max(s.next[mb.Name], number(m.uid)+1)
		}
		mb.State = fmt.Sprintf("%d %d %d %d", mb.UIDValidity, s.next[mb.Name], mb.Messages, s.mod)
	}
	return all, err
}

func number(uid string) (n int) {
	_, _ = fmt.Sscan(uid, &n)
	return n
}

func (s *changeSource) Changes(_ context.Context, mb mail.Mailbox, since string) (changed []mail.Info, exists int64, ok bool, err error) {
	var validity uint32
	var next, count, mod int
	if _, err := fmt.Sscan(since, &validity, &next, &count, &mod); err != nil || validity != mb.UIDValidity {
		return nil, 0, false, nil
	}
	s.changes++
	for i, m := range s.messages[mb.Name] {
		in := s.info(mb, i)
		switch {
		case number(m.uid) >= next:
			changed = append(changed, in)
		case m.mod > mod:
			changed = append(changed, mail.Info{Ref: in.Ref, Flags: in.Flags, Size: -1})
		}
	}
	return changed, int64(len(s.messages[mb.Name])) + s.lie, true, nil
}

// fakeArchive keeps messages in memory.
type fakeArchive struct {
	mu      sync.Mutex
	pending []mail.Receipt
	durable map[string][]string // canonical octets by mailbox
	flags   map[string]mail.Flags
	dates   map[string]time.Time // that were set
	n       int
	failAt  int    // the n-th Append fails
	busy    string // mailbox that another program has locked
	commits int
	at      map[string]string // canonical octets by place
	opened  int
}

func newArchive() *fakeArchive {
	return &fakeArchive{at: map[string]string{}, durable: map[string][]string{}, flags: map[string]mail.Flags{}, dates: map[string]time.Time{}}
}

var errDisk = &mail.Error{Kind: mail.KindDisk, Err: errors.New("no space left on device")}

func (a *fakeArchive) Append(_ context.Context, in mail.Info, r mail.Octets) error {
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil {
		return fmt.Errorf("append: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if in.Ref.Mailbox == a.busy {
		return &mail.Error{Kind: mail.KindTemporary, Ref: mail.Ref{Mailbox: a.busy}, Op: "lock", Err: errors.New("in use")}
	}
	a.n++
	if a.n == a.failAt {
		return errDisk
	}
	place := fmt.Sprintf("%s/%d", in.Ref.Mailbox, a.n)
	a.pending = append(a.pending, mail.Receipt{Info: in, Place: place, Sums: r.Sums()})
	a.durable[in.Ref.Mailbox] = append(a.durable[in.Ref.Mailbox], b.String())
	a.flags[place] = in.Flags
	a.at[place] = b.String()
	return nil
}

func (a *fakeArchive) Open(_ context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.opened++
	octets, ok := a.at[rc.Place]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(octets)), nil
}

func (a *fakeArchive) Commit(context.Context) (mail.Group, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.commits++
	g := mail.Group{Receipts: a.pending}
	a.pending = nil
	return g, nil
}

func (a *fakeArchive) SetFlags(_ context.Context, rc mail.Receipt, base, now mail.Flags) (mail.Receipt, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flags[rc.Place] = mail.MergeFlags(base, now, a.flags[rc.Place])
	return rc, nil
}

func (a *fakeArchive) SetDate(_ context.Context, rc mail.Receipt, date time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dates[rc.Place] = date
	return nil
}

// fakeLedger is the naive form of what a ledger must do.
type fakeLedger struct {
	mu       sync.Mutex
	messages []mail.Held
	claims   []fakeClaim
	cursors  map[string]string
	records  int
	trashed  []mail.Held
	goneBy   string
}

type fakeClaim struct {
	account, mailbox string
	mail.Claim
}

func newLedger() *fakeLedger { return &fakeLedger{cursors: map[string]string{}} }

func (l *fakeLedger) Cursor(_ context.Context, account, mailbox string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursors[account+"\x00"+mailbox], nil
}

func (l *fakeLedger) Claims(_ context.Context, account, mailbox string, yield func(mail.Claim) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.claims {
		if c.account == account && c.mailbox == mailbox {
			c.Missing = l.messages[c.Message-1].Receipt.Place == ""
			if err := yield(c.Claim); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *fakeLedger) Free(_ context.Context, account, mailbox string, yield func(mail.Held) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.messages {
		live := slices.ContainsFunc(l.claims, func(c fakeClaim) bool {
			return c.account == account && c.mailbox == mailbox && c.Message == h.Message && c.Gone.IsZero()
		})
		if h.Receipt.Info.Ref.Mailbox == mailbox && !live {
			if err := yield(h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *fakeLedger) Trashed(_ context.Context, account, trash string, yield func(mail.Held) error) error {
	for _, h := range l.trashed {
		if err := yield(h); err != nil {
			return err
		}
	}
	return nil
}

func (l *fakeLedger) Same(_ context.Context, account, object string) (same []mail.Held, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.messages {
		if h.Receipt.Info.ObjectID == object && h.Receipt.Place != "" {
			same = append(same, h)
		}
	}
	return same, nil
}

func (l *fakeLedger) Message(_ context.Context, id int64) (mail.Held, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.messages[id-1], nil
}

func (l *fakeLedger) claim(in mail.Info, uid string, message int64, fetched bool) {
	c := fakeClaim{in.Ref.Account, in.Ref.Mailbox, mail.Claim{
		ID: int64(len(l.claims) + 1), UIDValidity: in.Ref.UIDValidity, UID: uid, Message: message, Size: in.Size, Flags: in.Flags, Fetched: fetched,
	}}
	for i, old := range l.claims {
		if old.Gone.IsZero() && old.account == c.account && old.mailbox == c.mailbox && old.UIDValidity == c.UIDValidity && old.UID == c.UID {
			c.ID = old.ID
			l.claims[i] = c
			return
		}
	}
	l.claims = append(l.claims, c)
}

func (l *fakeLedger) Record(_ context.Context, ch mail.Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records++
	now := time.Now()
	for _, id := range ch.Gone {
		l.claims[id-1].Gone = now
	}
	for _, id := range ch.Wrong {
		l.claims[id-1].Size = mail.OtherMessage
		clear(l.cursors)
	}
	for _, id := range ch.Returned {
		l.claims[id-1].Gone = time.Time{}
	}
	for _, id := range ch.Gone {
		l.claims[id-1].GoneBy = l.goneBy
	}
	for _, a := range ch.Archived {
		uid := a.UID
		if uid == "" {
			uid = a.Receipt.Info.Ref.UID
		}
		id := int64(len(l.messages) + 1)
		l.messages = append(l.messages, mail.Held{Message: id, Receipt: a.Receipt, Suspicious: a.Suspicious})
		l.claim(a.Receipt.Info, uid, id, !a.Copied)
	}
	for _, a := range ch.Adopted {
		if a.Takes != 0 {
			c := &l.claims[a.Takes-1]
			c.UIDValidity, c.UID, c.Size, c.Flags, c.Fetched, c.Gone = a.Info.Ref.UIDValidity, a.Info.Ref.UID, a.Info.Size, a.Info.Flags, a.Fetched, time.Time{}
			continue
		}
		l.claim(a.Info, a.Info.Ref.UID, a.Message, a.Fetched)
	}
	for _, f := range ch.Flags {
		if f.Claim != 0 {
			l.claims[f.Claim-1].Flags = f.Flags
		}
	}
	for _, c := range ch.Cursors {
		l.cursors[c.Account+"\x00"+c.Mailbox] = c.State
	}
	return nil
}
