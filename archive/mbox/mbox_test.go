package mbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/archive"
	"mailhaul/internal/corpus"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

var when = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// marks is an archive.Anchors that remembers.
type marks struct {
	mu sync.Mutex
	at map[string]archive.Anchor
}

func (m *marks) MarkOpen(mailbox string, a archive.Anchor) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil {
		m.at = make(map[string]archive.Anchor)
	}
	m.at[mailbox] = a
	return nil
}

func (m *marks) get(mailbox string) archive.Anchor {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at[mailbox]
}

func newArchive(t testing.TB, dir string) (*Archive, *marks) {
	t.Helper()
	fsys, err := durable.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	m := &marks{}
	a, err := New(fsys, m, Options{LockWait: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); fsys.Close() })
	return a, m
}

func info(mailbox string, flags ...string) mail.Info {
	return mail.Info{Ref: mail.Ref{Mailbox: mailbox}, InternalDate: when, Flags: mail.NewFlags(flags...), Size: -1}
}

func add(t testing.TB, a *Archive, in mail.Info, wire string) {
	t.Helper()
	if err := a.Append(t.Context(), in, mail.NewCanonical(strings.NewReader(wire), nil)); err != nil {
		t.Fatal(err)
	}
}

func commit(t testing.TB, a *Archive) archive.Group {
	t.Helper()
	g, err := a.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func closeArchive(t testing.TB, a *Archive) {
	t.Helper()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func canonical(t testing.TB, wire []byte) []byte {
	t.Helper()
	b, err := io.ReadAll(mail.NewCanonical(bytes.NewReader(wire), nil))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// all reads the octets and flags of every message of a mailbox on disk.
func all(t testing.TB, a *Archive, mailbox string) (octets []string, receipts []mail.Receipt) {
	t.Helper()
	for rc, err := range a.Receipts(t.Context(), mailbox) {
		if err != nil {
			t.Fatal(err)
		}
		octets = append(octets, string(open(t, a, rc)))
		receipts = append(receipts, rc)
	}
	return octets, receipts
}

func open(t testing.TB, a *Archive, rc mail.Receipt) []byte {
	t.Helper()
	r, err := a.Open(t.Context(), rc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readFile(t testing.TB, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFile(t testing.TB, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOnDisk(t *testing.T) {
	dir := t.TempDir()
	a, m := newArchive(t, dir)
	add(t, a, info("INBOX", mail.Seen, mail.Answered, mail.Deleted, mail.Draft, mail.Flagged, "$Forwarded", "work"),
		"Return-Path: <ada@example.org>\r\nStatus: U\r\n\r\nFrom a\r\n>From b\r\nbody\r\r\n")
	add(t, a, info("INBOX"), "Return-Path: <>\r\n\r\n\r\n")
	add(t, a, info("INBOX"), "")
	g := commit(t, a)
	want := "From ada@example.org Tue Jan  2 03:04:05 2024\nStatus: RO\nX-Status: AFT\nX-Keywords: $Forwarded work\n" +
		"Return-Path: <ada@example.org>\nStatus: U\n\n>From a\n>>From b\nbody\r\n\n" +
		"From MAILER-DAEMON Tue Jan  2 03:04:05 2024\nStatus:\nX-Status:\nX-Keywords:\nReturn-Path: <>\n\n\n\n" +
		"From MAILER-DAEMON Tue Jan  2 03:04:05 2024\nStatus:\nX-Status:\nX-Keywords:\n\n"
	if got := readFile(t, dir, "INBOX.mbox"); got != want {
		t.Fatalf("on disk:\n%q\nwant:\n%q", got, want)
	}
	if at := g.Anchors["INBOX"]; !at.Open || at.Length != int64(len(want)) || m.get("INBOX").Length != 0 {
		t.Errorf("anchors %+v, marked %+v", g.Anchors, m.get("INBOX"))
	}
	if len(g.Receipts) != 3 || !strings.HasPrefix(g.Receipts[0].Place, "INBOX.mbox#0+") {
		t.Fatalf("receipts %+v", g.Receipts)
	}
	_, found := all(t, a, "INBOX")
	for i, rc := range found {
		if rc.Place != g.Receipts[i].Place || rc.Digest != g.Receipts[i].Digest || rc.Header != g.Receipts[i].Header || !rc.Info.InternalDate.Equal(when) {
			t.Errorf("message %d: read back %+v, committed %+v", i, rc, g.Receipts[i])
		}
	}
	if f := found[0].Info.Flags; f != mail.NewFlags(mail.Seen, mail.Answered, mail.Draft, mail.Flagged, "$Forwarded", "work") {
		t.Errorf("flags read back: %q", f)
	}
	if readFile(t, dir, "INBOX.mbox.lock") == "" {
		t.Error("no dotlock while appending")
	}
	closeArchive(t, a)
	if _, err := os.Stat(filepath.Join(dir, "INBOX.mbox.lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("dotlock after Close: %v", err)
	}
}

func TestHazardsRoundTrip(t *testing.T) {
	dir := t.TempDir()
	a, _ := newArchive(t, dir)
	hazards := append(corpus.Hazards(), corpus.Huge())
	for _, h := range hazards {
		add(t, a, info("Lists/2023"), string(h.Octets))
	}
	g := commit(t, a)
	octets, receipts := all(t, a, "Lists/2023")
	if len(octets) != len(hazards) || len(g.Receipts) != len(hazards) {
		t.Fatalf("%d messages, %d receipts, want %d", len(octets), len(g.Receipts), len(hazards))
	}
	for i, h := range hazards {
		if octets[i] != string(canonical(t, h.Octets)) || receipts[i].Sums.Digest != g.Receipts[i].Digest {
			t.Errorf("%s: octets differ", h.Name)
		}
	}
}

// brokenReader gives some octets and then an error.
type brokenReader struct {
	r   io.Reader
	err error
}

func (b brokenReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func TestAbortedMessageLeavesNothing(t *testing.T) {
	for _, size := range []int{100, 3 << 20} {
		dir := t.TempDir()
		a, _ := newArchive(t, dir)
		add(t, a, info("INBOX"), "A: 1\r\n\r\none\r\n")
		commit(t, a)
		before := readFile(t, dir, "INBOX.mbox")
		body := strings.Repeat("0123456789abcde\n", size/16)
		err := a.Append(t.Context(), info("INBOX"), mail.NewCanonical(brokenReader{strings.NewReader(body), mail.ErrSkipped}, nil))
		if !errors.Is(err, mail.ErrSkipped) {
			t.Fatalf("Append: %v", err)
		}
		if g := commit(t, a); len(g.Receipts) != 0 {
			t.Errorf("receipts for nothing: %v", g.Receipts)
		}
		if got := readFile(t, dir, "INBOX.mbox"); got != before {
			t.Errorf("size %d: %d octets left behind", size, len(got)-len(before))
		}
		add(t, a, info("INBOX"), "A: 2\r\n\r\ntwo\r\n")
		commit(t, a)
		if got, _ := all(t, a, "INBOX"); len(got) != 2 || got[1] != "A: 2\n\ntwo\n" {
			t.Errorf("after it: %q", got)
		}
		closeArchive(t, a)
	}
}

func TestCloseDropsUncommitted(t *testing.T) {
	dir := t.TempDir()
	a, _ := newArchive(t, dir)
	add(t, a, info("INBOX"), "A: 1\r\n\r\none\r\n")
	g := commit(t, a)
	add(t, a, info("INBOX"), "A: 2\r\n\r\n"+strings.Repeat("x\r\n", 1<<20))
	add(t, a, info("Sent"), "A: 3\r\n\r\n")
	closeArchive(t, a)
	st, err := os.Stat(filepath.Join(dir, "INBOX.mbox"))
	if err != nil {
		t.Fatal(err)
	}
	at := g.Anchors["INBOX"]
	if st.Size() != at.Length || !st.ModTime().Equal(at.ModTime) {
		t.Errorf("file %d %v, anchor %+v", st.Size(), st.ModTime(), at)
	}
	if _, err := os.Stat(filepath.Join(dir, "Sent.mbox")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file of nothing: %v", err)
	}
	at.Open = false
	b, _ := newArchive(t, dir)
	found, err := b.Recover(t.Context(), "INBOX", at, nil)
	if err != nil || found.All || len(found.Receipts) != 0 || found.Anchor != at {
		t.Errorf("Recover: %+v, %v", found, err)
	}
}

func TestCancelled(t *testing.T) {
	a, _ := newArchive(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Append(ctx, info("INBOX"), mail.NewCanonical(strings.NewReader("x\r\n"), nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("Append: %v", err)
	}
	if g := commit(t, a); len(g.Receipts) != 0 {
		t.Errorf("receipts of nothing: %v", g.Receipts)
	}
}
