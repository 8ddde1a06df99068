package compare

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"mailhaul/mail"
)

// blind is a server that for a moment does not show what it has.
type blind struct {
	*account
	unlisted string // this mailbox is not in the list, but can be opened
	hides    int    // the first listings of a mailbox lack its last messages
	opened   []string
}

func (b *blind) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	all, err := b.account.Mailboxes(ctx)
	var shown []mail.Mailbox
	for _, mb := range all {
		if mb.Name != b.unlisted {
			shown = append(shown, mb)
		}
	}
	return shown, err
}

func (b *blind) Mailbox(_ context.Context, name string) (mb mail.Mailbox, there bool, err error) {
	b.opened = append(b.opened, name)
	for _, x := range b.boxes {
		there = there || x.name == name
	}
	return mail.Mailbox{Name: name, UIDValidity: 7}, there, nil
}

func (b *blind) List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	all := b.account.List(ctx, mb)
	if b.hides == 0 {
		return all
	}
	b.hides--
	return func(yield func(mail.Info, error) bool) {
		for in, err := range all {
			if in.Seq > 1 || !yield(in, err) {
				return
			}
		}
	}
}

// A server that does not list a mailbox, or shows it as it was a moment ago, is asked
// again before anything is called missing.
func TestNothingIsMissingThatIsThere(t *testing.T) {
	boxes := []box{{"INBOX", msgs(one, two)}, {"Junk", msgs(two, three)}}
	for name, hide := range map[string]func(*blind){
		"a mailbox is not listed":       func(b *blind) { b.unlisted = "Junk" },
		"messages are not listed":       func(b *blind) { b.hides = 1 },
		"both":                          func(b *blind) { b.unlisted, b.hides = "Junk", 1 },
		"a sample of what is not there": func(b *blind) { b.unlisted = "Junk" },
	} {
		left, right := &account{key: "l", boxes: boxes}, &blind{account: &account{key: "r", boxes: boxes}}
		hide(right)
		o := Options{Left: Server(left), Right: Server(right)}
		if strings.HasPrefix(name, "a sample") {
			o.Share = 0.01
		}
		res, found := run(t, o)
		if len(found) > 0 || !res.Complete() || o.Share == 0 && res.Same != 4 || res.Right.Messages != 4 {
			t.Errorf("%s: %v %+v", name, found, res.Counts)
		}
	}
	right := &blind{account: &account{key: "r", boxes: boxes[:1]}}
	res, found := run(t, Options{Left: Server(&account{key: "l", boxes: boxes}), Right: Server(right)})
	if res.Missing != 2 || res.Moved != 0 || len(right.opened) != 1 || right.opened[0] != "Junk" {
		t.Errorf("a mailbox that is not there: %v %+v, opened %v", found, res.Counts, right.opened)
	}
}

// What may be the message that the other side has and does not give is unreadable.
func TestUnreadableIsNotMissing(t *testing.T) {
	for name, size := range map[string]int64{"of its size": 0, "of no size": -1 << 40} {
		there := msgs(one, two)
		there[1].refused = errors.New("NO")
		right := &account{key: "r", boxes: []box{{"INBOX", there}}}
		if size < 0 { // every size is unknown
			right.wrong = -int64(len(there[1].octets)) - 1
		}
		var kinds []string
		res, err := Run(t.Context(), Options{
			Left: Server(&account{key: "l", boxes: []box{{"INBOX", msgs(one, two, three)}}}), Right: Server(right),
			Found: func(f Finding) { kinds = append(kinds, string(f.Kind)+" "+f.Ref.UID) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if res.Missing != 1 || res.Unreadable != 2 || res.Same != 1 || strings.Join(kinds, ", ") != "missing 3, unreadable 2, unreadable 2" {
			t.Errorf("%s: %v %+v", name, kinds, res.Counts)
		}
	}
}
