package uploadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"mailhaul/mail"
	"mailhaul/upload"
)

// Suite is what every Destination keeps to. open returns an empty account of its
// own for each test; read returns what a mailbox of the latest one holds, by other
// means than the Destination.
func Suite(t *testing.T, open func(t *testing.T) (d upload.Destination, read func(mailbox string) []string)) {
	for name, test := range map[string]func(*testing.T, subject){
		"Create": testCreate, "Append": testAppend, "List and Read": testList, "unreadable": testUnreadable,
		"UIDVALIDITY": testUIDValidity, "flags": testFlags, "ended context": testEnded,
	} {
		t.Run(name, func(t *testing.T) {
			d, read := open(t)
			if _, err := d.Mailboxes(t.Context()); err != nil {
				t.Fatal(err)
			}
			test(t, subject{d, read})
		})
	}
}

type subject struct {
	upload.Destination
	read func(mailbox string) []string
}

func (s subject) box(t *testing.T, name string) upload.Box {
	t.Helper()
	b, err := s.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func message(octets string, flags ...string) upload.Message {
	return upload.Message{
		Flags: mail.NewFlags(flags...), InternalDate: time.Unix(1600000000, 0), Wire: int64(len(octets) + strings.Count(octets, "\n")),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(octets)), nil },
	}
}

func note(i int) string { return fmt.Sprintf("Subject: %d\n\nbody %d\n", i, i) }

func (s subject) append(t *testing.T, b upload.Box, msgs ...upload.Message) []upload.Answer {
	t.Helper()
	answers, err := s.Append(t.Context(), b, msgs)
	if err != nil || len(answers) != len(msgs) {
		t.Fatalf("%d answers to %d messages, %v", len(answers), len(msgs), err)
	}
	for i, a := range answers {
		if !a.Stored || a.Refused != nil || a.Unsent != nil || a.UID != 0 && a.UID < b.UIDNext {
			t.Errorf("message %d: %+v", i, a)
		}
	}
	return answers
}

func (s subject) list(t *testing.T, b upload.Box, from uint32) (uids []uint32, infos []mail.Info) {
	t.Helper()
	err := s.List(t.Context(), b, from, func(in mail.Info) error {
		uid := uint32(0)
		if _, err := fmt.Sscan(in.Ref.UID, &uid); err != nil {
			return err
		}
		uids, infos = append(uids, uid), append(infos, in)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return uids, infos
}

// A mailbox can be made, is there then, and making it again is no error; one that is
// not there cannot be opened.
func testCreate(t *testing.T, s subject) {
	if _, err := s.Open(t.Context(), "Not there"); err == nil {
		t.Error("a mailbox that is not there was opened")
	}
	for _, name := range []string{"INBOX", "Made", "Made/Below", "Gr\u00fc\u00dfe & Co"} {
		name = s.Fit(name)
		if again := s.Fit(name); again != name {
			t.Errorf("Fit(%q) is %q", name, again)
		}
		for range 2 {
			if err := s.Create(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
		if b := s.box(t, name); b.Name != name || b.UIDValidity == 0 || b.UIDNext == 0 || b.Messages != 0 {
			t.Errorf("%+v", b)
		}
		all, err := s.Mailboxes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, mb := range all {
			if mb.Name == name {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is listed %d times", name, n)
		}
	}
}

// Messages arrive in order, each once, one or many or none at a time.
func testAppend(t *testing.T, s subject) {
	b := s.box(t, "INBOX")
	if answers, err := s.Append(t.Context(), b, nil); err != nil || len(answers) != 0 {
		t.Errorf("%v, %v", answers, err)
	}
	var msgs []upload.Message
	var want []string
	for i := range 50 {
		want = append(want, note(i))
		msgs = append(msgs, message(note(i)))
	}
	big := "Subject: big\n\n" + strings.Repeat("a line of the big message\n", 100_000)
	s.append(t, b, msgs[0])
	s.append(t, b, msgs[1:]...)
	s.append(t, b, message(big))
	got := s.read("INBOX")
	if want = append(want, big); len(got) != len(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("message %d is %.80q, want %.80q", i, got[i], want[i])
		}
	}
}

// What is there is listed from a UID on, and read back as it was sent.
func testList(t *testing.T, s subject) {
	b := s.box(t, "INBOX")
	if uids, _ := s.list(t, b, 1); len(uids) != 0 {
		t.Errorf("%v in an empty mailbox", uids)
	}
	s.append(t, b, message(note(1)), message(note(2)))
	next := s.box(t, "INBOX").UIDNext
	s.append(t, b, message(note(3), `\Seen`))
	uids, infos := s.list(t, b, 1)
	if len(uids) != 3 || uids[0] >= uids[1] || uids[1] >= next || uids[2] < next {
		t.Fatalf("%v, UIDNEXT was %d", uids, next)
	}
	if infos[0].Size != message(note(1)).Wire || infos[2].Flags.Without(`\Recent`) != `\Seen` {
		t.Errorf("%+v", infos)
	}
	if later, _ := s.list(t, b, next); len(later) != 1 || later[0] != uids[2] {
		t.Errorf("from %d on: %v", next, later)
	}
	for _, header := range []bool{false, true} {
		seen := map[uint32]mail.Sums{}
		err := s.Read(t.Context(), b, []uint32{uids[0], uids[2], uids[2] + 100}, header, func(uid uint32, sums mail.Sums) { seen[uid] = sums })
		if err != nil || len(seen) != 2 {
			t.Fatalf("%v, %v", seen, err)
		}
		want, err := mail.SumCanonical(strings.NewReader(note(3)))
		if err != nil {
			t.Fatal(err)
		}
		if got := seen[uids[2]]; got.Header != want.Header || !header && got.Digest != want.Digest {
			t.Errorf("header %v: %+v", header, got)
		}
	}
}

// A message that cannot be read is not stored, and never in part.
func testUnreadable(t *testing.T, s subject) {
	b := s.box(t, "INBOX")
	bad := message(note(1))
	bad.Open = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("Subject:"), failing{})), nil
	}
	answers, err := s.Append(t.Context(), b, []upload.Message{bad})
	if err == nil && (len(answers) != 1 || answers[0].Stored || answers[0].Unsent == nil) {
		t.Errorf("%+v", answers)
	}
	s.append(t, b, message(note(2)))
	if got := s.read("INBOX"); len(got) != 1 || got[0] != note(2) {
		t.Errorf("%q", got)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cannot be read") }

// Another UIDVALIDITY than the one that was opened is an error of its own.
func testUIDValidity(t *testing.T, s subject) {
	b := s.box(t, "INBOX")
	b.UIDValidity++
	if err := s.List(t.Context(), b, 1, func(mail.Info) error { return nil }); !errors.Is(err, upload.ErrUIDValidity) {
		t.Errorf("List: %v", err)
	}
	if err := s.Read(t.Context(), b, []uint32{1}, true, func(uint32, mail.Sums) {}); !errors.Is(err, upload.ErrUIDValidity) {
		t.Errorf("Read: %v", err)
	}
}

// Flags can be changed without touching others; messages that are gone are no error.
func testFlags(t *testing.T, s subject) {
	f, ok := s.Destination.(upload.Flagger)
	if !ok {
		return
	}
	b := s.box(t, "INBOX")
	s.append(t, b, message(note(1), `\Seen`, "custom"), message(note(2)))
	uids, _ := s.list(t, b, 1)
	err := f.SetFlags(t.Context(), b, []upload.FlagChange{
		{UID: uids[0], Add: mail.NewFlags(`\Flagged`), Remove: mail.NewFlags(`\Seen`)}, {UID: uids[1] + 100, Add: mail.NewFlags(`\Seen`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, infos := s.list(t, b, 1); infos[0].Flags.Without(`\Recent`) != mail.NewFlags(`\Flagged`, "custom") || infos[1].Flags.Without(`\Recent`) != "" {
		t.Errorf("%+v", infos)
	}
}

// A context that has ended is an error; what was begun is in doubt at most, and the
// account is usable after.
func testEnded(t *testing.T, s subject) {
	b := s.box(t, "INBOX")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Append(ended, b, []upload.Message{message(note(1))}); err == nil {
		t.Error("no error")
	}
	s.append(t, b, message(note(2)))
	if got := s.read("INBOX"); len(got) == 0 || len(got) > 2 || got[len(got)-1] != note(2) {
		t.Errorf("%q", got)
	}
}
