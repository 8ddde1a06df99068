package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// label puts a message into a mailbox under an ObjectID, as Gmail shows labels.
func (w *world) label(mailbox, object, wire string) *fakeMessage {
	w.source.validity[mailbox] = 1
	uid := 1
	for _, m := range w.source.messages[mailbox] {
		uid = number(m.uid) + 1
	}
	m := &fakeMessage{uid: fmt.Sprint(uid), wire: wire, date: time.Unix(1700000000, 0), object: object}
	w.source.messages[mailbox] = append(w.source.messages[mailbox], m)
	return m
}

// holds checks that the archive has exactly what the source shows in each mailbox.
func (w *world) holds() {
	w.t.Helper()
	for name, list := range w.source.messages {
		var want []string
		for _, m := range list {
			want = append(want, strings.ReplaceAll(m.wire, "\r\n", "\n"))
		}
		got := slices.Clone(w.archive.durable[name])
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			w.t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
}

// A message that is shown in several mailboxes is fetched once, and archived in each.
func TestCopies(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		for _, mailbox := range []string{"INBOX", "Work", "Work/Old"} {
			w.label(mailbox, fmt.Sprint(1000+i), message(fmt.Sprint(i)))
		}
	}
	w.label("Work", "2000", message("alone"))
	res := w.run()
	if res.Archived != 61 || w.source.fetched != 21 || w.source.headers != 40 {
		t.Errorf("%+v, %d fetched, %d headers", res.Counts, w.source.fetched, w.source.headers)
	}
	w.holds()
	fetched := 0
	for _, c := range w.ledger.claims {
		if c.Fetched {
			fetched++
		}
	}
	if fetched != 21 {
		t.Errorf("%d claims say that they were fetched, want 21", fetched)
	}
	if res := w.run(); res.Archived != 0 || res.Skipped != 61 || w.source.fetched != 21 {
		t.Errorf("second run: %+v", res.Counts)
	}

	// A label that is given later, or in the place of another, costs no octets.
	w.label("INBOX", "2000", message("alone"))
	w.source.messages["Work/Old"] = nil
	w.label("Moved", "1003", message("3"))
	if res := w.run(); res.Archived != 2 || w.source.fetched != 21 {
		t.Errorf("a label later: %+v, %d fetched", res.Counts, w.source.fetched)
	}
	if n := len(w.archive.durable["Work/Old"]); n != 20 {
		t.Errorf("%d messages left in the archive of a label that was taken away, want 20", n)
	}
}

// Whatever is odd is fetched.
func TestNoCopy(t *testing.T) {
	stub := strings.Replace(message("a"), "body", "bodies", 1)
	for name, tt := range map[string]struct {
		object, wire string
		prepare      func(w *world, second *fakeMessage)
		fetched      int
	}{
		"the same":               {"1", message("a"), nil, 1},
		"another header":         {"1", message("b"), nil, 2},
		"another size":           {"1", stub, nil, 2},
		"no ObjectID":            {"", message("a"), nil, 2},
		"another ObjectID":       {"2", message("a"), nil, 2},
		"the archive is damaged": {"1", message("a"), func(w *world, _ *fakeMessage) { w.archive.at["INBOX/1"] = "From: a@exanple.org\n" }, 2},
		"cut short":              {"1", message("a"), func(w *world, _ *fakeMessage) { w.archive.at["INBOX/1"] = "From" }, 2},
		"gone from the archive":  {"1", message("a"), func(w *world, _ *fakeMessage) { delete(w.archive.at, "INBOX/1") }, 2},
		"suspicious":             {"1", message("a"), func(w *world, _ *fakeMessage) { w.ledger.messages[0].Suspicious = "odd" }, 2},
		"no headers":             {"1", message("a"), func(w *world, _ *fakeMessage) { w.source.noHeaders = true }, 2},
		"no size":                {"1", message("a"), func(_ *world, m *fakeMessage) { m.size = -1 }, 2},
		"size that is not so":    {"1", message("a"), func(_ *world, m *fakeMessage) { m.size = int64(len(m.wire)) + 1 }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.label("INBOX", "1", message("a"))
			w.run()
			second := w.label("Work", tt.object, tt.wire)
			if tt.prepare != nil {
				tt.prepare(w, second)
			}
			if res := w.run(); res.Archived != 1 || w.source.fetched != tt.fetched {
				t.Errorf("%+v, %d fetched, want %d", res.Counts, w.source.fetched, tt.fetched)
			}
			w.holds()
			if res := w.run(); res.Archived != 0 || res.Skipped != 2 {
				t.Errorf("the run after: %+v", res.Counts)
			}
		})
	}
}

// What could not be had in one mailbox is fetched from the next.
func TestCopyOfWhatFailed(t *testing.T) {
	w := newWorld(t)
	w.label("INBOX", "1", message("a")).refuse = errors.New("not now")
	w.label("Work", "1", message("a"))
	if res := w.run(); res.Archived != 1 || res.Failed != 1 || len(w.archive.durable["Work"]) != 1 {
		t.Errorf("%+v", res.Counts)
	}
	w.source.messages["INBOX"][0].refuse = nil
	if res := w.run(); res.Archived != 1 || w.source.fetched != 1 {
		t.Errorf("%+v, %d fetched", res.Counts, w.source.fetched)
	}
	w.holds()
}

// A disk that is full while copying ends the run; the next one goes on.
func TestCopyDiskFull(t *testing.T) {
	w := newWorld(t)
	for _, mailbox := range []string{"INBOX", "Work"} {
		for i := range 3 {
			w.label(mailbox, fmt.Sprint(i), message(fmt.Sprint(i)))
		}
	}
	w.source.state["Work"] = "1:4:3:1"
	w.archive.failAt = 5
	res, err := fetch.Run(context.Background(), w.options())
	if mail.KindOf(err) != mail.KindDisk {
		t.Errorf("%v", err)
	}
	w.sum(res)
	if w.ledger.cursors[ada+"\x00Work"] != "" {
		t.Error("the mailbox counts as completed")
	}
	w.run()
	w.holds()
	if w.source.fetched != 3 {
		t.Errorf("%d fetched, want 3", w.source.fetched)
	}
}

// An mbox that somebody has locked takes its copies in the next run.
func TestCopyIntoBusyMailbox(t *testing.T) {
	w := newWorld(t)
	w.label("INBOX", "1", message("a"))
	w.label("Work", "1", message("a"))
	w.archive.busy = "Work"
	res, err := fetch.Run(context.Background(), w.options())
	if mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("%v", err)
	}
	w.sum(res)
	w.archive.busy = ""
	w.run()
	w.holds()
}

// Whatever a server says of identity, each mailbox ends with its own messages.
func TestCopiesAnyhow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		mailboxes := []string{"INBOX", "a", "b", "c"}
		for range rapid.IntRange(1, 3).Draw(rt, "runs") {
			for range rapid.IntRange(0, 12).Draw(rt, "new") {
				n := rapid.IntRange(0, 4).Draw(rt, "message")
				object := fmt.Sprint(n)
				if rapid.IntRange(0, 5).Draw(rt, "lie") == 0 {
					object = fmt.Sprint(rapid.IntRange(0, 4).Draw(rt, "object"))
				}
				w.label(rapid.SampledFrom(mailboxes).Draw(rt, "mailbox"), object, message(fmt.Sprint(n)))
			}
			o := w.options()
			o.Parallel = 3
			res, err := fetch.Run(context.Background(), o)
			if err != nil {
				rt.Fatal(err)
			}
			w.sum(res)
			w.holds()
			if t.Failed() {
				rt.FailNow()
			}
		}
	})
}
