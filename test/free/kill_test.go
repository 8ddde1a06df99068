package free

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// order is what a child process is to do, and at which of its steps it is to kill
// itself: a step is a line on the wire, in either direction, or one of the ledger.
type order struct {
	Work work
	Step int
}

func TestMain(m *testing.M) {
	rig.Obey(func(o order) error {
		s := &rig.Steps{At: o.Step}
		o.Work.trace, o.Work.hook = s, s.Step
		var err error
		if o.Work.Undo {
			_, err = o.Work.undo()
		} else {
			_, err = o.Work.run()
		}
		fmt.Println(s.Count())
		return err
	})
	os.Exit(m.Run())
}

// kill runs a child. It tells where it was killed; if it ended before its step,
// killed is false and where is the number of its steps.
func kill(t *testing.T, w work, at int) (where string, killed bool) {
	t.Helper()
	out, killed := rig.Child(t, order{w, at})
	return strings.TrimSpace(out), killed
}

type variant struct{ scheme, format, mode string }

var variants = []variant{
	{"imaps", "maildir", mail.ModeExpunge}, {"imaps", "mbox", mail.ModeTrash},
	{"pop3s", "maildir", mail.ModeExpunge}, {"pop3s", "mbox", mail.ModeExpunge},
}

func (v variant) String() string { return v.scheme + "-" + v.format + "-" + v.mode }

// fresh makes a user with all messages and an archive that has nothing.
func (v variant) fresh(t *testing.T, s *dovecot.Server, n int) work {
	t.Helper()
	w := work{
		Root: rig.MemoryDir(t), Format: v.format, Scheme: v.scheme, User: fmt.Sprintf("%v-%d", v, n),
		CAFile: s.CAFile, Port: s.IMAPS, IMAPS: s.IMAPS, Mode: v.mode,
	}
	if v.scheme == "pop3s" {
		w.Port = s.POP3S
	}
	if err := s.Append(w.User, "INBOX", messages()...); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(w.User, "Trash"); err != nil {
		t.Fatal(err)
	}
	return w
}

// The process is killed (SIGKILL) at each line on the wire and each step of the
// ledger.
func TestKilledAtEveryStep(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			count, _ := kill(t, v.fresh(t, s, 0), 0)
			total, err := strconv.Atoi(count)
			if err != nil {
				t.Fatal(err)
			}
			tried, deleting := 0, 0
			for n := total; n >= 1 && !t.Failed(); n-- {
				// It deletes near the end: there the steps are tried closer together.
				if few := rig.Stride(5); n < total-40 && n%(4*few+1) != 0 && few > 1 || n%((few+1)/2) != 0 {
					continue
				}
				w := v.fresh(t, s, n)
				where, killed := kill(t, w, n)
				when := fmt.Sprintf("killed at step %d (%s)", n, where)
				if killed {
					tried++
					w.together(t, s, when)
				}
				if left, err := s.Count(w.User, "INBOX"); killed && err == nil && left < len(messages()) {
					deleting++
				}
				w.complete(t, s, when)
				_ = os.RemoveAll(w.Root)
			}
			if deleting == 0 {
				t.Error("no run was killed after it had deleted something")
			}
			t.Logf("%d kills in %d steps, %d of them after something was deleted", tried, total, deleting)
		})
	}
}

// The connection is cut after so many octets, up and down.
func TestCutAnywhere(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			w := v.fresh(t, s, 0)
			target := s.Addr(w.Port)
			r := cut(t, target, relay.Options{})
			w.Port = r.Port()
			if _, err := w.run(); err != nil {
				t.Fatal(err)
			}
			up, down := r.Octets()
			tried := 0
			step := int64(rig.Stride(151))
			for at := up - up%step; at > 600; at -= step { // the end first: there it deletes
				tried++
				v.cutAt(t, s, target, relay.Options{CutUp: at, Broken: 1 + at%3, Reset: at%2 == 0})
			}
			for at := down - down%(7*step); at > 4000; at -= 7 * step {
				tried++
				v.cutAt(t, s, target, relay.Options{CutDown: at, Broken: 1 + at%3, Reset: at%2 == 0})
			}
			t.Logf("%d cuts in %d octets up and %d down", tried, up, down)
		})
	}
}

func cut(t *testing.T, target string, o relay.Options) *relay.Relay {
	t.Helper()
	r, err := relay.Start(target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func (v variant) cutAt(t *testing.T, s *dovecot.Server, target string, o relay.Options) {
	t.Helper()
	if t.Failed() {
		return
	}
	w := v.fresh(t, s, int(1e6+o.CutUp+1e3*o.CutDown))
	port := w.Port
	w.Port = cut(t, target, o).Port()
	when := fmt.Sprintf("cut at %d up, %d down, %d connections", o.CutUp, o.CutDown, o.Broken)
	if _, err := w.run(); err != nil && mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("%s: kind %d: %v", when, mail.KindOf(err), err)
	}
	w.together(t, s, when)
	w.Port = port
	w.complete(t, s, when)
	_ = os.RemoveAll(w.Root)
}
