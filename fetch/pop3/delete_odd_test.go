package pop3_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// maildrop is a POP3 server that forgets, refuses and drops as a test wants.
type maildrop struct {
	mu       sync.Mutex
	messages map[int]string // by the number that makes the UIDL
	sent     []string       // what clients sent
	sessions int

	noTOP bool
	idle  int                                   // the session, from 1, that ends at the first TOP: it was idle for too long
	uidl  func(session, n int) string           // instead of "uidl-n"
	size  func(session, n int) int              // instead of the length
	dele  func(n int) string                    // answer, "" for +OK, "drop" to close, "late" for +OK before that to QUIT
	hangs bool                                  // stays connected after QUIT
	quit  func(marked []int) (string, []int)    // answer ("drop" to close) and what is removed
	show  func(session, n int, s string) string // what TOP and RETR give
}

func (d *maildrop) start(t *testing.T) *pop3.Source {
	t.Helper()
	if d.messages == nil {
		d.messages = make(map[int]string)
		for i := 1; i <= 5; i++ {
			d.messages[i] = fmt.Sprintf("Subject: %d\r\n\r\nbody %d\r\n", i, i)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				d.serve(c)
			})
		}
	})
	src := pop3.New(pop3.Config{
		Server:      dial.Server{Host: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Security: dial.Cleartext, Timeout: 5 * time.Second},
		Credentials: auth.Credentials{User: "ada", Password: "secret"}, Pause: time.Millisecond,
	})
	t.Cleanup(func() { src.Close(); l.Close(); wg.Wait() })
	return src
}

func (d *maildrop) left() []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []int
	for n := range d.messages {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

func (d *maildrop) serve(c net.Conn) {
	w := bufio.NewWriter(c)
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\r\n", args...) }
	d.mu.Lock()
	session := d.sessions
	d.sessions++
	d.mu.Unlock()
	list := d.left()
	var marked []int
	late := false
	say("+OK ready")
	r := bufio.NewReader(c)
	for {
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		d.mu.Lock()
		d.sent = append(d.sent, line)
		d.mu.Unlock()
		verb, arg, _ := strings.Cut(line, " ")
		seq := 0
		_, _ = fmt.Sscan(arg, &seq)
		n := 0
		if seq > 0 && seq <= len(list) {
			n = list[seq-1]
		}
		switch strings.ToUpper(verb) {
		case "CAPA":
			say("+OK\r\nUSER\r\nUIDL\r\nPIPELINING")
			if !d.noTOP {
				say("TOP")
			}
			say(".")
		case "STAT":
			say("+OK %d 100", len(list))
		case "UIDL", "LIST":
			what := func(n int) string {
				switch {
				case verb == "UIDL" && d.uidl != nil:
					return d.uidl(session, n)
				case verb == "UIDL":
					return fmt.Sprint("uidl-", n)
				case d.size != nil:
					return fmt.Sprint(d.size(session, n))
				}
				return fmt.Sprint(len(d.messages[n]))
			}
			if arg != "" {
				say("+OK %d %s", seq, what(n))
				continue
			}
			say("+OK")
			for i, n := range list {
				say("%d %s", i+1, what(n))
			}
			say(".")
		case "RETR", "TOP":
			if verb == "TOP" && session+1 == d.idle {
				return
			}
			if n == 0 || verb == "TOP" && d.noTOP {
				say("-ERR no")
				continue
			}
			text := d.messages[n]
			if d.show != nil {
				text = d.show(session, n, text)
			}
			if verb == "TOP" {
				head, _, _ := strings.Cut(text, "\r\n\r\n")
				text = head + "\r\n\r\n"
			}
			say("+OK\r\n%s.", text)
		case "DELE":
			answer := ""
			if d.dele != nil {
				answer = d.dele(n)
			}
			switch answer {
			case "drop":
				_ = w.Flush()
				return
			case "late":
				marked = append(marked, n)
				late = true
			case "":
				marked = append(marked, n)
				say("+OK")
			default:
				say("%s", answer)
			}
		case "QUIT":
			answer, remove := "+OK bye", marked
			if d.quit != nil {
				answer, remove = d.quit(marked)
			}
			d.mu.Lock()
			for _, n := range remove {
				delete(d.messages, n)
			}
			d.mu.Unlock()
			if late {
				say("+OK marked")
			}
			if answer != "drop" {
				say("%s", answer)
			}
			_ = w.Flush()
			if d.hangs {
				_, _ = r.ReadByte() // until the client has enough
			}
			return
		default:
			say("+OK")
		}
	}
}

func TestDeleteAtOddServers(t *testing.T) {
	all := []int{0, 1, 2, 3, 4}
	for _, tt := range []struct {
		name     string
		drop     *maildrop
		intended []int // nil: no order was sent
		gone     []int
		why      map[int]string
		left     []int
		fails    bool
	}{
		{name: "good", drop: &maildrop{}, intended: all, gone: all},
		{name: "no TOP", drop: &maildrop{noTOP: true}, intended: all, gone: all},
		{name: "idle for too long before", drop: &maildrop{idle: 2}, intended: all, gone: all},
		{name: "DELE refused", drop: &maildrop{dele: func(n int) string {
			if n == 3 {
				return "-ERR locked"
			}
			return ""
		}}, intended: all, gone: []int{0, 1, 3, 4}, why: map[int]string{2: "locked"}, left: []int{3}},
		{name: "dropped after some DELE", drop: &maildrop{dele: func(n int) string {
			if n == 4 {
				return "drop"
			}
			return ""
		}}, intended: all, left: []int{1, 2, 3, 4, 5}, fails: true},
		{name: "dropped at QUIT, all removed", drop: &maildrop{quit: func(m []int) (string, []int) { return "drop", m }}, intended: all, gone: all},
		{name: "dropped at QUIT, nothing removed", drop: &maildrop{quit: func([]int) (string, []int) { return "drop", nil }},
			intended: all, why: map[int]string{0: "did not remove"}, left: []int{1, 2, 3, 4, 5}},
		{name: "a line too many, so that the answer to DELE looks like that to QUIT", drop: &maildrop{
			dele: func(n int) string { return map[int]string{2: "+OK\r\n+OK one too many", 5: "late"}[n] },
		}, intended: all, gone: []int{0, 2, 3, 4}, why: map[int]string{1: "did not remove"}, left: []int{2}},
		{name: "stays connected after QUIT", drop: &maildrop{hangs: true}, intended: all, gone: all},
		{name: "QUIT -ERR, some removed", drop: &maildrop{quit: func(m []int) (string, []int) { return "-ERR some messages were not removed", m[:min(2, len(m))] }},
			intended: all, gone: []int{0, 1}, why: map[int]string{2: "did not remove"}, left: []int{3, 4, 5}},
		{name: "QUIT -ERR, and the next listing is not whole", drop: &maildrop{
			quit: func([]int) (string, []int) { return "-ERR busy", nil },
			uidl: func(session, n int) string {
				if session > 1 && n == 3 {
					return ""
				}
				return fmt.Sprint("uidl-", n)
			},
		}, intended: all, left: []int{1, 2, 3, 4, 5}, fails: true},
		{name: "UIDL used again for another message", drop: &maildrop{show: func(session, n int, s string) string {
			if session > 0 && n == 2 {
				return strings.Replace(s, "Subject: 2", "Subject: X", 1)
			}
			return s
		}}, intended: []int{0, 2, 3, 4}, gone: []int{0, 2, 3, 4}, why: map[int]string{1: mail.WhyChanged}, left: []int{2}},
		{name: "other body, no TOP", drop: &maildrop{noTOP: true, show: func(session, n int, s string) string {
			if session > 0 && n == 2 {
				return strings.Replace(s, "body 2", "body X", 1)
			}
			return s
		}}, intended: []int{0, 2, 3, 4}, gone: []int{0, 2, 3, 4}, why: map[int]string{1: mail.WhyChanged}, left: []int{2}},
		{name: "other size", drop: &maildrop{size: func(session, n int) int {
			if session > 0 && n == 5 {
				return 999
			}
			return len("Subject: 1\r\n\r\nbody 1\r\n")
		}}, intended: []int{0, 1, 2, 3}, gone: []int{0, 1, 2, 3}, why: map[int]string{4: mail.WhyChanged}, left: []int{5}},
		{name: "UIDLs that change", drop: &maildrop{uidl: func(session, n int) string { return fmt.Sprint("s", session, "-", n) }},
			why: map[int]string{0: mail.WhyVanished}, left: []int{1, 2, 3, 4, 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			src := tt.drop.start(t)
			p := proofs(t, src)
			src.Close() // another session than the one they were read in
			src = tt.drop.start(t)
			o := newOrder(p)
			err := src.Delete(context.Background(), mail.Mailbox{}, o.DeleteOrder)
			if tt.fails != (err != nil) || err != nil && mail.KindOf(err) != mail.KindTemporary {
				t.Fatalf("err %v", err)
			}
			slices.Sort(o.gone)
			if !slices.Equal(o.intended, tt.intended) || !slices.Equal(o.gone, tt.gone) {
				t.Errorf("intended %v, gone %v, stayed %v", o.intended, o.gone, o.stayed)
			}
			for i, why := range tt.why {
				if !strings.Contains(o.stayed[i], why) {
					t.Errorf("%d stayed: %q, want %q", i, o.stayed[i], why)
				}
			}
			if tt.fails && len(o.gone)+len(o.stayed) > 0 {
				t.Errorf("settled what is not known: %v %v", o.gone, o.stayed)
			}
			if got := tt.drop.left(); !slices.Equal(got, tt.left) {
				t.Errorf("left %v, want %v", got, tt.left)
			}
		})
	}
}

// The intent is on record before the first DELE; without it nothing is sent.
func TestNoDELEWithoutIntent(t *testing.T) {
	drop := &maildrop{}
	src := drop.start(t)
	o := newOrder(proofs(t, src))
	broken := errors.New("disk full")
	o.Intend = func([]int) error { return broken }
	if err := src.Delete(context.Background(), mail.Mailbox{}, o.DeleteOrder); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	drop.mu.Lock()
	defer drop.mu.Unlock()
	for _, line := range drop.sent {
		if strings.HasPrefix(line, "DELE") {
			t.Errorf("sent: %s", line)
		}
	}
	if len(o.gone) > 0 || len(drop.messages) != 5 {
		t.Errorf("gone %v, %d left", o.gone, len(drop.messages))
	}
}

// Where UIDLs cannot be trusted, nothing can be deleted, and that is said first.
func TestCanDelete(t *testing.T) {
	doubled := &maildrop{uidl: func(_, n int) string { return fmt.Sprint("u", n/2) }}
	src := doubled.start(t)
	if _, err := src.CanDelete(context.Background(), mail.ModeExpunge); mail.KindOf(err) != mail.KindLacking || !strings.Contains(mail.HintOf(err), "IMAP") {
		t.Errorf("doubled UIDLs: %v", err)
	}
	good := &maildrop{}
	src = good.start(t)
	if mode, err := src.CanDelete(context.Background(), mail.ModeExpunge); err != nil || mode != mail.ModeExpunge {
		t.Errorf("%s %v", mode, err)
	}
	if _, err := src.CanDelete(context.Background(), mail.ModeTrash); mail.KindOf(err) != mail.KindLacking || !strings.Contains(mail.HintOf(err), "--trash") {
		t.Errorf("trash: %v", err)
	}
	gmail := pop3.New(pop3.Config{Server: dial.Server{Host: "pop.gmail.com", Port: 1}, Credentials: auth.Credentials{User: "ada"}})
	if _, err := gmail.CanDelete(context.Background(), mail.ModeExpunge); mail.KindOf(err) != mail.KindLacking || !strings.Contains(mail.HintOf(err), "--trash") {
		t.Errorf("Gmail: %v", err)
	}
	for _, d := range []*maildrop{doubled, good} {
		for _, l := range d.sent {
			if strings.HasPrefix(l, "DELE") {
				t.Errorf("sent %s", l)
			}
		}
	}
}
