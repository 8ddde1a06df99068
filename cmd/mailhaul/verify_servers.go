package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"mailhaul/compare"
	"mailhaul/fetch"
	"mailhaul/internal/config"
	"mailhaul/internal/durable"
	"mailhaul/internal/ledger"
	"mailhaul/mail"
	"mailhaul/migrate"
)

// servers compares two servers.
func (w *verifying) servers(ctx context.Context, left, right string) (err error) {
	if w.o.repair || w.o.accept {
		return usage("name an archive", "--repair and --accept are about an archive")
	}
	from, err := w.a.account(ctx, left, w.o.secret, w.o.limit)
	if err != nil {
		return err
	}
	w.o.dest.limit = w.o.limit
	to, err := w.a.destination(ctx, right, w.o.dest)
	if err != nil {
		return err
	}
	to.secret.Env = config.DestEnv // the source's is no guess to make
	if w.o.dest.fingerprint == "" && w.a.flags.fingerprint != "" {
		to.server.Fingerprint = ""
	}
	w.s.Source, w.s.Dest, w.label = from.key(), to.key(), from.label()
	if from.key() == to.key() && from.server.Addr() == to.server.Addr() {
		return usage("", "both places are the same account")
	}
	src, err := w.open(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := w.open(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	fit, closeFit, err := w.fit(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFit()) }()
	w.rep.begin("Comparison of two accounts", src.Account(), dst.Account())
	o := compare.Options{
		Left: checked{compare.Server(src), src}, Right: checked{compare.Server(dst), dst},
		Map: w.mapping(fit, func(string) bool { return false }),
	}
	if o.Left, err = w.migrated(ctx, o.Left, dst); err != nil {
		return err
	}
	if from.server.Protocol == "pop3" || to.server.Protocol == "pop3" {
		o.Only = func(right string) bool { return right == "INBOX" }
	}
	res, err := w.compare(ctx, o)
	return w.conclude(res, err)
}

// migrated adds what the ledger of a migration between the two servers says of
// messages that were sent in another form. Without one nothing is known.
func (w *verifying) migrated(ctx context.Context, left compare.Side, dst fetch.Source) (compare.Side, error) {
	dir, err := migrationDir(left.Account(), dst.Account(), w.s.Source+" "+w.s.Dest)
	if err != nil {
		return left, nil
	}
	lock, err := durable.LockFile(ctx, filepath.Join(dir, "lock"), w.a.flags.lockWait)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return left, nil
	case err == nil:
		defer lock.Close()
	case !errors.Is(err, durable.ErrLocked): // a disk that cannot be written to: then nobody else does
		err = nil
	}
	var l *ledger.Ledger
	if err == nil {
		l, err = ledger.OpenReadOnly(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return left, nil
	}
	if err != nil {
		w.a.ui.Warn(fmt.Errorf("the ledger of the migration cannot be read, so repaired copies are not known as such: %w", err))
		return left, nil
	}
	defer l.Close()
	boxes, err := dst.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	m := &compare.Migrated{Side: left, Ledger: l, Destination: migrate.AccountOf(dst.Account())}
	return m, m.Learn(ctx, boxes)
}

// checked is a side that refuses, once it can be known, to be read.
type checked struct {
	compare.Side
	src fetch.Source
}

func (c checked) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	list, err := c.Side.Mailboxes(ctx)
	if err == nil {
		err = consumes(c.src)
	}
	return list, err
}

// Find implements compare.Finder.
func (c checked) Find(ctx context.Context, name string) (mb mail.Mailbox, there bool, err error) {
	if f, ok := c.Side.(compare.Finder); ok {
		return f.Find(ctx, name)
	}
	return mb, false, nil
}
