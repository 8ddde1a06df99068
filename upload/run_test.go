package upload_test

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

	"go.uber.org/goleak"

	"mailhaul/internal/ledger"
	"mailhaul/mail"
	"mailhaul/upload"
	"mailhaul/upload/uploadtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// messages is an archive in memory; ids are 1, 2, ...
type messages struct {
	held   []mail.Held
	octets map[int64]string
}

func (m *messages) add(mailbox, octets string, flags ...string) int64 {
	sums, err := mail.SumCanonical(strings.NewReader(octets))
	if err != nil {
		panic(err)
	}
	id := int64(len(m.held) + 1)
	if m.octets == nil {
		m.octets = make(map[int64]string)
	}
	m.octets[id] = octets
	m.held = append(m.held, mail.Held{Message: id, Receipt: mail.Receipt{Place: fmt.Sprint(id), Sums: sums, Info: mail.Info{
		Ref: mail.Ref{Mailbox: mailbox}, InternalDate: time.Unix(1600000000, 0).UTC(), DateFrom: mail.DateInternal, Flags: mail.NewFlags(flags...), Size: sums.Wire,
	}}})
	return id
}

func (m *messages) Mailboxes(context.Context) (all []mail.Mailbox, err error) {
	for _, h := range m.held {
		mb := mail.Mailbox{Name: h.Receipt.Info.Ref.Mailbox}
		if !slices.Contains(all, mb) {
			all = append(all, mb)
		}
	}
	return all, nil
}

func (m *messages) Messages(_ context.Context, mailbox string, yield func(mail.Held) error) error {
	for _, h := range m.held {
		if h.Receipt.Info.Ref.Mailbox == mailbox {
			if err := yield(h); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *messages) Message(_ context.Context, id int64) (mail.Held, error) { return m.held[id-1], nil }

func (m *messages) Open(_ context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	for _, h := range m.held {
		if h.Receipt.Place == rc.Place {
			return io.NopCloser(bytes.NewReader([]byte(m.octets[h.Message]))), nil
		}
	}
	return nil, errors.New("no such place")
}

func letter(n int, body string) string {
	return fmt.Sprintf("From: ada@example.org\nMessage-ID: <%d@example.org>\nSubject: %d\n\n%s\n", n, n, body)
}

func openLedger(t testing.TB) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(t.TempDir(), ledger.Options{Format: "maildir"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func options(s *uploadtest.Server, m *messages, l upload.Ledger) upload.Options {
	return upload.Options{Destination: s, Messages: m, Ledger: l, Pause: time.Microsecond, Parallel: 2}
}

func run(t testing.TB, o upload.Options) upload.Counts {
	t.Helper()
	res, err := upload.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, res.Counts)
	return res.Counts
}

func balanced(t testing.TB, c upload.Counts) {
	t.Helper()
	if c.Listed != c.Uploaded+c.Adopted+c.Skipped+c.Failed {
		t.Errorf("the sum does not add up: %+v", c)
	}
}

// holds wants exactly these octets in a mailbox.
func holds(t testing.TB, s *uploadtest.Server, mailbox string, want ...string) {
	t.Helper()
	got := s.Octets(mailbox)
	want = slices.Clone(want)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %d messages, want %d:\n%q\n%q", mailbox, len(got), len(want), got, want)
	}
}

// awkward is an archive of messages that are easily taken for one another.
func awkward() (*messages, []string) {
	m := &messages{}
	var all []string
	add := func(mailbox, octets string) {
		m.add(mailbox, octets)
		if mailbox == "INBOX" {
			all = append(all, octets)
		}
	}
	for i := range 7 {
		add("INBOX", letter(i, "body"))
	}
	add("INBOX", letter(3, "ydob")) // same header, same size
	add("INBOX", letter(3, "body")) // the same twice
	add("INBOX", letter(5, "longer"))
	add("Other", letter(3, "body"))
	return m, all
}

// faults ends everything at its step n: the process was killed.
type faults struct{ n, step int }

var errKilled = errors.New("killed")

func (f *faults) next() error {
	f.step++
	if f.n > 0 && f.step >= f.n {
		return errKilled
	}
	return nil
}

// killed is a ledger that is killed before or after a step.
type killed struct {
	*ledger.Ledger
	f *faults
}

func (k killed) IntendUploads(ctx context.Context, s mail.Sending) ([]int64, error) {
	if err := k.f.next(); err != nil {
		return nil, err
	}
	ids, err := k.Ledger.IntendUploads(ctx, s)
	return ids, errors.Join(err, k.f.next())
}

func (k killed) SettleUploads(ctx context.Context, r []mail.Uploaded) error {
	if err := k.f.next(); err != nil {
		return err
	}
	return errors.Join(k.Ledger.SettleUploads(ctx, r), k.f.next())
}

// Killed at every step, the same run again ends with each message there once.
func TestKilledAtEveryStep(t *testing.T) {
	for name, set := range map[string]func(*uploadtest.Server){
		"MULTIAPPEND":     func(*uploadtest.Server) {},
		"one by one":      func(s *uploadtest.Server) { s.Group = false },
		"without UIDPLUS": func(s *uploadtest.Server) { s.NoUIDs, s.Group = true, false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := openLedger(t)
			for n := 1; ; n++ {
				m, want := awkward()
				s := uploadtest.New()
				s.User = fmt.Sprint("user", n)
				set(s)
				foreign := []string{letter(3, "body"), letter(99, "not ours")}
				for _, octets := range foreign {
					s.Put("INBOX", octets, "")
				}
				f := &faults{n: n}
				s.Before = func(string) error { return f.next() }
				s.After = s.Before
				o := options(s, m, killed{l, f})
				o.Parallel = 1
				_, err := upload.Run(t.Context(), o)
				done := err == nil
				if !done && !errors.Is(err, errKilled) {
					t.Fatalf("step %d: %v", n, err)
				}
				s.Before, s.After = nil, nil
				run(t, options(s, m, l))
				holds(t, s, "INBOX", append(want, letter(99, "not ours"))...)
				holds(t, s, "Other", letter(3, "body"))
				s.Sent = 0
				if c := run(t, options(s, m, l)); s.Sent != 0 || c.Skipped != c.Listed {
					t.Errorf("step %d: a further run sends %d: %+v", n, s.Sent, c)
				}
				if t.Failed() {
					t.Fatalf("step %d", n)
				}
				if done {
					return
				}
			}
		})
	}
}

// The connection is lost at every call, before or after it did its work, and the
// run goes on by itself.
func TestConnectionLostAtEveryCall(t *testing.T) {
	for _, group := range []bool{true, false} {
		for _, noUIDs := range []bool{true, false} {
			for _, after := range []bool{true, false} {
				t.Run(fmt.Sprintf("group=%v noUIDs=%v after=%v", group, noUIDs, after), func(t *testing.T) {
					t.Parallel()
					l := openLedger(t)
					for n := 2; ; n++ { // the first lists mailboxes: nothing was done
						m, want := awkward()
						s := uploadtest.New()
						s.User = fmt.Sprint("user", n)
						s.Group, s.NoUIDs = group, noUIDs
						calls := 0
						lose := func(op string) error {
							if calls++; calls == n {
								return uploadtest.Lost(op)
							}
							return nil
						}
						if after {
							s.After = lose
						} else {
							s.Before = lose
						}
						o := options(s, m, l)
						o.Parallel = 1
						run(t, o)
						holds(t, s, "INBOX", want...)
						if t.Failed() {
							t.Fatalf("call %d", n)
						}
						if calls < n {
							return
						}
					}
				})
			}
		}
	}
}

func refusal(words string) error {
	return &mail.Error{Kind: mail.KindPartial, Op: "append", Server: words, Err: errors.New("refused")}
}

// failures collects what was told of single messages.
func failures(o *upload.Options) *[]string {
	var told []string
	o.Notify = func(e mail.Event) {
		if e.Kind == mail.EventFailed {
			told = append(told, e.Err.Error())
		}
	}
	o.Parallel = 1
	return &told
}

func TestRefusedMessageDoesNotStopOthers(t *testing.T) {
	for _, group := range []bool{true, false} {
		m := &messages{}
		var want []string
		for i := range 250 {
			octets := letter(i, "body")
			m.add("INBOX", octets)
			if i%100 != 37 {
				want = append(want, octets)
			}
		}
		s := uploadtest.New()
		s.Group = group
		s.Refuse = func(octets string) error {
			if strings.Contains(octets, "37@") {
				return refusal("NO Message contains invalid header")
			}
			return nil
		}
		l := openLedger(t)
		o := options(s, m, l)
		told := failures(&o)
		if c := run(t, o); c.Failed != 3 || c.Uploaded != 247 {
			t.Errorf("%+v", c)
		}
		holds(t, s, "INBOX", want...)
		if len(*told) != 3 || !strings.Contains((*told)[0], "NO Message contains invalid header") {
			t.Errorf("told: %q", *told)
		}
		s.Refuse = nil // kept for the next run
		if c := run(t, o); c.Uploaded != 3 || c.Skipped != 247 {
			t.Errorf("second run: %+v", c)
		}
	}
}

func TestOverQuota(t *testing.T) {
	m := &messages{}
	for i := range 500 {
		m.add("INBOX", letter(i, "body"))
	}
	s := uploadtest.New()
	s.Refuse = func(string) error {
		if len(s.Boxes["INBOX"].Messages) >= 150 {
			return &mail.Error{Kind: mail.KindPartial, Op: "append", Server: "NO [OVERQUOTA] Quota exceeded", Err: upload.ErrOverQuota}
		}
		return nil
	}
	l := openLedger(t)
	o := options(s, m, l)
	told := failures(&o)
	c := run(t, o)
	if c.Uploaded+c.Failed != 500 || len(*told) != 3 || s.Appends > 40 {
		t.Errorf("%+v, %d told, %d commands", c, len(*told), s.Appends)
	}
	s.Refuse = nil
	if c := run(t, o); c.Uploaded+c.Skipped != 500 || len(s.Octets("INBOX")) != 500 {
		t.Errorf("with room again: %+v", c)
	}
}

func TestLyingServers(t *testing.T) {
	is := func(n int) func(string) bool {
		return func(octets string) bool { return strings.Contains(octets, fmt.Sprintf("<%d@", n)) }
	}
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("OK and not there, UID given again=%v", again), func(t *testing.T) {
			m := &messages{}
			var want []string
			for i := range 5 {
				want = append(want, letter(i, strings.Repeat("body ", i)))
				m.add("INBOX", want[i])
			}
			s := uploadtest.New()
			s.Lose, s.GiveAgain = is(2), again
			l := openLedger(t)
			o := options(s, m, l)
			told := failures(&o)
			res, err := upload.Run(t.Context(), o)
			if mail.KindOf(err) != mail.KindIntegrity || res.Uploaded != 4 || res.Failed != 1 || res.Altered != 0 || len(*told) != 1 {
				t.Errorf("%v, %+v, %q", err, res.Counts, *told)
			}
			s.Lose = nil
			if c := run(t, o); c.Uploaded != 1 {
				t.Errorf("%+v", c)
			}
			holds(t, s, "INBOX", want...)
		})
	}
	t.Run("NO and there", func(t *testing.T) {
		for _, group := range []bool{true, false} {
			m, want := awkward()
			s := uploadtest.New()
			s.Group = group
			s.SayNo = func(octets string) error {
				if is(3)(octets) {
					return refusal("NO who knows")
				}
				return nil
			}
			run(t, options(s, m, openLedger(t)))
			holds(t, s, "INBOX", want...)
		}
	})
	for _, noUIDs := range []bool{true, false} {
		t.Run(fmt.Sprintf("rewrites, noUIDs=%v", noUIDs), func(t *testing.T) {
			m, want := awkward()
			s := uploadtest.New()
			s.NoUIDs = noUIDs
			s.Alter = func(octets string) string { return "X-Server: was here\n" + octets }
			l := openLedger(t)
			c := run(t, options(s, m, l))
			if c.Altered != c.Uploaded || len(s.Octets("INBOX")) != len(want) {
				t.Errorf("%+v", c)
			}
			s.Sent = 0
			if c := run(t, options(s, m, l)); s.Sent != 0 || c.Failed != 0 {
				t.Errorf("second run: %+v", c)
			}
		})
	}
}

func TestTooBigForTheServer(t *testing.T) {
	m := &messages{}
	m.add("INBOX", letter(1, strings.Repeat("x", 1000)))
	m.add("INBOX", letter(2, "small"))
	s := uploadtest.New()
	s.Limit = 500
	o := options(s, m, openLedger(t))
	told := failures(&o)
	if c := run(t, o); c.Uploaded != 1 || c.Failed != 1 || len(*told) != 1 || !strings.Contains((*told)[0], "APPENDLIMIT") {
		t.Errorf("%+v %q", c, *told)
	}
}

// What is damaged is not sent.
func TestDamagedMessage(t *testing.T) {
	m, _ := awkward()
	m.octets[2] = letter(1, "BODY")
	m.octets[4] = "short\n"
	s := uploadtest.New()
	o := options(s, m, openLedger(t))
	told := failures(&o)
	if c := run(t, o); c.Failed != 2 || len(*told) != 2 || !strings.Contains((*told)[0], mail.ErrAltered.Error()) {
		t.Errorf("%+v %q", c, *told)
	}
}

// Large messages are not held in memory, and messages without octets stand alone.
func TestSizes(t *testing.T) {
	m := &messages{}
	var want []string
	for i, size := range []int{10, 600 << 10, 0, 20, 3 << 20, 500 << 10, 500 << 10, 500 << 10, 30} {
		octets := letter(i, strings.Repeat("line of text\n", size/13))
		if size == 0 {
			octets = ""
		}
		want = append(want, octets)
		m.add("INBOX", octets)
	}
	s := uploadtest.New()
	if c := run(t, options(s, m, openLedger(t))); c.Uploaded != int64(len(want)) {
		t.Errorf("%+v", c)
	}
	holds(t, s, "INBOX", want...)
}

func TestFlagsFollow(t *testing.T) {
	m := &messages{}
	m.add("INBOX", letter(1, "a"), `\Seen`, "$Old", "$Dropped")
	m.add("INBOX", letter(2, "b"), `\Flagged`, `\Deleted`)
	s := uploadtest.New()
	s.Permanent = mail.NewFlags(`\Seen`, `\Flagged`, `\Answered`, "$Old", "$New")
	l := openLedger(t)
	run(t, options(s, m, l))
	mb := s.Boxes["INBOX"]
	if mb.Messages[0].Flags != mail.NewFlags(`\Seen`, "$Old") || mb.Messages[1].Flags != mail.NewFlags(`\Flagged`) {
		t.Fatalf("sent with %q and %q", mb.Messages[0].Flags, mb.Messages[1].Flags)
	}
	mb.Messages[1].Flags = mail.NewFlags(`\Seen`) // the owner read it and took the flag away
	m.held[0].Receipt.Info.Flags = mail.NewFlags(`\Seen`, `\Answered`, "$New", "$Dropped")
	run(t, options(s, m, flagless{l}))
	if got, want := mb.Messages[0].Flags, mail.NewFlags(`\Seen`, `\Answered`, "$New"); got != want {
		t.Errorf("followed to %q, want %q", got, want)
	}
	if got := mb.Messages[1].Flags; got != mail.NewFlags(`\Seen`) {
		t.Errorf("the owner's flags became %q", got)
	}
}

// flagless records no flags of messages, which are not in this ledger.
type flagless struct{ *ledger.Ledger }

func (flagless) Record(context.Context, mail.Change) error { return nil }

// What the owner removed at the destination stays removed.
func TestRemovedByOwner(t *testing.T) {
	m, want := awkward()
	s := uploadtest.New()
	l := openLedger(t)
	run(t, options(s, m, l))
	mb := s.Boxes["INBOX"]
	mb.Messages = mb.Messages[1:]
	m.add("INBOX", letter(1000, "new"))
	if c := run(t, options(s, m, l)); c.Uploaded != 1 || c.Adopted != 0 {
		t.Errorf("%+v", c)
	}
	holds(t, s, "INBOX", append(want[1:], letter(1000, "new"))...)
}

// A mailbox with another UIDVALIDITY is compared by content.
func TestUIDValidityChanges(t *testing.T) {
	m, want := awkward()
	s := uploadtest.New()
	l := openLedger(t)
	run(t, options(s, m, l))
	mb := s.Boxes["INBOX"]
	mb.UIDValidity = 7
	mb.Messages = mb.Messages[2:]
	for i := range mb.Messages {
		mb.Messages[i].UID += 100
	}
	mb.UIDNext += 100
	if c := run(t, options(s, m, l)); c.Uploaded != 2 || c.Adopted != int64(len(want)-2) {
		t.Errorf("%+v", c)
	}
	holds(t, s, "INBOX", want...)
}

func TestDryRunChangesNothing(t *testing.T) {
	m, _ := awkward()
	s := uploadtest.New()
	s.Before = func(op string) error {
		if op != "list mailboxes" {
			t.Errorf("%s in a dry run", op)
		}
		return nil
	}
	o := options(s, m, openLedger(t))
	o.DryRun = true
	var plan []upload.Target
	o.Plan = func(all []upload.Target) { plan = all }
	if c := run(t, o); c.Uploaded != c.Listed || len(plan) != 2 || plan[1].Exists {
		t.Errorf("%+v %+v", c, plan)
	}
}

// A dry run tells what is there already, and reads no message for it.
func TestDryRunRecognises(t *testing.T) {
	m, _ := awkward()
	s := uploadtest.New()
	run(t, options(s, m, openLedger(t)))
	for i := range 3 {
		m.add("INBOX", letter(50+i, "new"))
	}
	l := openLedger(t) // that knows nothing
	s.Before = func(op string) error {
		switch op {
		case "list mailboxes", "list", "read header":
		default:
			t.Errorf("%s in a dry run", op)
		}
		return nil
	}
	var f upload.Forecast
	o := dry(options(s, m, l))
	o.Forecast = func(g upload.Forecast) { f = g }
	foreseen := run(t, o)
	s.Before = nil
	if foreseen.Uploaded != 3 || f.Messages != 3 {
		t.Errorf("%+v, forecast %+v", foreseen, f)
	}
	if c := run(t, options(s, m, l)); c.Uploaded != foreseen.Uploaded || c.Adopted != foreseen.Adopted {
		t.Errorf("%+v, foreseen %+v", c, foreseen)
	}
}

func TestSelectionAndUnknownMailbox(t *testing.T) {
	m, _ := awkward()
	s := uploadtest.New()
	o := options(s, m, openLedger(t))
	o.Selection.Mailboxes = []string{"Nowhere"}
	if _, err := upload.Run(t.Context(), o); mail.KindOf(err) != mail.KindUsage {
		t.Errorf("%v", err)
	}
	o.Selection.Mailboxes = []string{"Other"}
	o.Subscribe = true
	if c := run(t, o); c.Listed != 1 || !slices.Equal(s.Subscribed, []string{"Other"}) {
		t.Errorf("%+v %q", c, s.Subscribed)
	}
}

// Interrupted, a run leaves what the next one completes.
func TestInterrupted(t *testing.T) {
	for n := 1; n < 8; n++ {
		m, want := awkward()
		s := uploadtest.New()
		s.Group = false
		ctx, cancel := context.WithCancelCause(t.Context())
		calls := 0
		s.After = func(op string) error {
			if calls++; calls == n {
				cancel(errors.New("stopped"))
			}
			return nil
		}
		l := openLedger(t)
		o := options(s, m, l)
		o.Parallel = 1
		if _, err := upload.Run(ctx, o); err == nil || err.Error() != "stopped" {
			t.Errorf("call %d: %v", n, err)
		}
		cancel(nil)
		s.After = nil
		run(t, options(s, m, l))
		holds(t, s, "INBOX", want...)
	}
}

// An edited draft often keeps header and size: it is not taken for the earlier
// one, however large. What was delivered does not change.
func TestEditedDraftIsSent(t *testing.T) {
	const received = "Received: from a by b; Sun, 13 Sep 2020 12:26:40 +0000\n"
	for _, tt := range []struct {
		name, header string
		adopted      int64
	}{
		{"draft", "", 0},
		{"delivered", received, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := strings.Repeat("line of text\n", 8000)
			m := &messages{}
			m.add("Drafts", tt.header+letter(1, body+"new"))
			s := uploadtest.New()
			s.Put("Drafts", tt.header+letter(1, body+"old"), "")
			if c := run(t, options(s, m, openLedger(t))); c.Adopted != tt.adopted || c.Uploaded != 1-tt.adopted {
				t.Errorf("%+v", c)
			}
		})
	}
}

// fullServer answers each message for itself and stops when it is out of space.
type fullServer struct {
	*uploadtest.Server
	room, refused int
}

func (s *fullServer) Append(ctx context.Context, box upload.Box, msgs []upload.Message) (answers []upload.Answer, err error) {
	for i := range msgs {
		if s.room == 0 {
			s.refused++
			answers = append(answers, upload.Answer{Refused: &mail.Error{Kind: mail.KindPartial, Op: "append", Err: upload.ErrOverQuota}})
			if len(answers) >= 3 && answers[len(answers)-3].Refused != nil {
				break
			}
			continue
		}
		s.room--
		got, err := s.Server.Append(ctx, box, msgs[i:i+1])
		if answers = append(answers, got...); err != nil {
			return answers, err
		}
	}
	return answers, nil
}

func TestOverQuotaStopsWithinAGroup(t *testing.T) {
	m := &messages{}
	var want []string
	for i := range 50 {
		want = append(want, letter(i, "body"))
		m.add("INBOX", want[i])
	}
	for _, noUIDs := range []bool{false, true} {
		s := &fullServer{Server: uploadtest.New(), room: 10}
		s.NoUIDs = noUIDs
		o := options(s.Server, m, openLedger(t))
		o.Destination = s
		told := failures(&o)
		if c := run(t, o); c.Uploaded != 10 || c.Failed != 40 || len(*told) != 3 || s.refused != 3 {
			t.Errorf("%+v, %d told, %d refused", c, len(*told), s.refused)
		}
		s.room = 100
		if c := run(t, o); c.Uploaded != 40 || c.Skipped != 10 {
			t.Errorf("with room again: %+v", c)
		}
		holds(t, s.Server, "INBOX", want...)
	}
}
