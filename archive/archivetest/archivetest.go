// Package archivetest is the suite that every archive format passes: what goes in
// comes out octet for octet, and a fault, a kill or a power loss at any step costs
// a repeated download at most.
package archivetest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Open opens an archive of the format under test. fsys may be empty or hold what
// an earlier one left. The suite closes both.
type Open func(t *testing.T, fsys durable.FS, anchors archive.Anchors) archive.Archive

// Run holds a format against the contract.
func Run(t *testing.T, open Open) {
	t.Run("RoundTrip", func(t *testing.T) { roundTrip(t, open) })
	t.Run("Dates", func(t *testing.T) { dates(t, open) })
	t.Run("Flags", func(t *testing.T) { flags(t, open) })
	t.Run("SetFlags", func(t *testing.T) { setFlags(t, open) })
	t.Run("SetDate", func(t *testing.T) { setDate(t, open) })
	t.Run("MailboxNames", func(t *testing.T) { mailboxNames(t, open) })
	t.Run("Equal", func(t *testing.T) { equalMessages(t, open) })
	t.Run("ReaderFails", func(t *testing.T) { readerFails(t, open) })
	t.Run("NothingWithoutCommit", func(t *testing.T) { nothingWithoutCommit(t, open) })
	t.Run("Canceled", func(t *testing.T) { canceled(t, open) })
	t.Run("Concurrent", func(t *testing.T) { concurrent(t, open) })
	t.Run("CommitWhileAppending", func(t *testing.T) { commitWhileAppending(t, open) })
	t.Run("Missing", func(t *testing.T) { missing(t, open) })
	t.Run("SecondRun", func(t *testing.T) { secondRun(t, open) })
	t.Run("LedgerLost", func(t *testing.T) { ledgerLost(t, open) })
	t.Run("Fault", func(t *testing.T) { everyFault(t, open) })
	t.Run("DeathAndPowerLoss", func(t *testing.T) { everyDeath(t, open) })
}

// Message is one message of a test, in wire form.
type Message struct {
	Mailbox string
	Wire    string
	Flags   mail.Flags
	Date    time.Time
}

// Info is what a server would say about it.
func (m Message) Info() mail.Info {
	date := m.Date
	if date.IsZero() {
		date = time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC)
	}
	return mail.Info{
		Ref:          mail.Ref{Account: "imap:ada@example.org@mail.example.org", Mailbox: m.Mailbox, UIDValidity: 7, UID: "42"},
		Size:         int64(len(m.Wire)),
		InternalDate: date,
		DateFrom:     mail.DateInternal,
		Flags:        m.Flags,
	}
}

// Octets reads it as a fetch would.
func (m Message) Octets() mail.Octets { return mail.NewCanonical(strings.NewReader(m.Wire), nil) }

// Canonical is what must come out of the archive.
func (m Message) Canonical() string {
	s := strings.ReplaceAll(m.Wire, "\r\n", "\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return s
}

// Digest of the canonical octets.
func (m Message) Digest() mail.Digest { return sha256.Sum256([]byte(m.Canonical())) }

// Hazards are messages that some archive somewhere has damaged.
func Hazards() []Message {
	long := strings.Repeat("0123456789abcdef", 1<<16)
	wires := []string{
		"",
		"\r\n",
		"\r\n\r\n\r\n",
		"Subject: header only\r\n",
		"Subject: header only, no newline",
		"Subject: empty body\r\n\r\n",
		"Subject: no final newline\r\n\r\nbody",
		"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n...\r\n",
		"Subject: From lines\r\n\r\nFrom ada\r\n>From ada\r\n>>From ada\r\nFrom\r\n>From\r\n From ada\r\n\r\nFrom ada@example.org Sat Jan  3 01:05:34 1998\r\n\r\nx\r\n",
		"From ada@example.org Sat Jan  3 01:05:34 1998\r\nSubject: begins like an mbox\r\n\r\nbody\r\n",
		">From ada@example.org Sat Jan  3 01:05:34 1998\r\nSubject: quoted begin\r\n\r\nbody\r\n",
		"Subject: trailing blank lines\r\n\r\nbody\r\n\r\n\r\n\r\n",
		"Subject: NUL\r\n\r\na\x00b\r\n\x00\r\n",
		"Subject: bare CR\r\n\r\na\rb\r\rc\r\r\nd\r\n",
		"Subject: bare CR at the end\r\n\r\na\r",
		"Subject: bare LF\n\nFrom x\n\n\nFrom y\r\n",
		"Subject: 8-bit \xe4\xf6\xfc\r\n\r\n\xff\xfe\x80 ä\r\n",
		"Subject: own status\r\nStatus: RO\r\nX-Status: A\r\nX-Keywords: work\r\nX-UID: 3\r\nContent-Length: 3\r\nX-Mozilla-Status: 0001\r\n\r\nbody\r\n",
		"Status: RO\r\nX-Status: A\r\nX-Keywords:\r\n\r\nStatus lines alone\r\n",
		"Subject: long line\r\n\r\n" + long + "\r\nFrom " + long + "\r\n" + long,
		"X-Long: " + long + "\r\n\r\nbody\r\n",
		strings.Repeat("X-Header: value\r\n", 5000) + "\r\nFrom here\r\n",
		"Subject: many lines\r\n\r\n" + strings.Repeat("From x\r\n>From y\r\n\r\n", 20000),
		"no header at all, just words",
		" folded from the start\r\n\r\nbody\r\n",
		"\r\nFrom nobody\r\n",
		"Subject: 64 KiB lines\r\n\r\n" + strings.Repeat("a", 65535) + "\r\n" + strings.Repeat("b", 65536) + "\r\n" + strings.Repeat("c", 65537) + "\r\n",
	}
	list := make([]Message, len(wires))
	for i, w := range wires {
		list[i] = Message{Mailbox: "INBOX", Wire: w}
	}
	return list
}

// Ledger is the least that a run must remember. It outlives crashes: what is
// recorded is durable at once.
type Ledger struct {
	mu       sync.Mutex
	anchors  map[string]archive.Anchor
	messages map[string]map[string]mail.Receipt // by mailbox and place
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{anchors: map[string]archive.Anchor{}, messages: map[string]map[string]mail.Receipt{}}
}

func (l *Ledger) clone() *Ledger {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := NewLedger()
	maps.Copy(c.anchors, l.anchors)
	for box, messages := range l.messages {
		c.messages[box] = maps.Clone(messages)
	}
	return c
}

// MarkOpen records the anchor of a mailbox that is about to be appended to.
func (l *Ledger) MarkOpen(mailbox string, a archive.Anchor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.anchors[mailbox] = a
	return nil
}

func (l *Ledger) anchor(mailbox string) archive.Anchor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.anchors[mailbox]
}

func (l *Ledger) known(mailbox string) func(string) bool {
	return func(place string) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		_, ok := l.messages[mailbox][place]
		return ok
	}
}

func (l *Ledger) add(receipts []mail.Receipt) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, rc := range receipts {
		box := rc.Info.Ref.Mailbox
		if l.messages[box] == nil {
			l.messages[box] = map[string]mail.Receipt{}
		}
		if _, ok := l.messages[box][rc.Place]; ok {
			return fmt.Errorf("%s: two messages at %q", box, rc.Place)
		}
		l.messages[box][rc.Place] = rc
	}
	return nil
}

func (l *Ledger) group(g archive.Group) error {
	err := l.add(g.Receipts)
	l.mu.Lock()
	defer l.mu.Unlock()
	for box, a := range g.Anchors {
		l.anchors[box] = a
	}
	return err
}

// recover takes over what Recover found.
func (l *Ledger) recover(mailbox string, found archive.Found) error {
	l.mu.Lock()
	if found.All {
		delete(l.messages, mailbox)
	}
	l.anchors[mailbox] = found.Anchor
	l.mu.Unlock()
	return l.add(found.Receipts)
}

// closed is the end of a run that went well.
func (l *Ledger) closed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for box, a := range l.anchors {
		a.Open = false
		l.anchors[box] = a
	}
}

func (l *Ledger) receipts() []mail.Receipt {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []mail.Receipt
	for _, box := range slices.Sorted(maps.Keys(l.messages)) {
		for _, place := range slices.Sorted(maps.Keys(l.messages[box])) {
			list = append(list, l.messages[box][place])
		}
	}
	return list
}

func (l *Ledger) count() map[key]int {
	have := map[key]int{}
	for _, rc := range l.receipts() {
		have[key{rc.Info.Ref.Mailbox, rc.Digest}]++
	}
	return have
}

// key is the identity of a message: its octets, and where it is.
type key struct {
	mailbox string
	digest  mail.Digest
}

func (k key) String() string { return k.mailbox + " " + k.digest.String()[:12] }

func wanted(messages []Message) map[key]int {
	want := map[key]int{}
	for _, m := range messages {
		want[key{m.Mailbox, m.Digest()}]++
	}
	return want
}

// runOnce is a whole run: recover, append what the ledger lacks in groups of
// groupSize, record, close. The first error ends it; the archive is closed anyway.
func runOnce(a archive.Archive, l *Ledger, messages []Message, groupSize int) (err error) {
	ctx := context.Background()
	defer func() {
		if cerr := a.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			l.closed()
		}
	}()
	if err := recoverAll(ctx, a, l, messages); err != nil {
		return err
	}
	have := l.count()
	pending := 0
	commit := func() error {
		pending = 0
		g, err := a.Commit(ctx)
		return errors.Join(l.group(g), err)
	}
	for _, m := range messages {
		k := key{m.Mailbox, m.Digest()}
		if have[k] > 0 {
			have[k]--
			continue
		}
		if err := a.Append(ctx, m.Info(), m.Octets()); err != nil {
			return errors.Join(err, commit())
		}
		if pending++; pending == groupSize {
			if err := commit(); err != nil {
				return err
			}
		}
	}
	return commit()
}

func recoverAll(ctx context.Context, a archive.Archive, l *Ledger, messages []Message) error {
	boxes := map[string]bool{}
	for _, m := range messages {
		boxes[m.Mailbox] = true
	}
	for _, box := range slices.Sorted(maps.Keys(boxes)) {
		found, err := a.Recover(ctx, box, l.anchor(box), l.known(box))
		if err != nil {
			return err
		}
		if err := l.recover(box, found); err != nil {
			return err
		}
	}
	return nil
}

// checkReadable proves every receipt of the ledger.
func checkReadable(t *testing.T, a archive.Archive, l *Ledger, when string) {
	t.Helper()
	for _, rc := range l.receipts() {
		if err := prove(a, rc); err != nil {
			t.Errorf("%s: reported as archived: %v", when, err)
		}
	}
}

func prove(a archive.Archive, rc mail.Receipt) error {
	r, err := a.Open(context.Background(), rc)
	if err != nil {
		return err
	}
	_, err = mail.Prove(rc, r)
	return errors.Join(err, r.Close())
}

// onDisk counts what Receipts finds.
func onDisk(t *testing.T, a archive.Archive) map[key]int {
	t.Helper()
	ctx := context.Background()
	boxes, err := a.Mailboxes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	have := map[key]int{}
	for _, box := range boxes {
		for rc, err := range a.Receipts(ctx, box) {
			if err != nil {
				t.Fatal(err)
			}
			have[key{box, rc.Digest}]++
		}
	}
	return have
}

func checkSame(t *testing.T, have, want map[key]int, when string) {
	t.Helper()
	for k, n := range want {
		if have[k] != n {
			t.Errorf("%s: %v: %d times, want %d", when, k, have[k], n)
		}
	}
	for k, n := range have {
		if want[k] == 0 {
			t.Errorf("%s: %v: %d times, and nobody put it there", when, k, n)
		}
	}
}

func realFS(t *testing.T) (durable.FS, string) {
	t.Helper()
	dir := t.TempDir()
	fsys, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fsys.Close() })
	return fsys, dir
}

func reopen(t *testing.T, dir string) durable.FS {
	t.Helper()
	fsys, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fsys.Close() })
	return fsys
}

func mustAppend(t *testing.T, a archive.Archive, m Message) {
	t.Helper()
	if err := a.Append(context.Background(), m.Info(), m.Octets()); err != nil {
		t.Fatal(err)
	}
}

func mustCommit(t *testing.T, a archive.Archive) archive.Group {
	t.Helper()
	g, err := a.Commit(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func readAll(t *testing.T, a archive.Archive, rc mail.Receipt) string {
	t.Helper()
	r, err := a.Open(context.Background(), rc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
