package ledger

import (
	"context"
	"testing"

	"mailhaul/mail"
)

// After a loss nothing may be concluded from a cursor: the run must list.
func TestLossForgetsCursors(t *testing.T) {
	l, err := Open(t.TempDir(), Options{Format: "mbox"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx := context.Background()
	const account = "imap:ada@example.org@imap.example.org"
	in := mail.Info{Ref: mail.Ref{Account: account, Mailbox: "INBOX", UIDValidity: 1, UID: "1"}, Size: 3}
	_, sums := mail.CanonicalInPlace([]byte("a\r\n"))
	change := mail.Change{
		Archived: []mail.Archived{{Receipt: mail.Receipt{Info: in, Place: "INBOX.mbox#0+3", Sums: sums}}},
		Cursors:  []mail.Cursor{{Account: account, Mailbox: "INBOX", State: "s"}},
	}
	if err := l.Record(ctx, change); err != nil {
		t.Fatal(err)
	}
	state := func() string {
		s, err := l.Cursor(ctx, account, "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	found := []mail.Receipt{{Info: in, Place: "INBOX.mbox#5+3", Sums: sums}}
	if err := l.Reanchor(ctx, "INBOX", found, true, mail.Anchor{}); err != nil || state() != "s" {
		t.Errorf("nothing is missing, yet the cursor is %q (%v)", state(), err)
	}
	if err := l.Reanchor(ctx, "INBOX", nil, true, mail.Anchor{}); err != nil || state() != "" {
		t.Errorf("a message is missing, yet the cursor is %q (%v)", state(), err)
	}
}
