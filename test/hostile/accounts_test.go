package hostile

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

// account is a provider's whole server, with every manner that docs/quirks.md and
// internal/providers tell of, as somebody has it who only wants a backup.
type account struct {
	name  string
	start func() (s *testserver.IMAP, heal func()) // heal may be nil; called after the first backup
	first int                                      // exit code of the first backup
	says  string                                   // on stderr of it
}

// folders fills a server: some messages in INBOX, some in mailboxes with attributes.
func folders(s *testserver.IMAP, attributes map[string]string) {
	s.Attributes, s.Boxes = attributes, make(map[string][]testserver.IMAPMessage)
	n := 0
	put := func(many int) (msgs []testserver.IMAPMessage) {
		for i := range many {
			n++
			msgs = append(msgs, testserver.IMAPMessage{UID: uint32(i + 1), Octets: letter(n), Flags: `\Seen`})
		}
		return msgs
	}
	s.Messages = put(6)
	for i, name := range sorted(attributes) {
		if !strings.Contains(attributes[name], `\Trash`) {
			s.Boxes[name] = put(i + 1)
			continue
		}
		s.Boxes[name] = nil
	}
}

func sorted(m map[string]string) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// emptied takes all messages out of a server that was not started.
func emptied(s *testserver.IMAP) {
	s.Messages = nil
	for name := range s.Boxes {
		s.Boxes[name] = nil
	}
}

func octetsAt(s *testserver.IMAP) (all []string) {
	for _, name := range append([]string{"INBOX"}, boxes(s)...) {
		all = append(all, octetsOf(s.Held(name))...)
	}
	return all
}

// microsoft365 throttles, ends sessions, lists wrong sizes, has a message that comes
// only in parts, and takes no flag but \Seen with APPEND.
func microsoft365() (s *testserver.IMAP, heal func()) {
	s = &testserver.IMAP{
		Greeting:     "* OK The Microsoft Exchange IMAP4 service is ready. [RgByADIAUAAyADcA]",
		Capabilities: "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+",
	}
	folders(s, map[string]string{
		"Archive": `\HasNoChildren \Archive`, "Deleted Items": `\HasNoChildren \Trash`, "Drafts": `\Drafts \HasNoChildren`,
		"Junk Email": `\HasNoChildren \Junk`, "Sent Items": `\HasNoChildren \Sent`,
	})
	s.Messages[2].Size = len(s.Messages[2].Octets) + 77
	var logins, fetches, appends atomic.Int32
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		switch {
		case strings.HasPrefix(cmd, "NAMESPACE"):
			c.Send("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n")
			c.OK("NAMESPACE completed.")
		case strings.HasPrefix(cmd, "AUTHENTICATE") && logins.Add(1) == 2:
			c.NO("User is authenticated but not connected.")
		case strings.Contains(cmd, "BODY.PEEK[]") && fetches.Add(1) == 1:
			c.Send(c.Tag + " BAD Request is throttled. Suggested Backoff Time: 100 milliseconds\r\n")
		case strings.Contains(cmd, "BODY.PEEK[]") && fetches.Load() == 2:
			c.Send("* 1 FETCH (UID 1 FLAGS ())\r\n* BYE Session invalidated - AccessTokenExpired\r\n")
			c.Close()
		case strings.HasPrefix(cmd, "APPEND") && appends.Add(1) == 1:
			c.Send(c.Tag + " BAD Request is throttled. Suggested Backoff Time: 100 milliseconds\r\n")
			c.Close() // what follows of the literal is not read
		default:
			return false
		}
		return true
	}
	return s, nil
}

// icloud knows no LIST RETURN and no LITERAL+, sends a malformed VANISHED, answers
// RFC822 without octets, and searches for what is not there.
func icloud() (s *testserver.IMAP, heal func()) {
	s = &testserver.IMAP{Capabilities: "IMAP4rev1 SASL-IR AUTH=ATOKEN AUTH=PLAIN UIDPLUS CONDSTORE LIST-EXTENDED LIST-STATUS SPECIAL-USE ESEARCH ID"}
	folders(s, map[string]string{
		"Archive": `\HasNoChildren \Archive`, "Deleted Messages": `\HasNoChildren \Trash`, "Drafts": `\HasNoChildren \Drafts`,
		"Junk": `\HasNoChildren \Junk`, "Sent Messages": `\HasNoChildren \Sent`, "Notes": `\HasNoChildren`,
	})
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		switch {
		case strings.HasPrefix(cmd, "LIST") && strings.Contains(cmd, "RETURN"):
			c.Send(c.Tag + " BAD Parse Error\r\n")
		case strings.HasPrefix(cmd, "UID SEARCH"), strings.HasPrefix(cmd, "SEARCH"):
			c.Send("* SEARCH 1 2 3 4711 503786\r\n")
			c.OK("SEARCH completed")
		case strings.Contains(cmd, "(RFC822)"):
			c.OK("FETCH completed")
		case strings.HasPrefix(cmd, "ENABLE"):
			c.Send("* ENABLED\r\n")
			c.OK("done")
		case strings.HasPrefix(cmd, "UID FETCH"):
			c.Send("* VANISHED (EARLIER) 1:,,*:4 x\r\n")
			return false
		default:
			return false
		}
		return true
	}
	return s, nil
}

// yahoo says that one message is unavailable, counts more messages than it shows, and
// refuses what does not end in CRLF.
func yahoo() (s *testserver.IMAP, heal func()) {
	s = &testserver.IMAP{Capabilities: "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER ID MOVE NAMESPACE UIDPLUS LITERAL+ CHILDREN UNSELECT OBJECTID"}
	folders(s, map[string]string{
		"Archive": `\Archive \HasNoChildren`, "Bulk": `\Junk \HasNoChildren`, "Draft": `\Drafts \HasNoChildren`,
		"Sent": `\Sent \HasNoChildren`, "Trash": `\Trash \HasNoChildren`,
	})
	for i := range s.Messages {
		s.Messages[i].More = fmt.Sprintf("EMAILID (M%d)", i)
	}
	// One of INBOX was filed in Archive, too.
	s.Boxes["Archive"][0].Octets, s.Boxes["Archive"][0].More = s.Messages[4].Octets, s.Messages[4].More
	var sick, busy atomic.Bool
	sick.Store(true)
	s.Counts = func(mailbox string, n int) int {
		if mailbox == "Sent" && sick.Load() {
			return n + 12000
		}
		return n
	}
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		switch {
		case strings.HasPrefix(cmd, "NAMESPACE"):
			c.Send("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n")
			c.OK("NAMESPACE completed")
		case strings.Contains(cmd, "BODY.PEEK[") && asked(cmd, 6) && sick.Load():
			code := "SERVERBUG"
			if !busy.Swap(true) {
				code = "UNAVAILABLE"
			}
			c.NO("[" + code + "] UID FETCH Server error - Please try again later")
		default:
			return false
		}
		return true
	}
	s.Appended = func(c *testserver.IMAPConn, _ string, messages []string) bool {
		for _, m := range messages {
			if !strings.HasSuffix(m, "\r\n") {
				c.Send(c.Tag + " BAD [CLIENTBUG] Additional arguments found after last expected argument\r\n")
				return true
			}
		}
		return false
	}
	return s, func() { sick.Store(false) }
}

// TestAccounts uses each provider's server as its customer would: backup until
// everything is there, once more, verify, clean, backup again, and the archive
// uploaded into another account of the kind.
func TestAccounts(t *testing.T) {
	t.Parallel()
	for _, a := range []account{
		{name: "Microsoft 365", start: microsoft365, first: 3, says: "the server lists "},
		{name: "iCloud", start: icloud},
		{name: "Yahoo", start: yahoo, first: 3, says: "UID FETCH Server error"},
	} {
		t.Run(a.name, a.play)
	}
}

func (a account) play(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	s, heal := a.start()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	had := octetsAt(s)
	args := []string{imapPlace("imap+insecure", s), h.archive(), "--timeout", "20s"}
	run := func(verb string, more ...string) result {
		return h.run(slices.Concat([]string{verb}, args, more)...)
	}

	// It may take some runs until everything is there; none loses or doubles a thing.
	var r result
	for i := range 5 {
		r = run("backup")
		if i == 0 && (r.code != a.first || !strings.Contains(r.stderr, a.says)) {
			t.Errorf("want exit %d and %q: %v", a.first, a.says, r)
		}
		if i == 0 && heal != nil {
			heal()
		}
		genuine(t, h.held(), had)
		if r.code != 3 && r.code != 75 {
			break
		}
	}
	if r.code != 0 {
		t.Fatalf("the backup is not complete: %v", r)
	}
	if held := h.held(); held.Size() != len(had) {
		t.Errorf("%d messages are archived, want %d", held.Size(), len(had))
	}
	since := len(s.Sent())
	if r := run("backup"); r.code != 0 || !strings.Contains(r.stdout, "0 new messages") {
		t.Errorf("second run: %v", r)
	}
	if n := bodies(t, s, since); n != 0 {
		t.Errorf("the second run downloaded %d messages", n)
	}
	if r := h.run("verify", h.archive()); r.code != 0 {
		t.Errorf("%v", r)
	}

	// All of INBOX goes, whatever the server says of sizes.
	r = run("clean", "--mailbox", "INBOX", "--older-than", "0d", "--yes")
	nothingLost(t, h.held(), had, octetsAt(s))
	if n := len(s.Held("INBOX")); n != 0 {
		t.Errorf("%d messages are left in INBOX: %v", n, r)
	}
	if n := len(octetsAt(s)); n != len(had)-6 {
		t.Errorf("%d messages are left, want %d: %v", n, len(had)-6, r)
	}
	if r := run("backup"); r.code != 0 || !strings.Contains(r.stdout, "0 new messages") {
		t.Errorf("after clean: %v", r)
	}
	onlyOurs(t, s)

	to, heal := a.start()
	if heal != nil {
		heal()
	}
	emptied(to)
	if err := to.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { to.Close() })
	for range 3 {
		r = h.run("upload", h.archive(), imapPlace("imap+insecure", to), "--timeout", "20s")
		if r.code != 75 {
			break
		}
	}
	if r.code != 0 {
		t.Errorf("upload: %v", r)
	}
	got, want := digests(octetsAt(to)), digests(had)
	for d, n := range want {
		if got[d] != n {
			t.Errorf("%s is there %d times, want %d: %v", d, got[d], n, r)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d messages are there, want %d", len(got), len(want))
	}
	for name, attributes := range to.Attributes { // special use finds its like
		if len(to.Held(name)) == 0 && !strings.Contains(attributes, `\Trash`) {
			t.Errorf("%s is empty", name)
		}
	}
}

// TestGmailPOP3 reads an account that shows its oldest messages first, a few in a
// session, hides what was read, and deletes nothing.
func TestGmailPOP3(t *testing.T) {
	t.Parallel()
	for _, format := range rig.Formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			had := letters(12)
			srv := pop3(had, testserver.POP3Faults{Gmail: true, Window: 5})(t)
			to := filepath.Join(h.user.Home, "archive")
			for i, want := range []int{5, 10, 12, 12} {
				r := h.run("backup", srv.place, to, "--format", format)
				if i > 1 { // deleting what is hidden already does no harm
					r = h.run("backup", "--delete", srv.place, to)
				}
				if r.code != 0 {
					t.Errorf("run %d: %v", i+1, r)
				}
				m, err := rig.Held(format, to)
				if err != nil {
					t.Fatal(err)
				}
				held := m.Plain()
				genuine(t, held, had)
				nothingLost(t, held, had, srv.left())
				if held.Size() != want {
					t.Errorf("run %d: %d messages are archived, want %d: %v", i+1, held.Size(), want, r)
				}
			}
			if r := h.run("verify", to); r.code != 0 {
				t.Errorf("%v", r)
			}
		})
	}
}
