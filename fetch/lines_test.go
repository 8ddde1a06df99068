package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// What a limit leaves out comes with the next run, though the mailbox has not changed.
func TestLimitKeepsTheStateUnknown(t *testing.T) {
	w := newWorld(t)
	w.source.state["INBOX"] = "1:4:3"
	for i := range 3 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	o := w.options()
	o.Limit = 2
	if res, err := fetch.Run(context.Background(), o); err != nil || res.Archived != 2 || !res.More {
		t.Errorf("%+v, %v", res, err)
	}
	w.want(w.run(), 1, 0, 2, 0, 3)
}

// So it is after a listing that broke off: what it did not show is not known.
func TestErrorKeepsTheStateUnknown(t *testing.T) {
	for _, lost := range []error{
		&mail.Error{Kind: mail.KindTemporary, Err: errors.New("connection lost")},
		&mail.Error{Kind: mail.KindTemporary, Err: fmt.Errorf("the rest is not shown: %w", fetch.ErrIncomplete)},
	} {
		w := newWorld(t)
		w.source.state["INBOX"] = "1:3:2"
		w.put("1", message("a"))
		w.source.listErr = lost
		if _, err := fetch.Run(context.Background(), w.options()); err == nil {
			t.Errorf("%v: no error", lost)
		}
		w.source.listErr = nil
		w.put("2", message("b"))
		if w.run(); len(w.archive.durable["INBOX"]) != 2 {
			t.Errorf("%v: %d messages in the archive, want 2", lost, len(w.archive.durable["INBOX"]))
		}
	}
}

// A UIDL used again: the claim on the message that has it now counts, not the one on
// the message that had it.
func TestUIDLUsedAgainIsKnown(t *testing.T) {
	for _, headers := range []bool{true, false} {
		w := newWorld(t)
		w.source.account = "pop3:ada@pop.example.org"
		w.source.validity["INBOX"] = 0
		w.source.noHeaders = !headers
		w.put("x", message("first"))
		w.run()
		w.source.messages["INBOX"] = nil
		w.run()
		w.put("x", message("another one under the same UIDL"))
		w.want(w.run(), 1, 0, 0, 0, 2)
		fetched := w.source.fetched
		w.want(w.run(), 0, 0, 1, 0, 2)
		if w.source.fetched != fetched {
			t.Error("it was fetched again")
		}
	}
}

// No octets are no message, whatever size was listed: the server may have more.
func TestNoOctetsAreSuspicious(t *testing.T) {
	for _, size := range []int64{0, 1, 1 << 21} { // 0 is the true one
		w := newWorld(t)
		w.put("1", "").size = size
		if res := w.run(); res.Suspicious != 1 || w.ledger.messages[0].Suspicious == "" {
			t.Errorf("listed with %d octets: %+v", size, res.Counts)
		}
	}
}

// Flags that changed become durable in the archive before they are on record, with
// no new message beside them, too.
func TestFlagsAreCommitted(t *testing.T) {
	w := newWorld(t)
	m := w.put("1", message("a"))
	w.run()
	commits := w.archive.commits
	m.flags = `\Seen`
	w.want(w.run(), 0, 0, 1, 0, 1)
	if w.archive.commits != commits+1 {
		t.Errorf("%d commits of the archive, want one", w.archive.commits-commits)
	}
}

// Where reading a message uses it up, one that cannot be put into the archive now ends
// the session without QUIT, and not only the work on its mailbox.
func TestBusyMailboxEndsAConsumingSession(t *testing.T) {
	for _, octets := range []int{10, 2 << 20} {
		w := newWorld(t)
		w.source.consumes = true
		w.archive.busy = "INBOX"
		w.put("1", message(string(make([]byte, octets))))
		res, err := fetch.Run(context.Background(), w.options())
		if err == nil || !w.source.abandon || res.Archived != 0 {
			t.Errorf("%+v, %v, abandoned: %v", res.Counts, err, w.source.abandon)
		}
	}
}

// Two that the server calls one message, and that are alike but for their octets,
// cannot be told apart without them.
func TestNoCopyOfOneOfTwo(t *testing.T) {
	w := newWorld(t)
	w.source.noHeaders = true // so that both are fetched
	w.label("A", "7", "Subject: draft\r\n\r\none\r\n")
	w.label("B", "7", "Subject: draft\r\n\r\ntwo\r\n")
	w.run()
	w.source.noHeaders = false
	w.label("C", "7", "Subject: draft\r\n\r\none\r\n")
	w.run()
	w.holds()
}
