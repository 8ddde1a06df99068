// Package uploadtest has a destination in memory that misbehaves as servers do, to
// test the engine with.
package uploadtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"mailhaul/mail"
	"mailhaul/upload"
)

// Stored is a message at a Server.
type Stored struct {
	UID    uint32
	Octets string // canonical
	Wire   int64
	Flags  mail.Flags
	Date   time.Time
}

// Mailbox is a mailbox at a Server.
type Mailbox struct {
	UIDValidity uint32
	UIDNext     uint32
	SpecialUse  string
	Messages    []Stored
}

// Server is a destination in memory.
type Server struct {
	User      string                     // "" for grace
	NoUIDs    bool                       // no UIDPLUS: Append does not tell UIDs
	Group     bool                       // MULTIAPPEND: all of a group or none
	Permanent mail.Flags                 // flags that can be stored; "" for all
	Limit     int64                      // APPENDLIMIT
	Alter     func(octets string) string // what the server makes of octets; may be nil
	Refuse    func(octets string) error  // may be nil
	Before    func(op string) error      // before each call; an error is a lost connection
	After     func(op string) error      // after it was done
	Lose      func(octets string) bool   // says OK and stores nothing
	GiveAgain bool                       // the UID of what was lost goes to the next
	SayNo     func(octets string) error  // stores it and refuses it
	Names     func(string) string        // Fit; may be nil
	// RefuseName refuses to create a mailbox; may be nil.
	RefuseName func(name string) error
	Free       upload.Space // zero: Unlimited
	Forgets    mail.Flags   // flags that Append does not store

	mu         sync.Mutex
	Boxes      map[string]*Mailbox
	Appends    int // commands
	Sent       int // messages
	Subscribed []string
}

// New returns a server with an empty INBOX.
func New() *Server {
	return &Server{Boxes: map[string]*Mailbox{"INBOX": {UIDValidity: 1, UIDNext: 1}}, Group: true}
}

// Put adds a message as another program would.
func (s *Server) Put(mailbox, octets string, flags mail.Flags) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	mb := s.Boxes[mailbox]
	if mb == nil {
		mb = &Mailbox{UIDValidity: 1, UIDNext: 1}
		s.Boxes[mailbox] = mb
	}
	return mb.add(octets, flags, time.Time{})
}

func (mb *Mailbox) add(octets string, flags mail.Flags, date time.Time) uint32 {
	uid := mb.UIDNext
	mb.UIDNext++
	wire := int64(len(octets) + strings.Count(octets, "\n"))
	mb.Messages = append(mb.Messages, Stored{uid, octets, wire, flags, date})
	return uid
}

// Octets returns what a mailbox holds, sorted.
func (s *Server) Octets(mailbox string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	if mb := s.Boxes[mailbox]; mb != nil {
		for _, m := range mb.Messages {
			all = append(all, m.Octets)
		}
	}
	slices.Sort(all)
	return all
}

var _ upload.Destination = (*Server)(nil)

// Account is the server's one account.
func (s *Server) Account() string {
	return mail.AccountKey("imap", cmp.Or(s.User, "grace"), "new.example.org")
}

// Lost is the error of a lost connection.
func Lost(op string) error {
	return &mail.Error{Kind: mail.KindTemporary, Op: op, Err: io.ErrUnexpectedEOF}
}

// call makes one call, with the faults asked for.
func (s *Server) call(op string, f func() error) error {
	if s.Before != nil {
		if err := s.Before(op); err != nil {
			return err
		}
	}
	s.mu.Lock()
	err := f()
	s.mu.Unlock()
	if err == nil && s.After != nil {
		err = s.After(op)
	}
	return err
}

// Mailboxes implements upload.Destination.
func (s *Server) Mailboxes(context.Context) (all []mail.Mailbox, err error) {
	err = s.call("list mailboxes", func() error {
		for name, mb := range s.Boxes {
			all = append(all, mail.Mailbox{Name: name, UIDValidity: mb.UIDValidity, UIDNext: mb.UIDNext, Messages: int64(len(mb.Messages)), SpecialUse: mb.SpecialUse})
		}
		slices.SortFunc(all, func(a, b mail.Mailbox) int { return strings.Compare(a.Name, b.Name) })
		return nil
	})
	return all, err
}

// Fit implements upload.Destination.
func (s *Server) Fit(name string) string {
	if s.Names != nil {
		return s.Names(name)
	}
	return name
}

// MaxMessage implements upload.Limiter.
func (s *Server) MaxMessage() int64 { return s.Limit }

// Space implements upload.Quoter.
func (s *Server) Space(context.Context) (upload.Space, error) {
	if s.Free == (upload.Space{}) {
		return upload.Unlimited, nil
	}
	return s.Free, nil
}

// Create implements upload.Destination.
func (s *Server) Create(_ context.Context, name string) error {
	return s.call("create", func() error {
		if s.RefuseName != nil {
			if err := s.RefuseName(name); err != nil {
				return err
			}
		}
		if s.Boxes[name] == nil {
			s.Boxes[name] = &Mailbox{UIDValidity: 1, UIDNext: 1}
		}
		return nil
	})
}

// Subscribe implements upload.Subscriber.
func (s *Server) Subscribe(_ context.Context, name string) error {
	return s.call("subscribe", func() error {
		s.Subscribed = append(s.Subscribed, name)
		return nil
	})
}

// Open implements upload.Destination.
func (s *Server) Open(_ context.Context, name string) (box upload.Box, err error) {
	err = s.call("open", func() error {
		mb := s.Boxes[name]
		if mb == nil {
			return errors.New("no such mailbox")
		}
		box = upload.Box{Name: name, UIDValidity: mb.UIDValidity, UIDNext: mb.UIDNext, Messages: int64(len(mb.Messages)),
			Permanent: s.Permanent, AllFlags: s.Permanent == ""}
		return nil
	})
	return box, err
}

// Append implements upload.Destination.
func (s *Server) Append(ctx context.Context, box upload.Box, msgs []upload.Message) ([]upload.Answer, error) {
	var answers []upload.Answer
	size := 1
	if s.Group {
		size = max(1, len(msgs))
	}
	for part := range slices.Chunk(msgs, size) {
		if err := ctx.Err(); err != nil {
			return answers, err
		}
		var got []upload.Answer
		err := s.call("append", func() (err error) {
			got, err = s.append(box, part)
			return err
		})
		if err != nil {
			return append(answers, make([]upload.Answer, len(part))...), err
		}
		answers = append(answers, got...)
	}
	return answers, nil
}

func (s *Server) append(box upload.Box, msgs []upload.Message) ([]upload.Answer, error) {
	answers := make([]upload.Answer, len(msgs))
	octets := make([]string, len(msgs))
	s.Appends++
	for i, m := range msgs {
		r, err := m.Open()
		if err != nil {
			answers[i].Unsent = err
			return answers, Lost("append")
		}
		b, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			answers[i].Unsent = err
			return answers, Lost("append")
		}
		if want := int64(len(b) + bytes.Count(b, []byte{'\n'})); want != m.Wire {
			return answers, errors.New("announced " + strconv.FormatInt(m.Wire, 10) + " octets, sent " + strconv.FormatInt(want, 10))
		}
		octets[i] = string(b)
		if s.Refuse != nil {
			if err := s.Refuse(octets[i]); err != nil {
				for k := range answers {
					answers[k] = upload.Answer{Refused: err, Group: len(msgs) > 1}
				}
				return answers, nil
			}
		}
	}
	mb := s.Boxes[box.Name]
	s.Sent += len(msgs)
	for i, m := range msgs {
		if s.Lose != nil && s.Lose(octets[i]) {
			answers[i] = upload.Answer{Stored: true, UID: mb.UIDNext}
			if !s.GiveAgain {
				mb.UIDNext++
			}
			continue
		}
		stored := octets[i]
		if s.Alter != nil {
			stored = s.Alter(stored)
		}
		uid := mb.add(stored, m.Flags.Without(s.Forgets.List()...), m.InternalDate)
		answers[i] = upload.Answer{Stored: true, UID: uid}
		if s.NoUIDs {
			answers[i].UID = 0
		}
		if s.SayNo != nil {
			if err := s.SayNo(octets[i]); err != nil {
				for k := range answers {
					answers[k] = upload.Answer{Refused: err, Group: len(msgs) > 1}
				}
			}
		}
	}
	return answers, nil
}

func (s *Server) box(box upload.Box) (*Mailbox, error) {
	mb := s.Boxes[box.Name]
	if mb == nil {
		return nil, errors.New("no such mailbox")
	}
	if mb.UIDValidity != box.UIDValidity {
		return nil, &mail.Error{Kind: mail.KindTemporary, Err: upload.ErrUIDValidity}
	}
	return mb, nil
}

// List implements upload.Destination.
func (s *Server) List(_ context.Context, box upload.Box, from uint32, yield func(mail.Info) error) error {
	var found []Stored
	err := s.call("list", func() error {
		mb, err := s.box(box)
		if err == nil {
			found = slices.Clone(mb.Messages)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, m := range found {
		if m.UID < from {
			continue
		}
		if err := yield(mail.Info{Ref: mail.Ref{UID: strconv.FormatUint(uint64(m.UID), 10)}, Size: m.Wire, Flags: m.Flags}); err != nil {
			return err
		}
	}
	return nil
}

// Read implements upload.Destination.
func (s *Server) Read(_ context.Context, box upload.Box, uids []uint32, header bool, take func(uint32, mail.Sums)) error {
	op := "read"
	if header {
		op = "read header"
	}
	return s.call(op, func() error {
		mb, err := s.box(box)
		if err != nil {
			return err
		}
		for _, m := range mb.Messages {
			if !slices.Contains(uids, m.UID) {
				continue
			}
			octets := m.Octets
			if head, _, ok := strings.Cut(octets, "\n\n"); ok && header {
				octets = head + "\n\n"
			}
			sums, err := mail.SumCanonical(strings.NewReader(octets))
			if err != nil {
				return err
			}
			take(m.UID, sums)
		}
		return nil
	})
}

// ReadUnmarked implements upload.Unmarker.
func (s *Server) ReadUnmarked(_ context.Context, box upload.Box, uids []uint32, take func(uid uint32, stored, unmarked mail.Sums)) error {
	return s.call("read", func() error {
		mb, err := s.box(box)
		if err != nil {
			return err
		}
		for _, m := range mb.Messages {
			if !slices.Contains(uids, m.UID) {
				continue
			}
			stored, err1 := mail.SumCanonical(strings.NewReader(m.Octets))
			unmarked, err2 := mail.SumCanonical(upload.Unmark(strings.NewReader(m.Octets)))
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			take(m.UID, stored, unmarked)
		}
		return nil
	})
}

// SetFlags implements upload.Flagger.
func (s *Server) SetFlags(_ context.Context, box upload.Box, changes []upload.FlagChange) error {
	return s.call("set flags", func() error {
		mb, err := s.box(box)
		if err != nil {
			return err
		}
		for _, c := range changes {
			for i := range mb.Messages {
				if mb.Messages[i].UID == c.UID {
					mb.Messages[i].Flags = mb.Messages[i].Flags.Without(c.Remove.List()...).With(c.Add.List()...)
				}
			}
		}
		return nil
	})
}

// Close implements upload.Destination.
func (s *Server) Close() error { return nil }
