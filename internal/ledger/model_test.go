package ledger

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mailhaul/mail"
)

// TestMain lets rapid try less than its default: each step waits for the disk.
func TestMain(m *testing.M) {
	for name, value := range map[string]string{"rapid.checks": "12", "rapid.steps": "25"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	flag.Parse() // a value from the command line wins
	os.Exit(m.Run())
}

// model is a ledger as it would be without a disk.
type model struct {
	claims  map[string][]mail.Claim // by account and mailbox
	mailbox map[int64]string        // of a message
	order   map[string][]int64      // messages of a mailbox
	flags   map[int64]mail.Flags
	missing map[int64]bool
	cursors map[string]string
}

func (m *model) find(id int64) (*mail.Claim, string) {
	for key, list := range m.claims {
		for i := range list {
			if list[i].ID == id {
				return &list[i], key
			}
		}
	}
	return nil, ""
}

func (m *model) pick(t *rapid.T, gone bool) []mail.Claim {
	var list []mail.Claim
	for _, key := range slices.Sorted(maps.Keys(m.claims)) {
		for _, c := range m.claims[key] {
			if !c.Gone.IsZero() == gone {
				list = append(list, c)
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	return []mail.Claim{rapid.SampledFrom(list).Draw(t, "claim")}
}

func TestAgainstModel(t *testing.T) {
	accounts := []string{testAccount, "pop3:ada@mail.example.org"}
	boxes := []string{"INBOX", "Archive/2023"}
	flags := []mail.Flags{"", mail.NewFlags(mail.Seen), mail.NewFlags(mail.Seen, "$Junk"), mail.NewFlags(mail.Flagged)}
	ctx := context.Background()
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		l := mustOpen(t, dir)
		defer func() { l.Close() }()
		m := &model{claims: map[string][]mail.Claim{}, mailbox: map[int64]string{}, order: map[string][]int64{},
			flags: map[int64]mail.Flags{}, missing: map[int64]bool{}, cursors: map[string]string{}}
		serial := 0
		last := func(account, box string) mail.Claim {
			list := claimsOf(t, l, account, box)
			return list[len(list)-1]
		}
		rt.Repeat(map[string]func(*rapid.T){
			"archive": func(rt *rapid.T) {
				account, box := rapid.SampledFrom(accounts).Draw(rt, "account"), rapid.SampledFrom(boxes).Draw(rt, "box")
				f := rapid.SampledFrom(flags).Draw(rt, "flags")
				serial++
				rc := testReceipt(box, serial)
				rc.Info.Ref.Account, rc.Info.Flags = account, f
				record(t, l, mail.Change{Archived: []mail.Archived{{Receipt: rc}}})
				c := last(account, box)
				key := account + " " + box
				m.claims[key] = append(m.claims[key], mail.Claim{ID: c.ID, UIDValidity: 7, UID: rc.Info.Ref.UID, Message: c.Message,
					Size: rc.Info.Size, Flags: f, Fetched: true})
				m.mailbox[c.Message], m.flags[c.Message] = box, f
				m.order[box] = append(m.order[box], c.Message)
			},
			"gone": func(rt *rapid.T) {
				for _, c := range m.pick(rt, false) {
					record(t, l, mail.Change{Gone: []int64{c.ID}})
					mc, _ := m.find(c.ID)
					got, _, err := l.claim(c.ID)
					if err != nil || got.Gone.IsZero() {
						rt.Fatal(err, got)
					}
					mc.Gone, mc.GoneBy = got.Gone, GoneByServer
				}
			},
			"returned": func(rt *rapid.T) {
				for _, c := range m.pick(rt, true) {
					record(t, l, mail.Change{Returned: []int64{c.ID}})
					mc, _ := m.find(c.ID)
					mc.Gone, mc.GoneBy = mail.Claim{}.Gone, ""
				}
			},
			"takes": func(rt *rapid.T) {
				for _, c := range m.pick(rt, true) {
					mc, key := m.find(c.ID)
					serial++
					f := rapid.SampledFrom(flags).Draw(rt, "flags")
					var account, box string
					fmt.Sscanf(key, "%s %s", &account, &box)
					in := mail.Info{Ref: mail.Ref{Account: account, Mailbox: box, UIDValidity: 8, UID: fmt.Sprint("u", serial)}, Size: 3, Flags: f}
					record(t, l, mail.Change{Adopted: []mail.Adoption{{Info: in, Message: c.Message, Takes: c.ID}}})
					m.flags[c.Message] = mail.MergeFlags(mc.Flags, f, m.flags[c.Message])
					*mc = mail.Claim{ID: c.ID, UIDValidity: 8, UID: in.Ref.UID, Message: c.Message, Size: 3, Flags: f}
				}
			},
			"flags": func(rt *rapid.T) {
				for _, c := range m.pick(rt, false) {
					mc, _ := m.find(c.ID)
					f := rapid.SampledFrom(flags).Draw(rt, "flags")
					record(t, l, mail.Change{Flags: []mail.FlagChange{{Claim: c.ID, Message: c.Message, Flags: f}}})
					m.flags[c.Message] = mail.MergeFlags(mc.Flags, f, m.flags[c.Message])
					mc.Flags = f
				}
			},
			"cursor": func(rt *rapid.T) {
				account, box := rapid.SampledFrom(accounts).Draw(rt, "account"), rapid.SampledFrom(boxes).Draw(rt, "box")
				state := rapid.SampledFrom([]string{"", "a", "b"}).Draw(rt, "state")
				record(t, l, mail.Change{Cursors: []mail.Cursor{{Account: account, Mailbox: box, State: state}}})
				m.cursors[account+" "+box] = state
			},
			"lost": func(rt *rapid.T) {
				for _, c := range m.pick(rt, false) {
					if err := l.Lost(ctx, []int64{c.Message}); err != nil {
						rt.Fatal(err)
					}
					m.missing[c.Message] = true
					clear(m.cursors) // the next run has to list
				}
			},
			"reopen": func(rt *rapid.T) {
				if err := l.Close(); err != nil {
					rt.Fatal(err)
				}
				l = mustOpen(t, dir)
			},
			"": func(rt *rapid.T) { m.compare(rt, t, l, accounts, boxes) },
		})
	})
}

func (m *model) compare(rt *rapid.T, t *testing.T, l *Ledger, accounts, boxes []string) {
	for _, box := range boxes {
		var ids []int64
		for _, h := range heldIn(t, l, box) {
			ids = append(ids, h.Message)
			if h.Receipt.Info.Flags != m.flags[h.Message] || (h.Receipt.Place == "") != m.missing[h.Message] {
				rt.Fatalf("message %d: %+v", h.Message, h)
			}
		}
		if !slices.Equal(ids, m.order[box]) {
			rt.Fatalf("messages of %s: %v, want %v", box, ids, m.order[box])
		}
		for _, account := range accounts {
			key := account + " " + box
			want := slices.Clone(m.claims[key])
			held := map[int64]bool{}
			for i := range want {
				want[i].Missing = m.missing[want[i].Message]
			}
			for k, list := range m.claims {
				for _, c := range list {
					if c.Gone.IsZero() && strings.HasPrefix(k, account+" ") {
						held[c.Message] = true
					}
				}
			}
			if d := cmp.Diff(want, claimsOf(t, l, account, box)); d != "" {
				rt.Fatalf("claims of %s: %s", key, d)
			}
			var free []int64
			for _, id := range m.order[box] {
				if !held[id] && !m.missing[id] {
					free = append(free, id)
				}
			}
			if got := freeIn(t, l, account, box); !slices.Equal(got, free) {
				rt.Fatalf("free for %s: %v, want %v", key, got, free)
			}
			if s, err := l.Cursor(context.Background(), account, box); err != nil || s != m.cursors[key] {
				rt.Fatalf("cursor of %s: %q, want %q (%v)", key, s, m.cursors[key], err)
			}
		}
	}
}
