package migrate_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/clean"
	"mailhaul/fetch"
	fetchimap "mailhaul/fetch/imap"
	fetchpop3 "mailhaul/fetch/pop3"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/ledger"
	"mailhaul/mail"
	"mailhaul/migrate"
	"mailhaul/upload"
	destimap "mailhaul/upload/imap"
)

// pair is a migration between two Dovecots, run by run.
type pair struct {
	t        *testing.T
	from, to *dovecot.Server
	l        *ledger.Ledger
	pop3     bool
	now      time.Time // of the ledger and the engine: each run a minute later
	mapping  upload.Mapping
	lie      *liar // what the source says instead
}

func newPair(t *testing.T, from, to dovecot.Options) *pair {
	t.Helper()
	p := &pair{t: t, from: dovecot.Start(t, from), to: dovecot.Start(t, to), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	l, err := ledger.Open(t.TempDir(), ledger.Options{Format: "maildir", Now: func() time.Time { return p.now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Rebuilt(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	p.l = l
	return p
}

// open makes new sessions, as every run has.
func (p *pair) open() (src, copies clean.Source, d upload.Destination) {
	p.t.Helper()
	at := fetchimap.New(fetchimap.Config{Server: server(p.to, p.to.IMAP), Credentials: credentials})
	dest := destimap.New(destimap.Config{Server: server(p.to, p.to.IMAP), Credentials: credentials})
	var s fetch.Source = source(p.t, p.from)
	if p.pop3 {
		s = fetchpop3.New(fetchpop3.Config{Server: server(p.from, p.from.POP3), Credentials: credentials})
	}
	p.t.Cleanup(func() { _ = errors.Join(at.Close(), dest.Close(), s.Close()) })
	if p.lie != nil {
		p.lie.Source = s.(*fetchimap.Source)
		return p.lie, at, dest
	}
	return s.(clean.Source), at, dest
}

type removal func(ctx context.Context, o migrate.RemoveOptions) (clean.Result, error)

// pass migrates and then removes; change may alter what is known of the run.
func (p *pair) pass(remove removal, change func(*migrate.RemoveOptions)) (migrate.Result, clean.Result, error) {
	p.t.Helper()
	p.now = p.now.Add(time.Minute)
	src, copies, d := p.open()
	res, err := migrate.Run(p.t.Context(), migrate.Options{
		Source: src.(fetch.Source), Destination: d, Ledger: p.l, Parallel: 2, Dir: p.t.TempDir(),
		Now:    func() time.Time { return p.now },
		Upload: upload.Options{Mapping: p.mapping, Parallel: 2, Pause: time.Millisecond},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	if remove == nil {
		return res, clean.Result{}, nil
	}
	o := migrate.RemoveOptions{
		Source: src, Copies: copies, Destination: d, Account: migrate.AccountOf(d.Account()), Ledger: p.l, Dir: p.t.TempDir(),
		Listed: res.Complete, Began: res.Began,
	}
	if change != nil {
		change(&o)
	}
	got, err := remove(p.t.Context(), o)
	return res, got, err
}

func (p *pair) count(s *dovecot.Server, mailbox string, want int) {
	p.t.Helper()
	if n, err := s.Count("ada", mailbox); err != nil || n != want {
		p.t.Errorf("%s has %d messages, want %d, %v", mailbox, n, want, err)
	}
}

// alter changes an octet of the body of a message where the server keeps it.
func alter(t *testing.T, s *dovecot.Server, id string) {
	t.Helper()
	done := false
	err := filepath.WalkDir(s.Home("ada"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(path, ",S=") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte("Message-ID: "+id)) {
			return err
		}
		done = true
		i := bytes.LastIndex(b, []byte("body"))
		b[i] = 'B'
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || !done {
		t.Fatalf("message %s was not altered: %v", id, err)
	}
}

func command(t *testing.T, s *dovecot.Server, cmd string) {
	t.Helper()
	c, err := s.Dial("ada")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Cmd("%s", cmd); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) do(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// What the destination gives back, octet for octet, goes at the source; nothing
// else does.
func TestDeleteSource(t *testing.T) {
	t.Parallel()
	p := newPair(t, dovecot.Options{}, dovecot.Options{Separator: ".", Prefix: "INBOX."})
	fill(t, p.from, "INBOX", many(0, 30)...)
	flagged := message(500, "flagged")
	flagged.Flags = []string{`\Flagged`}
	fill(t, p.from, "Archive/2020", append(many(100, 20), flagged, message(600, "marked"))...)
	p.do(p.from.Store("ada", "Archive/2020", "22", "+FLAGS", `\Deleted`))
	p.pass(nil, nil)
	p.do(p.to.Expunge("ada", "INBOX", "3:5"))                     // the owner deleted these there
	fill(t, p.from, "INBOX", message(700, "came after the pass")) // and this is not at the destination yet
	src, copies, d := p.open()
	o := migrate.RemoveOptions{Source: src, Copies: copies, Account: migrate.AccountOf(d.Account()), Ledger: p.l, Dir: t.TempDir()}
	var plan *clean.Plan
	o.Confirm = func(got *clean.Plan) error { plan = got; return nil }
	res, err := migrate.RemoveSource(t.Context(), o)
	if err != nil || res.Deleted != 27+21 || res.Failed != 0 {
		t.Errorf("%v %+v", err, res)
	}
	if want := map[string]int64{migrate.WhyNotThere: 3, clean.WhyNotArchived: 1, clean.WhyMarked: 1}; !maps.Equal(res.Stayed, want) {
		t.Errorf("stayed: %v, want %v", res.Stayed, want)
	}
	if plan == nil || plan.Go.Messages != 48 {
		t.Errorf("the plan is %+v", plan)
	}
	p.count(p.from, "INBOX", 4)
	p.count(p.from, "Archive/2020", 1)
	p.count(p.to, "INBOX", 27)
	p.count(p.to, "INBOX.Archive.2020", 22)
	// What went is not missed, and what is left is moved in the next pass.
	next, _, _ := p.pass(migrate.RemoveSource, nil)
	if next.Uploaded != 1 || next.Failed != 0 {
		t.Errorf("the next pass: %+v", next.Counts)
	}
	p.count(p.from, "INBOX", 3)
	p.count(p.to, "INBOX", 28)
}

// A copy that is not what was sent keeps the message at the source.
func TestDeleteSourceComparesOctets(t *testing.T) {
	t.Parallel()
	p := newPair(t, dovecot.Options{}, dovecot.Options{})
	fill(t, p.from, "INBOX", many(0, 5)...)
	p.pass(nil, nil)
	alter(t, p.to, "<2@example.org>")
	src, copies, d := p.open()
	res, err := migrate.RemoveSource(t.Context(), migrate.RemoveOptions{
		Source: src, Copies: copies, Account: migrate.AccountOf(d.Account()), Ledger: p.l, Dir: t.TempDir(),
	})
	if mail.KindOf(err) != mail.KindIntegrity || res.Deleted != 4 || res.Failed != 1 {
		t.Errorf("%v %+v", err, res)
	}
	p.count(p.from, "INBOX", 1)
}

func TestDeleteSourceOverPOP3(t *testing.T) {
	t.Parallel()
	p := newPair(t, dovecot.Options{}, dovecot.Options{})
	p.pop3 = true
	fill(t, p.from, "INBOX", many(0, 30)...)
	_, res, err := p.pass(migrate.RemoveSource, nil)
	if err != nil || res.Deleted != 30 {
		t.Errorf("%v %+v", err, res)
	}
	p.count(p.from, "INBOX", 0)
	p.count(p.to, "INBOX", 30)
}

// Only what was sent, is unchanged and was lacking in two runs goes.
func TestDeleteExtra(t *testing.T) {
	t.Parallel()
	p := newPair(t, dovecot.Options{}, dovecot.Options{Separator: "."})
	own := many(900, 3)
	fill(t, p.to, "INBOX", append(slices.Clone(own), message(5, "body"))...) // the owner's, and one that is recognised
	fill(t, p.from, "INBOX", many(0, 20)...)
	fill(t, p.from, "Lists/go", many(100, 20)...)
	flagged := message(300, "flagged at the source")
	flagged.Flags = []string{`\Flagged`}
	fill(t, p.from, "INBOX", flagged)
	first, res, err := p.pass(migrate.RemoveExtra, nil)
	if err != nil || first.Adopted != 1 || first.Uploaded != 40 || res.Deleted != 0 {
		t.Fatalf("%v %+v %+v", err, first.Counts, res)
	}
	p.count(p.to, "INBOX", 24)
	p.do(p.from.Expunge("ada", "INBOX", "1:10,21")) // number 6 was recognised, not sent
	p.do(p.from.Expunge("ada", "Lists/go", "3"))
	// The copy of one of these the owner flags, and of another the octets differ.
	to, err := p.to.Messages("ada", "INBOX")
	p.do(err)
	uidOf := func(n int) (uid uint32) {
		for _, m := range to {
			if slices.Equal(m.Octets, message(n, "body").Octets) {
				uid = m.UID
			}
		}
		return uid
	}
	p.do(p.to.Store("ada", "INBOX", fmt.Sprint(uidOf(1)), "+FLAGS", `\Flagged`))
	alter(t, p.to, "<2@example.org>")
	if _, res, err = p.pass(migrate.RemoveExtra, nil); err != nil || res.Deleted != 0 {
		t.Errorf("lacking once: %v %+v", err, res)
	}
	p.count(p.to, "INBOX", 24)
	var plan *clean.Plan
	_, res, err = p.pass(migrate.RemoveExtra, func(o *migrate.RemoveOptions) {
		o.Confirm = func(got *clean.Plan) error { plan = got; return nil }
	})
	// Of eleven: one recognised, one flagged by the owner, one with other octets.
	if err != nil || res.Deleted != 8+1 || res.Stayed[clean.WhyFlagged] != 1 || res.Stayed[clean.WhyChanged] != 1 {
		t.Errorf("lacking twice: %v %+v", err, res)
	}
	if plan == nil || plan.Mailboxes[0].Messages != 24 {
		t.Errorf("the plan is %+v", plan)
	}
	p.count(p.to, "INBOX", 24-8)
	p.count(p.to, "Lists.go", 19)
	if next, res, err := p.pass(migrate.RemoveExtra, nil); err != nil || res.Deleted+next.Uploaded != 0 {
		t.Errorf("once more: %v %+v %+v", err, next.Counts, res)
	}
	p.count(p.to, "INBOX", 24-8)
}

// A mailbox that vanished, was renamed, emptied or has new UIDs removes nothing, nor
// does a message that came back or was not missed by an earlier run.
func TestDeleteExtraConcludesNothing(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(p *pair){
		"deleted": func(p *pair) { command(p.t, p.from, "DELETE Box") },
		"renamed": func(p *pair) { command(p.t, p.from, "RENAME Box Other") },
		"emptied": func(p *pair) { p.do(p.from.Expunge("ada", "Box", "1:*")) },
		"new UIDs": func(p *pair) {
			p.do(p.from.Expunge("ada", "Box", "1:3"))
			p.do(p.from.SetUIDValidity("ada", "Box", 4242))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, dovecot.Options{}, dovecot.Options{})
			fill(t, p.from, "Box", many(0, 6)...)
			p.pass(migrate.RemoveExtra, nil)
			change(p)
			for range 3 {
				if _, res, err := p.pass(migrate.RemoveExtra, nil); err != nil || res.Deleted != 0 {
					t.Errorf("%v %+v", err, res)
				}
			}
			p.count(p.to, "Box", 6)
		})
	}
}

// What we deleted at the source ourselves is not extra at the destination, nor is what
// another source of the same archive still has.
func TestDeleteExtraKeepsWhatWeDeleted(t *testing.T) {
	t.Parallel()
	p := newPair(t, dovecot.Options{}, dovecot.Options{})
	fill(t, p.from, "INBOX", many(0, 6)...)
	p.pass(nil, nil)
	if _, res, err := p.pass(migrate.RemoveSource, nil); err != nil || res.Deleted != 6 {
		t.Fatalf("%v %+v", err, res)
	}
	fill(t, p.from, "INBOX", many(10, 4)...) // so that the mailbox is not an emptied one
	p.pass(nil, nil)
	// 10 and 11 go at the source; 10 is at another one, too.
	var ten int64
	p.do(p.l.Messages(t.Context(), "INBOX", func(h mail.Held) error {
		if h.Receipt.Digest == sha256.Sum256(bytes.ReplaceAll(message(10, "body").Octets, []byte("\r\n"), []byte("\n"))) {
			ten = h.Message
		}
		return nil
	}))
	const other = "pop3:ada@other.example.org"
	in := mail.Info{Ref: mail.Ref{Account: other, Mailbox: "INBOX", UID: "x"}, Size: -1}
	p.do(p.l.Record(t.Context(), mail.Change{
		Adopted: []mail.Adoption{{Info: in, Message: ten}}, Cursors: []mail.Cursor{{Account: other, Mailbox: "INBOX", State: "s"}},
	}))
	p.do(p.from.Expunge("ada", "INBOX", "7:8"))
	for run, want := range []int64{0, 1} {
		if _, res, err := p.pass(migrate.RemoveExtra, nil); err != nil || res.Deleted != want {
			t.Errorf("run %d: %v %+v", run, err, res)
		}
	}
	p.count(p.to, "INBOX", 9)
}

// liar is a source that tells less than it has.
type liar struct {
	*fetchimap.Source
	mailbox func(mb *mail.Mailbox) (shown bool)
	list    func(n int) (shown bool, err error) // of the n-th message
}

func (l *liar) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	all, err := l.Source.Mailboxes(ctx)
	var shown []mail.Mailbox
	for _, mb := range all {
		if l.mailbox == nil || l.mailbox(&mb) {
			shown = append(shown, mb)
		}
	}
	return shown, err
}

func (l *liar) List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		n := 0
		for in, err := range l.Source.List(ctx, mb) {
			n++
			shown := true
			if err == nil && l.list != nil {
				shown, err = l.list(n)
			}
			if shown && !yield(in, err) {
				return
			}
		}
	}
}

// Changes would tell the truth.
func (l *liar) Changes(context.Context, mail.Mailbox, string) ([]mail.Info, int64, bool, error) {
	return nil, 0, false, nil
}

// A source that lies once, that never gives a whole listing, or that loses a mailbox
// for a while, removes nothing.
func TestDeleteExtraFromLyingSources(t *testing.T) {
	t.Parallel()
	p := newPair(t, dovecot.Options{}, dovecot.Options{})
	fill(t, p.from, "Box", many(0, 12)...)
	p.pass(migrate.RemoveExtra, nil)
	nothing := func(when string) {
		t.Helper()
		if _, res, err := p.pass(migrate.RemoveExtra, nil); err != nil || res.Deleted != 0 {
			t.Errorf("%s: %v %+v", when, err, res)
		}
		p.count(p.to, "Box", 12)
	}
	touch := func(n int) { fill(t, p.from, "INBOX", message(n, "other")) } // so that no state is as it was
	half := func(n int) (bool, error) { return n > 6, nil }
	for i := range 3 { // lies, and takes it back
		touch(100 + i)
		p.do(p.from.Store("ada", "Box", "1", "+FLAGS", fmt.Sprint("k", i)))
		p.lie = &liar{list: half}
		nothing("half a listing")
		p.lie = nil
		p.do(p.from.Store("ada", "Box", "1", "-FLAGS", fmt.Sprint("k", i)))
		nothing("a whole listing")
	}
	p.lie = &liar{mailbox: func(mb *mail.Mailbox) bool { return mb.Name != "Box" }}
	for range 3 {
		nothing("the mailbox is not listed")
	}
	p.lie = &liar{mailbox: func(mb *mail.Mailbox) bool { mb.State = ""; return true }, list: func(n int) (bool, error) {
		if n > 3 {
			return true, &mail.Error{Kind: mail.KindPartial, Err: errors.New("broke off")}
		}
		return false, nil
	}}
	for range 3 {
		p.now = p.now.Add(time.Minute)
		src, copies, d := p.open()
		res, err := migrate.Run(t.Context(), migrate.Options{
			Source: src.(fetch.Source), Destination: d, Ledger: p.l, Parallel: 1, Dir: t.TempDir(), Now: func() time.Time { return p.now },
		})
		if err == nil || slices.ContainsFunc(res.Complete, func(mb mail.Mailbox) bool { return mb.Name == "Box" }) {
			t.Errorf("an incomplete listing: %v, complete are %v", err, res.Complete)
		}
		got, err := migrate.RemoveExtra(t.Context(), migrate.RemoveOptions{
			Source: src, Copies: copies, Account: migrate.AccountOf(d.Account()), Ledger: p.l, Dir: t.TempDir(), Listed: res.Complete, Began: res.Began,
		})
		if err != nil || got.Deleted != 0 {
			t.Errorf("an incomplete listing: %v %+v", err, got)
		}
		p.count(p.to, "Box", 12)
	}
}
