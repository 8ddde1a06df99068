package mbox

import (
	"context"
	"io"
	"sync"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Together implements archive.Opener: a file is opened once for the messages that
// are asked for one behind the other.
func (a *Archive) Together() (open func(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error), close func() error) {
	s := &shelf{a: a}
	return func(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error) { return a.open(ctx, rc, s.open) }, s.close
}

// shelf keeps the file last asked for open.
type shelf struct {
	a  *Archive
	mu sync.Mutex
	at *shared
}

// shared is an open file, the number of those who use it, the shelf among them.
type shared struct {
	f     durable.File
	name  string
	users int
}

func (s *shelf) open(mailbox, name string) (durable.File, func() error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil || s.at.name != name {
		f, err := openRead(s.a.fsys, mailbox, name)
		if err != nil {
			return nil, nil, err
		}
		_ = s.release(s.at) // read only
		s.at = &shared{f: f, name: name, users: 1}
	}
	at := s.at
	at.users++
	return at.f, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.release(at)
	}, nil
}

func (s *shelf) release(at *shared) error {
	if at == nil {
		return nil
	}
	if at.users--; at.users > 0 {
		return nil
	}
	return at.f.Close()
}

func (s *shelf) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.at
	s.at = nil
	return s.release(at)
}
