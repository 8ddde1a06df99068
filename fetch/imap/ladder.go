package imap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

const (
	maxHeader   = 4 << 20 // octets of a header fetched apart from its text
	maxRefusals = 50      // messages in a row that no way leads to, before the ways are cut short
	busyPause   = 3       // messages in a row that the server is too busy for, before a pause,
	busyStop    = 6       // and before the rest is left to another run
)

var errNoOctets = errors.New("server answered without the message")

// brokeOver is the error of a message at which connections end.
func brokeOver(err error) error {
	return fmt.Errorf("the connection was lost again and again over this message: %w", err)
}

// ladder goes other ways for messages that did not come: what describes them and
// the octets apart, the sequence number instead of the UID, header and text apart.
func (w *worker) ladder(ctx context.Context) error {
	for {
		x := w.j.nextSuspect()
		if x == nil {
			return nil
		}
		if err := w.rescue(ctx, x); err != nil {
			if !x.done {
				if isGivenUp(err) {
					w.j.suspect(x)
				} else if x.tries++; x.tries <= 3 {
					w.j.suspect(x) // the connection was lost: once more on another
				} else if e := w.j.giveUp(x, brokeOver(err)); e != nil {
					return e
				}
			}
			return err
		}
	}
}

// rescue settles one message, unless the connection is lost.
func (w *worker) rescue(ctx context.Context, x *want) error {
	if x.uid == 0 && x.UID != "" {
		return w.j.giveUp(x, fmt.Errorf("%q is no UID", x.UID))
	}
	if w.refused() {
		return w.j.giveUp(x, errNoOctets)
	}
	a := &alone{w: w, x: x}
	byUID := "UID FETCH " + fmt.Sprint(x.uid) + " "
	if x.uid == 0 {
		byUID = "FETCH " + fmt.Sprint(x.Seq) + " "
	}
	there, err := a.exec(ctx, byUID+items(w.c, ""), "")
	if err != nil {
		return err
	}
	if there && !a.seen {
		return w.j.giveUp(x, mail.ErrVanished)
	}
	body := w.j.section
	steps := []func() error{func() error { return a.fetch(ctx, byUID, body) }}
	if seq := x.meta.Seq; seq != 0 && x.uid != 0 {
		steps = append(steps, func() error { return a.fetch(ctx, fmt.Sprintf("FETCH %d ", seq), body) })
	}
	if body == "" {
		steps = append(steps, func() error { return a.halves(ctx, byUID) })
	}
	for _, step := range steps {
		if err := step(); err != nil || x.done {
			if e := w.counted(x, err == nil); err == nil {
				err = e
			}
			return err
		}
	}
	if err := w.counted(x, false); err != nil {
		return err
	}
	return w.j.giveUp(x, errNoOctets)
}

func (w *worker) refused() bool {
	w.j.mu.Lock()
	defer w.j.mu.Unlock()
	return w.j.refusals >= maxRefusals
}

// counted counts messages in a row that could not be had. Where the server is too
// busy for one after the other, the error says that the others are to wait for
// another run, rather than fail one by one.
func (w *worker) counted(x *want, ok bool) error {
	w.j.mu.Lock()
	switch {
	case ok:
		w.j.refusals, w.j.busy = 0, 0
	case x.words.Busy():
		w.j.refusals++
		w.j.busy++
	default:
		w.j.refusals++
	}
	busy := w.j.busy
	w.j.mu.Unlock()
	words := x.words.Condition + " " + x.words.Text
	switch {
	case ok:
		w.j.s.gov.came()
	case busy == busyPause:
		w.j.s.limited(imapconn.Limit{Kind: imapconn.LimitRate}, words)
	case busy >= busyStop:
		return &mail.Error{
			Kind: mail.KindTemporary, Op: "fetch messages", Server: words,
			Err:  givenUp{errors.New("the server is too busy for one message after the other")},
			Hint: "run the same command again later: it goes on where this one stopped",
		}
	}
	return nil
}

// alone is an imapconn.FetchHandler for one message.
type alone struct {
	w       *worker
	x       *want
	section string        // wanted now; "-" for none
	keep    *bytes.Buffer // where a part goes
	before  []byte        // what comes before the octets
	kept    bool
	seen    bool // some response was about the message
}

// exec runs one command; ok says whether the server completed it.
func (a *alone) exec(ctx context.Context, cmd, section string) (ok bool, err error) {
	a.section = section
	if section == "" {
		a.section = "-"
	}
	return a.do(ctx, cmd)
}

func (a *alone) do(ctx context.Context, cmd string) (bool, error) {
	s := a.w.j.s
	for {
		if err := s.gov.wait(ctx); err != nil {
			return false, err
		}
		res, err := a.w.c.Exec(ctx, &imapconn.Handler{Fetch: a}, cmd)
		if err != nil {
			return false, err
		}
		l, limited := res.Limit()
		if limited && !a.x.done {
			s.limited(l, res.Condition+" "+res.Text)
			continue
		}
		if !res.OK() {
			a.x.words = res
		}
		return res.OK(), nil
	}
}

func (a *alone) fetch(ctx context.Context, target, section string) error {
	a.section = section
	_, err := a.do(ctx, target+"(UID BODY.PEEK["+section+"])")
	return err
}

// halves fetches header and text apart, which old Exchange servers can where they
// cannot give the whole.
func (a *alone) halves(ctx context.Context, target string) error {
	a.keep = new(bytes.Buffer)
	if err := a.fetch(ctx, target, "HEADER"); err != nil {
		return err
	}
	header, ok := a.keep.Bytes(), a.kept
	a.keep = nil
	if !ok || len(header) == 0 {
		return nil
	}
	a.before = header
	return a.fetch(ctx, target, "TEXT")
}

// mine tells whether a response is about the message, or does not say.
func (a *alone) mine(f *imapconn.Fetch) bool {
	if a.x.uid == 0 {
		return f.Seq == a.x.Seq
	}
	return f.Has&imapconn.ItemUID == 0 || f.UID == a.x.uid
}

func (a *alone) Body(f *imapconn.Fetch, b *imapconn.Body) error {
	if a.x.done || b.Section != a.section || b.Partial || b.Nil() || !a.mine(f) {
		return nil
	}
	if a.keep != nil {
		if b.Size() > maxHeader {
			return nil
		}
		a.keep.Reset()
		if _, err := io.Copy(a.keep, b.Whole(a.agrees)); err != nil {
			return ignoreOther(err)
		}
		a.kept = true
		return nil
	}
	if b.Size() == 0 && len(a.before) == 0 && a.x.merged(f).Size > 0 {
		return nil
	}
	var r io.Reader = b.Whole(a.agrees)
	if len(a.before) > 0 {
		r = io.MultiReader(bytes.NewReader(a.before), r)
	}
	return a.w.j.stream(a.x, a.x.merged(f), r)
}

var errOther = errors.New("server sent another message than the one asked for")

func ignoreOther(err error) error {
	if errors.Is(err, errOther) {
		return nil
	}
	return err
}

// agrees makes sure, at the end of a response, that it was about the message.
func (a *alone) agrees(f *imapconn.Fetch) error {
	if a.x.uid != 0 && f.UID != a.x.uid && !(f.Has&imapconn.ItemUID == 0 && a.x.meta.Seq == f.Seq) {
		return errOther
	}
	return nil
}

func (a *alone) End(f *imapconn.Fetch) error {
	if a.agrees(f) != nil || a.x.uid == 0 && f.Seq != a.x.Seq {
		return nil
	}
	a.seen = true
	a.x.meta = a.x.merged(f)
	return nil
}
