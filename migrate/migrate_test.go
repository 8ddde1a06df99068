package migrate_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailhaul/fetch"
	fetchimap "mailhaul/fetch/imap"
	fetchpop3 "mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/ledger"
	"mailhaul/internal/relay"
	"mailhaul/mail"
	"mailhaul/migrate"
	"mailhaul/upload"
	destimap "mailhaul/upload/imap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func message(n int, body string) dovecot.Message {
	return dovecot.Message{
		Date:   time.Date(2020, 1, 2, 3, 4, n%60, 0, time.UTC),
		Octets: fmt.Appendf(nil, "From: ada@example.org\r\nMessage-ID: <%d@example.org>\r\nSubject: %d\r\n\r\n%s\r\n", n, n, body),
	}
}

func server(s *dovecot.Server, port int) dial.Server {
	return dial.Server{Host: s.Host, Port: port, Security: dial.Cleartext, Timeout: 10 * time.Second}
}

// credentials are those of one user, who has an account on every server.
var credentials = auth.Credentials{User: "ada", Password: auth.Secret(dovecot.Password)}

func source(t testing.TB, s *dovecot.Server) fetch.Source {
	t.Helper()
	src := fetchimap.New(fetchimap.Config{Server: server(s, s.IMAP), Credentials: credentials})
	t.Cleanup(func() { _ = src.Close() })
	return src
}

func openLedger(t testing.TB) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.TempDir(), ledger.Options{Format: "maildir"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Rebuilt(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func once(t testing.TB, src fetch.Source, dest *dovecot.Server, port int, l migrate.Ledger, change func(*migrate.Options)) (migrate.Result, error) {
	t.Helper()
	d := destimap.New(destimap.Config{Server: server(dest, port), Credentials: credentials})
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	o := migrate.Options{Source: src, Destination: d, Ledger: l, Parallel: 2, Dir: t.TempDir(), Upload: upload.Options{Parallel: 2, Pause: time.Millisecond}}
	if change != nil {
		change(&o)
	}
	return migrate.Run(t.Context(), o)
}

func run(t testing.TB, src fetch.Source, dest *dovecot.Server, l migrate.Ledger) migrate.Result {
	t.Helper()
	res, err := once(t, src, dest, dest.IMAP, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Listed != res.Uploaded+res.Adopted+res.Skipped+res.Failed || res.Skipped < 0 {
		t.Errorf("the sum does not add up: %+v", res.Counts)
	}
	return res
}

// same wants equal mailboxes: octets, dates and flags, as multisets.
func same(t testing.TB, a *dovecot.Server, nameA string, b *dovecot.Server, nameB string) {
	t.Helper()
	if x, y := content(t, a, nameA), content(t, b, nameB); !slices.Equal(x, y) {
		t.Errorf("%s has %d messages, %s has %d", nameA, len(x), nameB, len(y))
	}
}

// content is a mailbox as a multiset.
func content(t testing.TB, s *dovecot.Server, name string) (all []string) {
	t.Helper()
	msgs, err := s.Messages("ada", name)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		all = append(all, fmt.Sprintf("%s %s %q", m.Date.UTC(), mail.NewFlags(m.Flags...), m.Octets))
	}
	slices.Sort(all)
	return all
}

func fill(t testing.TB, s *dovecot.Server, mailbox string, msgs ...dovecot.Message) {
	t.Helper()
	if err := s.Append("ada", mailbox, msgs...); err != nil {
		t.Fatal(err)
	}
}

func many(from, n int) (all []dovecot.Message) {
	for i := range n {
		all = append(all, message(from+i, "body"))
	}
	return all
}

// A first pass, a pass with nothing new, delta passes with new mail and changed
// flags, and one whose ledger was lost.
func TestPasses(t *testing.T) {
	t.Parallel()
	from := dovecot.Start(t, dovecot.Options{})
	to := dovecot.Start(t, dovecot.Options{Separator: ".", MailLocation: dovecot.SDBox})
	fill(t, from, "INBOX", many(0, 250)...)
	flagged := message(1, "flagged")
	flagged.Flags = []string{`\Flagged`, "$Forwarded"}
	fill(t, from, "Archive/2020", message(1, "a"), message(1, "a"), message(1, "b"), flagged)
	fill(t, from, "Sent Items", message(7, strings.Repeat("a long line of text\r\n", 30_000)))
	l := openLedger(t)
	src := source(t, from)
	if res := run(t, src, to, l); res.Uploaded != 255 || res.Failed != 0 {
		t.Fatalf("%+v", res.Counts)
	}
	check := func() {
		t.Helper()
		same(t, from, "INBOX", to, "INBOX")
		same(t, from, "Archive/2020", to, "Archive.2020")
	}
	check()
	same(t, from, "Sent Items", to, "Sent Items")
	if res := run(t, src, to, l); res.Skipped != 255 || res.Uploaded+res.Adopted+res.Flags != 0 {
		t.Errorf("nothing new: %+v", res.Counts)
	}
	fill(t, from, "INBOX", many(1000, 30)...)
	if err := from.Store("ada", "INBOX", "1:10", "+FLAGS", `\Seen`); err != nil {
		t.Fatal(err)
	}
	src = source(t, from) // as every run has: a session may not see what others do
	if res := run(t, src, to, l); res.Uploaded != 30 || res.Flags != 10 {
		t.Errorf("a delta pass: %+v", res.Counts)
	}
	check()
	if res := run(t, src, to, openLedger(t)); res.Adopted != 285 || res.Uploaded != 0 {
		t.Errorf("without its ledger: %+v", res.Counts)
	}
	check()
}

func TestPOP3(t *testing.T) {
	t.Parallel()
	from, to := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})
	fill(t, from, "INBOX", many(0, 40)...)
	l := openLedger(t)
	for pass, want := range []int64{40, 0} {
		src := fetchpop3.New(fetchpop3.Config{Server: server(from, from.POP3), Credentials: credentials})
		res, err := once(t, src, to, to.IMAP, l, func(o *migrate.Options) { o.Upload.MarkSeen = true })
		if err := errors.Join(err, src.Close()); err != nil {
			t.Fatal(err)
		}
		if res.Uploaded != want || res.Failed != 0 {
			t.Errorf("pass %d: %+v", pass, res.Counts)
		}
	}
	st, err := to.Status("ada", "INBOX")
	if err != nil || st["MESSAGES"] != 40 || st["UNSEEN"] != 0 {
		t.Errorf("%v %v", st, err)
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	from, to := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})
	fill(t, from, "INBOX", many(0, 5)...)
	var plan []upload.Target
	res, err := once(t, source(t, from), to, to.IMAP, openLedger(t), func(o *migrate.Options) {
		o.Upload.DryRun = true
		o.Upload.Plan = func(all []upload.Target) { plan = all }
	})
	if err != nil || res.Uploaded != 5 || len(plan) == 0 {
		t.Errorf("%v %+v %v", err, res.Counts, plan)
	}
	if n, err := to.Count("ada", "INBOX"); err != nil || n != 0 {
		t.Errorf("%d messages sent in a dry run, %v", n, err)
	}
}

// What is at the destination and was never compared is told: it may be equal.
func TestDryRunUncompared(t *testing.T) {
	t.Parallel()
	from, to := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})
	fill(t, from, "INBOX", many(0, 5)...)
	l := openLedger(t)
	pass := func(dry bool) (f upload.Forecast) {
		t.Helper()
		_, err := once(t, source(t, from), to, to.IMAP, l, func(o *migrate.Options) {
			o.Upload.DryRun = dry
			o.Upload.Forecast = func(got upload.Forecast) { f = got }
		})
		if err != nil {
			t.Error(err)
		}
		return f
	}
	if f := pass(true); f.Messages != 5 || f.Uncompared != 0 {
		t.Errorf("nothing is there: %+v", f)
	}
	fill(t, from, "Done", many(20, 3)...)
	fill(t, to, "Elsewhere", many(30, 3)...)
	pass(false)
	fill(t, to, "Done", many(40, 2)...)
	fill(t, from, "INBOX", many(5, 2)...)
	fill(t, to, "INBOX", many(5, 1)...)
	if f := pass(true); f.Messages != 2 || f.Uncompared != 1 {
		t.Errorf("one of two is there: %+v", f)
	}
}

// cut is a ledger of a run that is killed.
type cut struct {
	*ledger.Ledger
	left *atomic.Int64
}

var errKilled = errors.New("killed")

func (c cut) next() error {
	if c.left.Add(-1) <= 0 {
		return errKilled
	}
	return nil
}

func (c cut) Record(ctx context.Context, ch mail.Change) error {
	if err := c.next(); err != nil {
		return err
	}
	return errors.Join(c.Ledger.Record(ctx, ch), c.next())
}

func (c cut) IntendUploads(ctx context.Context, s mail.Sending) ([]int64, error) {
	if err := c.next(); err != nil {
		return nil, err
	}
	ids, err := c.Ledger.IntendUploads(ctx, s)
	return ids, errors.Join(err, c.next())
}

func (c cut) SettleUploads(ctx context.Context, r []mail.Uploaded) error {
	if err := c.next(); err != nil {
		return err
	}
	return errors.Join(c.Ledger.SettleUploads(ctx, r), c.next())
}

// Killed at every step of the ledger, and then cut off at the destination, the same
// run again ends with each message there once.
func TestKilledAndCut(t *testing.T) {
	t.Parallel()
	from, to := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})
	fill(t, from, "INBOX", append(many(0, 20), message(3, "body"), message(3, "ydob"))...)
	src := source(t, from)
	for step := 1; ; step++ {
		for _, name := range []string{"INBOX"} {
			if n, err := to.Count("ada", name); err == nil && n > 0 {
				if err := to.Expunge("ada", name, "1:*"); err != nil {
					t.Fatal(err)
				}
			}
		}
		l, left := openLedger(t), new(atomic.Int64)
		left.Store(int64(step))
		_, err := once(t, src, to, to.IMAP, cut{l, left}, nil)
		if err != nil && !errors.Is(err, errKilled) {
			t.Fatalf("step %d: %v", step, err)
		}
		r, rerr := relay.Start(net.JoinHostPort(to.Host, strconv.Itoa(to.IMAP)), relay.Options{CutUp: int64(150 + 100*step), Broken: 1})
		if rerr != nil {
			t.Fatal(rerr)
		}
		_, _ = once(t, src, to, r.Port(), l, nil) // may fail; the next completes it
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		run(t, src, to, l)
		same(t, from, "INBOX", to, "INBOX")
		if t.Failed() {
			t.Fatalf("step %d", step)
		}
		if err == nil {
			return
		}
	}
}
