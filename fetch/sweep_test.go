package fetch_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"mailhaul/fetch"
	"mailhaul/mail"
)

// sweepSource gives messages without a list, as far as it can.
type sweepSource struct {
	*fakeSource
	upTo    int // so many come; 0 for all
	doubled bool
	sweeps  int
}

func (s *sweepSource) Sweep(_ context.Context, mb mail.Mailbox, deliver fetch.Deliver) (int64, error) {
	s.sweeps++
	exists := len(s.messages[mb.Name])
	for i, m := range s.messages[mb.Name] {
		if s.upTo > 0 && i >= s.upTo {
			return -1, nil
		}
		if m.silent || m.refuse != nil {
			continue
		}
		if err := s.give(mb, i, deliver); err != nil {
			return -1, err
		}
		if s.doubled {
			if err := s.give(mb, i, deliver); err != nil {
				return -1, err
			}
		}
	}
	return int64(exists), nil
}

// sweeping is a world with a server that can do without listing.
func sweeping(t *testing.T, n int) (*world, *sweepSource) {
	w := newWorld(t)
	w.source.state["INBOX"] = "one"
	for i := range n {
		w.put(fmt.Sprint(i+1), message(fmt.Sprint(i)))
	}
	return w, &sweepSource{fakeSource: w.source}
}

func (w *world) runFrom(source fetch.Source) fetch.Result {
	w.t.Helper()
	o := w.options()
	o.Source = source
	res, err := fetch.Run(context.Background(), o)
	if err != nil {
		w.t.Fatalf("run: %v", err)
	}
	w.sum(res)
	return res
}

func TestWhatIsNewAltogetherIsNotListed(t *testing.T) {
	w, s := sweeping(t, 150)
	s.doubled = true
	res := w.runFrom(s)
	if s.sweeps != 1 || s.lists != 0 || res.Archived != 150 || len(w.ledger.messages) != 150 {
		t.Errorf("swept %d times, listed %d times: %+v, %d recorded", s.sweeps, s.lists, res.Counts, len(w.ledger.messages))
	}
	if again := w.runFrom(s); s.sweeps != 1 || s.lists != 0 || again.Skipped != 150 {
		t.Errorf("again: swept %d times, listed %d times: %+v", s.sweeps, s.lists, again.Counts)
	}
}

func TestWhatASweepLeavesIsListedAndFetched(t *testing.T) {
	for name, test := range map[string]struct {
		change func(s *sweepSource)
		lists  int
		failed int64
	}{
		"cut off":   {func(s *sweepSource) { s.upTo = 120 }, 1, 0},
		"broke off": {func(s *sweepSource) { s.messages["INBOX"][7].breaks = 1 }, 0, 0},
		"left out":  {func(s *sweepSource) { s.messages["INBOX"][7].silent = true }, 1, 1},
		"refused":   {func(s *sweepSource) { s.messages["INBOX"][7].refuse = errors.New("broken") }, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w, s := sweeping(t, 150)
			test.change(s)
			res := w.runFrom(s)
			if s.sweeps != 1 || s.lists != test.lists {
				t.Errorf("swept %d times, listed %d times", s.sweeps, s.lists)
			}
			if res.Archived != 150-test.failed || res.Failed != test.failed || res.Skipped != 0 || int64(len(w.ledger.messages)) != res.Archived {
				t.Errorf("%+v, %d recorded", res.Counts, len(w.ledger.messages))
			}
		})
	}
}

// A sweep would fetch what the archive can recognise, or what was not asked for.
func TestASweepIsForWholeNewMailboxesOnly(t *testing.T) {
	for name, change := range map[string]func(o *fetch.Options){
		"known":     func(o *fetch.Options) {},
		"selection": func(o *fetch.Options) { o.Selection.Since = time.Unix(1, 0) },
		"limit":     func(o *fetch.Options) { o.Limit = 5 },
		"dry run":   func(o *fetch.Options) { o.DryRun = true },
	} {
		t.Run(name, func(t *testing.T) {
			w, s := sweeping(t, 150)
			if name == "known" {
				w.run()
				w.put("151", message("151"))
				s.state["INBOX"] = "two"
			}
			o := w.options()
			o.Source = s
			change(&o)
			if _, err := fetch.Run(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			if s.sweeps != 0 {
				t.Error("it was swept")
			}
		})
	}
}
