package upload_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/mail"
	"mailhaul/upload"
	"mailhaul/upload/uploadtest"
)

func refusedWith(words string) error {
	return &mail.Error{Kind: mail.KindPartial, Op: "append", Server: "NO " + words, Err: errors.New("refused")}
}

// strict refuses what Cyrus refuses.
func strict(octets string) error {
	switch {
	case strings.ContainsRune(octets, 0):
		return refusedWith("Message contains NUL characters")
	case strings.HasPrefix(octets, "From "):
		return refusedWith("Message contains invalid header")
	case strings.Contains(octets, "never"):
		return refusedWith("No such luck")
	}
	return nil
}

// eventTexts collects what a run tells of some kind.
func eventTexts(o *upload.Options, kind mail.EventKind) func() []string {
	var all []string
	mu := make(chan struct{}, 1)
	o.Notify = func(e mail.Event) {
		if e.Kind == kind {
			mu <- struct{}{}
			all = append(all, e.Err.Error())
			<-mu
		}
	}
	return func() []string { return all }
}

// A repaired copy is sent of what is refused and can be repaired; it is known in
// later runs, and after a new UIDVALIDITY, too.
func TestSendRepaired(t *testing.T) {
	for name, group := range map[string]bool{"MULTIAPPEND": true, "one by one": false} {
		t.Run(name, func(t *testing.T) {
			m := &messages{}
			var want []string
			for i := range 5 {
				m.add("INBOX", letter(i, "body"))
				want = append(want, letter(i, "body"))
			}
			m.add("INBOX", letter(10, "a\x00b"))
			m.add("INBOX", "From mbox\n"+letter(11, "body"))
			m.add("INBOX", letter(12, "never\x00"))
			m.add("INBOX", letter(13, "never"))
			s := uploadtest.New()
			s.Group, s.Refuse = group, strict
			l := openLedger(t)
			o := options(s, m, l)
			if c := run(t, o); c.Failed != 4 || c.Uploaded != 5 || c.Repaired != 0 {
				t.Fatalf("without: %+v", c)
			}
			o.SendRepaired = true
			warned := eventTexts(&o, mail.EventWarning)
			if c := run(t, o); c.Failed != 2 || c.Uploaded != 2 || c.Repaired != 2 || c.Skipped != 5 || c.Altered != 0 {
				t.Fatalf("%+v", c)
			}
			if w := warned(); len(w) != 2 || !slices.ContainsFunc(w, func(s string) bool {
				return strings.Contains(s, "a repaired copy") && strings.Contains(s, "NUL characters")
			}) {
				t.Errorf("%q", w)
			}
			want = append(want, letter(10, "a b"), "X-Invalid: From mbox\n"+letter(11, "body"))
			holds(t, s, "INBOX", want...)
			if c := run(t, o); c.Failed != 2 || c.Skipped != 7 {
				t.Errorf("again: %+v", c)
			}
			s.Boxes["INBOX"].UIDValidity = 9
			if c := run(t, o); c.Failed != 2 || c.Adopted != 7 {
				t.Errorf("after a new UIDVALIDITY: %+v", c)
			}
			holds(t, s, "INBOX", want...)
		})
	}
}

// Killed at every step, the repaired copy is there once.
func TestRepairedKilledAtEveryStep(t *testing.T) {
	l := openLedger(t)
	for n := 1; ; n++ {
		m := &messages{}
		m.add("INBOX", letter(1, "body"))
		m.add("INBOX", letter(2, "a\x00b"))
		m.add("INBOX", letter(3, "a\x00b"))
		s := uploadtest.New()
		s.User = "user" + string(rune('A'+n))
		s.Refuse = strict
		f := &faults{n: n}
		s.Before = func(string) error { return f.next() }
		s.After = s.Before
		o := options(s, m, killed{l, f})
		o.SendRepaired = true
		_, err := upload.Run(t.Context(), o)
		done := err == nil
		s.Before, s.After = nil, nil
		o = options(s, m, l)
		o.SendRepaired = true
		run(t, o)
		holds(t, s, "INBOX", letter(1, "body"), letter(2, "a b"), letter(3, "a b"))
		if t.Failed() {
			t.Fatalf("step %d", n)
		}
		if done {
			return
		}
	}
}

// What the destination altered is known after a new UIDVALIDITY, too.
func TestAlteredAndNewUIDValidity(t *testing.T) {
	m := &messages{}
	m.add("INBOX", letter(1, "a\x00b"))
	m.add("INBOX", letter(2, "body"))
	s := uploadtest.New()
	s.Alter = func(o string) string { return strings.ReplaceAll(o, "\x00", "\u0080") }
	l := openLedger(t)
	if c := run(t, options(s, m, l)); c.Uploaded != 2 || c.Altered != 1 {
		t.Fatalf("%+v", c)
	}
	s.Boxes["INBOX"].UIDValidity = 9
	if c := run(t, options(s, m, l)); c.Adopted != 2 {
		t.Errorf("%+v", c)
	}
}

// gone is an archive that knows what its source no longer has.
type gone struct {
	*messages
	ids []int64
}

func (g gone) Vanished(_ context.Context, yield func(int64) error) error {
	for _, id := range g.ids {
		if err := yield(id); err != nil {
			return err
		}
	}
	return nil
}

func TestPresent(t *testing.T) {
	m := &messages{}
	m.add("INBOX", letter(1, "a"))
	m.add("INBOX", letter(2, "b"))
	m.add("INBOX", letter(3, "c"))
	s := uploadtest.New()
	o := options(s, m, openLedger(t))
	o.Messages, o.Present = gone{m, []int64{3, 1}}, true
	if c := run(t, o); c.Listed != 1 || c.Uploaded != 1 || c.Gone != 2 {
		t.Errorf("%+v", c)
	}
	holds(t, s, "INBOX", letter(2, "b"))
	o.Present = false
	if c := run(t, o); c.Listed != 3 || c.Uploaded != 2 || c.Gone != 2 {
		t.Errorf("all: %+v", c)
	}
}

// A name that the destination refuses is escaped, said, and found again.
func TestRefusedNames(t *testing.T) {
	m := &messages{}
	for i, name := range []string{"a*b", "a_b", "a%b", "cur", "gr\u00fc\u00dfe\u2028", strings.Repeat("long", 60), "plain"} {
		m.add(name, letter(i, name))
	}
	s := uploadtest.New()
	s.RefuseName = func(name string) error {
		if strings.ContainsAny(name, "*%\u2028\u00df") || name == "cur" || len(name) > 200 {
			return refusedWith("[CANNOT] Invalid mailbox name")
		}
		return nil
	}
	l := openLedger(t)
	o := options(s, m, l)
	warned := eventTexts(&o, mail.EventWarning)
	if c := run(t, o); c.Uploaded != 7 {
		t.Fatalf("%+v", c)
	}
	if w := warned(); len(w) != 5 || !slices.ContainsFunc(w, func(s string) bool {
		return strings.HasPrefix(s, "mailbox cur: the destination cannot have such a name; it becomes _cur_") && strings.Contains(s, "Invalid mailbox name")
	}) {
		t.Errorf("%q", w)
	}
	if len(s.Boxes) != 8 {
		t.Errorf("%d mailboxes", len(s.Boxes))
	}
	for name, mb := range s.Boxes {
		if want := min(1, len(name)-len("INBOX")); name != "INBOX" && len(mb.Messages) != 1 {
			t.Errorf("%s holds %d messages, want %d", name, len(mb.Messages), want)
		}
	}
	if c := run(t, o); c.Skipped != 7 {
		t.Errorf("again: %+v", c)
	}
	// With the ledger lost, too, nothing is there twice.
	if c := run(t, options(s, m, openLedger(t))); c.Adopted != 7 {
		t.Errorf("with a new ledger: %+v", c)
	}
}

func TestForecast(t *testing.T) {
	m := &messages{}
	for i := range 10 {
		m.add("INBOX", letter(i, "body"))
	}
	m.add("INBOX", letter(11, strings.Repeat("x", 1000)))
	size := int64(len(letter(1, "body")) + 5)
	s := uploadtest.New()
	s.Limit, s.Free = 500, upload.Space{Octets: 4 * size, Messages: -1}
	o := options(s, m, openLedger(t))
	o.DryRun = true
	var f upload.Forecast
	o.Forecast = func(g upload.Forecast) { f = g }
	warned := eventTexts(&o, mail.EventWarning)
	c := run(t, o)
	if n, octets := f.Excess(); f.Messages != 10 || f.TooBig != 1 || f.Limit != 500 || n != 6 || octets != 6*size {
		t.Errorf("%+v: %d messages, %d octets", f, n, octets)
	}
	if c.Failed != 1 || c.Uploaded != 10 {
		t.Errorf("%+v", c)
	}
	if w := warned(); len(w) != 0 {
		t.Errorf("%q", w)
	}
	o.Forecast = nil
	run(t, o)
	if w := warned(); len(w) != 1 || !strings.Contains(w[0], "about 6 messages will not fit") {
		t.Errorf("%q", w)
	}
	f.Space = upload.Space{Octets: -1, Messages: 3}
	if n, octets := f.Excess(); n != 7 || octets != 0 {
		t.Errorf("%d messages, %d octets", n, octets)
	}
	if f.Space = upload.Unlimited; f.Err("x") != nil {
		t.Error(f.Err("x"))
	}
}

// Flags that cannot be stored are said once for each mailbox.
func TestDroppedFlags(t *testing.T) {
	m := &messages{}
	m.add("INBOX", letter(1, "a"), `\Seen`, "$Junk", "custom", `\Deleted`)
	m.add("INBOX", letter(2, "b"), "custom")
	s := uploadtest.New()
	s.Permanent = mail.NewFlags(`\Seen`, "$Junk")
	o := options(s, m, openLedger(t))
	warned := eventTexts(&o, mail.EventWarning)
	run(t, o)
	if w := warned(); len(w) != 1 || !strings.Contains(w[0], "cannot store these flags: custom (2 messages)") {
		t.Errorf("%q", w)
	}
	for _, st := range s.Boxes["INBOX"].Messages {
		if st.Flags.Has("custom") || st.Flags.Has(`\Deleted`) {
			t.Errorf("%v", st.Flags)
		}
	}
}

// Without space no mailbox is made that would stay empty.
func TestFullDestination(t *testing.T) {
	m := &messages{}
	for i := range 5 {
		m.add("INBOX", letter(i, "body"))
	}
	m.add("Other", letter(9, "body"))
	s := uploadtest.New()
	s.Refuse = func(string) error {
		return &mail.Error{Kind: mail.KindPartial, Op: "append", Server: "NO [OVERQUOTA] full", Err: upload.ErrOverQuota}
	}
	o := options(s, m, openLedger(t))
	o.Parallel = 1
	warned := eventTexts(&o, mail.EventWarning)
	if c := run(t, o); c.Failed != 6 || s.Boxes["Other"] != nil {
		t.Errorf("%+v", c)
	}
	if w := warned(); len(w) != 2 {
		t.Errorf("%q", w)
	}
}

// A flag that the server forgets is stored afterwards.
func TestForgottenFlags(t *testing.T) {
	for _, noUIDs := range []bool{false, true} {
		m := &messages{}
		m.add("INBOX", letter(1, "a"), `\Seen`, `\Flagged`)
		m.add("INBOX", letter(2, "b"), `\Seen`)
		s := uploadtest.New()
		s.Forgets, s.NoUIDs = mail.NewFlags(`\Flagged`), noUIDs
		run(t, options(s, m, openLedger(t)))
		if got := s.Boxes["INBOX"].Messages; got[0].Flags != mail.NewFlags(`\Seen`, `\Flagged`) || got[1].Flags != mail.NewFlags(`\Seen`) {
			t.Errorf("%v", got)
		}
	}
}

// A server that asks for patience gets it.
func TestThrottled(t *testing.T) {
	m, want := awkward()
	s := uploadtest.New()
	var n atomic.Int32
	s.Before = func(op string) error {
		if op == "append" && n.Add(1)%2 == 1 {
			return &mail.Error{Kind: mail.KindTemporary, Op: op, Server: "BAD Request is throttled", Err: &upload.Throttled{Wait: time.Microsecond, Err: errors.New("refused")}}
		}
		return nil
	}
	o := options(s, m, openLedger(t))
	var waits atomic.Int32
	o.Notify = func(e mail.Event) {
		if e.Kind == mail.EventWaiting && strings.HasPrefix(e.Waiting, "the server asks for") {
			waits.Add(1)
		}
	}
	run(t, o)
	holds(t, s, "INBOX", want...)
	if waits.Load() == 0 {
		t.Error("it did not wait")
	}
}
