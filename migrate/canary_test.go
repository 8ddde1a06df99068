package migrate_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailhaul/clean"
	"mailhaul/internal/dovecot"
	"mailhaul/mail"
	"mailhaul/migrate"
)

// Where source and destination are one mailbox under two names, every copy is the
// message itself: nothing goes.
func TestDeleteSourceFromItself(t *testing.T) {
	t.Parallel()
	for name, pop3 := range map[string]bool{"the old name after the switch": false, "POP3 and IMAP of one server": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, dovecot.Options{}, dovecot.Options{})
			p.pop3 = pop3
			msgs := append(many(0, 12), message(3, "body"), message(4, "body")) // equal ones, too
			for i := range msgs {
				msgs[i].Flags = []string{`\Seen`} // RETR marks them so
			}
			fill(t, p.from, "INBOX", msgs...)
			if pop3 {
				p.to = p.from
			} else { // they were sent
				p.pass(nil, nil)
				p.from = p.to
			}
			before := content(t, p.to, "INBOX")
			dir := t.TempDir()
			for range 2 {
				_, res, err := p.pass(migrate.RemoveSource, func(o *migrate.RemoveOptions) { o.Dir = dir })
				if mail.KindOf(err) != mail.KindIntegrity || res.Deleted > 1 {
					t.Errorf("%v %+v", err, res)
				}
				p.count(p.to, "INBOX", len(msgs))
			}
			if after := content(t, p.to, "INBOX"); !slices.Equal(before, after) {
				t.Errorf("before:\n%s\nafter:\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// stubborn is a source that keeps everything.
type stubborn struct {
	clean.Source
	asked int
}

func (s *stubborn) Delete(_ context.Context, _ mail.Mailbox, o mail.DeleteOrder) error {
	s.asked++
	for i := range o.Proofs {
		o.Settle(i, false, mail.WhyChanged)
	}
	return nil
}

// Where none of the first messages goes, nothing is known, and the rest is not tried.
func TestDeleteSourceTriesOneFirst(t *testing.T) {
	t.Parallel()
	p := newPair(t, dovecot.Options{}, dovecot.Options{})
	p.pop3 = true
	fill(t, p.from, "INBOX", many(0, 15)...)
	p.pass(nil, nil)
	src, copies, d := p.open()
	s := &stubborn{Source: src}
	dir := t.TempDir()
	// What a run left that was ended: of a message that the destination has, and of one it lacks.
	files := map[string]string{}
	for name, octets := range map[string]string{"has": string(bytes.ReplaceAll(message(3, "body").Octets, []byte("\r\n"), []byte("\n"))), "lacks": "Subject: other\n\n"} {
		files[name] = filepath.Join(dir, fmt.Sprintf("kept-%x.eml", sha256.Sum256([]byte(octets))))
		if err := os.WriteFile(files[name], []byte(octets), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	res, err := migrate.RemoveSource(t.Context(), migrate.RemoveOptions{
		Source: s, Copies: copies, Destination: d, Account: migrate.AccountOf(d.Account()), Ledger: p.l, Dir: dir,
		Notify: func(e mail.Event) {
			if e.Kind == mail.EventWarning {
				told = append(told, e.Err.Error())
			}
		},
	})
	if err != nil || s.asked != 10 || res.Stayed[migrate.WhyUntried] != 5 || res.Deleted != 0 {
		t.Errorf("%v: %d orders, %+v", err, s.asked, res)
	}
	if len(told) != 1 || !strings.Contains(told[0], files["lacks"]) {
		t.Errorf("told %q", told)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || filepath.Join(dir, left[0].Name()) != files["lacks"] {
		t.Errorf("left: %v", left)
	}
	p.count(p.from, "INBOX", 15)
}
