package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailhaul/mail"
)

// account is a server in memory.
type account struct {
	key     string
	boxes   []box
	fetched int // whole messages given
	headers int
	wrong   int64 // added to every size that is listed
}

type box struct {
	name string
	msgs []message
}

type message struct {
	octets  string // wire form
	refused error
	date    time.Time
}

func msgs(octets ...string) (list []message) {
	for _, o := range octets {
		list = append(list, message{octets: strings.ReplaceAll(o, "\n", "\r\n")})
	}
	return list
}

func (a *account) Account() string { return a.key }

func (a *account) Mailboxes(context.Context) (list []mail.Mailbox, err error) {
	for _, b := range a.boxes {
		list = append(list, mail.Mailbox{Name: b.name, UIDValidity: 7})
	}
	return list, nil
}

func (a *account) box(name string) []message {
	for _, b := range a.boxes {
		if b.name == name {
			return b.msgs
		}
	}
	return nil
}

func (a *account) List(_ context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for i, m := range a.box(mb.Name) {
			in := mail.Info{Ref: mail.Ref{UID: fmt.Sprint(i + 1)}, Seq: uint32(i + 1), Size: int64(len(m.octets)) + a.wrong, InternalDate: m.date}
			if !yield(in, nil) {
				return
			}
		}
	}
}

func (a *account) give(mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver, header bool) error {
	for _, w := range wants {
		m := a.box(mb.Name)[w.Seq-1]
		in := mail.Info{Ref: mail.Ref{UID: w.UID}, Seq: w.Seq}
		octets := m.octets
		if header {
			a.headers++
			octets, _, _ = strings.Cut(octets, "\r\n\r\n")
			octets += "\r\n\r\n"
		} else {
			a.fetched++
		}
		var err error
		if m.refused != nil {
			err = deliver(in, nil, m.refused)
		} else {
			err = deliver(in, strings.NewReader(octets), nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *account) Fetch(_ context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	return a.give(mb, wants, deliver, false)
}

func (a *account) Headers(_ context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	return a.give(mb, wants, deliver, true)
}

const (
	one   = "From: a@x.example\nSubject: one\nMessage-ID: <1@x>\n\nfirst\n"
	two   = "From: b@x.example\nSubject: two\nMessage-ID: <2@x>\n\nsecond body\n"
	three = "From: c@x.example\nSubject: three\nMessage-ID: <3@x>\n\nthird body, longer\n"
)

func run(t *testing.T, o Options) (Result, []string) {
	t.Helper()
	var found []string
	o.Found = func(f Finding) {
		found = append(found, strings.TrimSpace(fmt.Sprintf("%s %s/%s %s %s", f.Kind, f.Ref.Mailbox, f.Ref.UID, f.Subject, f.What)))
	}
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	c := res.Counts
	if c.Left.Messages != c.Compared+c.Unsampled+c.Vanished+c.Unreadable && c.Right.Messages > 0 {
		t.Errorf("the counters of the left side do not add up: %+v", c)
	}
	if c.Compared != c.Same+c.Known+c.Altered+c.Moved+c.Missing+c.Explained {
		t.Errorf("the counters do not add up: %+v", c)
	}
	return res, found
}

func TestRun(t *testing.T) {
	refused := message{octets: "From: r@x.example\r\n\r\nr\r\n", refused: errors.New("NO")}
	tests := []struct {
		name        string
		left, right []box
		both        bool
		want        []string
		same        int64
		complete    bool
	}{
		{"equal", []box{{"INBOX", msgs(one, two)}}, []box{{"INBOX", msgs(two, one)}}, true, nil, 2, true},
		{"missing", []box{{"INBOX", msgs(one, two)}}, []box{{"INBOX", msgs(two)}}, false, []string{"missing INBOX/1 one"}, 1, false},
		{"missing mailbox", []box{{"A", msgs(one)}}, nil, false, []string{"missing A/1 one"}, 0, false},
		{"two equal, one there", []box{{"INBOX", msgs(one, one)}}, []box{{"INBOX", msgs(one)}}, false, []string{"missing INBOX/2 one"}, 1, false},
		{"one, two there", []box{{"INBOX", msgs(one)}}, []box{{"INBOX", msgs(one, one)}}, false, []string{"extra INBOX/2 one"}, 1, true},
		{"extra", []box{{"INBOX", msgs(one)}}, []box{{"INBOX", msgs(one, two)}, {"B", msgs(three)}}, false,
			[]string{"extra B/1 three", "extra INBOX/2 two"}, 1, true},
		{"unarchived", []box{{"INBOX", msgs(one)}}, []box{{"INBOX", msgs(one, two)}}, true, []string{"unarchived INBOX/2 two"}, 1, false},
		{"moved", []box{{"INBOX", msgs(one)}}, []box{{"INBOX", nil}, {"B", msgs(one)}}, true, []string{"moved INBOX/1 one"}, 0, true},
		{"known alteration", []box{{"INBOX", msgs("Subject: z\nStatus: RO\n\nnul \x00 and \r here\n\n")}},
			[]box{{"INBOX", msgs("Subject: z\n\nnul \x80 and  here\n")}}, false,
			[]string{"known INBOX/1 z NUL octets, CRs without LF, header fields of mail storage, empty lines at the end"}, 0, true},
		{"header rewritten", []box{{"INBOX", msgs(one)}}, []box{{"INBOX", msgs("X-Added: 1\n" + one)}}, false, []string{"altered INBOX/1 one the header"}, 0, false},
		{"body changed", []box{{"INBOX", msgs(one)}}, []box{{"INBOX", msgs(one + "footer\n")}}, false, []string{"altered INBOX/1 one the body"}, 0, false},
		{"nothing alike", []box{{"INBOX", msgs(one)}}, []box{{"INBOX", msgs(two)}}, false, []string{"missing INBOX/1 one", "extra INBOX/1 two"}, 0, false},
		{"refused", []box{{"INBOX", append(msgs(one), refused)}}, []box{{"INBOX", msgs(one)}}, false, []string{"unreadable INBOX/2  NO"}, 1, true},
		{"vanished", []box{{"INBOX", append(msgs(one), message{refused: mail.ErrVanished})}}, []box{{"INBOX", msgs(one)}}, false, nil, 1, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			left, right := &account{key: "imap:a@l", boxes: tt.left}, &account{key: "imap:a@r", boxes: tt.right}
			res, found := run(t, Options{Left: Server(left), Right: Server(right), Both: tt.both})
			if d := cmp.Diff(tt.want, found); d != "" {
				t.Error(d)
			}
			if res.Same != tt.same || res.Complete() != tt.complete {
				t.Errorf("%d the same, complete %v: %+v", res.Same, res.Complete(), res.Counts)
			}
		})
	}
}

func TestRunMapsMailboxes(t *testing.T) {
	left := &account{key: "l", boxes: []box{{"Gesendet", msgs(one)}, {"Sent Items", msgs(two)}, {"Not", msgs(three)}}}
	right := &account{key: "r", boxes: []box{{"Sent", msgs(two, one)}}}
	res, found := run(t, Options{
		Left: Server(left), Right: Server(right), Selection: mail.Selection{Exclude: []string{"Not"}},
		Map: func(left, _ []mail.Mailbox) []string { return []string{"Sent", "Sent", "Not"} },
	})
	if len(found) != 0 || res.Same != 2 || len(res.Mailboxes) != 1 {
		t.Errorf("%v, %+v", found, res)
	}
	_, err := Run(t.Context(), Options{Left: Server(left), Right: Server(right), Selection: mail.Selection{Mailboxes: []string{"Nowhere"}}})
	if mail.KindOf(err) != mail.KindUsage {
		t.Errorf("a mailbox that is not there: %v", err)
	}
}

// In a sample a message and its copy are both chosen, whatever size the servers
// state; what is missing is found if it is in the sample.
func TestSample(t *testing.T) {
	var all []string
	for i := range 400 {
		all = append(all, fmt.Sprintf("Subject: %d\nMessage-ID: <%d@x>\n\n%s\n", i, i, strings.Repeat("x", i)))
	}
	for _, wrong := range []int64{0, 3} {
		left := &account{key: "l", boxes: []box{{"INBOX", msgs(all...)}}}
		right := &account{key: "r", boxes: []box{{"INBOX", msgs(all...)}}, wrong: wrong}
		res, found := run(t, Options{Left: Server(left), Right: Server(right), Share: 0.2})
		if len(found) != 0 || res.Same == 0 || res.Unsampled < 100 || res.Left.Messages != 400 {
			t.Errorf("sizes off by %d: %v, %+v", wrong, found, res.Counts)
		}
		if wrong == 0 && (left.fetched > 200 || right.fetched != left.fetched || right.headers > 0) {
			t.Errorf("%d and %d messages, %d headers were fetched", left.fetched, right.fetched, right.headers)
		}
	}
	less := &account{key: "r", boxes: []box{{"INBOX", msgs(slices.Concat(all[:200], all[203:])...)}}}
	res, found := run(t, Options{Left: Server(&account{key: "l", boxes: []box{{"INBOX", msgs(all...)}}}), Right: Server(less), Share: 0.001})
	if res.Missing != 3 || res.Complete() || res.Unsampled < 300 {
		t.Errorf("what a side has fewer of is in every sample: %v %+v", found, res.Counts)
	}
	left := &account{key: "l", boxes: []box{{"INBOX", msgs(one)}, {"B", msgs(two)}}}
	if res, found := run(t, Options{Left: Server(left), Right: Server(&account{key: "r"}), Share: 0.001}); res.Missing != 2 {
		t.Errorf("of each mailbox at least one message is in a sample: %v %+v", found, res.Counts)
	}
}

// What the selection leaves out on one side only, because a date differs, is no
// loss, and what it does not select is not extra.
func TestSelection(t *testing.T) {
	day := time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)
	old, young := msgs(one)[0], msgs(two)[0]
	old.date, young.date = day.AddDate(-1, 0, 0), day.AddDate(0, 1, 0)
	late := old
	late.date = day.AddDate(0, 2, 0) // a copy that lost its date
	left := &account{key: "l", boxes: []box{{"INBOX", []message{old, young}}}}
	right := &account{key: "r", boxes: []box{{"INBOX", []message{late, young}}}}
	res, found := run(t, Options{Left: Server(left), Right: Server(right), Selection: mail.Selection{Before: day}})
	if len(found) != 0 || res.Same != 1 || res.Left.Messages != 1 {
		t.Errorf("%v, %+v", found, res.Counts)
	}
}

// ledger is an archive's records in memory.
type ledger struct {
	held    []mail.Held
	claims  map[string][]mail.Claim
	uploads []mail.Upload
	octets  map[int64]string
}

func (l *ledger) Uploads(_ context.Context, _, _ string, yield func(mail.Upload) error) error {
	for _, u := range l.uploads {
		if err := yield(u); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) Mailboxes(context.Context) ([]string, error) { return []string{"INBOX"}, nil }

func (l *ledger) Messages(_ context.Context, mailbox string, yield func(mail.Held) error) error {
	for _, h := range l.held {
		if err := yield(h); err != nil {
			return err
		}
	}
	return nil
}

func (l *ledger) Message(_ context.Context, id int64) (mail.Held, error) { return l.held[id-1], nil }

func (l *ledger) Claims(_ context.Context, account, _ string, yield func(mail.Claim) error) error {
	for _, c := range l.claims[account] {
		if err := yield(c); err != nil {
			return err
		}
	}
	return nil
}

func archiveOf(octets ...string) *ledger {
	l := &ledger{claims: map[string][]mail.Claim{}, octets: map[int64]string{}}
	for i, o := range octets {
		sums, _ := mail.SumCanonical(strings.NewReader(o))
		id := int64(i + 1)
		l.octets[id] = o
		l.held = append(l.held, mail.Held{Message: id, Receipt: mail.Receipt{
			Info: mail.Info{Ref: mail.Ref{Mailbox: "INBOX"}, ObjectID: fmt.Sprint(id)}, Place: "p", Sums: sums,
		}})
	}
	return l
}

func (l *ledger) open(_ context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	for id, h := range l.held {
		if h.Receipt.Digest == rc.Digest {
			return io.NopCloser(strings.NewReader(l.octets[int64(id+1)])), nil
		}
	}
	return nil, errors.New("no such message")
}

func TestArchive(t *testing.T) {
	gone := time.Unix(1, 0)
	tests := []struct {
		name   string
		claims []mail.Claim
		source bool
		want   []string
	}{
		{"never seen there", nil, false, []string{"missing INBOX/2 two", "missing INBOX/3 three"}},
		{"deleted by us", []mail.Claim{{Message: 2, Gone: gone, GoneBy: "us"}, {Message: 3, Gone: gone, GoneBy: "us"}}, false, nil},
		{"deleted by us and put back", []mail.Claim{{Message: 2, Gone: gone, GoneBy: "us"}, {Message: 2}, {Message: 3, Gone: gone, GoneBy: "us"}}, true,
			[]string{"missing INBOX/2 two"}},
		{"gone at its source", []mail.Claim{{Message: 1}, {Message: 2, Gone: gone, GoneBy: "server"}, {Message: 3, Gone: gone, GoneBy: "server"}}, true, nil},
		{"gone at a destination", []mail.Claim{{Message: 2, Gone: gone, GoneBy: "server"}, {Message: 3}}, false,
			[]string{"missing INBOX/2 two", "missing INBOX/3 three"}},
		{"from elsewhere", []mail.Claim{{Message: 1}, {Message: 2}}, true, []string{"missing INBOX/2 two"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := archiveOf(one, two, three)
			l.claims["imap:a@r"] = tt.claims
			a := &Archive{Ledger: l, Open: l.open, Path: "/archive", Accounts: []string{"imap:a@r"}, Boxes: []string{"INBOX"}, Source: tt.source}
			right := &account{key: "imap:a@r", boxes: []box{{"INBOX", msgs(one)}}}
			res, found := run(t, Options{Left: a, Right: Server(right), Both: tt.source})
			if d := cmp.Diff(tt.want, found); d != "" {
				t.Error(d)
			}
			if res.Same != 1 || res.Complete() != (tt.want == nil) {
				t.Errorf("%+v", res.Counts)
			}
		})
	}
}

// The account that is compared knows best what was there: what another protocol saw
// before is older, or says nothing of it.
func TestArchiveOfTwoProtocols(t *testing.T) {
	gone := time.Unix(1, 0)
	l := archiveOf(one, two, three)
	l.claims["imap:a@r"] = []mail.Claim{{Message: 1}, {Message: 2, Gone: gone, GoneBy: "server"}}
	l.claims["pop3:a@r"] = []mail.Claim{{Message: 1}, {Message: 2}, {Message: 3}}
	a := &Archive{Ledger: l, Open: l.open, Path: "/archive", Accounts: []string{"imap:a@r", "pop3:a@r"}, Boxes: []string{"INBOX"}, Source: true}
	_, found := run(t, Options{Left: a, Right: Server(&account{key: "imap:a@r", boxes: []box{{"INBOX", msgs(one)}}}), Both: true})
	if d := cmp.Diff([]string{"missing INBOX/3 three"}, found); d != "" {
		t.Error(d)
	}
}

func TestAcceptedRemovals(t *testing.T) {
	l := archiveOf(one)
	l.claims["imap:a@r"] = []mail.Claim{{Message: 1, UID: "1"}, {Message: 77, UID: "2"}}
	a := &Archive{Ledger: l, Open: l.open, Path: "/archive", Accounts: []string{"imap:a@r"}, Boxes: []string{"INBOX"}, Source: true}
	res, found := run(t, Options{Left: a, Right: Server(&account{key: "imap:a@r", boxes: []box{{"INBOX", msgs(one, two, three)}}}), Both: true})
	want := []string{"unarchived INBOX/3 three", "extra INBOX/2 two removed from the archive or changed there, and accepted"}
	if d := cmp.Diff(want, found); d != "" || res.Unarchived != 1 || res.Extra != 1 {
		t.Error(d, res.Counts)
	}
}

func TestAlteredOnRecord(t *testing.T) {
	l := archiveOf(one, two)
	made := "From: a@x.example\nSubject: wrapped\n\nquite another text\n"
	sums, _ := mail.SumCanonical(strings.NewReader(made))
	l.uploads = []mail.Upload{{Message: 1, Altered: sums.Digest}}
	a := &Archive{Ledger: l, Open: l.open, Path: "/archive", Accounts: []string{"imap:a@r"}, Boxes: []string{"INBOX"}}
	res, found := run(t, Options{Left: a, Right: Server(&account{key: "imap:a@r", boxes: []box{{"INBOX", msgs(two, made)}}})})
	if d := cmp.Diff([]string{"known INBOX/1 one what was on record when it was sent"}, found); d != "" || !res.Complete() {
		t.Error(d)
	}
}

func TestFormIsTheSameHoweverItIsCut(t *testing.T) {
	text := "A: b\nStatus: RO\n folded\nX-Long: " + strings.Repeat("y", 200) + "\nSTATUS:x\nnocolon\n\nbody\r\n\n\nmore\x00\n\n\n"
	whole := newFormer()
	_, _ = whole.Write([]byte(text))
	want := whole.form()
	for n := 1; n < 20; n++ {
		f := newFormer()
		for s := text; s != ""; {
			k := min(n, len(s))
			_, _ = f.Write([]byte(s[:k]))
			s = s[k:]
		}
		if got := f.form(); got != want {
			t.Fatalf("in pieces of %d: %+v, want %+v", n, got, want)
		}
	}
	if want.marks != markNUL|markCR|markFields|markTail {
		t.Errorf("marks %b", want.marks)
	}
}
