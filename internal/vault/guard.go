package vault

import (
	"context"
	"errors"
	"fmt"

	"mailhaul/archive"
	"mailhaul/mail"
)

// guarded is the driver with Check before each Commit.
type guarded struct {
	archive.Archive
	v *Vault
}

type guardedFlagger struct {
	guarded
	archive.Flagger
}

func (v *Vault) guard(a archive.Archive) archive.Archive {
	g := guarded{Archive: a, v: v}
	if f, ok := a.(archive.Flagger); ok {
		return guardedFlagger{guarded: g, Flagger: f}
	}
	return g
}

var errReadOnly = errors.New("the archive is open for reading only")

func (g guarded) Append(ctx context.Context, in mail.Info, r mail.Octets) error {
	if g.v.readOnly {
		return diskError("append", errReadOnly)
	}
	return g.Archive.Append(ctx, in, r)
}

func (g guarded) Commit(ctx context.Context) (archive.Group, error) {
	if g.v.readOnly {
		return archive.Group{}, diskError("commit", errReadOnly)
	}
	if err := g.v.Check(); err != nil {
		g.v.torn.Store(true)
		return archive.Group{}, err
	}
	group, err := g.Archive.Commit(ctx)
	g.v.committed.Add(int64(len(group.Receipts)))
	if err != nil {
		g.v.torn.Store(true)
	}
	return group, err
}

// Learn brings messages of a mailbox on record that an earlier run made and the ledger
// lacks, since an older copy of it was put back. It does so once in a run, before the
// first Append to the mailbox.
func (g guarded) Learn(ctx context.Context, mailbox string) error {
	s, ok := g.Archive.(archive.Strayer)
	if _, again := g.v.learnt.LoadOrStore(mailbox, true); !ok || again || g.v.readOnly {
		return nil
	}
	since, err := g.v.Ledger.Latest(ctx, mailbox)
	if err != nil {
		return err
	}
	places := &places{v: g.v, ctx: ctx, mailbox: mailbox}
	strays, err := s.Strays(ctx, mailbox, since, places.known)
	if err = errors.Join(err, places.err); err != nil || len(strays) == 0 {
		return err
	}
	anchor, err := g.v.Ledger.Anchor(ctx, mailbox)
	if err != nil {
		return err
	}
	g.v.notify(mail.Event{Kind: mail.EventWarning, N: int64(len(strays)), Ref: mail.Ref{Mailbox: mailbox},
		Err: fmt.Errorf("mailbox %s has %d messages that the ledger lacks, an older one it seems; they are on record again", mailbox, len(strays))})
	return g.v.Ledger.Reanchor(context.WithoutCancel(ctx), mailbox, strays, false, anchor)
}

// Close is the vault's to call.
func (g guarded) Close() error { return nil }
