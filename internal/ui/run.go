package ui

import (
	"fmt"
	"sync/atomic"
	"time"

	"mailhaul/mail"
)

const (
	drawEvery     = 200 * time.Millisecond
	progressEvery = time.Second
)

// Run shows one run of an engine while it works: the live line on a terminal,
// progress objects with JSON, lines about single messages in both.
type Run struct {
	u       *UI
	label   string
	started time.Time
	now     func() time.Time

	// Added to by the engine's goroutines, read by the one that draws.
	planned, plannedOctets atomic.Int64
	unsized                atomic.Int64 // of planned, those whose octets nobody knows before they come
	moved, movedOctets     atomic.Int64
	durable, durableOctets atomic.Int64
	failed                 atomic.Int64
	mailbox, waiting       atomic.Pointer[string]

	stop chan struct{}
	done chan struct{}
}

// Start begins to show a run; label is what a person calls the account. End
// must be called.
func (u *UI) Start(label string) *Run {
	r := &Run{
		u: u, label: label, started: time.Now(), now: time.Now,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go r.loop()
	return r
}

// Notify takes the engine's events. It does not wait for the terminal unless a
// line is to be printed.
func (r *Run) Notify(e mail.Event) {
	switch e.Kind {
	case mail.EventProgress:
		r.moved.Add(e.N)
		r.movedOctets.Add(e.Octets)
		r.at(e)
	case mail.EventMailbox:
		r.planned.Add(e.N)
		r.plannedOctets.Add(max(e.Octets, 0))
		switch {
		case e.N > 0 && e.Octets <= 0:
			r.unsized.Add(e.N)
			r.u.Detail("%s: %s to do", e.Ref.Mailbox, Plural(e.N, "message"))
		case e.N > 0:
			r.u.Detail("%s: %s to do, %s", e.Ref.Mailbox, Plural(e.N, "message"), Octets(e.Octets))
		}
	case mail.EventDone:
		r.durable.Add(e.N)
		r.durableOctets.Add(e.Octets)
	case mail.EventFailed:
		r.failed.Add(1)
		r.message(e, "failed", e.Err)
	case mail.EventSuspicious:
		r.message(e, "suspicious", nil)
	case mail.EventWarning:
		r.u.Warn(e.Err)
	case mail.EventWaiting:
		r.waiting.Store(&e.Waiting)
		r.u.Detail("%s: waiting: %s", r.label, e.Waiting)
	}
}

func (r *Run) at(e mail.Event) {
	if r.waiting.Load() != nil {
		r.waiting.Store(nil)
	}
	if p := r.mailbox.Load(); e.Ref.Mailbox != "" && (p == nil || *p != e.Ref.Mailbox) {
		name := e.Ref.Mailbox
		r.mailbox.Store(&name)
	}
}

// message names one message that failed or is suspicious.
func (r *Run) message(e mail.Event, status string, err error) {
	reason, hint := e.Reason, ""
	if err != nil {
		reason, hint = err.Error(), mail.HintOf(err)
	}
	if status == "suspicious" && hint == "" {
		hint = "it is kept as it came and will not be deleted at the server; look at it before you do so yourself"
	}
	if r.u.opt.JSON {
		r.u.Object(map[string]any{
			"type": "message", "status": status, "reason": reason, "hint": hint,
			"ref": map[string]any{"account": e.Ref.Account, "mailbox": e.Ref.Mailbox, "uidvalidity": e.Ref.UIDValidity, "uid": e.Ref.UID},
		})
		return
	}
	if err == nil {
		err = &mail.Error{Kind: mail.KindPartial, Ref: e.Ref, Op: "suspicious: " + reason, Hint: hint}
		r.u.Warn(err)
		return
	}
	r.u.Error(err)
}

// loop draws, and ends when End was called.
func (r *Run) loop() {
	defer close(r.done)
	switch {
	case r.u.opt.JSON:
		r.every(progressEvery, func() { r.u.Object(r.progress()) })
	case r.u.opt.Terminal && !r.u.opt.Quiet:
		l := newLine(r.label)
		r.u.mu.Lock()
		r.u.board.add(l)
		r.u.mu.Unlock()
		r.every(drawEvery, func() { r.draw(l) })
		r.u.mu.Lock()
		r.u.board.remove(l)
		r.u.mu.Unlock()
	default:
		<-r.stop
	}
}

func (r *Run) every(d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			f()
		}
	}
}

func (r *Run) draw(l *line) {
	columns, rows := r.u.opt.Width(), r.u.opt.Height()
	s := r.state()
	r.u.mu.Lock()
	defer r.u.mu.Unlock()
	l.update(s)
	r.u.board.draw(l, columns, rows)
}

func (r *Run) state() state {
	s := state{
		label: r.label, elapsed: r.now().Sub(r.started), at: r.now(),
		messages: max(r.moved.Load(), r.durable.Load()), planned: r.planned.Load(),
		octets: max(r.movedOctets.Load(), r.durableOctets.Load()), plannedOctets: r.plannedOctets.Load(),
		failed: r.failed.Load(), durable: r.durable.Load(),
	}
	if unsized := r.unsized.Load(); unsized > 0 { // as large as what has come so far
		s.guessed = true
		s.plannedOctets += int64(float64(s.octets) / float64(max(1, s.messages)) * float64(unsized))
	}
	if p := r.mailbox.Load(); p != nil {
		s.mailbox = *p
	}
	if p := r.waiting.Load(); p != nil {
		s.waiting = *p
	}
	return s
}

func (r *Run) progress() map[string]any {
	s := r.state()
	return map[string]any{
		"type": "progress", "mailbox": s.mailbox, "messages": s.messages, "planned": s.planned,
		"octets": s.octets, "planned_octets": r.plannedOctets.Load(), "durable": s.durable, "failed": s.failed,
		"waiting": s.waiting, "seconds": s.elapsed.Seconds(),
	}
}

// Status prints where the run stands, whatever else was asked for.
func (r *Run) Status() { r.u.say(priorityNotice, "", r.Standing()) }

// Standing says in one line where the run stands.
func (r *Run) Standing() string {
	s := r.state()
	about := ""
	if s.guessed {
		about = "about "
	}
	text := fmt.Sprintf("%s: %s of %s, %s of %s%s, %s durable, %s failed, after %s", r.label,
		Count(s.messages), Plural(s.planned, "message"), Octets(s.octets), about, Octets(s.plannedOctets), Count(s.durable), Count(s.failed), Duration(s.elapsed))
	if s.mailbox != "" {
		text += ", in " + s.mailbox
	}
	if s.waiting != "" {
		text += ", waiting: " + s.waiting
	}
	return text
}

// Planned returns how many octets the mailboxes listed so far have to do.
func (r *Run) Planned() int64 { return r.plannedOctets.Load() }

// End stops drawing. It returns when nothing is drawn any more.
func (r *Run) End() {
	close(r.stop)
	<-r.done
}
