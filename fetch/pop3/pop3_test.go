package pop3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/fetch/fetchtest"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/corpus"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

const (
	user     = "ada"
	password = "difference-engine"
)

// serve starts a server for one account and a source for it.
func serve(t *testing.T, o testserver.POP3Options) (*testserver.POP3, *pop3.Source) {
	t.Helper()
	o.User, o.Password = user, password
	s, err := testserver.NewPOP3(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, source(t, config(s.Port()))
}

func config(port int) pop3.Config {
	return pop3.Config{
		Server:      dial.Server{Host: "127.0.0.1", Port: port, Security: dial.Cleartext, Timeout: 5 * time.Second},
		Credentials: auth.Credentials{User: user, Password: password},
		Pause:       time.Millisecond,
	}
}

func source(t *testing.T, c pop3.Config) *pop3.Source {
	s := pop3.New(c)
	t.Cleanup(func() { s.Close() })
	return s
}

func script(t *testing.T, scripts ...[]testserver.Step) (*testserver.Script, *pop3.Source) {
	t.Helper()
	s, err := testserver.NewScript(scripts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, source(t, config(s.Port()))
}

func conformance(faults testserver.POP3Faults) fetchtest.Open {
	return func(t *testing.T, messages []fetchtest.Message) fetchtest.Account {
		f := faults
		f.Refuse = make(map[int]string)
		var list []testserver.POP3Message
		for i, m := range messages {
			list = append(list, testserver.POP3Message{Octets: m.Octets})
			if m.Refused {
				f.Refuse[i+1] = "-ERR cannot read this message"
			}
		}
		s, src := serve(t, testserver.POP3Options{Messages: list, Faults: f})
		return fetchtest.Account{
			Source: src, Mailbox: pop3.Inbox, CanRefuse: true,
			Snapshot: func() string {
				var octets [][]byte
				for _, m := range s.Messages() {
					octets = append(octets, m.Octets)
				}
				return fetchtest.Snapshot(octets)
			},
		}
	}
}

func TestSource(t *testing.T) {
	for name, faults := range map[string]testserver.POP3Faults{
		"good":          {},
		"no pipelining": {NoPipelining: true},
		"no CAPA":       {NoCAPA: true, NoPipelining: true},
		"sizes lie":     {List: func(i int) string { return fmt.Sprint(i+1, " 7") }},
	} {
		t.Run(name, func(t *testing.T) { fetchtest.Run(t, conformance(faults)) })
	}
}

func TestSourceDovecot(t *testing.T) {
	server := dovecot.Start(t, dovecot.Options{})
	n := 0
	fetchtest.Run(t, func(t *testing.T, messages []fetchtest.Message) fetchtest.Account {
		n++
		user := fmt.Sprint("user", n)
		var list []dovecot.Message
		for _, m := range messages {
			list = append(list, dovecot.Message{Octets: m.Octets})
		}
		if err := server.Append(user, "INBOX", list...); err != nil {
			t.Fatal(err)
		}
		_, held, err := server.MessagesPOP3(user)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range held {
			messages[i].Octets = m
		}
		return fetchtest.Account{Source: dovecotSource(server, user), Mailbox: pop3.Inbox}
	})
}

// message makes a small message.
func message(body string) testserver.POP3Message {
	return testserver.POP3Message{Octets: []byte("Received: from a by b; Mon, 1 Jan 2024 10:00:00 +0100\r\nDate: Sun, 31 Dec 2023 10:00:00 +0000\r\nSubject: x\r\n\r\n" + body)}
}

func messages(n int) []testserver.POP3Message {
	var out []testserver.POP3Message
	for i := range n {
		out = append(out, message(fmt.Sprintf("body %d\r\n", i)))
	}
	return out
}

// fetched is the outcome of fetching everything that was listed.
type fetched struct {
	infos  []mail.Info
	octets map[uint32]string // by the number in the listing
	errs   map[uint32]error
	calls  int
	err    error
}

func fetchAll(t *testing.T, src *pop3.Source) fetched {
	t.Helper()
	f := fetched{octets: make(map[uint32]string), errs: make(map[uint32]error)}
	var wants []mail.Want
	byUID := make(map[string]uint32)
	for in, err := range src.List(t.Context(), mail.Mailbox{}) {
		if err != nil {
			f.err = err
			return f
		}
		f.infos = append(f.infos, in)
		byUID[in.Ref.UID] = in.Seq
		wants = append(wants, mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size})
	}
	f.err = src.Fetch(t.Context(), mail.Mailbox{}, wants, func(in mail.Info, r io.Reader, err error) error {
		f.calls++
		seq := in.Seq
		if in.Ref.UID != "" {
			seq = byUID[in.Ref.UID]
		}
		if err != nil {
			f.errs[seq] = err
			return nil
		}
		b, err := io.ReadAll(r)
		if err == nil {
			f.octets[seq] = string(b)
		}
		return nil
	})
	return f
}

// exactly checks that the messages numbered got there with their octets and that
// nothing else did.
func (f fetched) exactly(t *testing.T, list []testserver.POP3Message, numbers ...int) {
	t.Helper()
	if f.err != nil {
		t.Fatalf("fetch: %v", f.err)
	}
	if len(f.octets) != len(numbers) {
		t.Errorf("%d messages delivered, want %d; errors: %v", len(f.octets), len(numbers), f.errs)
	}
	for _, n := range numbers {
		if got := f.octets[uint32(n)]; got != string(list[n-1].Octets) {
			t.Errorf("message %d: got %.200q, want %.200q", n, got, list[n-1].Octets)
		}
	}
	if want := len(list); len(f.octets)+len(f.errs) != want || f.calls != want {
		t.Errorf("%d delivered, %d failed, %d calls for %d messages", len(f.octets), len(f.errs), f.calls, want)
	}
}

func TestUnstuffedDots(t *testing.T) {
	list := messages(5)
	list[1] = message("before\r\n.\r\n+OK forged\r\nSubject: forged\r\n\r\nafter\r\n")
	list[3] = message("x\n.\r\n.one dot\r\n..two\r\n")
	for name, faults := range map[string]testserver.POP3Faults{
		"pipelined":     {NoStuffing: true},
		"one by one":    {NoStuffing: true, NoPipelining: true},
		"without UIDLs": {NoStuffing: true, NoPipelining: true, NoUIDL: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, src := serve(t, testserver.POP3Options{Messages: list, Faults: faults})
			f := fetchAll(t, src)
			if f.err != nil {
				t.Fatal(f.err)
			}
			for n, got := range f.octets {
				if n != 4 && got != string(list[n-1].Octets) {
					t.Errorf("message %d: octets of another: %q", n, got)
				}
			}
			if f.errs[2] == nil {
				t.Error("a message whose end cannot be known was delivered")
			}
			if f.octets[1] == "" || !faults.NoUIDL && (f.octets[3] == "" || f.octets[5] == "") {
				t.Errorf("the others did not get through: %v", f.errs)
			}
		})
	}
}

// An extra line shifts every answer behind it.
func TestExtraStatusLine(t *testing.T) {
	list := messages(6)
	body := string(list[2].Octets) + ".\r\n+OK one too many\r\n"
	_, src := serve(t, testserver.POP3Options{Messages: list, Faults: testserver.POP3Faults{Rewrite: map[int]string{3: body}}})
	f := fetchAll(t, src)
	if f.err != nil {
		t.Fatal(f.err)
	}
	for n, got := range f.octets {
		if got != string(list[n-1].Octets) {
			t.Errorf("message %d: %q", n, got)
		}
	}
	for _, n := range []uint32{1, 2, 4, 5, 6} {
		if f.octets[n] == "" {
			t.Errorf("message %d did not get through: %v", n, f.errs[n])
		}
	}
}

func TestListings(t *testing.T) {
	list := messages(4)
	uidl := func(lines ...string) func(int) string { return func(i int) string { return lines[i] } }
	long := strings.Repeat("a", 200)
	tests := []struct {
		name   string
		faults testserver.POP3Faults
		uids   []string // "" for none
		sizes  []int64  // nil for the right ones
		state  bool
	}{
		{name: "good", faults: testserver.POP3Faults{UIDL: uidl("1 a", "2 b", "3 c", "4 d")}, uids: []string{"a", "b", "c", "d"}, state: true},
		{name: "case only", faults: testserver.POP3Faults{UIDL: uidl("1 a", "2 A", "3 ../x", "4 /")}, uids: []string{"a", "A", "../x", "/"}, state: true},
		{name: "over-long", faults: testserver.POP3Faults{UIDL: uidl("1 "+long+"1", "2 "+long+"2", "3 c", "4 "+strings.Repeat("d", 5000))}, uids: []string{long + "1", long + "2", "c", ""}},
		{name: "with space", faults: testserver.POP3Faults{UIDL: uidl("1 aa bb", "2 aa cc", "3 c", "4  d ")}, uids: []string{"aa bb", "aa cc", "c", "d"}, state: true},
		{name: "doubled", faults: testserver.POP3Faults{UIDL: uidl("1 a", "2 a", "3 c", "4 d")}, uids: []string{"", "", "c", "d"}},
		{name: "all equal", faults: testserver.POP3Faults{UIDL: uidl("1 a", "2 a", "3 a", "4 a")}, uids: []string{"", "", "", ""}},
		{name: "missing", faults: testserver.POP3Faults{UIDL: uidl("1 a", "", "3 c", "4 d")}, uids: []string{"a", "", "c", "d"}},
		{name: "blank", faults: testserver.POP3Faults{UIDL: uidl("1 a", "2 ", "3", "4 d")}, uids: []string{"a", "", "", "d"}},
		{name: "control characters", faults: testserver.POP3Faults{UIDL: uidl("1 a\x1b[2J", "2 b\x00", "3 \xff", "4 d")}, uids: []string{"", "", "", "d"}},
		{name: "numbers", faults: testserver.POP3Faults{UIDL: uidl("0 a", "4294967297 b", "-3 c", "4 d")}, uids: []string{"", "", "", "d"}},
		{name: "one number twice", faults: testserver.POP3Faults{UIDL: uidl("1 a", "1 b", "3 c", "4 d")}, uids: []string{"", "", "c", "d"}},
		{name: "swapped", faults: testserver.POP3Faults{UIDL: uidl("2 b", "1 a", "4 d", "3 c")}, uids: []string{"a", "b", "c", "d"}, state: true},
		{name: "longer than STAT", faults: testserver.POP3Faults{UIDL: uidl("1 a\r\n7 x\r\n5 y", "2 b", "3 c", "4 d")}, uids: []string{"a", "b", "c", "d"}},
		{name: "none", faults: testserver.POP3Faults{NoUIDL: true}, uids: []string{"", "", "", ""}},
		{name: "sizes", faults: testserver.POP3Faults{
			UIDL: uidl("1 a", "2 b", "3 c", "4 d"),
			List: uidl("1 -5", "2 9223372036854775808", "3 ", "4 1000000000 more"),
		}, uids: []string{"a", "b", "c", "d"}, sizes: []int64{-1, -1, -1, 1000000000}, state: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, src := serve(t, testserver.POP3Options{Messages: list, Faults: tt.faults})
			mbs, err := src.Mailboxes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if (mbs[0].State != "") != tt.state {
				t.Errorf("state %q", mbs[0].State)
			}
			f := fetchAll(t, src)
			f.exactly(t, list, 1, 2, 3, 4)
			for i, in := range f.infos {
				size := int64(len(list[i].Octets))
				if tt.sizes != nil {
					size = tt.sizes[i]
				}
				if in.Ref.UID != tt.uids[i] || in.Seq != uint32(i+1) || in.Size != size {
					t.Errorf("message %d: %+v, want UIDL %q, size %d", i+1, in, tt.uids[i], size)
				}
			}
		})
	}
}

func TestState(t *testing.T) {
	s, src := serve(t, testserver.POP3Options{Messages: messages(3)})
	state := func(src *pop3.Source) string {
		t.Helper()
		mbs, err := src.Mailboxes(t.Context())
		if err != nil || mbs[0].State == "" {
			t.Fatalf("%+v, %v", mbs, err)
		}
		return mbs[0].State
	}
	first := state(src)
	if got := s.Commands(); !slices.Equal(got, []string{"CAPA", "AUTH", "STAT", "UIDL"}) {
		t.Errorf("a run with nothing new asks %v", got)
	}
	src.Close()
	again := source(t, config(s.Port()))
	if state(again) != first {
		t.Error("the state changed, though nothing happened")
	}
	again.Close()
	s.Add(message("new\r\n"))
	if state(source(t, config(s.Port()))) == first {
		t.Error("a new message did not change the state")
	}
}

func TestInternalDate(t *testing.T) {
	list := messages(1)
	list = append(list, testserver.POP3Message{Octets: []byte("Date: 1 Feb 2024 08:00 EST\r\n\r\nx\r\n")}, testserver.POP3Message{Octets: []byte("no header\r\n")})
	_, src := serve(t, testserver.POP3Options{Messages: list})
	want := []struct {
		at   time.Time
		from mail.DateSource
	}{
		{time.Date(2024, 1, 1, 9, 0, 0, 0, time.UTC), mail.DateReceived},
		{time.Date(2024, 2, 1, 13, 0, 0, 0, time.UTC), mail.DateHeader},
		{time.Time{}, mail.DateUnknown},
	}
	var wants []mail.Want
	for in, err := range src.List(t.Context(), mail.Mailbox{}) {
		if err != nil {
			t.Fatal(err)
		}
		wants = append(wants, mail.Want{UID: in.Ref.UID})
	}
	for name, get := range map[string]func(context.Context, mail.Mailbox, []mail.Want, mail.Deliver) error{"fetch": src.Fetch, "headers": src.Headers} {
		i := 0
		err := get(t.Context(), mail.Mailbox{}, wants, func(in mail.Info, _ io.Reader, err error) error {
			if err != nil || !in.InternalDate.Equal(want[i].at) || in.DateFrom != want[i].from {
				t.Errorf("%s %d: %v from %q, %v", name, i, in.InternalDate, in.DateFrom, err)
			}
			i++
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The connection is cut once after every so many octets; each message arrives all
// the same, and once.
func TestCutAnywhere(t *testing.T) {
	list := messages(6)
	list = append(list, testserver.POP3Message{Octets: append([]byte("Subject: big\r\n\r\n"), bytes.Repeat([]byte("0123456789abcdef\r\n"), 16<<10)...)})
	whole := int64(0)
	for _, m := range list {
		whole += int64(len(m.Octets))
	}
	for _, cut := range append(cuts(1, 3000, 61), cuts(3000, whole, 40_000)...) {
		_, src := serve(t, testserver.POP3Options{Messages: list, Faults: testserver.POP3Faults{CutDown: cut, CutTimes: 1}})
		f := fetchAll(t, src)
		if f.err != nil && f.infos == nil {
			continue // cut before the login was through: the first connection is not tried again
		}
		if f.err != nil || len(f.octets) != len(list) {
			t.Fatalf("cut after %d octets: %d of %d delivered, errors %v, %v", cut, len(f.octets), len(list), f.errs, f.err)
		}
		for i, m := range list {
			if f.octets[uint32(i+1)] != string(m.Octets) {
				t.Errorf("cut after %d octets: message %d has other octets", cut, i+1)
			}
		}
		src.Close()
	}
}

func cuts(from, to, step int64) (out []int64) {
	for n := from; n < to; n += step {
		out = append(out, n)
	}
	return out
}

// A message number holds for one session only.
func TestLostWithoutUIDL(t *testing.T) {
	list := messages(6)
	_, src := serve(t, testserver.POP3Options{Messages: list, Faults: testserver.POP3Faults{
		CutDown: 700, CutTimes: 1,
		UIDL: func(i int) string { return fmt.Sprint(i+1, " ", []string{"a", "b", "c", "d", "d", "f"}[i]) },
	}})
	f := fetchAll(t, src)
	f.exactly(t, list, 1, 2, 3, 6)
	for _, n := range []uint32{4, 5} {
		if mail.KindOf(f.errs[n]) != mail.KindTemporary || mail.HintOf(f.errs[n]) == "" {
			t.Errorf("message %d: %v", n, f.errs[n])
		}
	}
}

func TestMessageThatEndsTheConnection(t *testing.T) {
	list := messages(5)
	_, src := serve(t, testserver.POP3Options{Messages: list, Faults: testserver.POP3Faults{DropAt: map[int]bool{3: true}}})
	f := fetchAll(t, src)
	f.exactly(t, list, 1, 2, 4, 5)
	if mail.KindOf(f.errs[3]) != mail.KindTemporary || !strings.Contains(fmt.Sprint(f.errs[3]), "lost twice over this message") || mail.HintOf(f.errs[3]) == "" {
		t.Errorf("message 3: %v", f.errs[3])
	}
}

func TestServerThatAlwaysDrops(t *testing.T) {
	list := messages(20)
	s, src := serve(t, testserver.POP3Options{Messages: list, Faults: testserver.POP3Faults{CutDown: 1100}})
	f := fetchAll(t, src)
	if f.err == nil && len(f.octets) < len(list) {
		t.Errorf("no error, but only %d messages", len(f.octets))
	}
	if n := s.Connections(); n > 3*len(list) {
		t.Errorf("%d connections", n)
	}
}

func TestConsumes(t *testing.T) {
	s, src := serve(t, testserver.POP3Options{Messages: messages(3), Faults: testserver.POP3Faults{Expire0: true}})
	f := fetched{octets: make(map[uint32]string)}
	var wants []mail.Want
	for in := range src.List(t.Context(), mail.Mailbox{}) {
		wants = append(wants, mail.Want{UID: in.Ref.UID})
	}
	if !src.Consumes() {
		t.Fatal("EXPIRE 0 was not noticed")
	}
	f.err = src.Fetch(t.Context(), mail.Mailbox{}, wants, func(in mail.Info, r io.Reader, err error) error {
		f.calls++
		asked := 0
		for _, c := range s.Commands() {
			if strings.HasPrefix(c, "RETR") {
				asked++
			}
		}
		if asked > f.calls {
			t.Errorf("%d messages asked for, %d delivered", asked, f.calls)
		}
		return err
	})
	if f.err != nil || f.calls != 3 {
		t.Fatal(f.err, f.calls)
	}
	src.Abandon()
	src.Close()
	if slices.Contains(s.Commands(), "QUIT") || len(s.Messages()) != 3 {
		t.Error("an abandoned session ended with QUIT")
	}
}

func TestGmailConsumes(t *testing.T) {
	for host, want := range map[string]bool{"pop.gmail.com": true, "POP.googlemail.com.": true, "pop.example.org": false} {
		src := pop3.New(pop3.Config{Server: dial.Server{Host: host}, Credentials: auth.Credentials{User: user}})
		if src.Consumes() != want {
			t.Errorf("%s: %v", host, !want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	list := messages(3)
	list[1] = message(strings.Repeat("much too much\r\n", 50_000))
	for name, faults := range map[string]testserver.POP3Faults{
		"listed": {},
		"hidden": {List: func(i int) string { return fmt.Sprint(i+1, " 10") }},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := serve(t, testserver.POP3Options{Messages: list, Faults: faults})
			c := config(s.Port())
			c.MaxMessage = 300_000
			f := fetchAll(t, source(t, c))
			if f.err != nil || len(f.octets) != 2 || f.errs[2] == nil {
				t.Errorf("%d delivered, errors %v, %v", len(f.octets), f.errs, f.err)
			}
		})
	}
}

func TestCAPADropsTheConnection(t *testing.T) {
	list := messages(2)
	_, src := serve(t, testserver.POP3Options{Messages: list, Faults: testserver.POP3Faults{DropCAPA: true}})
	fetchAll(t, src).exactly(t, list, 1, 2)
}

// A server that cannot be reached at first is tried a few times more; one that has
// spoken is not.
func TestFirstConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		steps []testserver.Step
		tries int
	}{
		"reset":          {[]testserver.Step{testserver.Reset()}, 3},
		"closed":         {[]testserver.Step{testserver.Cut()}, 3},
		"after greeting": {[]testserver.Step{testserver.Send("-ERR not now\r\n")}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, src := script(t, tt.steps)
			if _, err := src.Mailboxes(t.Context()); mail.KindOf(err) != mail.KindTemporary {
				t.Error(err)
			}
			if s.Connections() != tt.tries {
				t.Errorf("%d connections, want %d", s.Connections(), tt.tries)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	tests := []struct {
		name   string
		answer string
		kind   mail.Kind
	}{
		{"wrong", "-ERR [AUTH] no", mail.KindAuth},
		{"plain words", "-ERR no", mail.KindAuth},
		{"locked account", "-ERR your account is locked", mail.KindAuth},
		{"in use", "-ERR [IN-USE] try later", mail.KindTemporary},
		{"in use, in words", "-ERR maildrop already locked", mail.KindTemporary},
		{"delay", "-ERR [LOGIN-DELAY] minimum time", mail.KindTemporary},
		{"trouble", "-ERR [SYS/TEMP] oops", mail.KindTemporary},
		{"for good", "-ERR [SYS/PERM] gone", mail.KindAuth},
		{"echo", "-ERR bad password " + password, mail.KindAuth},
		{"echo that is no answer", "PASS " + password, mail.KindTemporary},
		{"empty line is no success", "", mail.KindTemporary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			steps := []testserver.Step{
				testserver.Send("+OK\r\n"), testserver.Answer("^CAPA$", "+OK\r\nUSER\r\n.\r\n"),
				testserver.Answer("^USER ada$", "+OK\r\n"), testserver.Answer("^PASS "+password+"$", tt.answer+"\r\n"), testserver.Hold(),
			}
			s, src := script(t, steps)
			_, err := src.Mailboxes(t.Context())
			if e, ok := errors.AsType[*mail.Error](err); !ok || e.Kind != tt.kind || e.Hint == "" || e.Ref.Account == "" {
				t.Errorf("%#v", err)
			}
			if strings.Contains(fmt.Sprintf("%v %+v", err, err), password) {
				t.Error("the error tells the password")
			}
			if s.Connections() != 1 {
				t.Errorf("%d connections: a login is tried once", s.Connections())
			}
			src.Close()
			for _, e := range s.Errs() {
				t.Error(e)
			}
		})
	}
}

func TestGreetings(t *testing.T) {
	tests := []struct {
		name     string
		greeting testserver.Step
		kind     mail.Kind
	}{
		{"garbage", testserver.Send("\x1b[31mhello\r\n"), mail.KindOther},
		{"HTTP", testserver.Send("HTTP/1.1 400 Bad Request\r\n\r\n"), mail.KindOther},
		{"empty line", testserver.Send("\r\n"), mail.KindOther},
		{"busy", testserver.Send("-ERR too many connections\r\n"), mail.KindTemporary},
		{"endless line", testserver.Flood("aaaaaaaaaaaaaaaa", 1<<16), mail.KindOther},
		{"nothing", testserver.Cut(), mail.KindTemporary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, src := script(t, []testserver.Step{tt.greeting, testserver.Hold()})
			if _, err := src.Mailboxes(t.Context()); mail.KindOf(err) != tt.kind || err == nil {
				t.Errorf("kind %v: %v", mail.KindOf(err), err)
			}
		})
	}
}

func TestSASLChallengesForEver(t *testing.T) {
	steps := []testserver.Step{testserver.Send("+OK\r\n"), testserver.Answer("CAPA", "+OK\r\nSASL PLAIN\r\n.\r\n"), testserver.Answer("^AUTH PLAIN ", "+ \r\n")}
	for range 20 {
		steps = append(steps, testserver.Answer(`^\*$`, "+ \r\n"))
	}
	_, src := script(t, steps)
	if _, err := src.Mailboxes(t.Context()); err == nil {
		t.Error("logged in")
	}
}

func TestSTLS(t *testing.T) {
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ca.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	caFile, err := ca.WriteFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	connect := func(t *testing.T, port int) error {
		c := config(port)
		c.Server.Security, c.Server.CAFile = dial.StartTLS, caFile
		_, err := source(t, c).Mailboxes(t.Context())
		return err
	}
	t.Run("good", func(t *testing.T) {
		s, _ := serve(t, testserver.POP3Options{TLS: cfg, Messages: messages(2)})
		if err := connect(t, s.Port()); err != nil {
			t.Error(err)
		}
		if got := s.Commands(); got[0] != "STLS" {
			t.Errorf("%v", got)
		}
	})
	for _, tt := range []struct {
		name   string
		answer string
		kind   mail.Kind
	}{
		{"not offered", "-ERR unknown command\r\n", mail.KindLacking},
		{"injected", "+OK go\r\n+OK injected\r\n", mail.KindAuth},
		{"plain text after", "+OK go\r\n", mail.KindAuth},
	} {
		t.Run(tt.name, func(t *testing.T) {
			steps := []testserver.Step{testserver.Send("+OK\r\n"), testserver.Answer("^STLS$", tt.answer)}
			if tt.name == "plain text after" {
				steps = append(steps, testserver.SendAfter(50*time.Millisecond, "+OK still here, log in please\r\n"))
			}
			s, _ := script(t, append(steps, testserver.Hold()))
			if err := connect(t, s.Port()); mail.KindOf(err) != tt.kind || mail.HintOf(err) == "" {
				t.Errorf("kind %v: %v", mail.KindOf(err), err)
			}
		})
	}
}

// login is what a scripted server answers up to STAT.
func login(count int) []testserver.Step {
	return []testserver.Step{
		testserver.Send("+OK\r\n"), testserver.Answer("^CAPA$", "+OK\r\nUSER\r\nPIPELINING\r\n.\r\n"),
		testserver.Answer("^USER", "+OK\r\n"), testserver.Answer("^PASS", "+OK\r\n"),
		testserver.Answer("^STAT$", fmt.Sprintf("+OK %d 1000\r\n", count)),
	}
}

// A listing that was not read to its end, or cannot be one, is none.
func TestListingsThatEndBadly(t *testing.T) {
	tests := []struct {
		name string
		step testserver.Step
		kind mail.Kind
	}{
		{"cut", testserver.Send("+OK\r\n1 a\r\n"), mail.KindTemporary},
		{"cut behind a line end", testserver.Send("+OK\r\n1 a\r\n2 b\r\n3 c\r\n"), mail.KindTemporary},
		{"no status", testserver.Send("1 a\r\n2 b\r\n3 c\r\n.\r\n"), mail.KindOther},
		{"without end", testserver.Flood("1 a\r\n", 2_000_000), mail.KindOther},
		{"one line without end", testserver.Flood("+OK aaaaaaaaa", 1<<20), mail.KindOther},
		{"busy", testserver.Send("-ERR [SYS/TEMP] not now\r\n.\r\n"), mail.KindTemporary},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, src := script(t, append(login(3), testserver.Expect("^UIDL$"), tt.step, testserver.Cut()))
			_, err := src.Mailboxes(t.Context())
			if e, ok := errors.AsType[*mail.Error](err); !ok || e.Kind != tt.kind || e.Hint == "" {
				t.Errorf("%#v", err)
			}
			if n := s.Connections(); n > 3 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// Where everything will be fetched, the sizes are asked for in the round trip of
// STAT and UIDL.
func TestExpectAll(t *testing.T) {
	steps := login(2)
	steps = append(steps[:len(steps)-1],
		testserver.Expect("^STAT$"), testserver.Expect("^UIDL$"), testserver.Expect("^LIST$"),
		testserver.Send("+OK 2 30\r\n+OK\r\n1 a\r\n2 b\r\n.\r\n+OK\r\n1 10\r\n2 20\r\n.\r\n"),
		testserver.Answer("^QUIT$", "+OK\r\n"))
	_, src := script(t, steps)
	src.ExpectAll()
	mbs, err := src.Mailboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for in, err := range src.List(t.Context(), mbs[0]) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, in.Size)
	}
	if !slices.Equal(got, []int64{10, 20}) {
		t.Errorf("sizes %v", got)
	}
}

func TestSTATThatCannotBe(t *testing.T) {
	for _, answer := range []string{"+OK", "+OK many", "+OK -1 5", "+OK 4294967296 5", "+OK 99999999999999999999 1"} {
		steps := login(0)
		steps[len(steps)-1] = testserver.Answer("^STAT$", answer+"\r\n")
		_, src := script(t, append(steps, testserver.Hold()))
		if mbs, err := src.Mailboxes(t.Context()); mail.KindOf(err) != mail.KindOther || err == nil {
			t.Errorf("%q: %v, %v", answer, mbs, err)
		}
	}
}

func TestSilence(t *testing.T) {
	for name, steps := range map[string][]testserver.Step{
		"greeting":  {testserver.Hold()},
		"login":     {testserver.Send("+OK\r\n"), testserver.Answer("^CAPA$", "-ERR\r\n"), testserver.Hold()},
		"list":      append(login(1), testserver.Hold()),
		"mid-body":  append(login(1), testserver.Answer("UIDL", "+OK\r\n1 a\r\n.\r\n"), testserver.Answer("LIST", "+OK\r\n1 9\r\n.\r\n"), testserver.Answer("RETR", "+OK\r\nhalf a"), testserver.Hold()),
		"body only": append(login(1), testserver.Answer("UIDL", "+OK\r\n1 a\r\n.\r\n"), testserver.Answer("LIST", "+OK\r\n1 9\r\n.\r\n"), testserver.Answer("RETR", "+OK\r\nhalf a\r\n.\r"), testserver.Hold()),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := testserver.NewScript(steps)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			c := config(s.Port())
			c.Server.Timeout = 100 * time.Millisecond
			f := fetchAll(t, source(t, c))
			err = errors.Join(f.err, f.errs[1])
			if len(f.octets) > 0 || mail.KindOf(err) != mail.KindTemporary || !strings.Contains(mail.HintOf(err), "--timeout") {
				t.Errorf("%d delivered, %v", len(f.octets), err)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	s, _ := serve(t, testserver.POP3Options{})
	for _, bad := range []auth.Credentials{{User: user + "\r\nDELE 1", Password: password}, {User: user, Password: password + "\nQUIT"}, {User: user}} {
		c := config(s.Port())
		c.Credentials = bad
		if _, err := source(t, c).Mailboxes(t.Context()); mail.KindOf(err) != mail.KindAuth {
			t.Errorf("%q: %v", bad.User, err)
		}
	}
	for _, cmd := range s.Commands() {
		if cmd != "CAPA" {
			t.Errorf("%q was sent", cmd)
		}
	}
}

func TestTrace(t *testing.T) {
	var out bytes.Buffer
	for _, noSASL := range []bool{false, true} {
		s, _ := serve(t, testserver.POP3Options{
			Messages: []testserver.POP3Message{message("private words\r\n")},
			Faults:   testserver.POP3Faults{NoSASL: noSASL},
		})
		c := config(s.Port())
		c.Server.Trace = &dial.Trace{W: &out}
		src := source(t, c)
		if f := fetchAll(t, src); f.err != nil {
			t.Fatal(f.err)
		}
		src.Close()
	}
	got := out.String()
	for _, secret := range []string{password, "private words", "AGFkYQ"} {
		if strings.Contains(got, secret) {
			t.Errorf("the trace holds %q:\n%s", secret, got)
		}
	}
	for _, part := range []string{"C: STAT", "C: RETR 1", "octets]", "C: AUTH PLAIN ***", "C: PASS ***", "C: QUIT"} {
		if !strings.Contains(got, part) {
			t.Errorf("the trace lacks %q:\n%s", part, got)
		}
	}
}

// Small batches against a server that reads nothing while it sends: whoever
// waited for the commands to go before reading on would wait for ever.
func TestSmallWindows(t *testing.T) {
	var list []testserver.POP3Message
	for i := range 400 {
		list = append(list, message(strings.Repeat(fmt.Sprintf("line of message %d\r\n", i), 100*(i%5))))
	}
	numbers := make([]int, len(list))
	for i := range numbers {
		numbers[i] = i + 1
	}
	for _, window := range []int64{1, 500, 5000, 100_000} {
		s, _ := serve(t, testserver.POP3Options{Messages: list})
		c := config(s.Port())
		c.Window = window
		fetchAll(t, source(t, c)).exactly(t, list, numbers...)
	}
}

func BenchmarkFetch(b *testing.B) {
	ca, err := testserver.NewCA()
	if err != nil {
		b.Fatal(err)
	}
	cfg, err := ca.TLS(testserver.Leaf{})
	if err != nil {
		b.Fatal(err)
	}
	caFile, err := ca.WriteFile(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	var list []testserver.POP3Message
	size := int64(0)
	for i := range 5000 {
		m := corpus.Generate(corpus.Small, i)
		list = append(list, testserver.POP3Message{Octets: m.Octets})
		size += int64(len(m.Octets))
	}
	s, err := testserver.NewPOP3(testserver.POP3Options{User: user, Password: password, TLS: cfg, Implicit: true, Messages: list})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		c := config(s.Port())
		c.Server.Security, c.Server.CAFile = dial.TLS, caFile
		src := pop3.New(c)
		var wants []mail.Want
		for in, err := range src.List(b.Context(), mail.Mailbox{}) {
			if err != nil {
				b.Fatal(err)
			}
			wants = append(wants, mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size})
		}
		err := src.Fetch(b.Context(), mail.Mailbox{}, wants, func(_ mail.Info, r io.Reader, err error) error {
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		src.Close()
	}
}
