package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"mailhaul/fetch"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ada = "imap:ada@example.org@imap.example.org"

func message(subject string) string {
	return "From: a@example.org\r\nSubject: " + subject + "\r\n\r\nbody of " + subject + "\r\n"
}

// world is a server, an archive and a ledger.
type world struct {
	t       testing.TB
	source  *fakeSource
	archive *fakeArchive
	ledger  *fakeLedger
	events  []mail.Event
	changes *changeSource // nil for a server without CONDSTORE
	mu      sync.Mutex
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, source: newSource(ada), archive: newArchive(), ledger: newLedger()}
	w.source.validity["INBOX"] = 1
	w.source.messages["INBOX"] = nil
	return w
}

func (w *world) put(uid, wire string) *fakeMessage {
	m := &fakeMessage{uid: uid, wire: wire, date: time.Unix(1700000000, 0)}
	w.source.messages["INBOX"] = append(w.source.messages["INBOX"], m)
	return m
}

func (w *world) options() fetch.Options {
	var source fetch.Source = headerSource{w.source}
	if w.source.noHeaders {
		source = w.source
	}
	if w.changes != nil {
		source = w.changes
	}
	return fetch.Options{Source: source, Archive: w.archive, Ledger: w.ledger, Notify: func(e mail.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}}
}

func (w *world) run() fetch.Result {
	res, err := fetch.Run(context.Background(), w.options())
	if err != nil {
		w.t.Fatalf("run: %v", err)
	}
	w.sum(res)
	return res
}

func (w *world) sum(res fetch.Result) {
	w.t.Helper()
	if res.Listed != res.Archived+res.Adopted+res.Skipped+res.Failed {
		w.t.Errorf("the sum does not add up: %+v", res.Counts)
	}
}

// want checks the counters and the number of messages in INBOX's archive.
func (w *world) want(res fetch.Result, archived, adopted, skipped, failed int64, inArchive int) {
	w.t.Helper()
	got := [4]int64{res.Archived, res.Adopted, res.Skipped, res.Failed}
	if got != [4]int64{archived, adopted, skipped, failed} {
		w.t.Errorf("archived, adopted, skipped, failed = %v, want %v", got, [4]int64{archived, adopted, skipped, failed})
	}
	if n := len(w.archive.durable["INBOX"]); n != inArchive {
		w.t.Errorf("%d messages in the archive, want %d", n, inArchive)
	}
}

func TestSecondRunAddsNothing(t *testing.T) {
	w := newWorld(t)
	for i := range 1200 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	w.want(w.run(), 1200, 0, 0, 0, 1200)
	records := w.ledger.records
	w.want(w.run(), 0, 0, 1200, 0, 1200)
	if w.ledger.records != records {
		t.Error("a run with nothing new wrote to the ledger")
	}
	if w.source.lists != 2 {
		t.Errorf("%d listings without a State, want 2", w.source.lists)
	}
}

func TestStateSparesTheListing(t *testing.T) {
	w := newWorld(t)
	w.source.state["INBOX"] = "1:2:1"
	w.put("1", message("a"))
	w.want(w.run(), 1, 0, 0, 0, 1)
	w.want(w.run(), 0, 0, 1, 0, 1)
	if w.source.lists != 1 {
		t.Errorf("%d listings, want 1", w.source.lists)
	}
	// A selection always lists.
	o := w.options()
	o.Selection.Larger = 1
	if _, err := fetch.Run(context.Background(), o); err != nil || w.source.lists != 2 {
		t.Errorf("%d listings, %v", w.source.lists, err)
	}
}

func TestFailureKeepsTheStateUnknown(t *testing.T) {
	w := newWorld(t)
	w.source.state["INBOX"] = "1"
	w.put("1", message("a"))
	bad := w.put("2", message("b"))
	bad.refuse = &mail.Error{Kind: mail.KindPartial, Server: "NO [UNAVAILABLE]"}
	w.want(w.run(), 1, 0, 0, 1, 1)
	w.want(w.run(), 0, 0, 1, 1, 1) // named every run
	bad.refuse = nil
	w.want(w.run(), 1, 0, 1, 0, 2)
	if got := w.ledger.cursors[ada+"\x00INBOX"]; got != "1" {
		t.Errorf("cursor %q", got)
	}
}

func TestEqualMessagesAreCounted(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("twin"))
	w.put("2", message("twin"))
	w.want(w.run(), 2, 0, 0, 0, 2)
	// One goes, and comes back under a new UID: nothing is added.
	w.source.messages["INBOX"] = w.source.messages["INBOX"][:1]
	w.want(w.run(), 0, 0, 1, 0, 2)
	w.put("3", message("twin"))
	w.want(w.run(), 0, 1, 1, 0, 2)
	// A third one at the same time is a third copy.
	w.put("4", message("twin"))
	w.want(w.run(), 1, 0, 2, 0, 3)
}

func TestNewUIDValidityAdopts(t *testing.T) {
	for _, headers := range []bool{true, false} {
		w := newWorld(t)
		w.source.noHeaders = !headers
		for i := range 10 {
			w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
		}
		w.run()
		fetched := w.source.fetched
		w.source.validity["INBOX"] = 2
		for i, m := range w.source.messages["INBOX"] {
			m.uid = fmt.Sprint(10 - i) // the same UIDs for other messages
		}
		w.put("11", message("new"))
		w.want(w.run(), 1, 10, 0, 0, 11)
		if headers && w.source.fetched != fetched+1 {
			t.Errorf("%d bodies fetched again", w.source.fetched-fetched-1)
		}
		w.want(w.run(), 0, 0, 11, 0, 11)
		if n := len(w.ledger.claims); n != 11 {
			t.Errorf("%d claims, want 11: those taken over are replaced", n)
		}
	}
}

func TestSameHeaderOtherBodyIsFetched(t *testing.T) {
	w := newWorld(t)
	head := "Message-ID: <x@example.org>\r\nSubject: s\r\n\r\n"
	w.put("1", head+"one\r\n")
	w.put("2", head+"two\r\n")
	w.want(w.run(), 2, 0, 0, 0, 2)
	w.source.validity["INBOX"] = 2
	w.want(w.run(), 0, 2, 0, 0, 2)
	if w.source.fetched != 4 {
		t.Errorf("%d bodies fetched, want 4: the header cannot tell them apart", w.source.fetched)
	}
}

func TestOtherProtocolSharesTheMailbox(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a")).flags = `\Seen`
	w.put("2", message("b"))
	w.run()
	pop := newSource("pop3:ada@example.org@pop.example.org")
	pop.messages["INBOX"] = []*fakeMessage{{uid: "x1", wire: message("a")}, {uid: "x2", wire: message("b")}, {uid: "x3", wire: message("c")}}
	imap := w.source
	w.source = pop
	w.want(w.run(), 1, 2, 0, 0, 3)
	w.want(w.run(), 0, 0, 3, 0, 3)
	w.source = imap
	w.put("3", message("c")).flags = `\Flagged`
	w.want(w.run(), 0, 1, 2, 0, 3)
	for subject, want := range map[string]mail.Flags{"a": `\Seen`, "b": "", "c": `\Flagged`} {
		_, sums := mail.CanonicalInPlace([]byte(message(subject)))
		i := slices.IndexFunc(w.ledger.messages, func(h mail.Held) bool { return h.Receipt.Digest == sums.Digest })
		if got := w.archive.flags[w.ledger.messages[i].Receipt.Place]; got != want {
			t.Errorf("%s: flags %q, want %q", subject, got, want)
		}
		// c got the time of fetching from us, the others a date that a server gave.
		if got := w.archive.dates[w.ledger.messages[i].Receipt.Place]; got.Equal(time.Unix(1700000000, 0)) != (subject == "c") {
			t.Errorf("%s: date set to %v", subject, got)
		}
	}
}

func TestUnusableUIDLs(t *testing.T) {
	for _, headers := range []bool{true, false} {
		w := newWorld(t)
		w.source.account = "pop3:ada@pop.example.org"
		w.source.validity["INBOX"] = 0
		w.source.noHeaders = !headers
		for i := range 5 {
			w.put("", message(fmt.Sprint(i)))
		}
		w.put("", message("0")) // a twin
		w.put("good", message("g"))
		w.want(w.run(), 7, 0, 0, 0, 7)
		records := w.ledger.records
		w.want(w.run(), 0, 0, 7, 0, 7)
		if w.ledger.records != records {
			t.Error("a run with nothing new wrote to the ledger")
		}
		w.source.messages["INBOX"] = w.source.messages["INBOX"][1:]
		w.put("", message("new"))
		w.want(w.run(), 1, 0, 6, 0, 8)
		w.put("", message("0"))
		w.want(w.run(), 0, 1, 7, 0, 8)
	}
}

func TestUIDLsThatChangeEachSession(t *testing.T) {
	w := newWorld(t)
	w.source.account = "pop3:ada@pop.example.org"
	for i := range 20 {
		w.put(fmt.Sprint("a", i), message(fmt.Sprint(i)))
	}
	w.want(w.run(), 20, 0, 0, 0, 20)
	for round := range 3 {
		for i, m := range w.source.messages["INBOX"] {
			m.uid = fmt.Sprint("r", round, "-", i)
		}
		w.want(w.run(), 0, 20, 0, 0, 20)
	}
	if n := len(w.ledger.claims); n != 20 {
		t.Errorf("%d claims, want 20", n)
	}
}

func TestUIDLUsedAgain(t *testing.T) {
	w := newWorld(t)
	w.source.account = "pop3:ada@pop.example.org"
	w.put("x", message("first"))
	w.run()
	w.source.messages["INBOX"] = nil
	w.put("x", message("another one under the same UIDL"))
	w.want(w.run(), 1, 0, 0, 0, 2)
	w.want(w.run(), 0, 0, 1, 0, 2)
}

func TestFlagsFollowTheServer(t *testing.T) {
	w := newWorld(t)
	m := w.put("1", message("a"))
	m.flags = `\Seen`
	w.run()
	w.archive.flags["INBOX/1"] = `\Draft \Seen` // changed by a mail reader
	m.flags = `\Seen work`
	w.run()
	if got := w.archive.flags["INBOX/1"]; got != `\Draft \Seen work` {
		t.Errorf("flags %q", got)
	}
	m.flags = ""
	w.run()
	if got := w.archive.flags["INBOX/1"]; got != `\Draft` {
		t.Errorf("flags %q", got)
	}
}

func TestExpungedStaysAndMayReturn(t *testing.T) {
	w := newWorld(t)
	m := w.put("1", message("a"))
	w.put("2", message("b"))
	w.run()
	w.source.messages["INBOX"] = w.source.messages["INBOX"][1:]
	w.want(w.run(), 0, 0, 1, 0, 2)
	w.source.messages["INBOX"] = append(w.source.messages["INBOX"], m)
	w.want(w.run(), 0, 0, 2, 0, 2)
	if !w.ledger.claims[0].Gone.IsZero() {
		t.Error("the claim is still gone")
	}
}

// Messages that were deleted over POP3 and are there again are counted, unless the
// UIDL belongs to another message now, or nobody deleted anything.
func TestDeletedAndThereAgain(t *testing.T) {
	for _, by := range []string{"us", "server"} {
		w := newWorld(t)
		w.source.validity["INBOX"] = 0
		for i := range 4 {
			w.put(fmt.Sprint("u", i), message(fmt.Sprint(i)))
		}
		w.run()
		all := w.source.messages["INBOX"]
		w.source.messages["INBOX"] = all[3:]
		w.ledger.goneBy = by
		w.want(w.run(), 0, 0, 1, 0, 4)
		all[0].wire = message("9")
		w.source.messages["INBOX"] = all
		want := int64(0)
		if by == "us" {
			want = 2
		}
		if res := w.run(); res.Back != want || res.Archived != 1 || res.Adopted != 2 {
			t.Errorf("by %s: %+v", by, res)
		}
		if res := w.run(); res.Back != 0 {
			t.Errorf("once more: %+v", res)
		}
	}
}

// A claim that turned out to be on another message is not taken for good by the size
// or the header: the message is fetched.
func TestWrongClaimIsFetched(t *testing.T) {
	for _, body := range []string{"other body\r\n", "body of 2\r\n"} {
		w := newWorld(t)
		w.put("1", message("1"))
		m := w.put("2", message("2"))
		w.run()
		head, _, _ := strings.Cut(m.wire, "body of")
		m.wire = head + body
		i := slices.IndexFunc(w.ledger.claims, func(c fakeClaim) bool { return c.UID == "2" }) // they are recorded in any order
		if err := w.ledger.Record(context.Background(), mail.Change{Wrong: []int64{w.ledger.claims[i].ID}}); err != nil {
			t.Fatal(err)
		}
		if body == "body of 2\r\n" { // it is the same after all
			w.want(w.run(), 0, 1, 1, 0, 2)
		} else {
			w.want(w.run(), 1, 0, 1, 0, 3)
		}
		w.want(w.run(), 0, 0, 2, 0, len(w.archive.durable["INBOX"]))
	}
}

// What we moved to the trash is known when the trash shows it, by header or by
// octets, as often as there are copies; all else there is archived.
func TestTrashedIsKnown(t *testing.T) {
	for _, headers := range []bool{true, false} {
		w := newWorld(t)
		w.source.noHeaders = !headers
		w.source.trash = "Bin"
		for i, s := range []string{"a", "b", "b", "c"} {
			w.put(fmt.Sprint(i+1), message(s))
		}
		w.run()
		for _, h := range w.ledger.messages { // recorded in any order
			if _, c := mail.CanonicalInPlace([]byte(message("c"))); h.Receipt.Digest != c.Digest {
				w.ledger.trashed = append(w.ledger.trashed, h)
			}
		}
		w.source.validity["Bin"] = 3
		for i, s := range []string{"b", "new", "b", "a", "b", "c"} {
			w.source.messages["Bin"] = append(w.source.messages["Bin"], &fakeMessage{uid: fmt.Sprint(i + 20), wire: message(s), date: time.Unix(1700000000, 0)})
		}
		w.source.messages["INBOX"] = w.source.messages["INBOX"][3:]
		w.want(w.run(), 3, 3, 1, 0, 4)
		w.ledger.trashed = nil
		w.want(w.run(), 0, 0, 7, 0, 4)
	}
}

func TestWhatTheArchiveLostIsFetchedAgain(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a"))
	w.put("2", message("b"))
	w.run()
	w.ledger.messages[0].Receipt.Place = ""
	w.want(w.run(), 1, 0, 1, 0, 3)
	for _, c := range w.ledger.claims {
		if w.ledger.messages[c.Message-1].Receipt.Place == "" || !c.Gone.IsZero() {
			t.Errorf("claim %+v", c)
		}
	}
	w.want(w.run(), 0, 0, 2, 0, 3)
}

func TestIncompleteListingConcludesNothing(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a"))
	w.put("2", message("b"))
	w.run()
	w.source.messages["INBOX"] = w.source.messages["INBOX"][:1]
	w.source.listErr = &mail.Error{Kind: mail.KindTemporary, Err: errors.New("connection lost")}
	if _, err := fetch.Run(context.Background(), w.options()); mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("err = %v", err)
	}
	if !w.ledger.claims[1].Gone.IsZero() {
		t.Error("a cut listing marked a message as gone")
	}
}

// Nor does a listing that the server ends early, of which the rest is archived.
func TestShortListingConcludesNothing(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a"))
	w.put("2", message("b"))
	w.run()
	w.source.messages["INBOX"] = w.source.messages["INBOX"][:1]
	w.put("3", message("c"))
	w.source.listErr = &mail.Error{Kind: mail.KindTemporary, Err: fmt.Errorf("the rest is not shown: %w", fetch.ErrIncomplete)}
	res, err := fetch.Run(context.Background(), w.options())
	if !errors.Is(err, fetch.ErrIncomplete) || res.Archived != 1 {
		t.Errorf("%+v, %v", res.Counts, err)
	}
	for _, c := range w.ledger.claims {
		if !c.Gone.IsZero() {
			t.Errorf("%s is marked as gone", c.UID)
		}
	}
}

// What a selection left out comes with the next run without one, even if the mailbox
// has not changed since.
func TestSelectionKeepsTheStateUnknown(t *testing.T) {
	w := newWorld(t)
	w.source.state["INBOX"] = "1:3:1"
	w.put("1", message("a"))
	w.put("2", message(strings.Repeat("b", 1000)))
	o := w.options()
	o.Selection.Larger = 500
	if res, err := fetch.Run(context.Background(), o); err != nil || res.Archived != 1 {
		t.Errorf("%+v, %v", res.Counts, err)
	}
	w.want(w.run(), 1, 0, 1, 0, 2)
}

func TestBrokenReaderIsNotArchived(t *testing.T) {
	for _, size := range []int{10, 3 << 20} {
		w := newWorld(t)
		w.put("1", message(strings.Repeat("x", size))).breaks = 2
		w.want(w.run(), 1, 0, 0, 0, 1)
	}
}

func TestSilentlyMissingIsNamed(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a"))
	w.put("2", message("b")).silent = true
	w.want(w.run(), 1, 0, 0, 1, 1)
	if !slices.ContainsFunc(w.events, func(e mail.Event) bool { return e.Kind == mail.EventFailed && e.Ref.UID == "2" }) {
		t.Error("the message is not named")
	}
}

func TestVanishedIsNoFailure(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a"))
	w.put("2", message("b")).refuse = mail.ErrVanished
	w.want(w.run(), 1, 0, 0, 0, 1)
}

func TestLargeAndLyingSizes(t *testing.T) {
	w := newWorld(t)
	large := message(strings.Repeat("y", 4<<20))
	w.put("1", large)
	w.put("2", large).size = 100                // lists too few octets: grows past its buffer
	w.put("3", message("small")).size = 5 << 20 // lists too many
	w.put("4", message("unknown")).size = -1
	w.put("5", strings.ReplaceAll(message("LF counted"), "\n", "\n")).size = int64(len(message("LF counted"))) - 4
	res := w.run()
	w.want(res, 5, 0, 0, 0, 5)
	if res.Suspicious != 2 {
		t.Errorf("%d suspicious, want 2", res.Suspicious)
	}
	w.source.validity["INBOX"] = 2
	w.want(w.run(), 0, 5, 0, 0, 5)
}

// POP3 cannot send a message without a final line end: the server adds one, and many
// do not count it.
func TestAddedLineEndIsNotSuspicious(t *testing.T) {
	for account, suspicious := range map[string]int64{"pop3:ada@example.org": 1, "imap:ada@example.org": 3} {
		w := newWorld(t)
		w.source.account = account
		text := message("one line\r\nthe last")
		size := int64(len(text))
		w.put("1", text).size = size - 2
		w.put("2", text).size = size - int64(strings.Count(text, "\n")) - 1 // line ends as one octet, the last one not at all
		w.put("3", text).size = size - 1
		if res := w.run(); res.Suspicious != suspicious {
			t.Errorf("%s: %d suspicious, want %d", account, res.Suspicious, suspicious)
		}
	}
}

func TestSuspicious(t *testing.T) {
	w := newWorld(t)
	w.put("1", "").size = 500
	w.put("2", "From: Microsoft Exchange Server\r\n\r\nRetrieval using the IMAP4 protocol failed for the following message: 7\r\n")
	w.put("3", message("fine"))
	res := w.run()
	if w.want(res, 3, 0, 0, 0, 3); res.Suspicious != 2 {
		t.Errorf("%d suspicious, want 2", res.Suspicious)
	}
}

func TestDiskErrorStopsTheRun(t *testing.T) {
	w := newWorld(t)
	w.source.consumes = true // one by one, so that it is known how many came before
	for i := range 50 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	w.archive.failAt = 11
	res, err := fetch.Run(context.Background(), w.options())
	if mail.KindOf(err) != mail.KindDisk || res.Archived != 10 || w.source.fetched != 11 || !w.source.abandon {
		t.Errorf("archived %d, fetched %d, abandoned %v, err %v", res.Archived, w.source.fetched, w.source.abandon, err)
	}
	w.sum(res)
	w.archive.failAt, w.source.abandon = 0, false
	w.want(w.run(), 40, 0, 10, 0, 50)
}

func TestConsumerIsDurableMessageByMessage(t *testing.T) {
	w := newWorld(t)
	w.source.consumes = true
	for i := range 5 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	w.source.onFetch = func(n int) {
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		if len(w.ledger.messages) != n-1 {
			t.Errorf("message %d asked for while %d are recorded", n, len(w.ledger.messages))
		}
	}
	w.want(w.run(), 5, 0, 0, 0, 5)
}

func TestInterruptKeepsWhatCame(t *testing.T) {
	w := newWorld(t)
	for i := range 100 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.source.onFetch = func(n int) {
		if n == 40 {
			cancel()
		}
	}
	res, err := fetch.Run(ctx, w.options())
	if !errors.Is(err, context.Canceled) || res.Archived < 39 || res.Archived > 40 {
		t.Errorf("archived %d, err %v", res.Archived, err)
	}
	w.sum(res)
	if got := len(w.archive.durable["INBOX"]); got != int(res.Archived) {
		t.Errorf("%d in the archive, %d reported", got, res.Archived)
	}
	w.source.onFetch = nil
	w.want(w.run(), 100-res.Archived, 0, res.Archived, 0, 100)
}

func TestDryRunWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a"))
	w.run()
	w.source.validity["INBOX"] = 2
	w.put("2", message("b"))
	records, n := w.ledger.records, w.archive.n
	o := w.options()
	o.DryRun, o.Archive = true, nil
	res, err := fetch.Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	w.sum(res)
	if res.Archived != 1 || res.Adopted != 1 || w.ledger.records != records || w.archive.n != n {
		t.Errorf("%+v, %d records", res.Counts, w.ledger.records-records)
	}
}

func TestSelection(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("old")).date = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	w.put("2", message("new")).date = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	w.put("3", message("undated")).date = time.Time{}
	o := w.options()
	o.Selection.Since = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	res, err := fetch.Run(context.Background(), o)
	if err != nil || res.Archived != 2 { // a copying rule takes unknown for yes
		t.Errorf("%+v %v", res.Counts, err)
	}
	w.want(w.run(), 1, 0, 2, 0, 3)
	o.Selection.Mailboxes = []string{"Nowhere"}
	if _, err := fetch.Run(context.Background(), o); mail.KindOf(err) != mail.KindUsage || !strings.Contains(mail.HintOf(err), "INBOX") {
		t.Errorf("err = %v", err)
	}
	o.Selection.Mailboxes = []string{"No*"}
	if _, err := fetch.Run(context.Background(), o); err != nil {
		t.Errorf("a pattern may match nothing: %v", err)
	}
}

// Random histories: whatever the server does to UIDs, an archive mailbox ends
// with as many copies of each message as were shown at one time at most.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		pop := rapid.Bool().Draw(rt, "pop")
		if pop {
			w.source.account, w.source.validity["INBOX"] = "pop3:ada@pop.example.org", 0
		}
		w.source.noHeaders = rapid.Bool().Draw(rt, "no headers")
		if !pop && rapid.Bool().Draw(rt, "changes") {
			w.changes = newChangeSource(w.source)
		}
		most := map[string]int{}
		uid := 0
		newUID := func() string { uid++; return fmt.Sprint(uid) }
		for range rapid.IntRange(1, 8).Draw(rt, "runs") {
			for range rapid.IntRange(0, 5).Draw(rt, "steps") {
				list := w.source.messages["INBOX"]
				switch rapid.SampledFrom([]string{"deliver", "deliver", "expunge", "renumber", "unidentify", "swap", "flag"}).Draw(rt, "step") {
				case "deliver":
					w.put(newUID(), message(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "what")))
				case "expunge":
					if len(list) > 0 {
						i := rapid.IntRange(0, len(list)-1).Draw(rt, "which")
						w.source.messages["INBOX"] = slices.Delete(slices.Clone(list), i, i+1)
					}
				case "renumber":
					if !pop {
						w.source.validity["INBOX"]++
					}
					for _, m := range list {
						m.uid = newUID()
					}
				case "flag":
					if len(list) > 0 {
						m := list[rapid.IntRange(0, len(list)-1).Draw(rt, "which")]
						m.flags = rapid.SampledFrom([]mail.Flags{"", mail.Seen, mail.NewFlags("work")}).Draw(rt, "flags")
						if w.changes != nil {
							w.changes.touch(m)
						}
					}
				case "unidentify":
					if pop && len(list) > 0 {
						list[rapid.IntRange(0, len(list)-1).Draw(rt, "which")].uid = ""
					}
				case "swap":
					w.source.messages["INBOX"] = rapid.Permutation(list).Draw(rt, "order")
				}
				if w.changes != nil {
					w.changes.touch(nil)
				}
			}
			shown := map[string]int{}
			for _, m := range w.source.messages["INBOX"] {
				shown[m.wire]++
				most[m.wire] = max(most[m.wire], shown[m.wire])
			}
			w.run()
			got := map[string]int{}
			for _, c := range w.archive.durable["INBOX"] {
				got[strings.ReplaceAll(c, "\n", "\r\n")]++
			}
			for wire, n := range most {
				if got[wire] != n {
					rt.Fatalf("%d copies of %q, want %d", got[wire], wire, n)
				}
			}
			w.checkClaims(rt)
		}
	})
}

// checkClaims holds the ledger's live claims on INBOX against the server.
func (w *world) checkClaims(t rapid.TB) {
	live := map[string]mail.Flags{}
	for _, c := range w.ledger.claims {
		if c.Gone.IsZero() && !strings.HasPrefix(c.UID, "\x01") {
			live[fmt.Sprint(c.UIDValidity, " ", c.UID)] = c.Flags
		}
	}
	n := 0
	for _, m := range w.source.messages["INBOX"] {
		if m.uid == "" {
			continue
		}
		n++
		key := fmt.Sprint(w.source.validity["INBOX"], " ", m.uid)
		if flags, ok := live[key]; !ok || flags != m.flags {
			t.Fatalf("claim on UID %s: %v, flags %q; at the server %q", key, ok, flags, m.flags)
		}
	}
	if len(live) != n {
		t.Fatalf("%d live claims on %d messages", len(live), n)
	}
}

// Where the server tells what changed, a mailbox is listed only if something went.
func TestChanges(t *testing.T) {
	w := newWorld(t)
	w.changes = newChangeSource(w.source)
	for i := range 20 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	lists := func(want, changes int) {
		t.Helper()
		if w.source.lists != want || w.changes.changes != changes {
			t.Errorf("listed %d times, asked for changes %d times; want %d, %d", w.source.lists, w.changes.changes, want, changes)
		}
		w.checkClaims(t)
	}
	w.want(w.run(), 20, 0, 0, 0, 20)
	lists(1, 0)
	w.want(w.run(), 0, 0, 20, 0, 20)
	lists(1, 0)
	w.changes.touch(w.put("21", message("new")))
	m := w.source.messages["INBOX"][3]
	m.flags = mail.Seen
	w.changes.touch(m)
	w.want(w.run(), 1, 0, 20, 0, 21)
	lists(1, 1)
	// One that fails stays wanted.
	bad := w.put("22", message("bad"))
	bad.refuse = &mail.Error{Kind: mail.KindPartial, Server: "NO"}
	w.changes.touch(bad)
	w.want(w.run(), 0, 0, 21, 1, 21)
	bad.refuse = nil
	w.want(w.run(), 1, 0, 21, 0, 22)
	lists(1, 3)
	// One that went.
	w.source.messages["INBOX"] = slices.Delete(w.source.messages["INBOX"], 5, 6)
	w.changes.touch(nil)
	w.want(w.run(), 0, 0, 21, 0, 22)
	lists(2, 4)
	// One went and one came.
	w.source.messages["INBOX"] = slices.Delete(w.source.messages["INBOX"], 7, 8)
	w.changes.touch(w.put("23", message("newer")))
	w.want(w.run(), 1, 0, 20, 0, 23)
	lists(3, 5)
	// A count that cannot be.
	w.changes.touch(w.put("24", message("newest")))
	w.changes.lie = 1
	w.want(w.run(), 1, 0, 21, 0, 24)
	lists(4, 6)
	// The archive lost one: it is fetched again.
	w.changes.lie = 0
	w.ledger.messages[w.ledger.claims[0].Message-1].Receipt.Place = ""
	w.changes.touch(nil)
	w.run()
	lists(5, 6)
	// New UIDs.
	w.source.validity["INBOX"]++
	w.changes.touch(nil)
	w.run()
	lists(6, 6)
}

func TestManyMailboxesAtOnce(t *testing.T) {
	w := newWorld(t)
	for b := range 30 {
		name := fmt.Sprintf("box %d", b)
		w.source.validity[name] = 1
		for i := range 20 {
			w.source.messages[name] = append(w.source.messages[name], &fakeMessage{uid: fmt.Sprint(i + 1), wire: message(fmt.Sprint(b, i)), date: time.Unix(1, 0)})
		}
	}
	o := w.options()
	o.Parallel = 4
	res, err := fetch.Run(context.Background(), o)
	if err != nil || res.Archived != 600 {
		t.Fatalf("%+v %v", res.Counts, err)
	}
	w.sum(res)
}

// A mailbox that vanished stays as it is; when it is back, nothing is added.
// Under a new name it is a new mailbox.
func TestMailboxVanishes(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("a"))
	w.put("2", message("b"))
	w.run()
	list := w.source.messages["INBOX"]
	delete(w.source.messages, "INBOX")
	w.source.messages["Renamed"], w.source.validity["Renamed"] = list, 9
	w.want(w.run(), 2, 0, 0, 0, 2)
	if n := len(w.archive.durable["Renamed"]); n != 2 {
		t.Errorf("%d messages under the new name", n)
	}
	w.source.messages["INBOX"] = list
	w.want(w.run(), 0, 0, 4, 0, 2)
}

// Two users in one archive: each has claims of its own on what both have.
func TestTwoAccountsInOneArchive(t *testing.T) {
	w := newWorld(t)
	w.put("1", message("to both"))
	w.put("2", message("to ada"))
	w.run()
	adas := w.source
	w.source = newSource("imap:bob@example.org@imap.example.org")
	w.source.validity["INBOX"] = 3
	w.put("1", message("to both"))
	w.put("2", message("to bob"))
	w.want(w.run(), 1, 1, 0, 0, 3)
	w.source.messages["INBOX"] = nil // bob deletes all of his
	w.want(w.run(), 0, 0, 0, 0, 3)
	w.source = adas
	w.want(w.run(), 0, 0, 2, 0, 3)
}

// A draft that was edited has the header of the one before, and may have its size.
func TestEditedMessageIsNotTakenForTheOldOne(t *testing.T) {
	w := newWorld(t)
	head := "Message-ID: <x@example.org>\r\nSubject: draft\r\n\r\n"
	w.put("1", head+"one\r\n")
	w.want(w.run(), 1, 0, 0, 0, 1)
	w.source.messages["INBOX"] = nil
	w.put("2", head+"two\r\n").date = time.Unix(1700000060, 0)
	w.want(w.run(), 1, 0, 0, 0, 2)
	// What was delivered keeps its header for itself, whatever the server's clock.
	trace := "Received: from a by b; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
	w.put("3", trace+head+"three\r\n")
	w.want(w.run(), 1, 0, 1, 0, 3)
	fetched := w.source.fetched
	w.source.messages["INBOX"] = nil
	w.put("4", trace+head+"three\r\n").date = time.Unix(1700000060, 0)
	w.want(w.run(), 0, 1, 0, 0, 3)
	if w.source.fetched != fetched {
		t.Error("fetched again")
	}
}

// Without UIDVALIDITY a UIDL that comes back may stand for another message, even
// for one of the same size.
func TestUIDLThatComesBackIsComparedByContent(t *testing.T) {
	w := newWorld(t)
	w.source.account, w.source.validity["INBOX"] = "pop3:ada@pop.example.org", 0
	first := w.put("1", message("monday"))
	w.want(w.run(), 1, 0, 0, 0, 1)
	w.source.messages["INBOX"] = nil
	w.run()
	w.put("1", message("friday"))
	w.want(w.run(), 1, 0, 0, 0, 2)
	w.want(w.run(), 0, 0, 1, 0, 2)
	w.source.messages["INBOX"] = nil
	w.run()
	w.source.messages["INBOX"] = []*fakeMessage{first}
	w.want(w.run(), 0, 1, 0, 0, 2)
	w.want(w.run(), 0, 0, 1, 0, 2)
}
