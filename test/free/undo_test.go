package free

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"testing"
	"time"

	"mailhaul/fetch"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/test/rig"
	"mailhaul/undo"
	destimap "mailhaul/upload/imap"
)

// undo puts back over IMAP what run deleted, by whatever protocol.
func (w work) undo() (res undo.Result, err error) {
	accounts := []string{w.source().Account()}
	if w.Scheme != "imaps" {
		w.Scheme, w.Port = "imaps", w.IMAPS
		accounts = append(accounts, w.source().Account())
	}
	server, c := w.server()
	src := w.source()
	defer func() { err = errors.Join(err, src.Close()) }()
	dest := destimap.New(destimap.Config{Server: server, Credentials: c, Connections: 1})
	defer func() { err = errors.Join(err, dest.Close()) }()
	v, err := w.open(vault.Options{Hook: w.hook})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	return undo.Run(context.Background(), undo.Options{
		Source: src, Destination: dest, Archive: v.Archive, Ledger: v.Ledger, Accounts: accounts, Pause: time.Millisecond,
	})
}

// freed is a work whose deletions are to be put back.
func (v variant) freed(t *testing.T, s *dovecot.Server, n int) work {
	t.Helper()
	w := v.fresh(t, s, n)
	if res, err := w.run(); err != nil || res.Deleted == 0 {
		t.Fatal(res, err)
	}
	w.Undo = true
	return w
}

// undone runs undo once more, undisturbed: the mailbox holds everything exactly once,
// nothing is left to put back, and the next backup adds nothing.
func (w work) undone(t *testing.T, s *dovecot.Server, when string) {
	t.Helper()
	w.trace, w.hook = nil, nil
	if _, err := w.undo(); err != nil {
		t.Errorf("%s: the next undo: %v", when, err)
		return
	}
	all := digests{}
	for _, m := range messages() {
		all[digestOf(m)]++
	}
	inbox := w
	inbox.Mode = mail.ModeExpunge
	if got := inbox.atServer(t, s); !maps.Equal(got, all) {
		t.Errorf("%s: the server has %v, want %v", when, got, all)
	}
	if n, err := s.Count(w.User, "Trash"); err != nil || n != 0 {
		t.Errorf("%s: %d in the trash (%v)", when, n, err)
	}
	if res, err := w.undo(); err != nil || res.Listed != 0 {
		t.Errorf("%s: once more: %+v %v", when, res, err)
	}
	if res, err := w.backup(); err != nil || res.Archived+res.Failed != 0 || res.Listed != int64(len(messages())) {
		t.Errorf("%s: the next backup: %+v %v", when, res, err)
	}
	if got, err := w.inArchive(); err != nil || !maps.Equal(got, all) {
		t.Errorf("%s: the archive has %v, want %v (%v)", when, got, all, err)
	}
}

// backup copies only.
func (w work) backup() (res fetch.Result, err error) {
	src := w.source()
	defer func() { err = errors.Join(err, src.Close()) }()
	v, err := w.open(vault.Options{})
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	return fetch.Run(context.Background(), fetch.Options{Source: src, Archive: v.Archive, Ledger: v.Ledger, Now: w.now})
}

var undoVariants = []variant{
	{"imaps", "maildir", mail.ModeExpunge}, {"imaps", "maildir", mail.ModeTrash}, {"pop3s", "mbox", mail.ModeExpunge},
}

// undo is killed at each line on the wire and each step of the ledger.
func TestUndoKilledAtEveryStep(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	for _, v := range undoVariants {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			count, _ := kill(t, v.freed(t, s, 0), 0)
			total, err := strconv.Atoi(count)
			if err != nil {
				t.Fatal(err)
			}
			tried := 0
			few := rig.Stride(7)
			for n := total; n >= 1 && !t.Failed(); n-- {
				if n%few != 0 {
					continue
				}
				w := v.freed(t, s, n)
				where, killed := kill(t, w, n)
				if killed {
					tried++
				}
				w.undone(t, s, fmt.Sprintf("killed at step %d (%s)", n, where))
				_ = os.RemoveAll(w.Root)
			}
			if tried == 0 {
				t.Error("no run was killed")
			}
			t.Logf("%d kills in %d steps", tried, total)
		})
	}
}

// The connection of undo is cut after so many octets.
func TestUndoCutAnywhere(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	for _, v := range undoVariants {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			w := v.freed(t, s, 1<<20)
			target := s.Addr(s.IMAPS)
			cutUndo := func(w work, o relay.Options) (*relay.Relay, error) {
				r := cut(t, target, o)
				w.IMAPS = r.Port()
				if w.Scheme == "imaps" {
					w.Port = r.Port()
				}
				_, err := w.undo()
				return r, err
			}
			r, err := cutUndo(w, relay.Options{})
			if err != nil {
				t.Fatal(err)
			}
			up, down := r.Octets()
			tried := 0
			try := func(o relay.Options) {
				if t.Failed() {
					return
				}
				tried++
				w := v.freed(t, s, int(2<<20+o.CutUp+1e3*o.CutDown))
				when := fmt.Sprintf("cut at %d up, %d down, %d connections", o.CutUp, o.CutDown, o.Broken)
				if _, err := cutUndo(w, o); err != nil && mail.KindOf(err) != mail.KindTemporary {
					t.Errorf("%s: kind %d: %v", when, mail.KindOf(err), err)
				}
				w.undone(t, s, when)
				_ = os.RemoveAll(w.Root)
			}
			step := int64(rig.Stride(797))
			for at := up; at > 600; at -= step {
				try(relay.Options{CutUp: at, Broken: 1 + at%4, Reset: at%2 == 0})
			}
			for at := down; at > 4000; at -= 3 * step {
				try(relay.Options{CutDown: at, Broken: 1 + at%4, Reset: at%2 == 0})
			}
			t.Logf("%d cuts in %d octets up and %d down", tried, up, down)
		})
	}
}

// What was put back and then removed by somebody stays away.
func TestUndoIsFinal(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	for _, v := range undoVariants {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			w := v.freed(t, s, 0)
			defer os.RemoveAll(w.Root)
			w.undone(t, s, "at first")
			if err := s.Expunge(w.User, "INBOX", "1:*"); err != nil {
				t.Fatal(err)
			}
			if res, err := w.undo(); err != nil || res.Listed != 0 {
				t.Errorf("%+v %v", res, err)
			}
			if n, err := s.Count(w.User, "INBOX"); err != nil || n != 0 {
				t.Errorf("%d are back (%v)", n, err)
			}
		})
	}
}

// So does what came back by other ways, once undo has seen it there.
func TestUndoOfWhatIsBackIsFinal(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	w := undoVariants[0].freed(t, s, 0)
	defer os.RemoveAll(w.Root)
	var back []dovecot.Message
	left := w.atServer(t, s)
	for _, m := range messages() {
		if d := digestOf(m); left[d] > 0 {
			left[d]--
		} else {
			back = append(back, m)
		}
	}
	if err := s.Append(w.User, "INBOX", back...); err != nil {
		t.Fatal(err)
	}
	if res, err := w.undo(); err != nil || res.Uploaded != 0 || res.Listed != int64(len(back)) {
		t.Errorf("%+v %v", res, err)
	}
	if err := s.Expunge(w.User, "INBOX", "1:*"); err != nil {
		t.Fatal(err)
	}
	if res, err := w.undo(); err != nil || res.Listed != 0 {
		t.Errorf("%+v %v", res, err)
	}
	if n, err := s.Count(w.User, "INBOX"); err != nil || n != 0 {
		t.Errorf("%d are back (%v)", n, err)
	}
}
