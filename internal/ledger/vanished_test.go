package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailhaul/mail"
)

const popAccount = "pop3:ada@old.example.org"

func vanishedIn(tb testing.TB, l *Ledger) (ids []int64) {
	tb.Helper()
	err := l.Vanished(context.Background(), func(id int64) error {
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return ids
}

// Only what the server took away counts, and only if no other claim is left.
func TestVanished(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	var proofs []mail.Proof
	for i := range 5 {
		rc, p := proofOf(t, "message "+strings.Repeat("x", i))
		proofs = append(proofs, p)
		record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
	}
	claims, held := claimsOf(t, l, testAccount, "INBOX"), heldIn(t, l, "INBOX")
	// The second is there under another UID, too.
	again := testReceipt("INBOX", 1).Info
	again.Ref.UID = "100"
	record(t, l, mail.Change{Adopted: []mail.Adoption{{Info: again, Message: held[1].Message}}})
	record(t, l, mail.Change{Gone: []int64{claims[0].ID, claims[1].ID}})
	if got := vanishedIn(t, l); !slices.Equal(got, []int64{held[0].Message}) {
		t.Errorf("%v, want %d", got, held[0].Message)
	}
	// What we deleted is not gone in this sense.
	ids, err := l.IntendDeletions(context.Background(), []mail.Doomed{{Claim: claims[2].ID, Proof: proofs[2]}}, "rule", mail.ModeExpunge)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SettleDeletions(context.Background(), []Deleted{{ID: ids[0], Gone: true}}); err != nil {
		t.Fatal(err)
	}
	// A claim at a destination does not keep a message.
	up, err := l.IntendUploads(context.Background(), Sending{Account: "imap:ada@new.example.org", Mailbox: "INBOX", UIDValidity: 1, UIDNext: 1,
		Messages: []Outgoing{{Message: held[3].Message, Digest: held[3].Receipt.Digest}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.SettleUploads(context.Background(), []Uploaded{{ID: up[0], Arrived: true, Info: mail.Info{Ref: mail.Ref{UIDValidity: 1, UID: "1"}}}}); err != nil {
		t.Fatal(err)
	}
	record(t, l, mail.Change{Gone: []int64{claims[3].ID}})
	if got := vanishedIn(t, l); !slices.Equal(got, []int64{held[0].Message, held[3].Message}) {
		t.Errorf("%v, want %d and %d", got, held[0].Message, held[3].Message)
	}
}

func TestUIDLs(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	const dest = "imap:ada@new.example.org"
	for i := range 3 {
		rc := testReceipt("INBOX", i)
		rc.Info.Ref.Account, rc.Info.Ref.UIDValidity, rc.Info.Ref.UID = popAccount, 0, fmt.Sprint("old", i)
		record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
	}
	record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: testReceipt("INBOX", 3)}}}) // of an IMAP source
	send := func(validity uint32, first int) {
		for i, h := range heldIn(t, l, "INBOX") {
			ids, err := l.IntendUploads(context.Background(), Sending{Account: dest, Mailbox: "Old", UIDValidity: validity, UIDNext: 1,
				Messages: []Outgoing{{Message: h.Message, Digest: h.Receipt.Digest}}})
			if err != nil {
				t.Fatal(err)
			}
			in := mail.Info{Ref: mail.Ref{UIDValidity: validity, UID: fmt.Sprint(first + i)}}
			if err := l.SettleUploads(context.Background(), []Uploaded{{ID: ids[0], Arrived: true, Info: in}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(1, 7)
	send(2, 9) // the mailbox is another one now
	// The second message is gone at the source and has another UIDL there now.
	claims := claimsOf(t, l, popAccount, "INBOX")
	record(t, l, mail.Change{Gone: []int64{claims[1].ID}})
	again := testReceipt("INBOX", 1).Info
	again.Ref = mail.Ref{Account: popAccount, Mailbox: "INBOX", UID: "new1"}
	record(t, l, mail.Change{Adopted: []mail.Adoption{{Info: again, Message: claims[1].Message}}})
	var got []UIDL
	err := l.UIDLs(context.Background(), dest, func(u UIDL) error {
		got = append(got, u)
		return nil
	})
	want := []UIDL{{"old0", "Old", 2, "9"}, {"new1", "Old", 2, "10"}, {"old2", "Old", 2, "11"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}
