package size

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailhaul/fetch/imap"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/mail"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.Local)

// fake is a server in memory.
type fake struct {
	infos   map[string][]mail.Info
	headers map[string]string // by UID
	asked   int
}

func (f *fake) Account() string { return "imap:a@x" }

func (f *fake) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return []mail.Mailbox{{Name: "INBOX"}, {Name: "Lists"}}, nil
}

func (f *fake) List(_ context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for _, in := range f.infos[mb.Name] {
			if !yield(in, nil) {
				return
			}
		}
	}
}

func (f *fake) Headers(_ context.Context, _ mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	for _, w := range wants {
		f.asked++
		in := mail.Info{Ref: mail.Ref{UID: w.UID}, Seq: w.Seq}
		h, ok := f.headers[w.UID]
		var err error
		switch {
		case !ok:
			err = deliver(in, nil, errors.New("refused"))
		case h == "gone":
			err = deliver(in, nil, mail.ErrVanished)
		default:
			err = deliver(in, strings.NewReader(h), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func info(uid string, size int64, date time.Time, flags ...string) mail.Info {
	return mail.Info{Ref: mail.Ref{UID: uid}, Size: size, InternalDate: date, Flags: mail.NewFlags(flags...)}
}

func account() *fake {
	return &fake{
		infos: map[string][]mail.Info{
			"INBOX": {
				info("1", 500, now.AddDate(0, -1, 0)), info("2", 2<<20, now.AddDate(-3, 0, 0)), info("3", 20<<20, now.AddDate(-6, 0, 0), mail.Flagged),
				info("4", 100, time.Time{}), info("5", -1, now),
			},
			"Lists": {info("11", 50<<10, now.AddDate(-3, 0, 0)), info("12", 1, now), info("13", 9, now)},
		},
		headers: map[string]string{
			"1": "From: A <A@x.example>\r\n\r\n", "2": "From: a@X.example\r\n\r\n", "3": "From: b@x.example\r\n\r\n",
			"4": "From: b@x.example\r\nDate: Mon, 1 Jan 2024 10:00:00 +0000\r\n\r\n", "11": "Subject: none\r\n\r\n", "12": "gone", "5": "\r\n",
		},
	}
}

func find(t *testing.T, groups []Group, name string) Sum {
	t.Helper()
	for _, g := range groups {
		if g.Name == name {
			return g.Sum
		}
	}
	t.Errorf("no group %q in %v", name, groups)
	return Sum{}
}

func TestServer(t *testing.T) {
	s, err := Server(t.Context(), account(), Options{Senders: true, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	if s.Total.Messages != 7 || s.Unsized != 1 { // 12 vanished
		t.Errorf("%+v", s)
	}
	if s.Mailboxes[0].Name != "INBOX" || s.Mailboxes[0].Messages != 5 || find(t, s.Mailboxes, "Lists").Messages != 2 {
		t.Errorf("mailboxes %v", s.Mailboxes)
	}
	if s.Years[0].Name != "2026" || find(t, s.Years, "2024").Messages != 1 || find(t, s.Years, "2023").Messages != 2 {
		t.Errorf("years %v", s.Years)
	}
	if find(t, s.Senders, "a@x.example") != (Sum{2, 500 + 2<<20}) || find(t, s.Senders, "b@x.example").Messages != 2 || find(t, s.Senders, "").Messages != 3 {
		t.Errorf("senders %v", s.Senders)
	}
	var got []string
	for _, r := range s.Rules {
		got = append(got, fmt.Sprintf("%s: %d", r.Flags, r.Messages))
	}
	want := []string{"--older-than 1y: 3", "--older-than 2y: 3", "--older-than 5y: 0", "--larger 1M: 1", "--larger 5M: 0", "--larger 10M: 0",
		"--older-than 1y --larger 1M: 1", "--older-than 2y --larger 100K: 1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, groups := range [][]Group{s.Mailboxes, s.Years, s.Senders, s.Classes} {
		var sum Sum
		for _, g := range groups {
			sum.Messages, sum.Octets = sum.Messages+g.Messages, sum.Octets+g.Octets
		}
		if sum != s.Total {
			t.Errorf("%v do not add up to %v", groups, s.Total)
		}
	}
}

func TestServerSelection(t *testing.T) {
	f := account()
	delete(f.infos, "INBOX")
	s, err := Server(t.Context(), f, Options{Selection: mail.Selection{Before: now.AddDate(-1, 0, 0)}, Now: now})
	if err != nil || s.Total.Messages != 1 || f.asked != 0 || s.WithSenders {
		t.Errorf("%+v %v, %d headers", s, err, f.asked)
	}
	_, err = Server(t.Context(), f, Options{Selection: mail.Selection{Mailboxes: []string{"Nowhere"}}, Now: now})
	if mail.KindOf(err) != mail.KindUsage {
		t.Errorf("a mailbox that is not there: %v", err)
	}
}

func TestManySenders(t *testing.T) {
	c := newCounter(now)
	for i := range 3 * maxSenders {
		c.add(message{size: 10})
		c.addSender(fmt.Sprint(i), 10)
	}
	c.addSender("large", 1<<20)
	s := c.sizes(true)
	if len(s.Senders) > 2*maxSenders || s.Senders[0].Name != "large" {
		t.Errorf("%d senders, first %v", len(s.Senders), s.Senders[0])
	}
	n := s.Others.Messages
	for _, g := range s.Senders {
		n += g.Messages
	}
	if n != 3*maxSenders+1 {
		t.Errorf("%d messages", n)
	}
}

// both protocols of a real server tell the same senders.
func TestDovecot(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	var all []dovecot.Message
	for i := range 30 {
		all = append(all, dovecot.Message{Octets: fmt.Appendf(nil, "From: =?utf-8?Q?B=C3=B6b?= <u%d@x.example>\r\nDate: Mon, 1 Jan 2024 10:00:00 +0000\r\n\r\n%s\r\n", i%3, strings.Repeat("x", 100*i))})
	}
	if err := s.Append("ada", "INBOX", all...); err != nil {
		t.Fatal(err)
	}
	c := auth.Credentials{User: "ada", Password: dovecot.Password}
	srv := func(protocol string, port int) dial.Server {
		return dial.Server{Protocol: protocol, Host: s.Host, Port: port, Security: dial.TLS, CAFile: s.CAFile, Timeout: 30 * time.Second}
	}
	overIMAP := imap.New(imap.Config{Server: srv("imap", s.IMAPS), Credentials: c})
	overPOP3 := pop3.New(pop3.Config{Server: srv("pop3", s.POP3S), Credentials: c})
	for _, src := range []interface {
		Source
		io.Closer
	}{overIMAP, overPOP3} {
		sizes, err := Server(t.Context(), src, Options{Senders: true, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		if sizes.Total.Messages != 30 || len(sizes.Senders) != 3 || find(t, sizes.Senders, "u1@x.example").Messages != 10 {
			t.Errorf("%s: %+v", src.Account(), sizes)
		}
		if src == overPOP3 && find(t, sizes.Years, "2024").Messages != 30 {
			t.Errorf("years over POP3: %v", sizes.Years)
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
}
