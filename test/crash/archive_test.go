package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"mailhaul/archive"
	"mailhaul/archive/maildir"
	"mailhaul/archive/mbox"
	"mailhaul/fetch"
	"mailhaul/internal/durable"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

var formats = []string{"maildir", "mbox"}

var drivers = map[string]vault.Constructor{
	"maildir": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
		return maildir.New(fsys, a, maildir.Options{Host: "host"})
	},
	"mbox": func(fsys durable.FS, a archive.Anchors) (archive.Archive, error) {
		return mbox.New(fsys, a, mbox.Options{})
	},
}

// place is where one archive and the memory of it lie.
type place struct{ root, format string }

func (p place) archive() string { return filepath.Join(p.root, "archive") }

// run is one backup.
type run struct {
	wrap     func(durable.FS) durable.FS
	hook     func(string)
	recorded func(mailbox string, d mail.Digest) // after it is on record
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
	o.Format, o.Formats, o.StateDir = p.format, drivers, filepath.Join(p.root, "state")
	return vault.Open(context.Background(), p.archive(), o)
}

// backup is what the command does: the archive is opened, the engine runs, the
// archive is closed.
func (p place) backup(s *server, r run) (res fetch.Result, err error) {
	v, err := p.open(vault.Options{Create: true, WrapFS: r.wrap, Hook: r.hook})
	if err != nil {
		return fetch.Result{}, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if err := v.Admit(s.Account(), false); err != nil {
		return fetch.Result{}, err
	}
	return fetch.Run(context.Background(), fetch.Options{
		Source: s, Archive: v.Archive, Ledger: noting{v.Ledger, r.recorded}, Parallel: 2,
	})
}

// copies counts messages: by mailbox and digest, in a Maildir with the flags.
type copies map[string]int

// key names a message. Flags lie where they can be looked at from outside only in
// a Maildir.
func (p place) key(mailbox string, octets []byte, flags string) string {
	name, _ := archive.Path(mailbox)
	if p.format == "mbox" {
		flags = ""
	}
	return fmt.Sprintf("%s %s %s", name, digestOf(octets), flags)
}

func digestOf(octets []byte) mail.Digest {
	s, err := mail.SumCanonical(bytes.NewReader(octets))
	if err != nil {
		panic(err)
	}
	return s.Digest
}

func canonical(wire string) []byte {
	b := []byte(strings.ReplaceAll(wire, "\r\n", "\n"))
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return b
}

// letters are the flags of a Maildir file.
func letters(f mail.Flags) (s string) {
	for _, l := range []struct{ flag, letter string }{{mail.Flagged, "F"}, {mail.Answered, "R"}, {mail.Seen, "S"}} {
		if slices.Contains(strings.Fields(string(f)), l.flag) {
			s += l.letter
		}
	}
	return s
}

// wanted is what an archive of the server holds, besides more.
func (p place) wanted(s *server, more ...message) copies {
	c := copies{}
	for box, list := range s.boxes {
		for _, m := range list {
			c[p.key(box, canonical(m.wire), letters(m.flags))]++
		}
	}
	for _, m := range more {
		c[p.key(inbox, canonical(m.wire), letters(m.flags))]++
	}
	return c
}

// held reads an archive without mailhaul's help. What does not belong into an
// archive at rest is an error, besides the copies.
func (p place) held() (copies, error) {
	c := copies{}
	var strange []error
	err := filepath.WalkDir(p.archive(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == vault.Dir {
				return fs.SkipDir
			}
			return err
		}
		name, err := filepath.Rel(p.archive(), path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		switch {
		case p.format == "maildir" && strings.HasSuffix(dir, "/cur"):
			_, flags, _ := strings.Cut(filepath.Base(name), ":2,")
			c[fmt.Sprintf("%s %s %s", strings.TrimSuffix(dir, "/cur"), digestOf(b), flags)]++
		case p.format == "mbox" && strings.HasSuffix(name, ".mbox"):
			if err := addMbox(c, strings.TrimSuffix(filepath.ToSlash(name), ".mbox"), b); err != nil {
				strange = append(strange, err)
			}
		default:
			strange = append(strange, fmt.Errorf("%s does not belong there", name))
		}
		return nil
	})
	return c, errors.Join(append(strange, err)...)
}

var (
	beginning = regexp.MustCompile(`^From \S+ \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\nStatus:.*\nX-Status:.*\nX-Keywords:.*\n`)
	quoted    = regexp.MustCompile(`(?m)^>(>*From )`)
)

// addMbox reads an mbox as docs/formats.md describes it.
func addMbox(c copies, mailbox string, b []byte) error {
	for len(b) > 0 {
		head := beginning.Find(b)
		if head == nil {
			return fmt.Errorf("%s.mbox: %.80q begins no message", mailbox, b)
		}
		end := bytes.Index(b[len(head)-1:], []byte("\nFrom "))
		if end < 0 {
			end = len(b) - len(head)
		}
		body, ok := bytes.CutSuffix(b[len(head):len(head)+end], []byte("\n"))
		if !ok {
			return fmt.Errorf("%s.mbox: a message does not end in an empty line", mailbox)
		}
		c[fmt.Sprintf("%s %s ", mailbox, digestOf(quoted.ReplaceAll(body, []byte("$1"))))]++
		b = b[len(head)+end:]
	}
	return nil
}

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

// tree is every file: octets and mtime.
func (p place) tree() (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(p.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mtime := st.ModTime().UnixNano()
		if strings.Contains(path, vault.Dir) {
			mtime = 0 // the octets of the ledger count
		}
		all[path] = fmt.Sprintf("%d %d %s", len(b), mtime, digestOf(b))
		return nil
	})
	return all, err
}

// complete runs the backup again, now undisturbed: each message is there exactly
// once, all of it verifies, and one more run changes nothing.
func (p place) complete(t *testing.T, s *server, when string, more ...message) bool {
	t.Helper()
	fail := func(what string, err any) bool {
		t.Errorf("%s: %s: %v", when, what, err)
		return false
	}
	if _, err := p.backup(s, run{}); err != nil {
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
	before, err := p.tree()
	if err != nil {
		return fail("after the next run", err)
	}
	if !s.uids { // octets decide there, so they are fetched each time
		s = &server{name: s.name, boxes: s.boxes}
	}
	res, err := p.backup(s, run{})
	if err != nil || res.Archived+res.Failed > 0 {
		return fail("once more", fmt.Sprintf("%+v %v", res.Counts, err))
	}
	after, err := p.tree()
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

// has tells whether the archive holds the octets in the mailbox, with any flags.
func (c copies) has(mailbox string, d mail.Digest) bool {
	name, _ := archive.Path(mailbox)
	return slices.ContainsFunc(slices.Collect(maps.Keys(c)), func(k string) bool {
		return strings.HasPrefix(k, fmt.Sprintf("%s %s ", name, d))
	})
}
