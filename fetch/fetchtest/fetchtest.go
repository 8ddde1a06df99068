// Package fetchtest is the suite that every fetch.Source passes.
package fetchtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailhaul/fetch"
	"mailhaul/internal/corpus"
	"mailhaul/mail"
)

// Message is one message that a driver's server is to hold.
type Message struct {
	Octets []byte // wire form
	// Refused says that the server must refuse this message while it gives the
	// others.
	Refused bool
}

// Account is a source and a look at its server from behind.
type Account struct {
	Source fetch.Source
	// Mailbox is the one that holds the messages.
	Mailbox string
	// Snapshot, if not nil, describes everything at the server that reading must
	// not change (octets, flags).
	Snapshot func() string
	// CanRefuse tells whether Refused was obeyed.
	CanRefuse bool
}

// Open makes a server with these messages, in this order, and a source for it. The
// server ends with the test. Where the server stores other octets than it was
// given, Open puts those into messages.
type Open func(t *testing.T, messages []Message) Account

// patience is how long a cancelled call may take to return.
const patience = 10 * time.Second

// Run holds a driver to the contract of fetch.Source.
func Run(t *testing.T, open Open) {
	tests := []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"octets", testOctets},
		{"empty", testEmpty},
		{"large", testLarge},
		{"selected", testSelected},
		{"vanished", testVanished},
		{"refused", testRefused},
		{"not read", testNotRead},
		{"stopped", testStopped},
		{"cancelled", testCancelled},
		{"cancelled before", testCancelledBefore},
		{"headers", testHeaders},
		{"state", testState},
		{"close", testClose},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			here := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, here) }) // after the server's own clean-up
			tt.test(t, open)
		})
	}
}

// plain makes n ordinary messages.
func plain(n int) []Message {
	out := make([]Message, n)
	for i := range out {
		out[i].Octets = corpus.Generate(corpus.Small, i).Octets
	}
	return out
}

// find returns the mailbox under test.
func find(t *testing.T, a Account) mail.Mailbox {
	t.Helper()
	list, err := a.Source.Mailboxes(t.Context())
	if err != nil {
		t.Fatalf("mailboxes: %v", err)
	}
	seen := make(map[string]bool)
	for _, mb := range list {
		if seen[mb.Name] {
			t.Errorf("mailbox %q is listed twice", mb.Name)
		}
		seen[mb.Name] = true
	}
	for _, mb := range list {
		if mb.Name == a.Mailbox {
			return mb
		}
	}
	t.Fatalf("no mailbox %q in %v", a.Mailbox, list)
	return mail.Mailbox{}
}

// list returns the whole listing.
func list(t *testing.T, a Account, mb mail.Mailbox, n int) []mail.Info {
	t.Helper()
	var out []mail.Info
	uids := make(map[string]bool)
	for in, err := range a.Source.List(t.Context(), mb) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if in.Ref.Account != a.Source.Account() || in.Ref.Mailbox != mb.Name {
			t.Errorf("%v: not of account %q, mailbox %q", in.Ref, a.Source.Account(), mb.Name)
		}
		if in.Ref.UID == "" || uids[in.Ref.UID] {
			t.Errorf("message %d: UID %q is empty or not its own", in.Seq, in.Ref.UID)
		}
		uids[in.Ref.UID] = true
		out = append(out, in)
	}
	if len(out) != n {
		t.Fatalf("%d messages listed, want %d", len(out), n)
	}
	return out
}

func want(infos ...mail.Info) []mail.Want {
	out := make([]mail.Want, len(infos))
	for i, in := range infos {
		out[i] = mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size}
	}
	return out
}

// got is what was delivered, by UID; deliver may be called concurrently.
type got struct {
	mu   sync.Mutex
	sums map[string][]mail.Digest
	errs map[string][]error
	size map[string]int64
}

func newGot() *got {
	return &got{sums: make(map[string][]mail.Digest), errs: make(map[string][]error), size: make(map[string]int64)}
}

func (g *got) deliver(in mail.Info, r io.Reader, err error) error {
	if err != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.errs[in.Ref.UID] = append(g.errs[in.Ref.UID], err)
		return nil
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return nil // it is asked for again, or delivered as an error
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sums[in.Ref.UID] = append(g.sums[in.Ref.UID], mail.Digest(h.Sum(nil)))
	g.size[in.Ref.UID] = n
	return nil
}

func (g *got) calls() int {
	n := 0
	for _, l := range g.sums {
		n += len(l)
	}
	for _, l := range g.errs {
		n += len(l)
	}
	return n
}

// check compares with what was asked for: each exactly once, octet for octet.
func (g *got) check(t *testing.T, infos []mail.Info, msgs []Message) {
	t.Helper()
	for i, in := range infos {
		if errs := g.errs[in.Ref.UID]; len(errs) > 0 {
			t.Errorf("%v: %v", in.Ref, errs)
			continue
		}
		sums := g.sums[in.Ref.UID]
		if len(sums) != 1 {
			t.Errorf("message %d (%v) was delivered %d times", i, in.Ref, len(sums))
			continue
		}
		if sums[0] != mail.Digest(sha256.Sum256(msgs[i].Octets)) {
			t.Errorf("message %d (%v): other octets (%d of them, %d at the server)", i, in.Ref, g.size[in.Ref.UID], len(msgs[i].Octets))
		}
	}
	if n := g.calls(); n != len(infos) {
		t.Errorf("deliver was called for %d messages, %d were asked for", n, len(infos))
	}
}

func finish(t *testing.T, a Account, before string) {
	t.Helper()
	if err := a.Source.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if a.Snapshot == nil {
		return
	}
	if after := a.Snapshot(); after != before {
		t.Errorf("reading changed the server:\nbefore %s\nafter  %s", before, after)
	}
}

func snapshot(a Account) string {
	if a.Snapshot == nil {
		return ""
	}
	return a.Snapshot()
}

func testOctets(t *testing.T, open Open) {
	var msgs []Message
	for _, h := range corpus.Hazards() {
		// What does not end in CRLF cannot come through every protocol as it is.
		if !bytes.HasSuffix(h.Octets, []byte("\r\n")) {
			continue
		}
		msgs = append(msgs, Message{Octets: h.Octets})
	}
	roundTrip(t, open, msgs)
}

func roundTrip(t *testing.T, open Open, msgs []Message) {
	t.Helper()
	a := open(t, msgs)
	before := snapshot(a)
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	g := newGot()
	if err := a.Source.Fetch(t.Context(), mb, want(infos...), g.deliver); err != nil {
		t.Fatalf("fetch: %v", err)
	}
	g.check(t, infos, msgs)
	finish(t, a, before)
}

func testEmpty(t *testing.T, open Open) { roundTrip(t, open, nil) }

func testLarge(t *testing.T, open Open) {
	line := bytes.Repeat([]byte("."), 70)
	body := bytes.Repeat(append(line, "\r\n"...), 40_000)
	big := append([]byte("Subject: large\r\n\r\n"), body...)
	long := append([]byte("Subject: one line\r\n\r\n"), bytes.Repeat([]byte("x"), 600_000)...)
	long = append(long, "\r\n"...)
	msgs := plain(2)
	roundTrip(t, open, append(msgs, Message{Octets: big}, Message{Octets: long}, plain(3)[2]))
}

func testSelected(t *testing.T, open Open) {
	msgs := plain(9)
	a := open(t, msgs)
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	// Out of order, in two calls, with a twin call for the same message.
	for _, pick := range [][]int{{7, 2, 4}, {0, 8}, {2}} {
		var in []mail.Info
		var ms []Message
		for _, i := range pick {
			in, ms = append(in, infos[i]), append(ms, msgs[i])
		}
		g := newGot()
		if err := a.Source.Fetch(t.Context(), mb, want(in...), g.deliver); err != nil {
			t.Fatalf("fetch %v: %v", pick, err)
		}
		g.check(t, in, ms)
	}
	if err := a.Source.Fetch(t.Context(), mb, nil, newGot().deliver); err != nil {
		t.Errorf("fetch of nothing: %v", err)
	}
	finish(t, a, snapshot(a))
}

func testVanished(t *testing.T, open Open) {
	msgs := plain(3)
	a := open(t, msgs)
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	wants := want(infos...)
	gone := mail.Want{UID: "4000000000", Seq: 17, Size: 5}
	g := newGot()
	if err := a.Source.Fetch(t.Context(), mb, []mail.Want{wants[0], gone, wants[2]}, g.deliver); err != nil {
		t.Fatalf("fetch: %v", err)
	}
	if errs := g.errs[gone.UID]; len(errs) != 1 || !errors.Is(errs[0], mail.ErrVanished) {
		t.Errorf("message that is gone: %v", errs)
	}
	if len(g.sums) != 2 {
		t.Errorf("%d of 2 others delivered", len(g.sums))
	}
	finish(t, a, snapshot(a))
}

func testRefused(t *testing.T, open Open) {
	msgs := plain(6)
	msgs[1].Refused, msgs[4].Refused = true, true
	a := open(t, msgs)
	if !a.CanRefuse {
		a.Source.Close()
		return // a real server cannot be made to
	}
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	g := newGot()
	if err := a.Source.Fetch(t.Context(), mb, want(infos...), g.deliver); err != nil {
		t.Fatalf("fetch: %v", err)
	}
	for i, in := range infos {
		errs, sums := g.errs[in.Ref.UID], g.sums[in.Ref.UID]
		if msgs[i].Refused {
			e, ok := errors.AsType[*mail.Error](errors.Join(errs...))
			if len(errs) != 1 || len(sums) != 0 || !ok || e.Server == "" || e.Ref.UID != in.Ref.UID {
				t.Errorf("refused message %d: errors %v, delivered %d times", i, errs, len(sums))
			}
		} else if len(sums) != 1 || len(errs) != 0 {
			t.Errorf("message %d: delivered %d times, errors %v", i, len(sums), errs)
		}
	}
	finish(t, a, snapshot(a))
}

func testNotRead(t *testing.T, open Open) {
	msgs := plain(8)
	msgs[3].Octets = append([]byte("Subject: large\r\n\r\n"), bytes.Repeat([]byte("not read at all\r\n"), 60_000)...)
	a := open(t, msgs)
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	g := newGot()
	var mu sync.Mutex
	calls := 0
	err := a.Source.Fetch(t.Context(), mb, want(infos...), func(in mail.Info, r io.Reader, err error) error {
		mu.Lock()
		i := calls
		calls++
		mu.Unlock()
		if err == nil && i%2 == 1 {
			_, err = io.ReadFull(r, make([]byte, 10))
			return err
		}
		return g.deliver(in, r, err)
	})
	if err != nil || calls != len(msgs) {
		t.Fatalf("fetch: %v, %d calls", err, calls)
	}
	for i, in := range infos {
		if sums := g.sums[in.Ref.UID]; len(sums) > 0 && sums[0] != mail.Digest(sha256.Sum256(msgs[i].Octets)) {
			t.Errorf("message %d: other octets", i)
		}
	}
	finish(t, a, snapshot(a))
}

func testStopped(t *testing.T, open Open) {
	msgs := plain(40)
	a := open(t, msgs)
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	enough := errors.New("enough")
	err := a.Source.Fetch(t.Context(), mb, want(infos...), func(mail.Info, io.Reader, error) error { return enough })
	if !errors.Is(err, enough) {
		t.Fatalf("fetch: %v, want the error of deliver", err)
	}
	// The source goes on.
	g := newGot()
	if err := a.Source.Fetch(t.Context(), mb, want(infos[:3]...), g.deliver); err != nil {
		t.Fatalf("fetch again: %v", err)
	}
	g.check(t, infos[:3], msgs[:3])
	finish(t, a, snapshot(a))
}

func testCancelled(t *testing.T, open Open) {
	msgs := plain(60)
	a := open(t, msgs)
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- a.Source.Fetch(ctx, mb, want(infos...), func(mail.Info, io.Reader, error) error {
			cancel()
			<-ctx.Done()
			return nil
		})
	}()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("fetch: %v, want context.Canceled", err)
		}
	case <-time.After(patience):
		t.Fatal("a cancelled Fetch does not return")
	}
	finish(t, a, snapshot(a))
}

func testCancelledBefore(t *testing.T, open Open) {
	a := open(t, plain(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Source.Mailboxes(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("mailboxes: %v, want context.Canceled", err)
	}
	finish(t, a, snapshot(a))
}

func testHeaders(t *testing.T, open Open) {
	var msgs []Message
	for _, h := range corpus.Hazards() {
		if bytes.HasSuffix(h.Octets, []byte("\r\n")) {
			msgs = append(msgs, Message{Octets: h.Octets})
		}
	}
	a := open(t, msgs)
	hs, ok := a.Source.(fetch.HeaderSource)
	if !ok {
		a.Source.Close()
		return
	}
	mb := find(t, a)
	infos := list(t, a, mb, len(msgs))
	sums := make(map[string]mail.Digest)
	var mu sync.Mutex
	err := hs.Headers(t.Context(), mb, want(infos...), func(in mail.Info, r io.Reader, err error) error {
		if err != nil {
			return err
		}
		d, err := mail.HeaderDigest(r)
		mu.Lock()
		defer mu.Unlock()
		sums[in.Ref.UID] = d
		return err
	})
	if err != nil {
		t.Fatalf("headers: %v", err)
	}
	for i, in := range infos {
		d, err := mail.HeaderDigest(bytes.NewReader(msgs[i].Octets))
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := sums[in.Ref.UID]; !ok || got != d {
			t.Errorf("message %d (%.60q): header differs from that of the message (delivered: %v)", i, msgs[i].Octets, ok)
		}
	}
	finish(t, a, snapshot(a))
}

func testState(t *testing.T, open Open) {
	a := open(t, plain(4))
	first := find(t, a)
	again := find(t, a)
	if first.State != again.State {
		t.Errorf("nothing happened, but the state changed: %q, %q", first.State, again.State)
	}
	if first.Messages >= 0 && first.Messages != 4 {
		t.Errorf("%d messages, want 4", first.Messages)
	}
	finish(t, a, snapshot(a))
}

func testClose(t *testing.T, open Open) {
	a := open(t, plain(1))
	find(t, a)
	for i := range 3 {
		if err := a.Source.Close(); err != nil {
			t.Errorf("close %d: %v", i+1, err)
		}
	}
	if _, err := a.Source.Mailboxes(t.Context()); err == nil {
		t.Error("a closed source goes on")
	}
}

// Snapshot describes messages for Account.Snapshot.
func Snapshot(octets [][]byte, more ...string) string {
	h := sha256.New()
	for _, o := range octets {
		fmt.Fprintf(h, "%d:%s;", len(o), o)
	}
	return fmt.Sprintf("%d messages %x %v", len(octets), h.Sum(nil), more)
}
