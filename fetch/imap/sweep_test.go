package imap_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

// A sweep says that it brought everything only if every message came with all that
// describes it, once, from the mailbox that was meant.
func TestSweep(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage)
		came   int
		whole  bool
	}{
		"everything": {nil, 3, true},
		"one in two responses": {func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage) {
			for i, m := range msgs {
				c.Send(fmt.Sprintf("* %d FETCH (%s BODY[] %s)\r\n", i+1, m.Meta(), testserver.Literal(m.Octets)))
			}
			c.Send(fmt.Sprintf("* 2 FETCH (%s BODY[] %s)\r\n", msgs[1].Meta(), testserver.Literal(msgs[1].Octets)))
			c.OK("done")
		}, 3, true},
		"one without UID": {func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage) {
			for i, m := range msgs[:2] {
				c.Send(fmt.Sprintf("* %d FETCH (%s BODY[] %s)\r\n", i+1, m.Meta(), testserver.Literal(m.Octets)))
			}
			c.Send(fmt.Sprintf("* 3 FETCH (BODY[] %s)\r\n", testserver.Literal(msgs[2].Octets)))
			c.OK("done")
		}, 2, false},
		"one without octets": {func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage) {
			c.Send(fmt.Sprintf("* 1 FETCH (%s BODY[] NIL)\r\n", msgs[0].Meta()))
			c.Send(fmt.Sprintf("* 2 FETCH (%s BODY[] {0}\r\n)\r\n", msgs[1].Meta()))
			c.Send(fmt.Sprintf("* 3 FETCH (%s BODY[] %s)\r\n", msgs[2].Meta(), testserver.Literal(msgs[2].Octets)))
			c.OK("done")
		}, 1, false},
		"one too few": {func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage) {
			c.Send(fmt.Sprintf("* 1 FETCH (%s BODY[] %s)\r\n", msgs[0].Meta(), testserver.Literal(msgs[0].Octets)))
			c.OK("done")
		}, 1, false},
		"one expunged": {func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage) {
			for i, m := range msgs {
				c.Send(fmt.Sprintf("* %d FETCH (%s BODY[] %s)\r\n", i+1, m.Meta(), testserver.Literal(m.Octets)))
			}
			c.Send("* 1 EXPUNGE\r\n")
			c.OK("done")
		}, 3, false},
		"refused": {func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage) {
			c.Send(fmt.Sprintf("* 1 FETCH (%s BODY[] %s)\r\n", msgs[0].Meta(), testserver.Literal(msgs[0].Octets)))
			c.NO("not now")
		}, 1, false},
		"cut off": {func(c *testserver.IMAPConn, msgs []testserver.IMAPMessage) {
			fmt.Fprintf(c, "* 1 FETCH (%s BODY[] {1000}\r\nhalf", msgs[0].Meta())
			c.Close()
		}, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: three()}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if test.answer == nil || !strings.HasPrefix(cmd, "FETCH ") {
					return false
				}
				test.answer(c, srv.Messages)
				return true
			}
			s := serve(t, srv)
			mb := inbox(t, s, "INBOX")
			got := new(collector)
			exists, err := s.Sweep(context.Background(), mb, got.deliver)
			if err != nil {
				t.Fatal(err)
			}
			if whole := exists == int64(len(srv.Messages)); whole != test.whole || !whole && exists != -1 {
				t.Errorf("exists is %d", exists)
			}
			if len(got.all) != test.came {
				t.Errorf("%d messages came, want %d", len(got.all), test.came)
			}
			for uid, m := range got.all {
				if !strings.Contains(string(m.octets), "Subject: "+uid) {
					t.Errorf("UID %s is %q", uid, m.octets)
				}
			}
		})
	}
}

// Under another UIDVALIDITY, or with fewer messages than the mailbox had, nothing is
// delivered.
func TestSweepOfAnotherMailbox(t *testing.T) {
	for name, change := range map[string]func(mb *mail.Mailbox){
		"UIDVALIDITY": func(mb *mail.Mailbox) { mb.UIDValidity++ },
		"fewer":       func(mb *mail.Mailbox) { mb.Messages++ },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, &testserver.IMAP{Messages: three()})
			mb := inbox(t, s, "INBOX")
			change(&mb)
			got := new(collector)
			if exists, err := s.Sweep(context.Background(), mb, got.deliver); exists != -1 || err != nil || len(got.all) > 0 {
				t.Errorf("exists %d, %v, %d messages came", exists, err, len(got.all))
			}
		})
	}
}
