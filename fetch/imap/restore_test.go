package imap_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

// letters are what TestRestore has in its mailboxes. Those of a kind (x, d) have size
// and header in common.
var letters = map[string]struct {
	octets string
	minute int // of its INTERNALDATE
}{
	"a":  {"Received: from x; Mon, 1 Jan 2024 10:00:00 +0000\r\nSubject: a\r\n\r\na\r\n", 1},
	"b":  {"Received: from x; Mon, 1 Jan 2024 10:00:00 +0000\r\nSubject: b\r\n\r\nb\r\n", 1},
	"c":  {"Received: from x; Mon, 1 Jan 2024 10:00:00 +0000\r\nSubject: c\r\n\r\nlonger\r\n", 1},
	"x1": {"Received: from x; Mon, 1 Jan 2024 10:00:00 +0000\r\nSubject: x\r\n\r\none\r\n", 2},
	"x2": {"Received: from x; Mon, 1 Jan 2024 10:00:00 +0000\r\nSubject: x\r\n\r\ntwo\r\n", 2},
	"x3": {"Received: from x; Mon, 1 Jan 2024 10:00:00 +0000\r\nSubject: x\r\n\r\nsix\r\n", 2},
	"d1": {"Subject: draft\r\n\r\nfirst\r\n", 3},
	"d2": {"Subject: draft\r\n\r\nagain\r\n", 4},
	"d3": {"Subject: draft\r\n\r\nfinal\r\n", 5},
}

// called tells which letter octets are.
func called(octets string) string {
	for name, l := range letters {
		if l.octets == octets {
			return name
		}
	}
	return "?"
}

func dateOf(letter string) time.Time {
	return time.Date(2024, 1, 2, 3, letters[letter].minute, 0, 0, time.UTC)
}

func receiptOf(letter string) mail.Receipt {
	octets := []byte(letters[letter].octets)
	rc := mail.Receipt{Info: mail.Info{Size: int64(len(octets)), InternalDate: dateOf(letter)}}
	_, rc.Sums = mail.CanonicalInPlace(octets)
	return rc
}

// trashServer is a server of one user for TestRestore.
type trashServer struct {
	source *imap.Source
	load   func(mailbox, letter string)
	held   func(mailbox string) map[string]string // letters by UID
}

// movingDovecot says where a message was moved to (COPYUID).
func movingDovecot(t *testing.T, srv *dovecot.Server, user string) trashServer {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(srv.Append(user, "Trash"))
	s := trashServer{source: sourceOf(srv, user, srv.IMAPS)}
	s.load = func(mailbox, letter string) {
		must(srv.Append(user, mailbox, dovecot.Message{Date: dateOf(letter), Octets: []byte(letters[letter].octets)}))
	}
	s.held = func(mailbox string) map[string]string {
		msgs, err := srv.Messages(user, mailbox)
		must(err)
		all := make(map[string]string)
		for _, m := range msgs {
			all[strconv.FormatUint(uint64(m.UID), 10)] = called(string(m.Octets))
		}
		return all
	}
	return s
}

// movingSilently does not.
func movingSilently(t *testing.T, change ...func(*testserver.IMAP)) trashServer {
	srv := &testserver.IMAP{
		Capabilities: "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+ MOVE SPECIAL-USE",
		Boxes:        map[string][]testserver.IMAPMessage{"Trash": nil}, Attributes: map[string]string{"Trash": `\HasNoChildren \Trash`},
	}
	for _, f := range change {
		f(srv)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return trashServer{
		source: imap.New(imap.Config{
			Server:      dial.Server{Host: "127.0.0.1", Port: srv.Port(), Security: dial.Cleartext, AllowCleartext: true, Timeout: 10 * time.Second},
			Credentials: auth.Credentials{User: "ada", Password: "secret"}, Pause: time.Millisecond,
		}),
		load: func(mailbox, letter string) {
			srv.Store(mailbox, testserver.IMAPMessage{Octets: letters[letter].octets, Date: dateOf(letter).Format("02-Jan-2006 15:04:05 -0700")})
		},
		held: func(mailbox string) map[string]string {
			all := make(map[string]string)
			for _, m := range srv.Held(mailbox) {
				all[strconv.FormatUint(uint64(m.UID), 10)] = called(m.Octets)
			}
			return all
		},
	}
}

func sorted(all map[string]string) string {
	var names []string
	for _, name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// restoreCase is what TestRestore does with one account. Letters are separated by spaces.
type restoreCase struct {
	name               string
	trash, inbox       string
	known              string // a letter of inbox
	wanted, back       string // back: those of wanted that are told
	trashNow, inboxNow string // sorted
}

func TestRestore(t *testing.T) {
	srv := dovecot.Start(t, dovecot.Options{})
	for i, tt := range []restoreCase{
		{name: "some of the trash", trash: "a b c", wanted: "c a", back: "c a", trashNow: "b", inboxNow: "a c"},
		{name: "not there", trash: "b", wanted: "a b", back: "b", inboxNow: "b"},
		{name: "trash empty", inbox: "b", wanted: "a", inboxNow: "b"},
		{name: "as many as are wanted", trash: "a a a", wanted: "a a", back: "a a", trashNow: "a", inboxNow: "a a"},
		{name: "more wanted than there", trash: "a", wanted: "a a", back: "a", inboxNow: "a"},
		{name: "octets decide", trash: "x3 x2 x1", wanted: "x1 x2", back: "x1 x2", trashNow: "x3", inboxNow: "x1 x2"},
		{name: "edited draft", trash: "d1 d2 d3", wanted: "d2", back: "d2", trashNow: "d1 d3", inboxNow: "d2"},
		{name: "other drafts", trash: "d1 d3", wanted: "d2", trashNow: "d1 d3"},
		{name: "back already", trash: "a b", inbox: "a", wanted: "a b", back: "a b", trashNow: "a", inboxNow: "a b"},
		{name: "one of two back already", trash: "a a", inbox: "a", wanted: "a a", back: "a a", trashNow: "a", inboxNow: "a a"},
		{name: "known copy", trash: "a", inbox: "a", known: "a", wanted: "a", back: "a", inboxNow: "a a"},
		{name: "alike in the mailbox", trash: "x2", inbox: "x1", wanted: "x2", back: "x2", inboxNow: "x1 x2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Run("told where", func(t *testing.T) { tt.test(t, movingDovecot(t, srv, fmt.Sprint("restore", i))) })
			t.Run("not told", func(t *testing.T) { tt.test(t, movingSilently(t)) })
		})
	}
}

func (tt restoreCase) test(t *testing.T, s trashServer) {
	defer s.source.Close()
	for mailbox, list := range map[string]string{"Trash": tt.trash, "INBOX": tt.inbox} {
		for _, letter := range strings.Fields(list) {
			s.load(mailbox, letter)
		}
	}
	before := s.held("INBOX")
	known := func(ref mail.Ref) bool { return tt.known != "" && before[ref.UID] == tt.known }
	var wanted []mail.Receipt
	for _, letter := range strings.Fields(tt.wanted) {
		wanted = append(wanted, receiptOf(letter))
	}
	for range 2 { // what is back is told of again, and not moved
		told := make(map[int]string)
		err := s.source.Restore(t.Context(), inbox(t, s.source, "INBOX"), wanted, known, func(i int, in mail.Info) error {
			if _, twice := told[i]; twice {
				t.Errorf("%d is told twice", i)
			}
			told[i] = s.held("INBOX")[in.Ref.UID]
			if want := strings.Fields(tt.wanted)[i]; told[i] != want {
				t.Errorf("%s is told to be %s, which is %q", want, in.Ref.UID, told[i])
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		back := make(map[string]string)
		for i, letter := range told {
			back[fmt.Sprint(i)] = letter
		}
		want := strings.Fields(tt.back)
		slices.Sort(want)
		if got := sorted(back); got != strings.Join(want, " ") {
			t.Errorf("told: %s, want %s", got, want)
		}
		if got := sorted(s.held("Trash")); got != tt.trashNow {
			t.Errorf("in the trash: %s, want %s", got, tt.trashNow)
		}
		if got := sorted(s.held("INBOX")); got != tt.inboxNow {
			t.Errorf("in INBOX: %s, want %s", got, tt.inboxNow)
		}
	}
}

func TestRestoreWithoutTrash(t *testing.T) {
	for name, change := range map[string]func(*testserver.IMAP){
		"no mailbox is the trash": func(s *testserver.IMAP) { s.Attributes = nil },
		"no MOVE":                 func(s *testserver.IMAP) { s.Capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+ SPECIAL-USE" },
		"out of the trash itself": func(s *testserver.IMAP) { s.Attributes = map[string]string{"INBOX": `\Trash`} },
	} {
		t.Run(name, func(t *testing.T) {
			s := movingSilently(t, change)
			defer s.source.Close()
			s.load("Trash", "a")
			s.load("INBOX", "a")
			err := s.source.Restore(t.Context(), inbox(t, s.source, "INBOX"), []mail.Receipt{receiptOf("a")}, func(ref mail.Ref) bool { return ref.UID == "1" }, func(int, mail.Info) error {
				t.Error("it is told to be back")
				return nil
			})
			if trash, inbox := s.held("Trash"), s.held("INBOX"); err != nil || len(trash) != 1 || inbox["1"] != "a" {
				t.Errorf("%v, in the trash: %v, in INBOX: %v", err, trash, inbox)
			}
		})
	}
}

func TestRestoreEndsWithItsCaller(t *testing.T) {
	full := errors.New("disk full")
	for name, in := range map[string]string{"back already": "INBOX", "moved": "Trash"} {
		t.Run(name, func(t *testing.T) {
			s := movingSilently(t)
			defer s.source.Close()
			s.load(in, "a")
			err := s.source.Restore(t.Context(), inbox(t, s.source, "INBOX"), []mail.Receipt{receiptOf("a")}, func(mail.Ref) bool { return false }, func(int, mail.Info) error { return full })
			if !errors.Is(err, full) {
				t.Errorf("%v", err)
			}
		})
	}
}
