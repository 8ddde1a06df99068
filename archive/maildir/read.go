package maildir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// octets is an open message; its errors name the path.
type octets struct {
	f   durable.File
	ref mail.Ref
}

func (o *octets) Read(p []byte) (int, error) {
	n, err := o.f.Read(p)
	if err != nil && err != io.EOF {
		err = diskError(o.ref, "read "+o.f.Name(), err)
	}
	return n, err
}

func (o *octets) Close() error { return o.f.Close() }

// splitPlace divides a place into the directory of the mailbox and the part of the
// name that identifies the message.
func splitPlace(place string) (dir, stem string, err error) {
	above, name := path.Split(place)
	above = strings.TrimSuffix(above, "/")
	if sub := path.Base(above); !fs.ValidPath(place) || (sub != "cur" && sub != "new") || path.Dir(above) == "." {
		return "", "", fmt.Errorf("%q is no place of a message: %w", place, fs.ErrNotExist)
	}
	stem, _, _ = splitInfo(name)
	return path.Dir(above), stem, nil
}

// Open implements archive.Archive. Where the file is not under the flags of the
// receipt, the directory is read once for many messages.
func (a *Archive) Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	f, _, err := a.openMessage(ctx, rc)
	if err != nil {
		return nil, err
	}
	return &octets{f: f, ref: rc.Info.Ref}, nil
}

// Remove implements archive.Remover.
func (a *Archive) Remove(ctx context.Context, rc mail.Receipt) error {
	f, name, err := a.openMessage(ctx, rc)
	if err != nil {
		return err
	}
	err = errors.Join(f.Close(), a.fsys.Remove(name), a.fsys.SyncDir(path.Dir(name)))
	if err != nil {
		return diskError(rc.Info.Ref, "remove "+name, err)
	}
	return nil
}

// openMessage also returns the name of the file.
func (a *Archive) openMessage(ctx context.Context, rc mail.Receipt) (durable.File, string, error) {
	dir, stem, err := splitPlace(rc.Place)
	if err != nil {
		return nil, "", err
	}
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	name := a.guess(rc, dir, stem)
	f, err := a.fsys.OpenFile(name, os.O_RDONLY)
	for round := 0; errors.Is(err, fs.ErrNotExist) && round < 3; round++ { // a reader may rename it just now
		if name, err = a.index.find(a.fsys, dir, stem, round > 0); err == nil {
			f, err = a.fsys.OpenFile(name, os.O_RDONLY)
		}
		if errors.Is(err, errNotIndexed) {
			break
		}
	}
	if err != nil {
		return nil, "", diskError(rc.Info.Ref, "open "+rc.Place, err)
	}
	return f, name, nil
}

// guess is the name the message has if nobody changed its flags.
func (a *Archive) guess(rc mail.Receipt, dir, stem string) string {
	b := a.box(rc.Info.Ref.Mailbox)
	var k keywords
	if b.dir == dir && len(rc.Info.Flags.Keywords()) > 0 {
		b.mu.Lock()
		if a.ensureKeywords(b) == nil {
			k.names = b.keywords.names[:len(b.keywords.names):len(b.keywords.names)]
		}
		b.mu.Unlock()
	}
	a.mu.Lock()
	sep := a.sep
	a.mu.Unlock()
	return dir + "/cur/" + stem + string(sep) + "2," + k.letters(rc.Info.Flags)
}

// Receipts implements archive.Archive: what lies in cur and new, the latter being
// where other programs deliver to.
func (a *Archive) Receipts(ctx context.Context, mailbox string) iter.Seq2[mail.Receipt, error] {
	return func(yield func(mail.Receipt, error) bool) {
		b := a.box(mailbox)
		err := a.each(ctx, b, func(sub, name string) (bool, error) {
			rc, err := a.receipt(ctx, b, sub, name, false)
			if errors.Is(err, fs.ErrNotExist) { // removed since the directory was read
				return true, nil
			}
			return err == nil && yield(rc, nil), err
		})
		if err != nil {
			yield(mail.Receipt{}, err)
		}
	}
}

// each calls f for every message file of a mailbox until it returns false.
func (a *Archive) each(ctx context.Context, b *box, f func(sub, name string) (bool, error)) error {
	for _, sub := range []string{"cur", "new"} {
		entries, err := a.fsys.ReadDir(b.dir + "/" + sub)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return diskError(mail.Ref{Mailbox: b.mailbox}, "list "+b.dir+"/"+sub, err)
		}
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			if more, err := f(sub, e.Name()); err != nil || !more {
				return err
			}
		}
	}
	return nil
}

// errTorn says that a file is shorter or longer than its name says.
var errTorn = errors.New("size does not fit the name")

// receipt reads one file. With settle, its octets are made durable, and a file
// whose size is not that in its name is errTorn.
func (a *Archive) receipt(ctx context.Context, b *box, sub, name string, settle bool) (mail.Receipt, error) {
	stem, letters, _ := splitInfo(name)
	rc := mail.Receipt{Place: b.cur(stem), Info: mail.Info{Ref: mail.Ref{Mailbox: b.mailbox}, DateFrom: mail.DateFromFileTime}}
	fail := func(op string, err error) (mail.Receipt, error) {
		return mail.Receipt{}, diskError(rc.Info.Ref, op+" "+b.dir+"/"+sub+"/"+name, err)
	}
	b.mu.Lock()
	err := a.ensureKeywords(b)
	rc.Info.Flags = b.keywords.flags(letters)
	b.mu.Unlock()
	if err != nil {
		return mail.Receipt{}, err
	}
	f, err := a.fsys.OpenFile(b.dir+"/"+sub+"/"+name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		f, _, err = a.openMessage(ctx, rc)
	}
	if err != nil {
		return fail("open", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && settle {
		err = f.Sync()
	}
	if err == nil {
		rc.Sums, err = mail.SumCanonical(f)
	}
	if err != nil {
		return fail("read", err)
	}
	if size, ok := statedSize(stem); ok && settle && size != rc.Octets {
		return mail.Receipt{}, errTorn
	}
	rc.Info.InternalDate, rc.Info.Size = date(st), rc.Wire
	return rc, nil
}

// statedSize is the number behind ",S=" in a file name.
func statedSize(stem string) (int64, bool) {
	_, s, ok := strings.Cut(stem, ",S=")
	if !ok {
		return 0, false
	}
	s, _, _ = strings.Cut(s, ",")
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// Recover implements archive.Archive: it removes what a killed run left in tmp and
// returns the messages that the ledger lacks, if a run was killed (the anchor is
// open) or the ledger knows none at all. Otherwise what it does not know was put
// there by somebody else and stays as it is.
func (a *Archive) Recover(ctx context.Context, mailbox string, anchor archive.Anchor, known func(place string) bool) (archive.Found, error) {
	b := a.box(mailbox)
	if err := a.sweep(b); err != nil {
		return archive.Found{}, err
	}
	var unknown []file
	anyKnown := false
	err := a.each(ctx, b, func(sub, name string) (bool, error) {
		stem, _, _ := splitInfo(name)
		if known(b.cur(stem)) {
			anyKnown = true
		} else {
			unknown = append(unknown, file{sub, name})
		}
		return true, nil
	})
	if err != nil || len(unknown) == 0 || (anyKnown && !anchor.Open) {
		return archive.Found{}, err
	}
	list, err := a.receiptsOf(ctx, b, unknown)
	return archive.Found{Receipts: list}, err
}

// Strays implements archive.Strayer.
func (a *Archive) Strays(ctx context.Context, mailbox string, since time.Time, known func(place string) bool) ([]mail.Receipt, error) {
	b := a.box(mailbox)
	if st, err := a.fsys.Lstat(b.dir + "/cur"); err == nil {
		// Whoever restores a copy sets mtimes back, and nobody ctimes.
		if at, ok := changeTime(st); ok && !at.Truncate(time.Millisecond).After(since) {
			return nil, nil
		}
	}
	var strays []file
	err := a.each(ctx, b, func(sub, name string) (bool, error) {
		stem, _, _ := splitInfo(name)
		if _, sized := statedSize(stem); sized && isOwn(stem) && !known(b.cur(stem)) {
			strays = append(strays, file{sub, name})
		}
		return true, nil
	})
	if err != nil || len(strays) == 0 {
		return nil, err
	}
	return a.receiptsOf(ctx, b, strays)
}

// file is a file of a mailbox, in cur or new.
type file struct{ sub, name string }

// receiptsOf makes files durable and returns their receipts. Torn ones are left out.
func (a *Archive) receiptsOf(ctx context.Context, b *box, files []file) (list []mail.Receipt, err error) {
	for _, f := range files {
		rc, err := a.receipt(ctx, b, f.sub, f.name, true)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTorn) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, rc)
	}
	return list, a.settle(b)
}

// settle makes the entries of cur and new, and the way to them, durable.
func (a *Archive) settle(b *box) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := a.fsys.SyncDir(b.dir + "/new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(mail.Ref{Mailbox: b.mailbox}, "sync "+b.dir+"/new", err)
	}
	return a.syncBox(b)
}

// sweep removes what an earlier run left in tmp; names of other programs stay.
func (a *Archive) sweep(b *box) error {
	entries, err := a.fsys.ReadDir(b.dir + "/tmp")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if err != nil {
			break
		}
		if e.Type().IsRegular() && isOwn(e.Name()) {
			err = a.fsys.Remove(b.tmp(e.Name()))
		}
	}
	return diskError(mail.Ref{Mailbox: b.mailbox}, "sweep "+b.dir+"/tmp", err)
}

// SetFlags implements archive.Flagger. The new name is durable after the next
// Commit or Close; a power loss before may bring the old flags back.
func (a *Archive) SetFlags(ctx context.Context, rc mail.Receipt, base, now mail.Flags) (mail.Receipt, error) {
	dir, stem, err := splitPlace(rc.Place)
	if err != nil {
		return rc, err
	}
	b := a.box(rc.Info.Ref.Mailbox)
	if b.dir != dir {
		return rc, fmt.Errorf("%q is no place in %s: %w", rc.Place, rc.Info.Ref.Mailbox, fs.ErrNotExist)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return rc, b.broken
	}
	if err := a.learn(b, []mail.Flags{now}); err != nil {
		return rc, err
	}
	if err := a.ensureKeywords(b); err != nil {
		return rc, err
	}
	for round := range 3 { // a reader may rename it just now
		if err := ctx.Err(); err != nil {
			return rc, err
		}
		rc.Info.Flags, err = a.rename(b, stem, rc.Info.Flags, base, now, round > 0)
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotIndexed) {
			break
		}
	}
	if err != nil {
		return rc, diskError(rc.Info.Ref, "set flags of "+rc.Place, err)
	}
	return rc, nil
}

// SetDate implements archive.Flagger. A power loss may bring the old date back.
func (a *Archive) SetDate(ctx context.Context, rc mail.Receipt, date time.Time) error {
	dir, stem, err := splitPlace(rc.Place)
	if err != nil {
		return err
	}
	b := a.box(rc.Info.Ref.Mailbox)
	if b.dir != dir {
		return fmt.Errorf("%q is no place in %s: %w", rc.Place, rc.Info.Ref.Mailbox, fs.ErrNotExist)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for round := range 3 { // a reader may rename it just now
		if err := ctx.Err(); err != nil {
			return err
		}
		var name string
		if name, err = a.index.find(a.fsys, b.dir, stem, round > 0); err == nil {
			err = a.fsys.Chtimes(name, date)
		}
		if !errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotIndexed) {
			break
		}
	}
	return diskError(rc.Info.Ref, "set date of "+rc.Place, err)
}

// rename changes the flags in the name of a file and returns all the flags the
// message has then; b.mu is held.
func (a *Archive) rename(b *box, stem string, had, base, now mail.Flags, again bool) (mail.Flags, error) {
	name, err := a.index.find(a.fsys, b.dir, stem, again)
	if err != nil {
		return had, err
	}
	_, letters, sep := splitInfo(path.Base(name))
	if sep == 0 {
		a.mu.Lock()
		sep = a.sep
		a.mu.Unlock()
	}
	local := b.keywords.flags(letters)
	for _, kw := range had.Keywords() { // those without a letter are not in the name
		if !b.keywords.has(kw) {
			local = local.With(kw)
		}
	}
	if had.Has(mail.Deleted) {
		local = local.With(mail.Deleted)
	}
	merged := mail.MergeFlags(base, now, local)
	next := b.cur(stem + string(sep) + "2," + b.keywords.replaceLetters(letters, merged))
	if next == name {
		return merged, nil
	}
	if err := a.fsys.Rename(name, next); err != nil {
		return had, err
	}
	a.index.moved(b.dir, stem, next)
	b.dirty = true
	return merged, nil
}
