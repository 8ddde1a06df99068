package vault

import (
	"context"
	"errors"

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

// Close is the vault's to call.
func (g guarded) Close() error { return nil }
