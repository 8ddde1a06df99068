package imap_test

import (
	"bytes"
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

	"mailhaul/archive"
	"mailhaul/archive/maildir"
	"mailhaul/internal/auth"
	"mailhaul/internal/corpus"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/durable"
	"mailhaul/internal/relay"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/upload"
	"mailhaul/upload/imap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var date = time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)

// letter is one message of an archive under test.
type letter struct {
	mailbox string
	wire    []byte
	flags   mail.Flags
	date    time.Time
}

func text(n int, mailbox string, flags ...string) letter {
	return letter{mailbox: mailbox, flags: mail.NewFlags(flags...), date: date.Add(time.Duration(n) * time.Minute),
		wire: fmt.Appendf(nil, "From: ada@example.org\r\nMessage-ID: <%d@example.org>\r\nSubject: number %d\r\n\r\nbody %d\r\n.\r\nFrom there\r\n", n, n, n)}
}

func texts(n int, mailbox string) (all []letter) {
	for i := range n {
		all = append(all, text(i, mailbox))
	}
	return all
}

func openArchive(t testing.TB, dir string, hook func(string)) *vault.Vault {
	t.Helper()
	v, err := vault.Open(t.Context(), dir, vault.Options{Create: true, StateDir: t.TempDir(), Hook: hook, Formats: map[string]vault.Constructor{
		"maildir": func(fsys durable.FS, anchors archive.Anchors) (archive.Archive, error) {
			return maildir.New(fsys, anchors, maildir.Options{})
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// fill archives letters as a backup of another account would.
func fill(t testing.TB, v *vault.Vault, letters ...letter) {
	t.Helper()
	ctx := context.Background()
	for i, l := range letters {
		in := mail.Info{
			Ref:  mail.Ref{Account: "imap:old@example.org", Mailbox: l.mailbox, UIDValidity: 1, UID: strconv.Itoa(1000*int(v.Ledger.Recorded()) + i + 1)},
			Size: int64(len(l.wire)), InternalDate: l.date, DateFrom: mail.DateInternal, Flags: l.flags,
		}
		if err := v.Archive.Append(ctx, in, mail.NewCanonical(bytes.NewReader(l.wire), nil)); err != nil {
			t.Fatal(err)
		}
	}
	g, err := v.Archive.Commit(ctx)
	if err != nil {
		t.Fatal(err)
	}
	change := mail.Change{Anchors: g.Anchors}
	for _, rc := range g.Receipts {
		change.Archived = append(change.Archived, mail.Archived{Receipt: rc})
	}
	if err := v.Ledger.Record(ctx, change); err != nil {
		t.Fatal(err)
	}
}

func archiveOf(t testing.TB, letters ...letter) *vault.Vault {
	t.Helper()
	v := openArchive(t, t.TempDir(), nil)
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	fill(t, v, letters...)
	return v
}

func destination(t testing.TB, s *dovecot.Server, port int) *imap.Destination {
	t.Helper()
	d := imap.New(imap.Config{
		Server:      dial.Server{Host: s.Host, Port: port, CAFile: s.CAFile, Timeout: 10 * time.Second},
		Credentials: auth.Credentials{User: "grace", Password: auth.Secret(dovecot.Password)},
	})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func options(v *vault.Vault, d upload.Destination) upload.Options {
	return upload.Options{Destination: d, Messages: upload.FromArchive(v.Ledger, v.Archive), Ledger: v.Ledger, Parallel: 3, Pause: time.Millisecond}
}

func run(t testing.TB, o upload.Options) upload.Counts {
	t.Helper()
	res, err := upload.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, res.Counts)
	return res.Counts
}

func balanced(t testing.TB, c upload.Counts) {
	t.Helper()
	if c.Listed != c.Uploaded+c.Adopted+c.Skipped+c.Failed {
		t.Errorf("the sum does not add up: %+v", c)
	}
}

// canonical is what a message becomes.
func canonical(t testing.TB, wire []byte) string {
	t.Helper()
	b, _ := mail.CanonicalInPlace(append(make([]byte, 0, len(wire)+2), wire...))
	return string(b)
}

// holds compares a mailbox at the server with letters, as multisets of octets,
// date and flags.
func holds(t testing.TB, s *dovecot.Server, mailbox string, letters ...letter) {
	t.Helper()
	msgs, err := s.Messages("grace", mailbox)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range msgs {
		got = append(got, fmt.Sprintf("%s %s %q", m.Date.UTC(), mail.NewFlags(m.Flags...), canonical(t, m.Octets)))
	}
	for _, l := range letters {
		want = append(want, fmt.Sprintf("%s %s %q", l.date.UTC(), l.flags, canonical(t, l.wire)))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %d messages, want %d\n got %.2000s\nwant %.2000s", mailbox, len(got), len(want), strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestUploadToDovecot(t *testing.T) {
	for name, o := range map[string]dovecot.Options{
		"maildir":      {},
		"sdbox":        {MailLocation: dovecot.SDBox, Separator: "."},
		"INBOX prefix": {Separator: ".", Prefix: "INBOX.", MailLocation: "maildir:~/mail"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot.Start(t, o)
			letters := append(texts(250, "INBOX"), text(1, "Archive/2023/Grüße", `\Seen`, `\Flagged`, "$Forwarded", "custom"),
				text(2, "Sent Items", `\Seen`, `\Deleted`), text(2, "Sent", `\Answered`), text(3, "a.b"))
			v := archiveOf(t, letters...)
			d := destination(t, s, s.IMAPS)
			c := run(t, options(v, d))
			if c.Uploaded != int64(len(letters)) || c.Failed != 0 {
				t.Fatalf("%+v", c)
			}
			holds(t, s, "INBOX", letters[:250]...)
			sep := o.Separator
			if sep == "" {
				sep = "/"
			}
			holds(t, s, o.Prefix+strings.ReplaceAll("Archive/2023/Grüße", "/", sep), letters[250])
			letters[251].flags = mail.NewFlags(`\Seen`)
			holds(t, s, o.Prefix+"Sent", letters[251], letters[252])
			other := "a.b"
			if sep == "." {
				other = "a_b"
			}
			holds(t, s, o.Prefix+other, letters[253])

			again := run(t, options(v, d))
			if again.Skipped != c.Uploaded || again.Uploaded+again.Adopted+again.Flags != 0 {
				t.Errorf("second run: %+v", again)
			}
		})
	}
}

var hazards = corpus.Hazards

// The whole hazard corpus arrives; what Dovecot alters is said, and neither sent
// again nor failed.
func TestHazards(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	var letters []letter
	for i, h := range hazards() {
		letters = append(letters, letter{mailbox: "INBOX", wire: h.Octets, date: date.Add(time.Duration(i) * time.Hour)})
	}
	v := archiveOf(t, letters...)
	d := destination(t, s, s.IMAPS)
	var failed atomic.Int32
	o := options(v, d)
	o.Notify = func(e mail.Event) {
		if e.Kind == mail.EventFailed {
			failed.Add(1)
			if !strings.Contains(e.Err.Error(), "zero byte message") {
				t.Errorf("%v", e.Err)
			}
		}
	}
	c := run(t, o)
	if c.Failed != 1 || failed.Load() != 1 || c.Uploaded != int64(len(letters)-1) || c.Altered == 0 {
		t.Fatalf("%+v", c)
	}
	n, err := s.Count("grace", "INBOX")
	if err != nil || n != len(letters)-1 {
		t.Errorf("%d messages, %v", n, err)
	}
	again := run(t, o)
	if again.Failed != 1 || again.Skipped != c.Uploaded {
		t.Errorf("second run: %+v", again)
	}
	if n, err := s.Count("grace", "INBOX"); err != nil || n != len(letters)-1 {
		t.Errorf("%d messages after the second run, %v", n, err)
	}
}

// A destination partly filled by another program: what is there is recognised by
// content, each copy once.
func TestAdopt(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	twice := text(7, "INBOX")
	same1, same2 := text(8, "INBOX"), text(8, "INBOX")
	same2.wire = bytes.Replace(same2.wire, []byte("body 8"), []byte("BODY 8"), 1)
	letters := []letter{text(1, "INBOX"), text(2, "INBOX"), twice, twice, same1, same2}
	foreign := text(9, "INBOX")
	for _, l := range []letter{letters[1], twice, same2, foreign} {
		if err := s.Append("grace", "INBOX", dovecot.Message{Octets: l.wire, Date: l.date}); err != nil {
			t.Fatal(err)
		}
	}
	v := archiveOf(t, letters...)
	d := destination(t, s, s.IMAPS)
	c := run(t, options(v, d))
	if c.Adopted != 3 || c.Uploaded != 3 {
		t.Fatalf("%+v", c)
	}
	holds(t, s, "INBOX", append(letters, foreign)...)
	if again := run(t, options(v, d)); again.Skipped != 6 {
		t.Errorf("second run: %+v", again)
	}
	// A new UIDVALIDITY: everything is recognised again.
	if err := s.SetUIDValidity("grace", "INBOX", 4711); err != nil {
		t.Fatal(err)
	}
	if again := run(t, options(v, destination(t, s, s.IMAPS))); again.Adopted != 6 {
		t.Errorf("after a new UIDVALIDITY: %+v", again)
	}
	holds(t, s, "INBOX", append(letters, foreign)...)
}

// The connection is cut after so many octets up, or down, at every run; each
// message arrives once.
func TestCuts(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{})
	for _, down := range []bool{false, true} {
		step := int64(6100)
		if down {
			step = 1700
		}
		t.Run(fmt.Sprintf("down=%v", down), func(t *testing.T) {
			letters := texts(120, "INBOX")
			for cut := int64(1000); ; cut += step {
				user := fmt.Sprintf("u%v%d", down, cut)
				v := openArchive(t, t.TempDir(), nil)
				fill(t, v, letters...)
				o := relay.Options{CutUp: cut, Broken: 2}
				if down {
					o = relay.Options{CutDown: cut, Broken: 2}
				}
				r, err := relay.Start(net.JoinHostPort(s.Host, strconv.Itoa(s.IMAP)), o)
				if err != nil {
					t.Fatal(err)
				}
				d := imap.New(imap.Config{
					Server:      dial.Server{Host: "127.0.0.1", Port: r.Port(), Security: dial.Cleartext, Timeout: 10 * time.Second},
					Credentials: auth.Credentials{User: user, Password: auth.Secret(dovecot.Password)},
				})
				for try := 0; ; try++ {
					_, err = upload.Run(t.Context(), options(v, d))
					if err == nil {
						break
					}
					if mail.KindOf(err) != mail.KindTemporary || try > 5 {
						t.Fatalf("cut at %d: %v", cut, err)
					}
				}
				unbroken := r.Connections() == 1
				if err := errors.Join(d.Close(), r.Close(), v.Close()); err != nil {
					t.Error(err)
				}
				if n, err := s.Count(user, "INBOX"); err != nil || n != len(letters) {
					t.Fatalf("cut at %d: %d messages, %v", cut, n, err)
				}
				if unbroken {
					return
				}
			}
		})
	}
}

// A full mailbox ends the upload after a few refusals; what fits has arrived, and
// the rest is kept for the next run.
func TestQuota(t *testing.T) {
	t.Parallel()
	s := dovecot.Start(t, dovecot.Options{Quota: "100k"})
	var letters []letter
	for i := range 60 {
		l := text(i, "INBOX")
		l.wire = append(l.wire, strings.Repeat("a line of some length to fill the space\r\n", 100)...)
		letters = append(letters, l)
	}
	v := archiveOf(t, letters...)
	o := options(v, destination(t, s, s.IMAPS))
	c := run(t, o)
	n, err := s.Count("grace", "INBOX")
	if err != nil || c.Uploaded != int64(n) || n == 0 || c.Failed != int64(60-n) || c.Failed == 0 {
		t.Errorf("%d messages there, %v: %+v", n, err, c)
	}
}
