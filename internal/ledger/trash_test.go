package ledger

import (
	"context"
	"strings"
	"testing"

	"mailhaul/mail"
)

// What was moved to the trash is claimed there if its place is known; else it is told
// of, until the trash shows it.
func TestMovedToTheTrash(t *testing.T) {
	l := mustOpen(t, t.TempDir())
	ctx := context.Background()
	var list []mail.Doomed
	for i := range 3 {
		rc, p := proofOf(t, "message "+strings.Repeat("x", i))
		record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
		list = append(list, mail.Doomed{Proof: p})
	}
	c := claimsOf(t, l, testAccount, "INBOX")
	for i := range list {
		list[i].Claim = c[i].ID
	}
	ids, err := l.IntendDeletions(ctx, list, "rule", mail.ModeTrash)
	if err != nil {
		t.Fatal(err)
	}
	trashed := func(want ...int64) {
		t.Helper()
		var got []int64
		err := l.Trashed(ctx, testAccount, "Bin", func(h mail.Held) error {
			got = append(got, h.Message)
			return nil
		})
		if err != nil || len(got) != len(want) {
			t.Fatalf("%v, want %v (%v)", got, want, err)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%v, want %v", got, want)
			}
		}
	}
	trashed(c[0].Message, c[1].Message, c[2].Message) // it may have happened
	place := mail.Info{Ref: mail.Ref{Mailbox: "Bin", UIDValidity: 5, UID: "77"}, Size: c[0].Size, Flags: `\Seen`}
	err = l.SettleDeletions(ctx, []mail.DeletionResult{{ID: ids[0], Gone: true, Moved: place}, {ID: ids[1], Gone: true}, {ID: ids[2]}})
	if err != nil {
		t.Fatal(err)
	}
	trashed(c[1].Message)
	bin := claimsOf(t, l, testAccount, "Bin")
	if len(bin) != 1 || bin[0].Message != c[0].Message || bin[0].UID != "77" || bin[0].UIDValidity != 5 || bin[0].Fetched || !bin[0].Gone.IsZero() || bin[0].Flags != `\Seen` {
		t.Errorf("%+v", bin)
	}
	// It is free for its own mailbox: somebody may move it back.
	if got := freeIn(t, l, testAccount, "INBOX"); len(got) != 2 {
		t.Errorf("free: %v", got)
	}
	// Settled once, settled for ever.
	if err := l.SettleDeletions(ctx, []mail.DeletionResult{{ID: ids[0], Gone: true, Moved: place}}); err != nil {
		t.Fatal(err)
	}
	if n := len(claimsOf(t, l, testAccount, "Bin")); n != 1 {
		t.Errorf("%d claims", n)
	}
	if err := l.Record(ctx, mail.Change{Undone: []int64{ids[1]}}); err != nil {
		t.Fatal(err)
	}
	trashed()
}
