package imapconn

import (
	"errors"
	"io"
	"strings"
	"testing"

	"mailhaul/internal/testserver"
)

const loginCaps = "IMAP4rev1 SASL-IR AUTH=PLAIN "

// sentTo returns what a client sent after the login, line by line.
func sentTo(srv *testserver.IMAP) string { return strings.Join(srv.Sent(), "\n") }

// A message of another length than announced ends the command before it is whole:
// what is too much would be read as commands.
func TestAppendedAsAnnounced(t *testing.T) {
	var out strings.Builder
	e := &exactly{w: &out, left: 4}
	if n, err := e.Write([]byte("12345")); err == nil || n+out.Len() != 0 {
		t.Errorf("%d octets too many: %q went out, %v", n, out.String(), err)
	}
	for name, octets := range map[string]string{
		"longer": "0123456789\r\nA1 DELETE INBOX\r\n", "shorter": "Subj",
	} {
		for _, caps := range []string{"LITERAL+", ""} {
			srv := &testserver.IMAP{Capabilities: loginCaps + caps, Boxes: map[string][]testserver.IMAPMessage{}}
			c := connect(t, srv)
			_, err := c.Append(t.Context(), "INBOX", []Message{{Size: 10, WriteTo: func(w io.Writer) error {
				_, err := io.WriteString(w, octets[:min(10, len(octets))])
				if err == nil && len(octets) > 10 {
					_, err = io.WriteString(w, octets[10:])
				}
				return err
			}}})
			if !errors.Is(err, ErrNotSent) {
				t.Errorf("%s %q: %v", name, caps, err)
			}
			if err := srv.Close(); err != nil {
				t.Error(err)
			}
			if s := sentTo(srv); strings.Contains(s, "DELETE") {
				t.Errorf("%s %q: sent %q", name, caps, s)
			}
		}
	}
}

// A server that refuses before it asks for the octets is not sent any.
func TestRefusedBeforeItsOctets(t *testing.T) {
	srv := &testserver.IMAP{Capabilities: loginCaps, Answer: func(c *testserver.IMAPConn, cmd string) bool {
		if strings.HasPrefix(cmd, "APPEND") {
			c.NO("[OVERQUOTA] no")
			return true
		}
		return false
	}}
	c := connect(t, srv)
	res, err := c.Append(t.Context(), "INBOX", []Message{{Size: 7, WriteTo: func(w io.Writer) error {
		_, err := io.WriteString(w, "octets!")
		return err
	}}})
	if err != nil || res.Code != "OVERQUOTA" {
		t.Errorf("%+v %v", res, err)
	}
	if _, err := c.Exec(t.Context(), nil, "NOOP"); err != nil {
		t.Error(err)
	}
	if s := sentTo(srv); strings.Contains(s, "octets!") {
		t.Errorf("sent %q", s)
	}
}

// APPENDUID with another number of UIDs tells nothing.
func TestAppendUIDsOfOthers(t *testing.T) {
	for arg, want := range map[string]uint32{"7 5": 7, "7 5:6": 0, "7 5,9": 0, "7": 0, "0 5": 0, "x 5": 0} {
		a := &appending{msgs: make([]Message, 1), done: Result{Condition: "OK", Code: "APPENDUID", Arg: arg}}
		if got := a.result(); got.UIDValidity != want || (want != 0) != (len(got.UIDs) == 1) {
			t.Errorf("%q: %+v", arg, got)
		}
	}
}

// Only what the server can do is asked of it, and what changed since is left alone.
func TestOnlyWhatCanBeDone(t *testing.T) {
	srv := &testserver.IMAP{Capabilities: loginCaps + "CONDSTORE", Messages: []testserver.IMAPMessage{{UID: 1, Octets: "a: b\r\n\r\n"}}}
	c := connect(t, srv)
	if _, _, err := c.Select(t.Context(), "INBOX"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UIDExpunge(t.Context(), []uint32{1}); err == nil {
		t.Error("UID EXPUNGE without UIDPLUS")
	}
	if _, _, err := c.Move(t.Context(), []uint32{1}, "Trash"); err == nil {
		t.Error("MOVE without MOVE")
	}
	if s := sentTo(srv); strings.Contains(s, "EXPUNGE") || strings.Contains(s, "MOVE") {
		t.Errorf("sent %q", s)
	}
	if _, err := c.Mark(t.Context(), []uint32{1}, true, 77); err != nil {
		t.Fatal(err)
	}
	if s := sentTo(srv); !strings.Contains(s, "(UNCHANGEDSINCE 77)") {
		t.Errorf("sent %q", s)
	}
}

// COPYUID tells of the command it answers, and of no later one.
func TestCopiedOfThisCommand(t *testing.T) {
	told := "[COPYUID 9 1 5] "
	srv := &testserver.IMAP{Capabilities: loginCaps + "MOVE", Answer: func(c *testserver.IMAPConn, cmd string) bool {
		if strings.HasPrefix(cmd, "UID MOVE") {
			c.OK(told + "moved")
			return true
		}
		return false
	}}
	c := connect(t, srv)
	if _, _, err := c.Select(t.Context(), "INBOX"); err != nil {
		t.Fatal(err)
	}
	if _, copied, err := c.Move(t.Context(), []uint32{1}, "Trash"); err != nil || copied.UIDs[1] != 5 || copied.UIDValidity != 9 {
		t.Errorf("%+v %v", copied, err)
	}
	told = ""
	if _, copied, err := c.Move(t.Context(), []uint32{1}, "Trash"); err != nil || len(copied.UIDs) != 0 {
		t.Errorf("%+v %v", copied, err)
	}
}
