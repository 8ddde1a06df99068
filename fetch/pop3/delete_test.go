package pop3_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/mail"
)

func dovecotSource(s *dovecot.Server, user string) *pop3.Source {
	return pop3.New(pop3.Config{
		Server:      dial.Server{Host: s.Host, Port: s.POP3S, CAFile: s.CAFile, Timeout: 10 * time.Second},
		Credentials: auth.Credentials{User: user, Password: dovecot.Password},
		Pause:       time.Millisecond,
	})
}

// proofs fetches everything and proves it from memory.
func proofs(t *testing.T, src *pop3.Source) []mail.Proof {
	t.Helper()
	ctx := context.Background()
	var wants []mail.Want
	for in, err := range src.List(ctx, mail.Mailbox{}) {
		if err != nil {
			t.Fatal(err)
		}
		wants = append(wants, mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size})
	}
	var out []mail.Proof
	err := src.Fetch(ctx, mail.Mailbox{}, wants, func(in mail.Info, r io.Reader, err error) error {
		if err != nil {
			return err
		}
		octets, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		canonical, sums := mail.CanonicalInPlace(octets)
		p, err := mail.Prove(mail.Receipt{Info: in, Place: in.Ref.UID, Sums: sums}, strings.NewReader(string(canonical)))
		out = append(out, p)
		return err
	})
	if err != nil || len(out) != len(wants) {
		t.Fatalf("%d of %d messages proven: %v", len(out), len(wants), err)
	}
	return out
}

func fill(t *testing.T, s *dovecot.Server, user string, n int) {
	t.Helper()
	var list []dovecot.Message
	for i := range n {
		list = append(list, dovecot.Message{Octets: fmt.Appendf(nil, "Subject: %d\r\nReceived: by x; Mon, 1 Jan 2024 00:00:%02d +0000\r\n\r\nbody %d\r\n", i, i%60, i)})
	}
	if err := s.Append(user, "INBOX", list...); err != nil {
		t.Fatal(err)
	}
}

// order notes what a Delete says.
type order struct {
	mail.DeleteOrder
	intended []int
	gone     []int
	stayed   map[int]string
}

func newOrder(p []mail.Proof) *order {
	o := &order{stayed: make(map[int]string)}
	var mu sync.Mutex
	o.DeleteOrder = mail.DeleteOrder{
		Proofs: p, Mode: mail.ModeExpunge,
		Allow:  func(int, mail.Info) string { return "" },
		Intend: func(passed []int) error { o.intended = slices.Clone(passed); return nil },
		Settle: func(i int, gone bool, why string) {
			mu.Lock()
			defer mu.Unlock()
			if gone {
				o.gone = append(o.gone, i)
			} else {
				o.stayed[i] = why
			}
		},
	}
	return o
}

func TestDelete(t *testing.T) {
	server := dovecot.Start(t, dovecot.Options{})
	tests := []struct {
		name   string
		change func(*testing.T, string, []mail.Proof) []mail.Proof
		again  bool // delete in another session than fetched
		allow  func(int, mail.Info) string
		gone   int
		why    string
	}{
		{name: "same session", gone: 5},
		{name: "another session", again: true, gone: 5},
		{name: "rule", again: true, gone: 4, why: "young", allow: func(i int, in mail.Info) string {
			if in.InternalDate.Equal(time.Date(2024, 1, 1, 0, 0, 2, 0, time.UTC)) {
				return "young"
			}
			return ""
		}},
		{name: "vanished", again: true, gone: 4, why: mail.WhyVanished, change: func(t *testing.T, user string, p []mail.Proof) []mail.Proof {
			if err := server.Expunge(user, "INBOX", "3"); err != nil {
				t.Fatal(err)
			}
			return p
		}},
		{name: "other header", again: true, gone: 4, why: mail.WhyChanged, change: func(t *testing.T, _ string, p []mail.Proof) []mail.Proof {
			rc, _ := p[1].Receipt()
			canonical, sums := mail.CanonicalInPlace([]byte(strings.Repeat("x", int(rc.Wire))))
			rc.Sums = sums
			q, err := mail.Prove(rc, strings.NewReader(string(canonical)))
			if err != nil {
				t.Fatal(err)
			}
			return append(slices.Clone(p[:1]), append([]mail.Proof{q}, p[2:]...)...)
		}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			user := fmt.Sprint("user", i)
			fill(t, server, user, 6)
			src := dovecotSource(server, user)
			defer src.Close()
			p := proofs(t, src)[:5]
			if tt.again {
				src.Close()
				src = dovecotSource(server, user)
				defer src.Close()
			}
			if tt.change != nil {
				p = tt.change(t, user, p)
			}
			if _, err := src.CanDelete(context.Background(), mail.ModeExpunge); err != nil {
				t.Fatal(err)
			}
			o := newOrder(p)
			if tt.allow != nil {
				o.Allow = tt.allow
			}
			if err := src.Delete(context.Background(), mail.Mailbox{}, o.DeleteOrder); err != nil {
				t.Fatal(err)
			}
			if len(o.gone) != tt.gone || len(o.intended) != tt.gone || len(o.stayed) != 5-tt.gone {
				t.Errorf("gone %v, intended %v, stayed %v", o.gone, o.intended, o.stayed)
			}
			for _, why := range o.stayed {
				if why != tt.why {
					t.Errorf("stayed: %s, want %s", why, tt.why)
				}
			}
			left := 6 - tt.gone
			if tt.name == "vanished" {
				left--
			}
			if n, err := server.Count(user, "INBOX"); err != nil || n != left {
				t.Errorf("%d messages left, want %d (%v)", n, left, err)
			}
			// The source goes on with a new session.
			if mbs, err := src.Mailboxes(context.Background()); err != nil || mbs[0].Messages != int64(left) {
				t.Errorf("%v %v", mbs, err)
			}
		})
	}
}

func TestDeleteRefusesZeroProofs(t *testing.T) {
	server := dovecot.Start(t, dovecot.Options{})
	fill(t, server, "ada", 1)
	src := dovecotSource(server, "ada")
	defer src.Close()
	o := newOrder(make([]mail.Proof, 1))
	if err := src.Delete(context.Background(), mail.Mailbox{}, o.DeleteOrder); err == nil || len(o.intended) > 0 {
		t.Errorf("err %v, intended %v", err, o.intended)
	}
	if n, err := server.Count("ada", "INBOX"); err != nil || n != 1 {
		t.Errorf("%d left, %v", n, err)
	}
}
