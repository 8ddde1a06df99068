package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/mail"
	"mailhaul/migrate"
	"mailhaul/upload"
	destimap "mailhaul/upload/imap"
)

var errStopped = errors.New("interrupted by a test")

// stopping is a destination that ends the run when so many things have been asked of it.
type stopping struct {
	*destimap.Destination
	left atomic.Int64
	stop context.CancelCauseFunc
}

func (s *stopping) count() {
	if s.left.Add(-1) == 0 {
		s.stop(errStopped)
	}
}

func (s *stopping) Create(ctx context.Context, name string) error {
	s.count()
	return s.Destination.Create(ctx, name)
}

func (s *stopping) Open(ctx context.Context, name string) (upload.Box, error) {
	s.count()
	return s.Destination.Open(ctx, name)
}

func (s *stopping) Append(ctx context.Context, box upload.Box, msgs []upload.Message) ([]upload.Answer, error) {
	defer s.count()
	return s.Destination.Append(ctx, box, msgs)
}

func (s *stopping) List(ctx context.Context, box upload.Box, from uint32, yield func(mail.Info) error) error {
	s.count()
	return s.Destination.List(ctx, box, from, yield)
}

func (s *stopping) Read(ctx context.Context, box upload.Box, uids []uint32, header bool, take func(uint32, mail.Sums)) error {
	s.count()
	return s.Destination.Read(ctx, box, uids, header, take)
}

// A run that is interrupted says so unless all was done, and what it left the next
// one does.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	from, to := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})
	mailboxes := []string{"INBOX", "Archive", "Work"}
	l := openLedger(t)
	for step := 1; ; step++ {
		for i, name := range mailboxes {
			fill(t, from, name, append(many(step*100+i*10, 2), message(1, "the same every time"))...)
			if n, err := to.Count("ada", name); step%2 == 0 && err == nil && n > 0 { // what is there is recognised
				if err := to.SetUIDValidity("ada", name, uint32(1_700_000_000+step)); err != nil {
					t.Fatal(err)
				}
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		d := &stopping{Destination: destimap.New(destimap.Config{Server: server(to, to.IMAP), Credentials: credentials}), stop: cancel}
		d.left.Store(int64(step))
		src := source(t, from)
		_, err := migrate.Run(ctx, migrate.Options{Source: src, Destination: d, Ledger: l, Parallel: 3, Dir: t.TempDir(), Upload: upload.Options{Parallel: 1, Pause: time.Millisecond}})
		stopped := ctx.Err() != nil
		cancel(nil)
		if cerr := errors.Join(d.Close(), src.Close()); cerr != nil {
			t.Error(cerr)
		}
		if stopped != errors.Is(err, errStopped) || !stopped && err != nil {
			t.Fatalf("step %d: interrupted: %v, said: %v", step, stopped, err)
		}
		run(t, source(t, from), to, l)
		for _, name := range mailboxes {
			same(t, from, name, to, name)
		}
		if t.Failed() {
			t.Fatal(fmt.Sprint("step ", step))
		}
		if !stopped {
			return
		}
	}
}
