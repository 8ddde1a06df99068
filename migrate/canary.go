package migrate

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mailhaul/clean"
	"mailhaul/internal/durable"
	"mailhaul/mail"
	"mailhaul/upload"
)

// Two names may lead to one mailbox: a host has an alias, the old name points to the
// new server by now, or POP3 and IMAP show the same INBOX. Every copy then is the
// message itself, and would go with it.

var errOneMailbox = errors.New("it is the very mailbox that its copies are in")

// canaries is how many messages are tried alone before a mailbox is left as it is.
const canaries = 10

// WhyUntried is why a message stays where the first ones did not go.
const WhyUntried = "not tried, since none of the first ones went"

// canary is a source where nothing else of a mailbox is deleted before one message
// went there and nothing went at the destination. The octets of that one lie in a file
// meanwhile.
type canary struct {
	clean.Source
	copies *copies
	dest   upload.Destination // to put it back; may be nil
	dir    string
	sure   map[string]bool // mailboxes of the source that are not the destination's
}

// Delete implements clean.Deleter.
func (c *canary) Delete(ctx context.Context, mb mail.Mailbox, o mail.DeleteOrder) error {
	if c.sure[mb.Name] || !c.doubtful(mb, o) {
		return c.Source.Delete(ctx, mb, o)
	}
	order := make([]int, len(o.Proofs))
	for i := range order {
		order[i] = i
	}
	size := func(i int) int64 { rc, _ := o.Proofs[i].Receipt(); return rc.Octets }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(size(a), size(b)) })
	for n, i := range order {
		if n == canaries {
			for _, i := range order[n:] {
				o.Settle(i, false, WhyUntried)
			}
			return nil
		}
		gone, err := c.one(ctx, mb, o, i)
		switch {
		case err != nil:
			return err
		case gone:
			c.sure[mb.Name] = true
			if n+1 == len(order) {
				return nil
			}
			return c.Source.Delete(ctx, mb, portion(o, order[n+1:]))
		}
	}
	return nil
}

// doubtful tells whether a mailbox may be the one its copies are in. Over IMAP one
// mailbox has one UIDVALIDITY, whatever its name.
func (c *canary) doubtful(mb mail.Mailbox, o mail.DeleteOrder) bool {
	return mb.UIDValidity == 0 || slices.ContainsFunc(o.Proofs, func(p mail.Proof) bool {
		rc, _ := p.Receipt()
		return c.box(rc).UIDValidity == mb.UIDValidity
	})
}

// box is the mailbox of the destination where the copy is.
func (c *canary) box(rc mail.Receipt) mail.Mailbox {
	at := c.copies.where[idOf(rc)]
	box := c.copies.boxes[at.mailbox]
	box.Name = at.mailbox
	return box
}

// portion is an order for some of the messages of another.
func portion(o mail.DeleteOrder, which []int) mail.DeleteOrder {
	p := mail.DeleteOrder{
		Mode:  o.Mode,
		Allow: func(i int, in mail.Info) string { return o.Allow(which[i], in) },
		Intend: func(passed []int) error {
			all := make([]int, len(passed))
			for n, i := range passed {
				all[n] = which[i]
			}
			return o.Intend(all)
		},
		Settle: func(i int, gone bool, why string) { o.Settle(which[i], gone, why) },
	}
	if o.Moved != nil {
		p.Moved = func(i int, to mail.Info) { o.Moved(which[i], to) }
	}
	for _, i := range which {
		p.Proofs = append(p.Proofs, o.Proofs[i])
	}
	return p
}

// one deletes one message and looks whether anything went at the destination.
func (c *canary) one(ctx context.Context, mb mail.Mailbox, o mail.DeleteOrder, i int) (gone bool, err error) {
	rc, ok := o.Proofs[i].Receipt()
	if !ok {
		return false, errors.New("delete: a message without proof")
	}
	box := c.box(rc)
	before, err := c.list(ctx, box)
	if err != nil {
		return false, err
	}
	k, err := c.keep(ctx, rc)
	if err != nil {
		return false, err
	}
	defer k.close()
	order := portion(o, []int{i})
	settle := order.Settle
	order.Settle = func(i int, g bool, why string) {
		gone = g
		settle(i, g, why)
	}
	if err := c.Source.Delete(ctx, mb, order); err != nil {
		return false, err // the file stays for the next run to look at
	}
	after, err := c.list(ctx, box)
	if err != nil {
		return false, err
	}
	lost, ours := false, false
	for uid, in := range before {
		if _, there := after[uid]; there {
			continue
		}
		lost = true
		if gone && in.Size == rc.Wire {
			ours, rc.Info.Flags, rc.Info.InternalDate = true, in.Flags, in.InternalDate // POP3 does not tell them
		}
	}
	switch {
	case ours:
		return false, c.same(ctx, mb, box, rc, k)
	case lost: // by somebody else
		err = &mail.Error{Kind: mail.KindTemporary, Ref: mail.Ref{Account: c.copies.at.Account(), Mailbox: box.Name}, Op: "look at the destination",
			Err: errors.New("messages went there just now"), Hint: "run the same command again"}
	}
	return gone, errors.Join(err, k.remove())
}

// list returns the messages of a mailbox at the destination by UID.
func (c *canary) list(ctx context.Context, box mail.Mailbox) (map[string]mail.Info, error) {
	all := make(map[string]mail.Info)
	for in, err := range c.copies.at.List(ctx, box) {
		if err != nil {
			return nil, err
		}
		all[in.Ref.UID] = in
	}
	return all, nil
}

// same puts the message back that went at both.
func (c *canary) same(ctx context.Context, mb, box mail.Mailbox, rc mail.Receipt, k *keptFile) error {
	what := "its octets are kept in " + filepath.Join(c.dir, k.name)
	if err := c.putBack(ctx, box, rc, k); err == nil {
		what = "it was put back"
		if err := k.remove(); err != nil {
			return err
		}
	}
	return &mail.Error{Kind: mail.KindIntegrity, Ref: mail.Ref{Account: c.Account(), Mailbox: mb.Name}, Op: "delete messages",
		Err:  fmt.Errorf("%w, %s of %s: what was deleted here was gone there, too; %s, and nothing else was deleted", errOneMailbox, box.Name, mail.AccountLabel(c.copies.at.Account()), what),
		Hint: "see which servers the two host names lead to"}
}

func (c *canary) putBack(ctx context.Context, to mail.Mailbox, rc mail.Receipt, k *keptFile) error {
	if c.dest == nil {
		return errors.New("nowhere to put it")
	}
	box, err := c.dest.Open(ctx, to.Name)
	if err != nil {
		return err
	}
	answers, err := c.dest.Append(ctx, box, []upload.Message{{
		Flags: box.Storable(rc.Info.Flags), InternalDate: rc.Info.InternalDate, Wire: rc.Wire, NUL: k.nul,
		Open: func() (io.ReadCloser, error) { return k.fsys.OpenFile(k.name, os.O_RDONLY) },
	}})
	if err == nil && (len(answers) != 1 || !answers[0].Stored) {
		err = errors.New("it was not stored")
	}
	return err
}

// keptFile holds the octets of the message that goes first.
type keptFile struct {
	fsys durable.FS
	name string
	nul  bool // there are NULs in them
}

const keptPrefix, keptSuffix = "kept-", ".eml"

// keep makes the octets of a copy durable in a file.
func (c *canary) keep(ctx context.Context, rc mail.Receipt) (k *keptFile, err error) {
	r, err := c.copies.Open(ctx, rc)
	if err != nil {
		return nil, err
	}
	defer r.Close() // read only
	fsys, err := durable.OpenRoot(c.dir)
	if err != nil {
		return nil, diskError("open "+c.dir, err)
	}
	k = &keptFile{fsys: fsys, name: keptPrefix + rc.Digest.String() + keptSuffix}
	if err := k.write(r); err != nil {
		return nil, diskError("write "+filepath.Join(c.dir, k.name), errors.Join(err, fsys.Remove(k.name), fsys.Close()))
	}
	return k, nil
}

// write replaces what an earlier run may have left there.
func (k *keptFile) write(r io.Reader) error {
	f, err := k.fsys.OpenFile(k.name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.MultiWriter(f, nulls{k}), r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return k.fsys.SyncDir(".")
}

// nulls notes whether there are NULs in what is written to it.
type nulls struct{ k *keptFile }

// Write implements io.Writer.
func (n nulls) Write(p []byte) (int, error) {
	n.k.nul = n.k.nul || bytes.IndexByte(p, 0) >= 0
	return len(p), nil
}

func (k *keptFile) remove() error {
	if err := k.fsys.Remove(k.name); err != nil {
		return diskError("remove "+k.name, err)
	}
	return nil
}

func (k *keptFile) close() { _ = k.fsys.Close() } // nothing of it is to become durable

// settleKept removes files of an earlier run that was ended, whose octets the
// destination has, and tells of any other.
func (c *canary) settleKept(ctx context.Context, notify mail.Notify) error {
	fsys, err := durable.OpenRoot(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return diskError("open "+c.dir, err)
	}
	defer fsys.Close()
	entries, err := fsys.ReadDir(".")
	if err != nil {
		return diskError("list "+c.dir, err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(strings.TrimPrefix(e.Name(), keptPrefix), keptSuffix)
		digest, err := mail.ParseDigest(name)
		if err != nil || e.Name() != keptPrefix+name+keptSuffix {
			continue
		}
		if c.has(ctx, digest) {
			err = fsys.Remove(e.Name())
		} else {
			err = fmt.Errorf("a run was ended while it deleted a message at the source, and the destination lacks it: its octets are in %s", filepath.Join(c.dir, e.Name()))
		}
		if err != nil && notify != nil {
			notify(mail.Event{Kind: mail.EventWarning, Ref: mail.Ref{Account: c.Account()}, Err: err})
		}
	}
	return nil
}

// has tells whether the destination gives back a copy with these octets.
func (c *canary) has(ctx context.Context, d mail.Digest) bool {
	for id, at := range c.copies.where {
		if at.digest != d || at.altered {
			continue
		}
		rc := placed(mail.Held{Message: id}).Receipt
		r, err := c.copies.Open(ctx, rc)
		if err != nil {
			continue
		}
		sums, err := mail.SumCanonical(r)
		if errors.Join(err, r.Close()) == nil && sums.Digest == d {
			return true
		}
	}
	return false
}
