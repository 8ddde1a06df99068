package fetch_test

import (
	"context"
	"testing"
	"testing/synctest"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// slowArchive returns from the Append of the second message only when a Commit
// has taken it.
type slowArchive struct {
	*fakeArchive
	committed chan struct{}
}

func (a *slowArchive) Append(ctx context.Context, in mail.Info, r mail.Octets) error {
	err := a.fakeArchive.Append(ctx, in, r)
	if in.Seq == 2 {
		<-a.committed
	}
	return err
}

func (a *slowArchive) Commit(ctx context.Context) (mail.Group, error) {
	g, err := a.fakeArchive.Commit(ctx)
	for _, rc := range g.Receipts {
		if rc.Info.Seq == 2 {
			close(a.committed)
		}
	}
	return g, err
}

// A commit may take a message whose Append has not returned yet: what was noted of
// the message counts all the same.
func TestCommitOvertakesAppend(t *testing.T) {
	for _, uid := range []string{"2", ""} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.put("1", message("first"))
			w.put(uid, message("second")).size = 5000 // not as long as listed
			o := w.options()
			o.Archive = &slowArchive{fakeArchive: w.archive, committed: make(chan struct{})}
			res, err := fetch.Run(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			if w.want(res, 2, 0, 0, 0, 2); res.Suspicious != 1 {
				t.Errorf("%d suspicious, want 1", res.Suspicious)
			}
			for _, c := range w.ledger.claims {
				if c.UID == "" {
					t.Error("a claim without UID")
				}
			}
			if w.ledger.messages[1].Suspicious == "" && w.ledger.messages[0].Suspicious == "" {
				t.Error("the ledger has no suspicious message")
			}
		})
	}
}
