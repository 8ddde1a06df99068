package crash

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/mail"
)

const account = "imap:ada@example.org@mail.example.org"

// message is one message at the server.
type message struct {
	uid    string
	wire   string
	listed int64 // size as listed
	flags  mail.Flags
}

// server is an account in memory. It is a fetch.Source and a fetch.HeaderSource.
type server struct {
	name     string
	validity uint32
	boxes    map[string][]message
	uids     bool // without, messages are told apart by content alone
	consumes bool // reading a message uses it up

	mu        sync.Mutex
	delivered func(m message, mailbox string) // after a message was taken
	asked     int                             // messages that were asked for
	given     int                             // and taken without an error
	abandoned bool
}

// concluded tells whether every message asked for was taken.
func (s *server) concluded() bool { return s.asked == s.given }

// The mailboxes, the last one with a name that no file system likes.
const (
	inbox   = "INBOX"
	nested  = "Archive/2023"
	awkward = "Entwürfe/con. 日本:"
)

// awkwardMessages are few, since every step of a run with them is tried.
func awkwardMessages() map[string][]message {
	of := map[string][]string{
		inbox: {"plain", "identical-1", "empty", "from-lines", "dots-at-line-starts", "identical-2",
			"no-final-newline", "bare-lf", "nul", "header-cut"},
		nested: {"quoted-from-lines", "bare-cr", "status-headers", "starts-with-from", "doubled-message-id-1",
			"doubled-message-id-2", "trailing-blank-lines", "empty"},
		awkward: {"utf-8-header", "lf-dot-lf", "only-blank-lines", "identical-1", "final-cr", "internal-data"},
	}
	octets := map[string]string{}
	for _, h := range corpus.Hazards() {
		octets[h.Name] = string(h.Octets)
	}
	boxes := map[string][]message{}
	for box, names := range of {
		for i, name := range names {
			wire, ok := octets[name]
			if !ok {
				panic("no hazard " + name)
			}
			m := message{uid: strconv.Itoa(i + 1), wire: wire, listed: int64(len(wire))}
			if i%3 == 0 && name != "identical-1" {
				m.flags = mail.NewFlags(mail.Seen)
			}
			boxes[box] = append(boxes[box], m)
		}
	}
	// Longer than what goes through memory, and one that is longer than was said.
	long := "Subject: long\r\n\r\n" + strings.Repeat("From here\r\n"+strings.Repeat("0123456789", 99)+"\r\n", 1100)
	boxes[inbox] = append(boxes[inbox], message{uid: "90", wire: long, listed: int64(len(long)), flags: mail.NewFlags(mail.Flagged)})
	more := "Subject: more than was said\r\n\r\n" + strings.Repeat("x\r\n", 30_000)
	boxes[nested] = append(boxes[nested], message{uid: "91", wire: more, listed: 1000})
	return boxes
}

// later is the server as the runs under test find it.
func later() *server {
	return &server{name: "later", validity: 7, boxes: awkwardMessages(), uids: true}
}

// earlier is the server as a run before those found it: without every second
// message, with one that is expunged since, under another UIDVALIDITY in one
// mailbox, see validityOf, and if reflagged is set with other flags.
func earlier(reflagged bool) *server {
	s := &server{name: "earlier", validity: 7, boxes: map[string][]message{}, uids: true}
	for box, list := range awkwardMessages() {
		for i, m := range list {
			switch {
			case i%2 == 1:
				continue
			case i%4 == 0 && reflagged:
				m.flags = mail.NewFlags(mail.Answered)
			}
			s.boxes[box] = append(s.boxes[box], m)
		}
	}
	s.boxes[inbox] = append(s.boxes[inbox], expunged())
	return s
}

func expunged() message {
	wire := "Subject: expunged since\r\n\r\nstill in the archive\r\n"
	return message{uid: "80", wire: wire, listed: int64(len(wire))}
}

func (s *server) validityOf(box string) uint32 {
	switch {
	case !s.uids:
		return 0
	case box == awkward && s.name == "earlier":
		return s.validity - 1
	}
	return s.validity
}

func (s *server) Account() string { return account }
func (s *server) Close() error    { return nil }
func (s *server) Consumes() bool  { return s.consumes }
func (s *server) Abandon()        { s.mu.Lock(); s.abandoned = true; s.mu.Unlock() }

func (s *server) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	var out []mail.Mailbox
	for name, list := range s.boxes {
		mb := mail.Mailbox{Name: name, UIDValidity: s.validityOf(name), Messages: int64(len(list)), Octets: -1}
		if s.uids {
			mb.State = fmt.Sprintf("%s %d", s.name, mb.UIDValidity)
		}
		out = append(out, mb)
	}
	slices.SortFunc(out, func(a, b mail.Mailbox) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func (s *server) info(box string, i int) mail.Info {
	m := s.boxes[box][i]
	in := mail.Info{
		Ref: mail.Ref{Account: account, Mailbox: box, UIDValidity: s.validityOf(box)},
		Seq: uint32(i + 1), Size: m.listed, Flags: m.flags, DateFrom: mail.DateInternal,
		InternalDate: time.Date(2024, 1, 2, 3, 4, i, 0, time.UTC),
	}
	if s.uids {
		in.Ref.UID = m.uid
	}
	return in
}

func (s *server) List(_ context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for i := range s.boxes[mb.Name] {
			if !yield(s.info(mb.Name, i), nil) {
				return
			}
		}
	}
}

func (s *server) find(box string, w mail.Want) int {
	return slices.IndexFunc(s.boxes[box], func(m message) bool { return s.uids && m.uid == w.UID })
}

func (s *server) each(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver, octets func(message) string) error {
	for _, w := range wants {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := int(w.Seq) - 1
		if s.uids {
			i = s.find(mb.Name, w)
		}
		m := s.boxes[mb.Name][i]
		s.count(&s.asked)
		if err := deliver(s.info(mb.Name, i), strings.NewReader(octets(m)), nil); err != nil {
			return err
		}
		s.count(&s.given)
		if s.delivered != nil {
			s.delivered(m, mb.Name)
		}
	}
	return nil
}

func (s *server) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *server) Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	return s.each(ctx, mb, wants, deliver, func(m message) string { return m.wire })
}

func (s *server) Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	return s.each(ctx, mb, wants, func(in mail.Info, r io.Reader, err error) error {
		return deliver(in, r, err)
	}, func(m message) string {
		head, _, _ := strings.Cut(m.wire, "\r\n\r\n")
		return head + "\r\n\r\n"
	})
}
