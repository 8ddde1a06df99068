package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// counting counts how often files are opened.
type counting struct {
	durable.FS
	opened *atomic.Int64
}

func (c counting) OpenFile(name string, flag int) (durable.File, error) {
	c.opened.Add(1)
	return c.FS.OpenFile(name, flag)
}

func bodies(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("A: %d\r\n\r\n%s\r\n", i, strings.Repeat("body ", i)))
	}
	return list
}

func TestVerifyOpensAnMboxOnce(t *testing.T) {
	o, dir := options(t), t.TempDir()
	o.Format = "mbox"
	var opened atomic.Int64
	o.WrapFS = func(fsys durable.FS) durable.FS { return counting{fsys, &opened} }
	v := open(t, dir, o)
	put(t, v, ada, "INBOX", bodies(60)...)
	put(t, v, ada, "Lists", bodies(60)...)
	before := opened.Load()
	s, err := v.Verify(context.Background(), func(f Finding) { t.Errorf("%+v", f) })
	if err != nil || s.Verified != 120 {
		t.Fatalf("%+v %v", s, err)
	}
	if n := opened.Load() - before; n < 2 || n > 10 {
		t.Errorf("two files were opened %d times for 120 messages", n)
	}
}

func TestVerifyTellsProgressAndMailboxes(t *testing.T) {
	v := open(t, t.TempDir(), options(t))
	put(t, v, ada, "INBOX", bodies(7)...)
	put(t, v, ada, "Lists", bodies(3)...)
	var planned, moved atomic.Int64
	s, err := v.VerifyWith(context.Background(), VerifyOptions{Share: 1, Report: func(f Finding) { t.Errorf("%+v", f) }, Notify: func(e mail.Event) {
		switch e.Kind {
		case mail.EventMailbox:
			planned.Add(e.N)
		case mail.EventProgress:
			moved.Add(e.N)
		}
	}})
	if err != nil || planned.Load() != 10 || moved.Load() != 10 {
		t.Errorf("%d planned, %d moved: %v", planned.Load(), moved.Load(), err)
	}
	if len(s.Boxes) != 2 || s.Boxes[0].Mailbox != "INBOX" || s.Boxes[0].Verified != 7 || s.Boxes[1].Messages != 3 {
		t.Errorf("%+v", s.Boxes)
	}
	s, err = v.VerifyWith(context.Background(), VerifyOptions{Share: 1, Report: func(Finding) {}, Select: func(name string) bool { return name == "Lists" }})
	if err != nil || s.Messages != 3 || s.Mailboxes != 1 {
		t.Errorf("%+v %v", s, err)
	}
}

// damaged makes an archive of 10 messages, damages some and returns what a
// verification finds.
func damaged(t *testing.T, o Options) (v *Vault, dir string, found []Finding) {
	t.Helper()
	dir = t.TempDir()
	v = open(t, dir, o)
	put(t, v, ada, "INBOX", bodies(10)...)
	damage(t, v, dir)
	return v, dir, findings(t, v)
}

func findings(t *testing.T, v *Vault) (found []Finding) {
	t.Helper()
	if _, err := v.Verify(context.Background(), func(f Finding) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	return found
}

func canonical(wire string) *mail.Canonical { return mail.NewCanonical(strings.NewReader(wire), nil) }

func TestMend(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		v, dir, found := damaged(t, o)
		want := map[string]int{"maildir": 2, "mbox": 1}[o.Format]
		if len(found) != want {
			t.Fatalf("%+v", found)
		}
		for _, f := range found {
			if err := v.Mend(context.Background(), f.Held, canonical("A: another\r\n\r\nmessage\r\n")); !errors.Is(err, mail.ErrAltered) {
				t.Errorf("other octets: %v", err)
			}
		}
		if again := findings(t, v); len(again) != want {
			t.Errorf("after other octets came: %+v", again)
		}
		for _, f := range found {
			var wire string
			for _, b := range bodies(10) {
				if s, _ := mail.SumCanonical(canonical(b)); s.Digest == f.Held.Receipt.Digest {
					wire = b
				}
			}
			if err := v.Mend(context.Background(), f.Held, canonical(wire)); err != nil {
				t.Fatal(err)
			}
		}
		if again := findings(t, v); len(again) != 0 {
			t.Errorf("mended, yet %+v", again)
		}
		kept, err := os.ReadDir(filepath.Join(dir, Dir, DamagedDir))
		if err != nil || len(kept) != 1 {
			t.Errorf("%d damaged messages were kept: %v", len(kept), err)
		}
		if n := len(held(t, v, "INBOX")); n != 10 {
			t.Errorf("%d messages on record", n)
		}
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		v = open(t, dir, o)
		if a, err := v.Ledger.Anchor(context.Background(), "INBOX"); err != nil || a.Open {
			t.Errorf("anchor %+v %v", a, err)
		}
		s, err := v.Verify(context.Background(), func(f Finding) { t.Errorf("%+v", f) })
		if err != nil || !s.Whole() {
			t.Errorf("%+v %v", s, err)
		}
	})
}

func TestSetAside(t *testing.T) {
	o := options(t)
	v, dir, found := damaged(t, o)
	for _, f := range found {
		if err := v.SetAside(context.Background(), f.Held); err != nil {
			t.Fatal(err)
		}
	}
	kept, _ := filepath.Glob(filepath.Join(dir, Dir, DamagedDir, "*"))
	if len(kept) != 1 {
		t.Errorf("kept %v", kept)
	}
	missing := 0
	err := v.Ledger.Claims(context.Background(), ada, "INBOX", func(c mail.Claim) error {
		if c.Missing {
			missing++
		}
		return nil
	})
	if err != nil || missing != 2 {
		t.Errorf("%d messages are to be fetched again, %v", missing, err)
	}
}

func TestAccept(t *testing.T) {
	eachFormat(t, func(t *testing.T, o Options) {
		v, dir, found := damaged(t, o)
		for _, f := range found {
			if err := v.Accept(context.Background(), f); err != nil {
				t.Fatal(err)
			}
		}
		check := func() {
			t.Helper()
			if again := findings(t, v); len(again) != 0 {
				t.Errorf("accepted, yet %+v", again)
			}
			want := map[string]int{"maildir": 9, "mbox": 10}[o.Format]
			if n := len(held(t, v, "INBOX")); n != want {
				t.Errorf("%d messages on record, want %d", n, want)
			}
			err := v.Ledger.Claims(context.Background(), ada, "INBOX", func(c mail.Claim) error {
				if c.Missing {
					t.Errorf("UID %s would be fetched again", c.UID)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
		check()
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
		v = open(t, dir, o)
		check()
	})
}
