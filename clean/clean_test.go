package clean_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"mailhaul/clean"
	"mailhaul/internal/ledger"
	"mailhaul/mail"
)

const ada = "imap:ada@example.org@imap.example.org"

var day = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// server is a source in memory with one mailbox. It obeys the order as a real
// one has to, and notes what it was told.
type server struct {
	messages []*message
	validity uint32
	lacking  error
	quota    [2]int64
	wire     []string // what was sent, in order
	lose     string   // the connection is lost before or after "delete"
	before   func()   // something happens between plan and order
	batches  int
}

type message struct {
	uid   string
	wire  string
	size  int64
	date  time.Time
	flags mail.Flags
	stays string // the server refuses
	keeps error  // the server does not give it
	cut   bool   // its octets end in an error
}

func (s *server) Account() string { return ada }

func (s *server) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return []mail.Mailbox{{Name: "INBOX", UIDValidity: s.validity, Messages: int64(len(s.messages))}}, nil
}

func (s *server) info(m *message) mail.Info {
	return mail.Info{
		Ref:  mail.Ref{Account: ada, Mailbox: "INBOX", UIDValidity: s.validity, UID: m.uid},
		Size: m.size, InternalDate: m.date, DateFrom: mail.DateInternal, Flags: m.flags,
	}
}

func (s *server) List(context.Context, mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for _, m := range s.messages {
			if !yield(s.info(m), nil) {
				return
			}
		}
	}
}

func (s *server) Fetch(_ context.Context, _ mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	for _, w := range wants {
		for _, m := range s.messages {
			if m.uid == w.UID {
				s.wire = append(s.wire, "FETCH "+m.uid)
				if m.keeps != nil {
					if err := deliver(s.info(m), nil, m.keeps); err != nil {
						return err
					}
					continue
				}
				var octets io.Reader = strings.NewReader(m.wire)
				if m.cut {
					octets = io.MultiReader(octets, iotest.ErrReader(io.ErrUnexpectedEOF))
				}
				if err := deliver(s.info(m), octets, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *server) CanDelete(_ context.Context, mode string) (string, error) { return mode, s.lacking }

func (s *server) Quota(context.Context) (used, limit int64, err error) {
	return s.quota[0], s.quota[1], nil
}

var errLost = &mail.Error{Kind: mail.KindTemporary, Err: errors.New("connection lost")}

func (s *server) Delete(_ context.Context, _ mail.Mailbox, o mail.DeleteOrder) error {
	s.batches++
	if s.before != nil {
		s.before()
		s.before = nil
	}
	var passed []int
	for i, p := range o.Proofs {
		rc, ok := p.Receipt()
		if !ok {
			return errors.New("zero proof")
		}
		at := s.find(rc.Info.Ref)
		if at < 0 {
			o.Settle(i, true, "")
			continue
		}
		header, err := mail.HeaderDigest(strings.NewReader(s.messages[at].wire))
		if err != nil || header != rc.Header {
			o.Settle(i, false, clean.WhyChanged)
			continue
		}
		if why := o.Allow(i, s.info(s.messages[at])); why != "" {
			o.Settle(i, false, why)
			continue
		}
		passed = append(passed, i)
	}
	if err := o.Intend(passed); err != nil {
		return err
	}
	if s.lose == "before" {
		return errLost
	}
	for _, i := range passed {
		rc, _ := o.Proofs[i].Receipt()
		at := s.find(rc.Info.Ref)
		if why := s.messages[at].stays; why != "" {
			o.Settle(i, false, why)
			continue
		}
		s.wire = append(s.wire, "DELETE "+rc.Info.Ref.UID)
		s.messages = slices.Delete(s.messages, at, at+1)
		if s.lose != "after" {
			o.Settle(i, true, "")
		}
	}
	if s.lose == "after" {
		return errLost
	}
	return nil
}

func (s *server) find(ref mail.Ref) int {
	return slices.IndexFunc(s.messages, func(m *message) bool { return m.uid == ref.UID && s.validity == ref.UIDValidity })
}

// disk is an archive in memory.
type disk map[string]string

func (d disk) Open(_ context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	s, ok := d[rc.Place]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: rc.Place, Err: fs.ErrNotExist}
	}
	return io.NopCloser(strings.NewReader(s)), nil
}

type world struct {
	*testing.T
	s *server
	d disk
	l *ledger.Ledger
}

func newWorld(t *testing.T) *world {
	l, err := ledger.Open(t.TempDir(), ledger.Options{Format: "maildir"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{T: t, s: &server{validity: 7}, d: disk{}, l: l}
}

// put has one message at the server and, unless told otherwise, in the archive.
func (w *world) put(uid string, age int, change ...func(*message, *mail.Archived)) *message {
	wire := "Subject: " + uid + "\r\n\r\n" + strings.Repeat("x", 100) + "\r\n"
	m := &message{uid: uid, wire: wire, size: int64(len(wire)), date: day.AddDate(0, 0, -age)}
	canonical, sums := mail.CanonicalInPlace(bytes.Clone([]byte(wire)))
	w.s.messages = append(w.s.messages, m)
	a := mail.Archived{Receipt: mail.Receipt{Info: w.s.info(m), Place: "INBOX/" + uid, Sums: sums}}
	for _, c := range change {
		c(m, &a)
	}
	a.Receipt.Info.Size = m.size
	if a.Receipt.Place == "" {
		return m
	}
	w.d[a.Receipt.Place] = string(canonical)
	if err := w.l.Record(context.Background(), mail.Change{Archived: []mail.Archived{a}}); err != nil {
		w.Fatal(err)
	}
	return m
}

func notArchived(_ *message, a *mail.Archived) { a.Receipt.Place = "" }

func (w *world) options() clean.Options {
	return clean.Options{
		Source: w.s, Archive: w.d, Ledger: w.l, Mode: mail.ModeExpunge, Rule: "--older-than 30d",
		Selection: mail.Selection{Before: day.AddDate(0, 0, -30)},
	}
}

func (w *world) run(o clean.Options) clean.Result {
	w.Helper()
	res, err := clean.Run(context.Background(), o)
	if err != nil {
		w.Fatal(err)
	}
	if res.Plan.Go.Messages > 0 && !o.DryRun && res.Listed != res.Deleted+res.Skipped+res.Failed {
		w.Errorf("the sum does not add up: %+v", res)
	}
	return res
}

// left checks which messages the server still has.
func (w *world) left(want ...string) {
	w.Helper()
	var got []string
	for _, m := range w.s.messages {
		got = append(got, m.uid)
	}
	if !slices.Equal(got, want) {
		w.Errorf("the server has %v, want %v", got, want)
	}
}

func TestRule(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100)
	w.put("2", 10)
	w.put("3", 100, func(m *message, _ *mail.Archived) { m.flags = `\Flagged` })
	w.put("4", 100, notArchived, func(m *message, _ *mail.Archived) { m.size++ })
	w.put("5", 100, func(m *message, _ *mail.Archived) { m.flags = `\Deleted` })
	w.put("6", 100, func(_ *message, a *mail.Archived) { a.Suspicious = "the server sent no octets" })
	w.put("7", 100, func(m *message, a *mail.Archived) {
		m.date, a.Receipt.Info.DateFrom = time.Time{}, mail.DateFetched
	})
	w.put("8", 100)
	res := w.run(w.options())
	w.left("2", "3", "4", "5", "6", "7")
	if res.Deleted != 2 || res.Octets == 0 {
		t.Errorf("%+v", res)
	}
	for _, why := range []string{clean.WhyFlagged, clean.WhyNotArchived, clean.WhyMarked, clean.WhySuspicious, clean.WhyNoDate} {
		if res.Stayed[why] != 1 {
			t.Errorf("%s: %d, want 1", why, res.Stayed[why])
		}
	}
	o := w.options()
	o.IncludeFlagged = true
	w.run(o)
	w.left("2", "4", "5", "6", "7")
	// Nothing is sent when nothing is left to do.
	batches := w.s.batches
	if res := w.run(o); res.Deleted != 0 || w.s.batches != batches {
		t.Errorf("%+v, %d orders", res, w.s.batches-batches)
	}
}

func TestDamagedArchiveKeepsTheServer(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100)
	w.put("2", 100)
	w.put("3", 100)
	w.d["INBOX/1"] += "x"
	delete(w.d, "INBOX/2")
	res, err := clean.Run(context.Background(), w.options())
	if mail.KindOf(err) != mail.KindIntegrity || res.Deleted != 1 || res.Failed != 2 {
		t.Errorf("%+v %v", res, err)
	}
	w.left("1", "2")
}

func TestWhatHappensBetweenPlanAndOrder(t *testing.T) {
	tests := []struct {
		name string
		do   func(*server)
		why  string
		left []string
	}{
		{"flag set", func(s *server) { s.messages[0].flags = `\Flagged` }, clean.WhyFlagged, []string{"1"}},
		{"marked by another", func(s *server) { s.messages[0].flags = `\Deleted` }, clean.WhyMarked, []string{"1"}},
		{"replaced", func(s *server) { s.messages[0].wire = "Subject: other\r\n\r\n" }, clean.WhyChanged, []string{"1"}},
		{"size changed", func(s *server) { s.messages[0].size++ }, clean.WhyChanged, []string{"1"}},
		{"date changed", func(s *server) { s.messages[0].date = day }, clean.WhyChanged, []string{"1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.put("1", 100)
			w.put("2", 100)
			w.s.before = func() { tt.do(w.s) }
			if res := w.run(w.options()); res.Stayed[tt.why] != 1 || res.Deleted != 1 {
				t.Errorf("%+v", res)
			}
			w.left(tt.left...)
			open, err := w.l.OpenDeletions(context.Background(), ada, "INBOX")
			if err != nil || len(open) != 0 {
				t.Errorf("open intents %v %v", open, err)
			}
		})
	}
}

func TestLostConnectionIsSettledByTheNextRun(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		w := newWorld(t)
		w.put("1", 100)
		w.put("2", 100)
		w.put("3", 1)
		w.s.lose = when
		res, err := clean.Run(context.Background(), w.options())
		if mail.KindOf(err) != mail.KindTemporary || res.Failed != 0 || res.Deleted != 0 {
			t.Errorf("%s: %+v %v", when, res, err)
		}
		w.s.lose = ""
		w.run(w.options())
		w.left("3")
		var gone int
		err = w.l.Deletions(context.Background(), ada, time.Time{}, func(d mail.Deletion) error {
			if !d.Open {
				gone++
			}
			return nil
		})
		if err != nil || gone != 2 {
			t.Errorf("%s: %d deletions on record, want 2 (%v)", when, gone, err)
		}
	}
}

func TestRefusedByTheServer(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100).stays = "read-only mailbox"
	res := w.run(w.options())
	w.left("1")
	if res.Stayed["read-only mailbox"] != 1 {
		t.Errorf("%+v", res)
	}
}

func TestAdoptedIsFetchedFirst(t *testing.T) {
	w := newWorld(t)
	m := w.put("1", 100, notArchived)
	other := w.put("2", 100, notArchived)
	_, sums := mail.CanonicalInPlace(bytes.Clone([]byte(m.wire)))
	ctx := context.Background()
	in := w.s.info(m)
	in.Ref.Account = "pop3:ada@example.org@pop.example.org"
	archived := []mail.Archived{{Receipt: mail.Receipt{Info: in, Place: "INBOX/1", Sums: sums}}, {Receipt: mail.Receipt{Info: in, Place: "INBOX/2", Sums: sums}, UID: "x"}}
	if err := w.l.Record(ctx, mail.Change{Archived: archived}); err != nil {
		t.Fatal(err)
	}
	w.d["INBOX/1"] = strings.ReplaceAll(m.wire, "\r\n", "\n")
	w.d["INBOX/2"] = w.d["INBOX/1"]
	var ids []int64
	err := w.l.Messages(ctx, "INBOX", func(h mail.Held) error { ids = append(ids, h.Message); return nil })
	if err != nil {
		t.Fatal(err)
	}
	adopted := []mail.Adoption{{Info: w.s.info(m), Message: ids[0]}, {Info: w.s.info(other), Message: ids[1]}}
	if err := w.l.Record(ctx, mail.Change{Adopted: adopted}); err != nil {
		t.Fatal(err)
	}
	res := w.run(w.options())
	w.left("2") // its octets are others than the archived ones
	if !slices.Contains(w.s.wire, "FETCH 1") || slices.Index(w.s.wire, "FETCH 1") > slices.Index(w.s.wire, "DELETE 1") || res.Stayed[clean.WhyChanged] != 1 {
		t.Errorf("%v %+v", w.s.wire, res)
	}
	w.wrong("2")
}

// wrong checks which claims the next backup is to fetch again.
func (w *world) wrong(want ...string) {
	w.Helper()
	var got []string
	err := w.l.Claims(context.Background(), ada, "INBOX", func(c mail.Claim) error {
		if c.Size == mail.OtherMessage {
			got = append(got, c.UID)
		}
		return nil
	})
	if err != nil || !slices.Equal(got, want) {
		w.Errorf("to be fetched again: %v, want %v (%v)", got, want, err)
	}
}

// Octets that end in an error say nothing of the message: it stays, and its claim as
// it was.
func TestSecondFetchThatIsCut(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100, func(_ *message, a *mail.Archived) { a.Suspicious = mail.SizeDoubt(1, 2) }).cut = true
	if res := w.run(w.options()); res.Deleted != 0 || res.Failed != 1 {
		t.Errorf("%+v", res)
	}
	w.left("1")
	w.wrong()
}

// A rule about sizes means no message whose size the server does not tell.
func TestUnknownSizeStays(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100, func(m *message, _ *mail.Archived) { m.size = -1 })
	o := w.options()
	o.Selection = mail.Selection{Larger: 10}
	if res := w.run(o); res.Deleted != 0 || res.Stayed[clean.WhyNoSize] != 1 {
		t.Errorf("%+v", res)
	}
	w.left("1")
}

// copying notes when the ledger is copied.
type copying struct {
	*ledger.Ledger
	s   *server
	err error
}

func (c copying) Backup(ctx context.Context) error {
	c.s.wire = append(c.s.wire, "COPY")
	return errors.Join(c.err, c.Ledger.Backup(ctx))
}

// What only the ledger knows of deletions is copied before the first one.
func TestLedgerIsCopiedFirst(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100)
	o := w.options()
	full := errors.New("no space left")
	o.Ledger = copying{w.l, w.s, full}
	if _, err := clean.Run(context.Background(), o); !errors.Is(err, full) || w.s.batches != 0 {
		t.Errorf("%d orders, %v", w.s.batches, err)
	}
	w.left("1")
	w.s.wire = nil
	o.Ledger = copying{w.l, w.s, nil}
	w.run(o)
	if !slices.Equal(w.s.wire, []string{"COPY", "DELETE 1"}) {
		t.Errorf("%q", w.s.wire)
	}
}

// A server that says it has deleted, and has not, is found out.
func TestIgnoredDeletion(t *testing.T) {
	w := newWorld(t)
	w.s.validity = 0
	w.put("1", 100)
	w.put("2", 100)
	all := slices.Clone(w.s.messages)
	if res := w.run(w.options()); res.Deleted != 2 {
		t.Errorf("%+v", res)
	}
	w.s.messages = all
	w.put("3", 100, notArchived)
	if res := w.run(w.options()); res.Deleted != 0 || res.Stayed[clean.WhyBack] != 2 || res.Stayed[clean.WhyNotArchived] != 1 {
		t.Errorf("%+v", res)
	}
	w.left("1", "2", "3")
}

// A UIDL used again for a message of the same size shows when its header is compared:
// it stays, and the next backup fetches it.
func TestUIDLUsedAgain(t *testing.T) {
	w := newWorld(t)
	w.s.validity = 0
	w.put("1", 100)
	w.put("2", 100)
	w.s.messages[0].wire = strings.Replace(w.s.messages[0].wire, "Subject: 1", "Subject: X", 1)
	if res := w.run(w.options()); res.Deleted != 1 || res.Stayed[clean.WhyChanged] != 1 {
		t.Errorf("%+v", res)
	}
	w.left("1")
	w.wrong("1")
	if res := w.run(w.options()); res.Deleted != 0 || res.Stayed[clean.WhyNotArchived] != 1 {
		t.Errorf("%+v", res)
	}
}

func TestSizeDoubtIsClearedByASecondFetch(t *testing.T) {
	w := newWorld(t)
	doubt := func(m *message, a *mail.Archived) { m.size, a.Suspicious = 999, mail.SizeDoubt(999, 120) }
	w.put("1", 100, doubt)
	w.put("2", 100, doubt).wire = "Subject: 2\r\n\r\nsomething else this time\r\n"
	res := w.run(w.options())
	w.left("2")
	if res.Deleted != 1 || res.Stayed[clean.WhySuspicious] != 1 {
		t.Errorf("%+v", res)
	}
}

// A message whose octets the server does not give again has failed, and is not
// taken for one that has changed.
func TestWhatIsNotGivenAgainHasFailed(t *testing.T) {
	w := newWorld(t)
	doubt := func(m *message, a *mail.Archived) { m.size, a.Suspicious = 999, mail.SizeDoubt(999, 120) }
	w.put("1", 100, doubt).keeps = errLost
	w.put("2", 100, doubt).keeps = mail.ErrVanished
	res := w.run(w.options())
	w.left("1", "2")
	if res.Failed != 1 || res.Stayed[mail.WhyVanished] != 1 || res.Deleted != 0 {
		t.Errorf("%+v", res)
	}
}

func TestFreeAndQuotaTakeTheOldest(t *testing.T) {
	w := newWorld(t)
	for i := range 10 {
		w.put(fmt.Sprint(i+1), 10*i)
	}
	size := w.s.messages[0].size
	o := w.options()
	o.Selection, o.Free = mail.Selection{}, 2*size-1
	if res := w.run(o); res.Deleted != 2 || res.Stayed[clean.WhyEnough] != 8 {
		t.Errorf("%+v", res)
	}
	w.left("1", "2", "3", "4", "5", "6", "7", "8")
	o.Free, o.UntilQuota = 0, 50
	w.s.quota = [2]int64{1000, 2000}
	w.run(o) // there already
	w.left("1", "2", "3", "4", "5", "6", "7", "8")
	w.s.quota = [2]int64{1000 + size, 2000}
	w.run(o)
	w.left("1", "2", "3", "4", "5", "6", "7")
	w.s.quota = [2]int64{1000, 0}
	if _, err := clean.Run(context.Background(), o); mail.KindOf(err) != mail.KindLacking || mail.HintOf(err) == "" {
		t.Errorf("no quota: %v", err)
	}
}

func TestPlanIsConfirmed(t *testing.T) {
	w := newWorld(t)
	for i := range 150 {
		w.put(fmt.Sprint(i+1), 100)
	}
	refused := errors.New("refused")
	o := w.options()
	o.Confirm = func(p *clean.Plan) error {
		if p.Go.Messages != 150 || !slices.Equal(p.OverHalf(), []string{"INBOX"}) {
			t.Errorf("%+v", p)
		}
		if _, over := p.Exceeds(149, false); !over {
			t.Error("150 do not exceed 149")
		}
		if _, over := p.Exceeds(150, false); over {
			t.Error("150 exceed 150")
		}
		if _, over := p.Exceeds(99, true); !over {
			t.Error("all do not exceed 99 %")
		}
		return refused
	}
	if _, err := clean.Run(context.Background(), o); !errors.Is(err, refused) || len(w.s.messages) != 150 || w.s.batches != 0 {
		t.Errorf("%v, %d left", err, len(w.s.messages))
	}
	o.Confirm, o.DryRun = nil, true
	w.run(o)
	if len(w.s.messages) != 150 || w.s.batches != 0 {
		t.Error("a dry run deleted")
	}
}

// What could be a further copy of a message that is not archived yet stays: of two
// equal messages the archive is to hold two.
func TestTwinOfWhatIsNotArchived(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100)
	w.put("2", 100, notArchived)
	w.put("3", 100, func(m *message, _ *mail.Archived) { m.size++ })
	res := w.run(w.options())
	if res.Deleted != 1 || res.Stayed[clean.WhyTwin] != 1 || res.Stayed[clean.WhyNotArchived] != 1 {
		t.Errorf("%+v", res)
	}
	w.left("1", "2")
}

// headered is a server that gives headers; without those of the UIDs in refuses.
type headered struct {
	*server
	refuses string
}

func (s headered) Headers(_ context.Context, _ mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	for _, w := range wants {
		m := s.messages[s.find(mail.Ref{UIDValidity: s.validity, UID: w.UID})]
		header, _, _ := strings.Cut(m.wire, "\r\n\r\n")
		var r io.Reader = strings.NewReader(header + "\r\n\r\n")
		var err error
		if w.UID == s.refuses {
			r, err = nil, errors.New("not now")
		}
		if err := deliver(mail.Info{Ref: mail.Ref{UID: w.UID}}, r, err); err != nil {
			return err
		}
	}
	return nil
}

// Where there are headers to compare, the same size alone keeps nothing.
func TestTwinsAreToldByTheirHeaders(t *testing.T) {
	for _, refuses := range []string{"", "5"} {
		w := newWorld(t)
		w.put("1", 100)
		w.put("2", 100, notArchived, func(m *message, _ *mail.Archived) { m.wire = w.s.messages[0].wire })
		w.put("3", 100)
		w.put("4", 100)
		w.put("5", 1, notArchived) // not selected
		o := w.options()
		o.Source = headered{w.s, refuses}
		res := w.run(o)
		if want := int64(2); refuses == "" && (res.Deleted != want || res.Stayed[clean.WhyTwin] != 1) {
			t.Errorf("%+v", res)
		}
		if refuses == "" {
			w.left("1", "2", "5")
		} else {
			w.left("1", "2", "3", "4", "5") // it may be equal to any
		}
	}
}

func TestNewUIDValidityDeletesNothing(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100)
	w.s.validity = 8
	if res := w.run(w.options()); res.Stayed[clean.WhyNotArchived] != 1 {
		t.Errorf("%+v", res)
	}
	w.left("1")
}

func TestMailboxWithoutUIDsIsLacking(t *testing.T) {
	w := newWorld(t)
	w.put("1", 100)
	w.put("2", 10)
	w.s.validity = 0
	for _, m := range w.s.messages {
		m.uid = ""
	}
	res, err := clean.Run(context.Background(), w.options())
	if mail.KindOf(err) != mail.KindLacking || mail.HintOf(err) == "" || res.Stayed[clean.WhyNoUID] != 1 || w.s.batches != 0 {
		t.Errorf("%+v %v, %d orders", res, err, w.s.batches)
	}
	w.left("", "")
	o := w.options()
	o.Selection.Before = day.AddDate(0, 0, -1000) // the rule selects nothing
	w.run(o)
}

func TestUnknownMailbox(t *testing.T) {
	w := newWorld(t)
	o := w.options()
	o.Selection.Mailboxes = []string{"Nowhere"}
	if _, err := clean.Run(context.Background(), o); mail.KindOf(err) != mail.KindUsage {
		t.Error(err)
	}
}
