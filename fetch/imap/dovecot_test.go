package imap_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sourceOf(s *dovecot.Server, user string, port int, change ...func(*imap.Config)) *imap.Source {
	cfg := imap.Config{
		Server:      dial.Server{Host: s.Host, Port: port, CAFile: s.CAFile, Timeout: 20 * time.Second},
		Credentials: auth.Credentials{User: user, Password: dovecot.Password},
		Pause:       10 * time.Millisecond, Version: "test",
	}
	for _, f := range change {
		f(&cfg)
	}
	return imap.New(cfg)
}

// made is messages of 2 to 8 kB, every one different.
func made(n int) []dovecot.Message {
	msgs := make([]dovecot.Message, n)
	for i := range msgs {
		var b bytes.Buffer
		fmt.Fprintf(&b, "From: a@example.org\r\nSubject: %d\r\nMessage-ID: <%d@example.org>\r\n\r\n", i, i)
		for b.Len() < 2000+i*7919%6000 {
			fmt.Fprintf(&b, "line %d of message %d: the quick brown fox jumps over the lazy dog\r\n", b.Len(), i)
		}
		msgs[i] = dovecot.Message{Date: time.Unix(1700000000+int64(i), 0), Octets: b.Bytes()}
		if i%3 == 0 {
			msgs[i].Flags = []string{`\Seen`, "$Forwarded"}
		}
	}
	return msgs
}

type got struct {
	in     mail.Info
	octets []byte
	err    error
}

type collector struct {
	mu  sync.Mutex
	all map[string]got
	dup []string
	cut int // deliveries whose reader failed
}

func (c *collector) deliver(in mail.Info, r io.Reader, err error) error {
	g := got{in: in, err: err}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		if g.octets, err = io.ReadAll(r); err != nil {
			c.cut++
			return nil // as mail.Deliver says: not received
		}
	}
	if c.all == nil {
		c.all = make(map[string]got)
	}
	k := in.Ref.UID
	if k == "" {
		k = fmt.Sprint("#", in.Seq)
	}
	if _, ok := c.all[k]; ok {
		c.dup = append(c.dup, k)
	}
	c.all[k] = g
	return nil
}

func listAll(t testing.TB, s *imap.Source, mb mail.Mailbox) (infos []mail.Info, wants []mail.Want) {
	t.Helper()
	for in, err := range s.List(context.Background(), mb) {
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, in)
		wants = append(wants, mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size})
	}
	return infos, wants
}

func inbox(t testing.TB, s *imap.Source, name string) mail.Mailbox {
	t.Helper()
	all, err := s.Mailboxes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, mb := range all {
		if mb.Name == name {
			return mb
		}
	}
	t.Fatalf("no mailbox %s in %+v", name, all)
	return mail.Mailbox{}
}

func TestDovecot(t *testing.T) {
	srv := dovecot.Start(t, dovecot.Options{Prefix: "INBOX.", Separator: ".", Compress: true})
	want := made(700)
	big := bytes.Repeat([]byte("0123456789abcdef0123456789abcdef0123456789abcdef\r\n"), 30_000)
	want = append(want, dovecot.Message{Date: time.Unix(1600000000, 0), Octets: append([]byte("Subject: big\r\n\r\n"), big...)})
	if err := srv.Append("ada", "INBOX", want...); err != nil {
		t.Fatal(err)
	}
	if err := srv.Append("ada", "INBOX.Entwürfe.2023", want[:3]...); err != nil {
		t.Fatal(err)
	}
	for _, compress := range []imap.Compression{imap.CompressNever, imap.CompressAlways} {
		s := sourceOf(srv, "ada", srv.IMAPS, func(cfg *imap.Config) { cfg.Compress = compress })
		mb := inbox(t, s, "INBOX")
		if mb.Messages != int64(len(want)) || mb.State == "" || mb.UIDValidity == 0 {
			t.Errorf("state: %+v", mb)
		}
		infos, wants := listAll(t, s, mb)
		if len(infos) != len(want) {
			t.Fatalf("listed %d of %d", len(infos), len(want))
		}
		for i, in := range infos {
			w := want[i]
			if in.Size != int64(len(w.Octets)) || !in.InternalDate.Equal(w.Date) || in.Flags != mail.NewFlags(w.Flags...) {
				t.Fatalf("listed %+v, loaded %v %v %d octets", in, w.Flags, w.Date, len(w.Octets))
			}
		}
		var c collector
		if err := s.Fetch(context.Background(), mb, wants, c.deliver); err != nil {
			t.Fatal(err)
		}
		for i, in := range infos {
			g := c.all[in.Ref.UID]
			if g.err != nil || !bytes.Equal(g.octets, want[i].Octets) || g.in != in {
				t.Fatalf("UID %s: %d octets, %v, %+v; want %d octets, %+v", in.Ref.UID, len(g.octets), g.err, g.in, len(want[i].Octets), in)
			}
		}
		if len(c.dup) > 0 || len(c.all) != len(want) {
			t.Errorf("%d messages delivered, doubled: %v", len(c.all), c.dup)
		}
		var h collector
		if err := s.Headers(context.Background(), mb, wants, h.deliver); err != nil {
			t.Fatal(err)
		}
		for i, in := range infos {
			head, _, _ := bytes.Cut(want[i].Octets, []byte("\r\n\r\n"))
			if g := h.all[in.Ref.UID]; g.err != nil || string(g.octets) != string(head)+"\r\n\r\n" {
				t.Fatalf("header of UID %s: %q %v", in.Ref.UID, g.octets, g.err)
			}
		}
		sub := inbox(t, s, "Entwürfe/2023")
		if infos, _ := listAll(t, s, sub); len(infos) != 3 {
			t.Errorf("%d messages in %s", len(infos), sub.Name)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	msgs, err := srv.Messages("ada", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range msgs {
		if mail.NewFlags(m.Flags...) != mail.NewFlags(want[i].Flags...) {
			t.Fatalf("flags at the server became %v", m.Flags)
		}
	}
}

func BenchmarkDovecot(b *testing.B) {
	srv := dovecot.Start(b, dovecot.Options{})
	msgs := made(5000)
	if err := srv.Append("ada", "INBOX", msgs...); err != nil {
		b.Fatal(err)
	}
	var n int64
	for _, m := range msgs {
		n += int64(len(m.Octets))
	}
	b.SetBytes(n)
	b.ReportAllocs()
	for b.Loop() {
		s := sourceOf(srv, "ada", srv.IMAPS)
		mb := inbox(b, s, "INBOX")
		_, wants := listAll(b, s, mb)
		var mu sync.Mutex
		var sum int64
		err := s.Fetch(context.Background(), mb, wants, func(_ mail.Info, r io.Reader, err error) error {
			k, _ := io.Copy(io.Discard, r)
			mu.Lock()
			sum += k
			mu.Unlock()
			return err
		})
		if err != nil || sum != n {
			b.Fatal(err, sum, n)
		}
		s.Close()
	}
}
