package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"mailhaul/archive"
	"mailhaul/fetch"
	"mailhaul/internal/durable"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// place is where one archive and the memory of it lie.
type place struct {
	root, format string
	now          func() time.Time // see run
}

func (p place) archive() string { return filepath.Join(p.root, "archive") }

// run is one backup.
type run struct {
	wrap     func(durable.FS) durable.FS
	hook     func(string)
	recorded func(mailbox string, d mail.Digest) // after it is on record
	now      func() time.Time                    // nil for the clock of the machine
}

// noting tells what is on record.
type noting struct {
	fetch.Ledger
	recorded func(mailbox string, d mail.Digest)
}

func (n noting) Record(ctx context.Context, c mail.Change) error {
	err := n.Ledger.Record(ctx, c)
	if err == nil && n.recorded != nil {
		for _, a := range c.Archived {
			n.recorded(a.Receipt.Info.Ref.Mailbox, a.Receipt.Digest)
		}
	}
	return err
}

func (p place) open(o vault.Options) (*vault.Vault, error) {
	o.Format, o.Formats, o.StateDir = p.format, rig.Drivers, filepath.Join(p.root, "state")
	return vault.Open(context.Background(), p.archive(), o)
}

// backup is what the command does: the archive is opened, the engine runs, the
// archive is closed.
func (p place) backup(s fetch.Source, r run) (res fetch.Result, err error) {
	v, err := p.open(vault.Options{Create: true, WrapFS: r.wrap, Hook: r.hook, Now: r.now})
	if err != nil {
		return fetch.Result{}, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := v.Admit(s.Account(), false); err != nil {
		return fetch.Result{}, err
	}
	return fetch.Run(context.Background(), fetch.Options{
		Source: s, Archive: v.Archive, Ledger: noting{v.Ledger, r.recorded}, Parallel: 2, Now: r.now,
	})
}

// message names a message as it lies in an archive. Flags can be looked at from
// outside only in a Maildir.
func (p place) message(mailbox string, m message) rig.Message {
	name, _ := archive.Path(mailbox)
	flags := letters(m.flags)
	if p.format == "mbox" {
		flags = ""
	}
	return rig.Message{Mailbox: name, Digest: rig.Digest(rig.Canonical([]byte(m.wire))), Flags: flags}
}

// letters are the flags of a Maildir file.
func letters(f mail.Flags) (s string) {
	for _, l := range []struct{ flag, letter string }{{mail.Flagged, "F"}, {mail.Answered, "R"}, {mail.Seen, "S"}} {
		if f.Has(l.flag) {
			s += l.letter
		}
	}
	return s
}

// wanted is what an archive of the server holds, besides more.
func (p place) wanted(s *server, more ...message) rig.Multiset {
	c := rig.Multiset{}
	for box, list := range s.boxes {
		for _, m := range list {
			c[p.message(box, m)]++
		}
	}
	for _, m := range more {
		c[p.message(inbox, m)]++
	}
	return c
}

func (p place) held() (rig.Multiset, error) { return rig.Held(p.format, p.archive()) }

// verify reads everything on record back.
func (p place) verify() error {
	v, err := p.open(vault.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	var all []error
	sum, err := v.Verify(context.Background(), func(f vault.Finding) {
		all = append(all, fmt.Errorf("%v: %s %s: %w", f.Kind, f.Mailbox, f.Place, f.Err))
	})
	if err == nil && (!sum.Whole() || sum.Extra > 0) {
		err = errors.Join(all...)
	}
	return errors.Join(err, v.Close())
}

// complete runs the backup again, now undisturbed: each message is there exactly
// once, all of it verifies, and one more run changes nothing.
func (p place) complete(t *testing.T, s *server, when string, more ...message) bool {
	t.Helper()
	fail := func(what string, err any) bool {
		t.Errorf("%s: %s: %v", when, what, err)
		return false
	}
	if _, err := p.backup(s, run{now: p.now}); err != nil {
		return fail("the next run", err)
	}
	got, err := p.held()
	if err != nil {
		return fail("after the next run", err)
	}
	if d := gocmp.Diff(p.wanted(s, more...), got); d != "" {
		return fail("after the next run", d)
	}
	if err := p.verify(); err != nil {
		return fail("verify", err)
	}
	before, err := rig.Tree(p.root)
	if err != nil {
		return fail("after the next run", err)
	}
	if !s.uids { // octets decide there, so they are fetched each time
		s = &server{name: s.name, boxes: s.boxes}
	}
	res, err := p.backup(s, run{now: p.now})
	if err != nil || res.Archived+res.Failed > 0 {
		return fail("once more", fmt.Sprintf("%+v %v", res.Counts, err))
	}
	after, err := rig.Tree(p.root)
	if err != nil {
		return fail("once more", err)
	}
	if d := gocmp.Diff(before, after); d != "" {
		return fail("once more", "the archive changed: "+d)
	}
	return true
}

// copyTree copies a directory with its times.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(target, b, 0o600), os.Chtimes(target, st.ModTime(), st.ModTime()))
	})
}
