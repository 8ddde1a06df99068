package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// An mbox that a reader has locked stops its own mailbox, and no other.
func TestBusyMailboxStopsNoOther(t *testing.T) {
	w := newWorld(t)
	w.archive.busy = "INBOX"
	for i := range 50 {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	w.put("51", message("long")+strings.Repeat("a line of a large message\r\n", 60_000))
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		w.source.validity[name] = 1
		w.source.messages[name] = []*fakeMessage{{uid: "1", wire: message(name)}}
	}
	res, err := fetch.Run(context.Background(), w.options())
	if e, ok := errors.AsType[*mail.Error](err); !ok || e.Kind != mail.KindTemporary || e.Ref.Mailbox != "INBOX" {
		t.Errorf("err %v, want one that names INBOX, temporary", err)
	}
	w.sum(res)
	if res.Archived != 5 || res.Failed != 0 {
		t.Errorf("%+v, want the five other mailboxes archived", res.Counts)
	}
	w.archive.busy = ""
	if again := w.run(); again.Archived != 51 || again.Skipped != 5 {
		t.Errorf("%+v, want the rest of INBOX archived", again.Counts)
	}
}
