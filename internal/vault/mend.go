package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// DamagedDir is the directory in Dir to which damaged messages are moved.
const DamagedDir = "damaged"

// Mend puts a message that is missing or damaged into the archive again: give
// writes its octets, and only octets with the recorded digest are kept. Only when
// they are durable the damaged copy is set aside. ErrAltered says that others
// came; the archive is as it was then.
func (v *Vault) Mend(ctx context.Context, h mail.Held, octets mail.Octets) error {
	in := h.Receipt.Info
	err := v.Archive.Append(ctx, in, &only{Octets: octets, want: h.Receipt.Digest})
	if errors.Is(err, mail.ErrSkipped) {
		return fmt.Errorf("%w: the copy at the server is another message", mail.ErrAltered)
	}
	if err != nil {
		return err
	}
	group, err := v.Archive.Commit(ctx)
	if err != nil {
		return err
	}
	if err := v.SetAside(ctx, h); err != nil {
		return err
	}
	mailbox := in.Ref.Mailbox
	if err := v.Ledger.Reanchor(context.WithoutCancel(ctx), mailbox, group.Receipts, false, group.Anchors[mailbox]); err != nil {
		return err
	}
	v.committed.Add(-int64(len(group.Receipts))) // on record, if not as fetched
	return nil
}

// only gives octets of one digest, or says that they are not wanted.
type only struct {
	mail.Octets
	want mail.Digest
}

func (o *only) Read(p []byte) (int, error) {
	n, err := o.Octets.Read(p)
	if err == io.EOF && o.Sums().Digest != o.want {
		return n, mail.ErrSkipped
	}
	return n, err
}

// SetAside keeps what there is of a damaged message in .mailhaul/damaged, out of
// the way of mail readers, and records that the archive has lost the message, so
// that the next backup fetches it again if it still can. Of an mbox, which only
// grows, the octets are copied.
func (v *Vault) SetAside(ctx context.Context, h mail.Held) error {
	if err := v.keepDamaged(ctx, h); err != nil {
		return err
	}
	return v.Ledger.Lost(ctx, []int64{h.Message})
}

func (v *Vault) keepDamaged(ctx context.Context, h mail.Held) error {
	if h.Receipt.Place == "" {
		return nil
	}
	r, err := v.raw.Open(ctx, h.Receipt)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	dir := path.Join(Dir, DamagedDir)
	if err := v.fsys.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return diskError("set aside", err)
	}
	if err := v.fsys.SyncDir(Dir); err != nil {
		return diskError("set aside", err)
	}
	name, err := v.copyAside(r, path.Join(dir, h.Receipt.Digest.String()))
	if err != nil {
		return diskError("set aside "+name, err)
	}
	if remover, ok := v.raw.(archive.Remover); ok {
		return remover.Remove(ctx, h.Receipt)
	}
	return nil
}

// copyAside writes a copy under a name that nothing has yet. What the disk does
// not give of it is left out.
func (v *Vault) copyAside(r io.Reader, stem string) (name string, err error) {
	var f durable.File
	for i := 0; ; i++ {
		name = stem
		if i > 0 {
			name = fmt.Sprintf("%s.%d", stem, i)
		}
		f, err = v.fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || i > 1000 {
			return name, err
		}
	}
	_, copyErr := io.Copy(f, r)
	var broken *fs.PathError
	if copyErr != nil && !errors.As(copyErr, &broken) && mail.KindOf(copyErr) != mail.KindDisk {
		return name, errors.Join(copyErr, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return name, err
	}
	return name, v.fsys.SyncDir(path.Dir(name))
}

// Accept takes what a person did to messages of the archive for wanted: those that
// are missing are forgotten, those with other octets are recorded as they are now.
// Neither is fetched again, nor ever deleted at a server because of the archive.
func (v *Vault) Accept(ctx context.Context, f Finding) error {
	if f.Kind == Altered {
		if err := v.recordAsIs(ctx, f.Held); err != nil {
			return err
		}
	}
	return v.Ledger.Dismiss(ctx, []int64{f.Held.Message})
}

func (v *Vault) recordAsIs(ctx context.Context, h mail.Held) error {
	r, err := v.raw.Open(ctx, h.Receipt)
	if err != nil {
		return err
	}
	sums, err := mail.SumCanonical(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	rc := h.Receipt
	rc.Sums = sums
	mailbox := rc.Info.Ref.Mailbox
	anchor, err := v.Ledger.Anchor(ctx, mailbox)
	if err != nil {
		return err
	}
	return v.Ledger.Reanchor(ctx, mailbox, []mail.Receipt{rc}, false, anchor)
}
