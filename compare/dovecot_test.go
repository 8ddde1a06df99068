package compare_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/compare"
	"mailhaul/fetch/imap"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/corpus"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/mail"
)

func server(s *dovecot.Server, protocol string, port int) dial.Server {
	return dial.Server{Protocol: protocol, Host: s.Host, Port: port, Security: dial.TLS, CAFile: s.CAFile, Timeout: 30 * time.Second}
}

func imapOf(t *testing.T, s *dovecot.Server, user string) *imap.Source {
	t.Helper()
	src := imap.New(imap.Config{Server: server(s, "imap", s.IMAPS), Credentials: auth.Credentials{User: user, Password: dovecot.Password}})
	t.Cleanup(func() { src.Close() })
	return src
}

func appendAll(t *testing.T, s *dovecot.Server, user, mailbox string, all ...dovecot.Message) {
	t.Helper()
	if err := s.Append(user, mailbox, all...); err != nil {
		t.Fatal(err)
	}
}

func differences(t *testing.T, o compare.Options) (compare.Result, map[compare.Kind][]string) {
	t.Helper()
	found := make(map[compare.Kind][]string)
	o.Found = func(f compare.Finding) {
		found[f.Kind] = append(found[f.Kind], f.Ref.Mailbox+"/"+f.Ref.UID+": "+f.What)
	}
	res, err := compare.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range found {
		slices.Sort(list)
	}
	return res, found
}

// What one Dovecot stores of hazardous messages goes to another by hand: everything
// is found again, in namespaces of other manners too; then a message is taken away,
// one changed and one added.
func TestDovecots(t *testing.T) {
	from := dovecot.Start(t, dovecot.Options{})
	to := dovecot.Start(t, dovecot.Options{MailLocation: dovecot.SDBox, Separator: ".", Prefix: "INBOX."})
	stored := hazards()
	appendAll(t, from, "ada", "INBOX", stored...)
	appendAll(t, from, "ada", "Lists/Go", dovecot.Message{Octets: letter(1)}, dovecot.Message{Octets: letter(2)})
	for _, mb := range []string{"INBOX", "Lists/Go"} {
		all, err := from.Messages("ada", mb)
		if err != nil {
			t.Fatal(err)
		}
		name := mb
		if mb != "INBOX" {
			name = "INBOX.Lists.Go"
		}
		slices.Reverse(all)
		for i := range all {
			all[i] = dovecot.Message{Octets: all[i].Octets}
		}
		appendAll(t, to, "ada", name, all...)
	}
	both := func(o compare.Options) (compare.Result, map[compare.Kind][]string) {
		o.Left, o.Right = compare.Server(imapOf(t, from, "ada")), compare.Server(imapOf(t, to, "ada"))
		return differences(t, o)
	}
	res, found := both(compare.Options{})
	if !res.Complete() || res.Missing+res.Extra+res.Altered+res.Unreadable > 0 || res.Same+res.Known != int64(len(stored))+2 {
		t.Fatalf("%+v %v", res.Counts, found)
	}
	res, found = both(compare.Options{Share: 0.3})
	if !res.Complete() || len(found[compare.Missing])+len(found[compare.Extra]) > 0 || res.Unsampled == 0 {
		t.Errorf("a sample: %+v %v", res.Counts, found)
	}

	if err := to.Expunge("ada", "INBOX.Lists.Go", "1"); err != nil { // letter 2
		t.Fatal(err)
	}
	appendAll(t, to, "ada", "INBOX.Lists.Go", dovecot.Message{Octets: letter(3)})
	appendAll(t, from, "ada", "Lists/Go", dovecot.Message{Octets: letter(4)})
	appendAll(t, to, "ada", "INBOX.Lists.Go", dovecot.Message{Octets: append([]byte("X-Seen-By: us\r\n"), letter(4)...)})
	res, found = both(compare.Options{Selection: mail.Selection{Mailboxes: []string{"Lists/Go"}}})
	want := map[compare.Kind]string{compare.Missing: "Lists/Go/2: ", compare.Extra: "Lists/Go/3: ", compare.Altered: "Lists/Go/3: the header"}
	for kind, text := range want {
		if list := found[kind]; len(list) != 1 || list[0] != text {
			t.Errorf("%s: %q, want %q", kind, list, text)
		}
	}
	if res.Complete() || res.Same != 1 || len(res.Mailboxes) != 1 {
		t.Errorf("%+v", res)
	}
}

// POP3 gives some messages differently: that is known.
func TestDovecotPOP3(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	stored := hazards()
	appendAll(t, s, "ada", "INBOX", stored...)
	src := pop3.New(pop3.Config{Server: server(s, "pop3", s.POP3S), Credentials: auth.Credentials{User: "ada", Password: dovecot.Password}})
	defer src.Close()
	res, found := differences(t, compare.Options{Left: compare.Server(src), Right: compare.Server(imapOf(t, s, "ada"))})
	if !res.Complete() || res.Same+res.Known != int64(len(stored)) || len(found[compare.Missing])+len(found[compare.Altered]) > 0 {
		t.Errorf("%+v %v", res.Counts, found)
	}
}

// More messages than go into one command, in another order.
func TestManyMessages(t *testing.T) {
	const n = 1000
	from, to := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})
	all := make([]dovecot.Message, n)
	for i := range all {
		all[i].Octets = letter(i)
	}
	appendAll(t, from, "ada", "INBOX", all...)
	slices.Reverse(all)
	appendAll(t, to, "ada", "INBOX", all[5:]...)
	res, found := differences(t, compare.Options{Left: compare.Server(imapOf(t, from, "ada")), Right: compare.Server(imapOf(t, to, "ada"))})
	if res.Missing != 5 || res.Same != n-5 || len(found[compare.Missing]) != 5 {
		t.Errorf("%+v %v", res.Counts, found)
	}
}

// hazards are the messages that a server takes.
func hazards() (list []dovecot.Message) {
	for _, h := range corpus.Hazards() {
		if len(h.Octets) > 0 {
			list = append(list, dovecot.Message{Octets: h.Octets})
		}
	}
	return list
}

func letter(i int) []byte {
	return bytes.ReplaceAll(fmt.Appendf(nil, "From: a@x.example\nSubject: letter %d\nMessage-ID: <%d@x>\n\n%s\n", i, i, strings.Repeat("text ", i%50)), []byte("\n"), []byte("\r\n"))
}
