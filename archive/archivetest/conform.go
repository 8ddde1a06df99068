package archivetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/mail"
)

func roundTrip(t *testing.T, open Open) {
	fsys, dir := realFS(t)
	l := NewLedger()
	messages := Hazards()
	a := open(t, fsys, l)
	for _, m := range messages {
		mustAppend(t, a, m)
	}
	g := mustCommit(t, a)
	if len(g.Receipts) != len(messages) {
		t.Fatalf("%d receipts for %d messages", len(g.Receipts), len(messages))
	}
	if _, ok := g.Anchors["INBOX"]; !ok {
		t.Error("no anchor of INBOX")
	}
	for _, rc := range g.Receipts {
		i := slices.IndexFunc(messages, func(m Message) bool { return m.Digest() == rc.Digest })
		if i < 0 {
			t.Errorf("receipt of an unknown message: %v", rc)
			continue
		}
		c := messages[i].Octets()
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatal(err)
		}
		if rc.Sums != c.Sums() || rc.Info != messages[i].Info() || rc.Place == "" {
			t.Errorf("message %d: receipt %+v", i, rc)
		}
		if got := readAll(t, a, rc); got != messages[i].Canonical() {
			t.Errorf("message %d: %d octets come back as %d: %.60q", i, len(messages[i].Canonical()), len(got), got)
		}
	}
	if err := l.group(g); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	l.closed()

	a = open(t, reopen(t, dir), l)
	defer a.Close()
	checkReadable(t, a, l, "reopened")
	checkSame(t, onDisk(t, a), wanted(messages), "reopened")
	for rc, err := range a.Receipts(context.Background(), "INBOX") {
		if err != nil {
			t.Fatal(err)
		}
		if err := prove(a, rc); err != nil {
			t.Errorf("receipt read from disk: %v", err)
		}
		i := slices.IndexFunc(messages, func(m Message) bool { return m.Digest() == rc.Digest })
		c := messages[i].Octets()
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatal(err)
		}
		if rc.Header != c.Sums().Header || rc.Octets != c.Sums().Octets {
			t.Errorf("message %d: sums from disk %+v", i, rc.Sums)
		}
	}
}

// archived appends messages in one run and returns what Receipts reads from the
// closed and reopened archive, by digest.
func archived(t *testing.T, open Open, messages []Message) map[key]mail.Receipt {
	t.Helper()
	fsys, dir := realFS(t)
	l := NewLedger()
	if err := runOnce(open(t, fsys, l), l, messages, len(messages)); err != nil {
		t.Fatal(err)
	}
	a := open(t, reopen(t, dir), l)
	defer a.Close()
	checkReadable(t, a, l, "reopened")
	out := map[key]mail.Receipt{}
	boxes, err := a.Mailboxes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, box := range boxes {
		for rc, err := range a.Receipts(context.Background(), box) {
			if err != nil {
				t.Fatal(err)
			}
			out[key{box, rc.Digest}] = rc
		}
	}
	return out
}

func dates(t *testing.T, open Open) {
	var messages []Message
	for _, d := range []time.Time{
		time.Date(1904, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(1969, 12, 31, 23, 59, 59, 0, time.UTC),
		time.Unix(0, 0).UTC(),
		time.Date(1999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -12*3600)),
		time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),
		time.Date(2106, 2, 7, 6, 28, 16, 0, time.FixedZone("", 14*3600)),
	} {
		messages = append(messages, Message{Mailbox: "INBOX", Date: d, Wire: "Subject: " + d.String() + "\r\n\r\n"})
	}
	got := archived(t, open, messages)
	for _, m := range messages {
		if rc := got[key{m.Mailbox, m.Digest()}]; !rc.Info.InternalDate.Equal(m.Date) {
			t.Errorf("INTERNALDATE %v came back as %v", m.Date, rc.Info.InternalDate)
		}
	}
}

func flags(t *testing.T, open Open) {
	var messages []Message
	for i, f := range []mail.Flags{
		"", mail.NewFlags(mail.Seen), mail.NewFlags(mail.Answered, mail.Flagged, mail.Draft, mail.Seen),
		mail.NewFlags(mail.Flagged, "$Forwarded", "work"), mail.NewFlags(mail.Deleted, mail.Draft), mail.NewFlags("NonJunk", "$label1"),
	} {
		messages = append(messages, Message{Mailbox: "Sent", Flags: f, Wire: fmt.Sprintf("Subject: %d\r\n\r\n", i)})
	}
	got := archived(t, open, messages)
	for _, m := range messages {
		rc := got[key{m.Mailbox, m.Digest()}]
		if rc.Info.Flags.Without(mail.Deleted) != m.Flags.Without(mail.Deleted) || rc.Info.Ref.Mailbox != m.Mailbox {
			t.Errorf("flags %q came back as %q", m.Flags, rc.Info.Flags)
		}
	}
}

func setFlags(t *testing.T, open Open) {
	fsys, dir := realFS(t)
	a := open(t, fsys, NewLedger())
	defer a.Close()
	flagger, ok := a.(archive.Flagger)
	if !ok {
		return // flags in it are those of archiving
	}
	m := Message{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n", Flags: mail.NewFlags(mail.Seen, "work")}
	mustAppend(t, a, m)
	rc := mustCommit(t, a).Receipts[0]
	ctx := context.Background()
	steps := []struct{ base, now, want mail.Flags }{
		{m.Flags, mail.NewFlags(mail.Seen, mail.Flagged, "work"), mail.NewFlags(mail.Seen, mail.Flagged, "work")},
		{mail.NewFlags(mail.Draft), "", mail.NewFlags(mail.Seen, mail.Flagged, "work")},
		{mail.NewFlags(mail.Seen, "work"), mail.NewFlags("home"), mail.NewFlags(mail.Flagged, "home")},
		{"", "", mail.NewFlags(mail.Flagged, "home")},
	}
	old := rc
	for _, s := range steps {
		next, err := flagger.SetFlags(ctx, rc, s.base, s.now)
		if err != nil {
			t.Fatal(err)
		}
		if next.Info.Flags != s.want || next.Sums != rc.Sums {
			t.Errorf("%q to %q: %+v, want %q", s.base, s.now, next, s.want)
		}
		for _, place := range []mail.Receipt{old, rc, next} { // the old place is still understood
			if err := prove(a, place); err != nil {
				t.Errorf("%q to %q: %v", s.base, s.now, err)
			}
		}
		rc = next
	}
	gone := rc
	gone.Place = "INBOX/cur/1.x.y:2,"
	if _, err := flagger.SetFlags(ctx, gone, "", mail.NewFlags(mail.Seen)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("flags of a message that is not there: %v", err)
	}
	b := open(t, reopen(t, dir), NewLedger())
	defer b.Close()
	for got, err := range b.Receipts(ctx, "INBOX") {
		if err != nil || got.Info.Flags != mail.NewFlags(mail.Flagged, "home") {
			t.Errorf("on disk: %q, %v", got.Info.Flags, err)
		}
	}
}

func setDate(t *testing.T, open Open) {
	fsys, dir := realFS(t)
	a := open(t, fsys, NewLedger())
	defer a.Close()
	dater, ok := a.(archive.Flagger)
	if !ok {
		return // the date in it is that of archiving
	}
	mustAppend(t, a, Message{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"})
	rc := mustCommit(t, a).Receipts[0]
	ctx := context.Background()
	date := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := dater.SetDate(ctx, rc, date); err != nil {
		t.Fatal(err)
	}
	if err := prove(a, rc); err != nil {
		t.Error(err)
	}
	gone := rc
	gone.Place = "INBOX/cur/1.x.y:2,"
	if err := dater.SetDate(ctx, gone, date); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("date of a message that is not there: %v", err)
	}
	b := open(t, reopen(t, dir), NewLedger())
	defer b.Close()
	for got, err := range b.Receipts(ctx, "INBOX") {
		if err != nil || !got.Info.InternalDate.Equal(date) || got.Digest != rc.Digest {
			t.Errorf("on disk: %v, %v", got.Info.InternalDate, err)
		}
	}
}

// MailboxNames are names that some file system cannot hold, or takes for others.
var MailboxNames = []string{
	"INBOX", "inbox", "Inbox", "INBOX/cur", "cur", "new", "tmp", "CUR", "a", "A", "a/b", "A/b", "a/B", "a//b", "/a", "a/", "/",
	".hidden", "..", ".", "../escape", "a/../b", "x.mbox", "x", "x.mbox/y", "con", "CON", "aux.txt", "com1", "trail.", "trail ", " lead",
	"Entwürfe", "Entwu\u0308rfe", "ENTWÜRFE", "Größe", "Grösse", "日本語", "a:b", `a\b`, "a*b?c\"d<e>f|g", "100%", "%41", "~", "tab\there", "nul\x00", "new\nline", "\xff\xfe",
	"dovecot-keywords", ".mailhaul", "-rf", "[Gmail]/All Mail", "INBOX.lock", strings.Repeat("long", 70), strings.Repeat("deep/", 80) + "end",
	strings.Repeat("日本", 60) + "/x",
}

func mailboxNames(t *testing.T, open Open) {
	var messages []Message
	for i, name := range MailboxNames {
		messages = append(messages, Message{Mailbox: name, Wire: fmt.Sprintf("Subject: %d\r\n\r\n", i)})
	}
	fsys, dir := realFS(t)
	l := NewLedger()
	if err := runOnce(open(t, fsys, l), l, messages, len(messages)); err != nil {
		t.Fatal(err)
	}
	a := open(t, reopen(t, dir), l)
	defer a.Close()
	got, err := a.Mailboxes(context.Background())
	want := slices.Sorted(slices.Values(MailboxNames))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("mailboxes %q, %v\nwant %q", got, err, want)
	}
	checkReadable(t, a, l, "reopened")
	checkSame(t, onDisk(t, a), wanted(messages), "reopened")
}

func equalMessages(t *testing.T, open Open) {
	m := Message{Mailbox: "INBOX", Wire: "Subject: twin\r\n\r\nbody\r\n"}
	messages := []Message{m, m, m, {Mailbox: "Sent", Wire: m.Wire}}
	fsys, _ := realFS(t)
	l := NewLedger()
	a := open(t, fsys, l)
	defer a.Close()
	for _, m := range messages {
		mustAppend(t, a, m)
	}
	if err := l.group(mustCommit(t, a)); err != nil {
		t.Fatal(err)
	}
	checkReadable(t, a, l, "equal messages")
	checkSame(t, onDisk(t, a), wanted(messages), "equal messages")
}

// brokenOctets fails after some octets.
type brokenOctets struct {
	r   io.Reader
	err error
}

func (b *brokenOctets) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func (b *brokenOctets) Sums() mail.Sums { return mail.Sums{} }

func readerFails(t *testing.T, open Open) {
	fsys, dir := realFS(t)
	l := NewLedger()
	a := open(t, fsys, l)
	good := Message{Mailbox: "INBOX", Wire: "Subject: good\r\n\r\nbody\r\n"}
	for i, size := range []int{0, 1, 100, 70_000, 3_000_000} {
		for _, cause := range []error{io.ErrUnexpectedEOF, mail.ErrSkipped, errors.New("connection reset")} {
			r := &brokenOctets{r: bytes.NewReader(bytes.Repeat([]byte("From octets\n"), size/12)), err: cause}
			if err := a.Append(context.Background(), good.Info(), r); !errors.Is(err, cause) {
				t.Errorf("%d octets: error %v, want %v", size, err, cause)
			}
		}
		if i%2 == 1 {
			mustAppend(t, a, good)
		}
	}
	if err := l.group(mustCommit(t, a)); err != nil {
		t.Fatal(err)
	}
	checkSame(t, l.count(), wanted([]Message{good, good}), "after failed readers")
	checkReadable(t, a, l, "after failed readers")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	l.closed()
	a = open(t, reopen(t, dir), l)
	defer a.Close()
	checkReadable(t, a, l, "after failed readers, reopened")
	checkSame(t, onDisk(t, a), wanted([]Message{good, good}), "after failed readers, reopened")
}

func nothingWithoutCommit(t *testing.T, open Open) {
	fsys, dir := realFS(t)
	l := NewLedger()
	a := open(t, fsys, l)
	if g := mustCommit(t, a); len(g.Receipts) != 0 {
		t.Errorf("receipts of nothing: %v", g.Receipts)
	}
	mustAppend(t, a, Message{Mailbox: "INBOX", Wire: "Subject: kept\r\n\r\n"})
	if err := l.group(mustCommit(t, a)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, a, Message{Mailbox: "INBOX", Wire: "Subject: dropped\r\n\r\n"})
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, reopen(t, dir), l)
	defer a.Close()
	found, err := a.Recover(context.Background(), "INBOX", l.anchor("INBOX"), l.known("INBOX"))
	if err != nil || len(found.Receipts) > 1 || (len(found.Receipts) == 1 && !found.All) {
		t.Errorf("%+v, %v", found, err)
	}
	checkSame(t, onDisk(t, a), wanted([]Message{{Mailbox: "INBOX", Wire: "Subject: kept\r\n\r\n"}}), "closed without commit")
}

func canceled(t *testing.T, open Open) {
	fsys, _ := realFS(t)
	a := open(t, fsys, NewLedger())
	defer a.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m := Message{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"}
	if err := a.Append(ctx, m.Info(), m.Octets()); !errors.Is(err, context.Canceled) {
		t.Errorf("append with a canceled context: %v", err)
	}
	if g := mustCommit(t, a); len(g.Receipts) != 0 {
		t.Errorf("receipts of a canceled append: %v", g.Receipts)
	}
}

func concurrent(t *testing.T, open Open) {
	fsys, _ := realFS(t)
	l := NewLedger()
	a := open(t, fsys, l)
	defer a.Close()
	const writers, each = 8, 30
	var messages []Message
	for w := range writers {
		for i := range each {
			messages = append(messages, Message{
				Mailbox: []string{"INBOX", "Sent", "Archive/2023"}[i%3],
				Wire:    fmt.Sprintf("Subject: %d/%d\r\n\r\n%s", w, i, strings.Repeat("From somebody\r\n", i*100)),
			})
		}
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for _, m := range messages[w*each : (w+1)*each] {
				if err := a.Append(context.Background(), m.Info(), m.Octets()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if err := l.group(mustCommit(t, a)); err != nil {
			t.Fatal(err)
		}
		checkReadable(t, a, l, "while others append")
	}
	checkSame(t, l.count(), wanted(messages), "in the ledger")
	checkSame(t, onDisk(t, a), wanted(messages), "on disk")
}

func commitWhileAppending(t *testing.T, open Open) {
	fsys, _ := realFS(t)
	l := NewLedger()
	a := open(t, fsys, l)
	defer a.Close()
	slow := Message{Mailbox: "INBOX", Wire: "Subject: slow\r\n\r\n" + strings.Repeat("x\r\n", 50_000)}
	quick := Message{Mailbox: "Sent", Wire: "Subject: quick\r\n\r\n"}
	pr, pw := io.Pipe()
	appended := make(chan error, 1)
	go func() {
		appended <- a.Append(context.Background(), slow.Info(), mail.NewCanonical(pr, nil))
	}()
	half := len(slow.Wire) / 2
	if _, err := io.WriteString(pw, slow.Wire[:half]); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, a, quick)
	type result struct {
		g   archive.Group
		err error
	}
	committed := make(chan result, 1)
	go func() {
		g, err := a.Commit(context.Background())
		committed <- result{g, err}
	}()
	if _, err := io.WriteString(pw, slow.Wire[half:]); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	if err := <-appended; err != nil {
		t.Fatal(err)
	}
	first := <-committed
	if err := errors.Join(first.err, l.group(first.g)); err != nil {
		t.Fatal(err)
	}
	if l.count()[key{quick.Mailbox, quick.Digest()}] != 1 {
		t.Error("Commit did not report what was appended before it")
	}
	if err := l.group(mustCommit(t, a)); err != nil {
		t.Fatal(err)
	}
	checkSame(t, l.count(), wanted([]Message{slow, quick}), "in the ledger")
	checkReadable(t, a, l, "at the end")
}

func missing(t *testing.T, open Open) {
	fsys, _ := realFS(t)
	a := open(t, fsys, NewLedger())
	defer a.Close()
	m := Message{Mailbox: "INBOX", Wire: "Subject: x\r\n\r\n"}
	mustAppend(t, a, m)
	rc := mustCommit(t, a).Receipts[0]
	for _, change := range []func(*mail.Receipt){
		func(rc *mail.Receipt) { rc.Info.Ref.Mailbox, rc.Place = "Other", "Other/cur/1.x.y:2," },
		func(rc *mail.Receipt) { rc.Place = "" },
		func(rc *mail.Receipt) { rc.Place = "../../etc/passwd" },
	} {
		gone := rc
		change(&gone)
		r, err := a.Open(context.Background(), gone)
		if err == nil {
			r.Close()
			t.Errorf("opened %q", gone.Place)
		}
	}
	for _, err := range a.Receipts(context.Background(), "Nothing") {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	found, err := a.Recover(context.Background(), "Nothing", archive.Anchor{}, func(string) bool { return false })
	if err != nil || len(found.Receipts) != 0 {
		t.Errorf("recover of a mailbox that is not there: %+v, %v", found, err)
	}
}

func secondRun(t *testing.T, open Open) {
	fsys, dir := realFS(t)
	l := NewLedger()
	messages := crashMessages()
	for range 3 {
		if err := runOnce(open(t, fsys, l), l, messages, groupSize); err != nil {
			t.Fatal(err)
		}
		checkSame(t, l.count(), wanted(messages), "in the ledger")
		fsys = reopen(t, dir)
	}
	a := open(t, fsys, l)
	defer a.Close()
	checkSame(t, onDisk(t, a), wanted(messages), "on disk")
}

// ledgerLost: what content can tell is found again, and nothing is added.
func ledgerLost(t *testing.T, open Open) {
	fsys, dir := realFS(t)
	l := NewLedger()
	messages := crashMessages()
	if err := runOnce(open(t, fsys, l), l, messages, groupSize); err != nil {
		t.Fatal(err)
	}
	fresh := NewLedger()
	if err := runOnce(open(t, reopen(t, dir), fresh), fresh, messages, groupSize); err != nil {
		t.Fatal(err)
	}
	a := open(t, reopen(t, dir), fresh)
	defer a.Close()
	checkReadable(t, a, fresh, "ledger lost")
	checkSame(t, fresh.count(), wanted(messages), "in the new ledger")
	checkSame(t, onDisk(t, a), wanted(messages), "on disk")
}
