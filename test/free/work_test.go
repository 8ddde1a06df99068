package free

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/clean"
	"mailhaul/fetch"
	"mailhaul/fetch/imap"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// work is one run of backup --delete --keep 10d: where to, where from, and who
// listens.
type work struct {
	Root, Format string
	Scheme, User string
	CAFile       string
	Port         int
	IMAPS        int // where undo goes
	Mode         string
	Undo         bool // put back instead

	trace io.Writer
	hook  func(string)
	now   func() time.Time // nil for the clock of the machine
}

type source interface {
	fetch.Source
	clean.Deleter
}

func (w work) source() source {
	server, c := w.server()
	if server.Protocol == "pop3" {
		return pop3.New(pop3.Config{Server: server, Credentials: c, Pause: time.Millisecond})
	}
	return imap.New(imap.Config{Server: server, Credentials: c, Connections: 1, Pause: time.Millisecond})
}

func (w work) server() (dial.Server, auth.Credentials) {
	server := dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: w.Port, CAFile: w.CAFile, Timeout: 5 * time.Second}
	if w.trace != nil {
		server.Trace = &dial.Trace{W: w.trace}
	}
	c := auth.Credentials{User: w.User, Password: dovecot.Password}
	if w.Scheme == "pop3s" {
		server.Protocol = "pop3"
	}
	return server, c
}

func (w work) open(o vault.Options) (*vault.Vault, error) {
	o.Format, o.Formats, o.StateDir, o.Now = w.Format, rig.Drivers, filepath.Join(w.Root, "state"), w.now
	return vault.Open(context.Background(), w.archive(), o)
}

func (w work) archive() string { return filepath.Join(w.Root, "archive") }

// run copies and deletes.
func (w work) run() (res clean.Result, err error) {
	ctx := context.Background()
	src := w.source()
	defer func() { err = errors.Join(err, src.Close()) }()
	v, err := w.open(vault.Options{Create: true, Hook: w.hook})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	if _, err := fetch.Run(ctx, fetch.Options{Source: src, Archive: v.Archive, Ledger: v.Ledger, Now: w.now}); err != nil {
		return res, err
	}
	return clean.Run(ctx, clean.Options{
		Source: src, Archive: v.Archive, Ledger: v.Ledger, Mode: w.Mode, Rule: "--keep 10d",
		Selection: mail.Selection{Before: today.AddDate(0, 0, -10)}, Now: w.now,
	})
}

var today = time.Now().Truncate(time.Second)

// messages are what the server has at first: five to go, one of them twice; three
// young ones; one that another program marked, one that is flagged. POP3 sees no
// flags.
func messages() []dovecot.Message {
	var all []dovecot.Message
	add := func(age int, flags ...string) {
		i := len(all)
		when := today.AddDate(0, 0, -age)
		all = append(all, dovecot.Message{Date: when, Flags: flags, Octets: fmt.Appendf(nil,
			"Received: from a by b; %s\r\nSubject: message %d\r\n\r\n%s\r\n", when.UTC().Format(time.RFC1123Z), i, strings.Repeat(fmt.Sprint(i, " "), 100))})
	}
	for i := range 4 {
		add(20 + i)
	}
	all = append(all, all[2])
	add(1)
	add(2)
	add(3)
	add(30, `\Deleted`)
	add(31, `\Flagged`)
	return all
}

// stays tells which of them the rule leaves.
func (w work) stays(i int) bool {
	if w.Scheme == "pop3s" {
		return i >= 5 && i <= 7
	}
	return i >= 5
}

// digests counts messages by the digest of their canonical octets.
type digests map[string]int

func digestOf(m dovecot.Message) string { return rig.Digest(rig.Canonical(m.Octets)) }

// atServer is what the server has.
func (w work) atServer(t *testing.T, s *dovecot.Server) digests {
	t.Helper()
	all := digests{}
	boxes := []string{"INBOX"}
	if w.Mode == mail.ModeTrash {
		boxes = append(boxes, "Trash")
	}
	for _, box := range boxes {
		msgs, err := s.Messages(w.User, box)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range msgs {
			all[digestOf(m)]++
		}
	}
	return all
}

// inArchive is what the archive has. A run that was killed may have left other
// files, which err names.
func (w work) inArchive() (all digests, err error) {
	all = digests{}
	held, err := rig.Held(w.Format, w.archive())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for m, n := range held {
		all[m.Digest] += n
	}
	return all, err
}

// together checks that nothing is lost: each message is at the server or in the
// archive, as often as there were copies.
func (w work) together(t *testing.T, s *dovecot.Server, when string) {
	t.Helper()
	want := digests{}
	for _, m := range messages() {
		want[digestOf(m)]++
	}
	server := w.atServer(t, s)
	archived, _ := w.inArchive()
	for d, n := range want {
		if have := max(server[d], archived[d]); have < n && server[d]+archived[d] < n {
			t.Errorf("%s: a message is lost: %.12s %d at the server, %d archived, were %d", when, d, server[d], archived[d], n)
		}
	}
}

// complete runs once more, undisturbed: the server holds what the rule leaves, the
// archive everything once, and a further run deletes nothing.
func (w work) complete(t *testing.T, s *dovecot.Server, when string) {
	t.Helper()
	w.trace, w.hook = nil, nil
	if _, err := w.run(); err != nil {
		t.Errorf("%s: the next run: %v", when, err)
		return
	}
	left, all := digests{}, digests{}
	for i, m := range messages() {
		all[digestOf(m)]++
		if w.stays(i) {
			left[digestOf(m)]++
		}
	}
	inbox := w
	inbox.Mode = mail.ModeExpunge
	if got := inbox.atServer(t, s); !maps.Equal(got, left) {
		t.Errorf("%s: the server has %v, want %v", when, got, left)
	}
	if got, err := w.inArchive(); err != nil || !maps.Equal(got, all) {
		t.Errorf("%s: the archive has %v, want %v (%v)", when, got, all, err)
	}
	res, err := w.run()
	if err != nil || res.Deleted+res.Failed != 0 {
		t.Errorf("%s: once more: %+v %v", when, res, err)
	}
	if w.Scheme == "imaps" {
		w.marks(t, s, when)
	}
	w.records(t, when)
}

// marks checks that only what another program marked bears \Deleted.
func (w work) marks(t *testing.T, s *dovecot.Server, when string) {
	t.Helper()
	msgs, err := s.Messages(w.User, "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		if slices.Contains(m.Flags, `\Deleted`) != (digestOf(m) == digestOf(messages()[8])) {
			t.Errorf("%s: UID %d has the flags %v", when, m.UID, m.Flags)
		}
	}
}

// records checks the ledger: every deletion is on record and none is open; and that
// all of the archive can be read back.
func (w work) records(t *testing.T, when string) {
	t.Helper()
	v, err := w.open(vault.Options{ReadOnly: true})
	if err != nil {
		t.Errorf("%s: %v", when, err)
		return
	}
	defer v.Close()
	ctx := context.Background()
	account := w.source().Account()
	var gone digests = make(digests)
	err = v.Ledger.Deletions(ctx, account, time.Time{}, func(d mail.Deletion) error {
		gone[d.Held.Receipt.Digest.String()]++
		return nil
	})
	open, oerr := v.Ledger.OpenDeletions(ctx, account, "INBOX")
	if err != nil || oerr != nil || len(open) > 0 {
		t.Errorf("%s: open %v, %v %v", when, open, err, oerr)
	}
	want := digests{}
	for i, m := range messages() {
		if !w.stays(i) {
			want[digestOf(m)]++
		}
	}
	if !maps.Equal(gone, want) {
		t.Errorf("%s: on record as deleted are %v, want %v", when, gone, want)
	}
	sum, err := v.Verify(ctx, func(vault.Finding) {})
	if err != nil || !sum.Whole() {
		t.Errorf("%s: verify: %+v %v", when, sum, err)
	}
}
