package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"mailhaul/internal/dial"
	"mailhaul/internal/ui"
	"mailhaul/mail"
)

// grace is how long a run may take to commit and leave once it was told to.
const grace = 5 * time.Second

// limit bounds a run by --max-time. What is there when it is over is committed;
// a run that does not leave within the grace is ended, as after a signal.
func (a *app) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.flags.maxTime == 0 {
		return ctx, func() {}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.flags.maxTime, errMaxTime)
	late := time.AfterFunc(a.flags.maxTime+grace, func() {
		if a.only != "" { // the others go on
			close(a.late)
			return
		}
		a.ui.Error(errMaxTime)
		os.Exit(exitTemporary)
	})
	return ctx, func() { late.Stop(); cancel() }
}

// trace returns what writes the file of --trace, one for all connections of a run; nil
// if none was asked for. run closes it.
func (a *app) trace() (*dial.Trace, error) {
	a.shared.mu.Lock()
	defer a.shared.mu.Unlock()
	if a.flags.trace == "" || a.shared.trace != nil {
		return a.shared.trace, nil
	}
	f, err := os.OpenFile(a.flags.trace, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &mail.Error{Kind: mail.KindDisk, Op: "--trace", Err: err}
	}
	a.shared.trace, a.shared.traceFile = &dial.Trace{W: f}, f
	return a.shared.trace, nil
}

func (a *app) closeTrace() error {
	a.shared.mu.Lock()
	defer a.shared.mu.Unlock()
	if a.shared.traceFile == nil {
		return nil
	}
	return a.shared.traceFile.Close()
}

// show begins to show a run; SIGUSR1 asks it where it stands.
func (a *app) show(label string) (*ui.Run, func()) {
	if a.only != "" {
		label = a.only
	}
	r := a.ui.Start(label)
	a.current.Store(r)
	a.shared.mu.Lock()
	a.shared.runs = append(a.shared.runs, r)
	a.shared.mu.Unlock()
	return r, sync.OnceFunc(func() {
		a.current.Store(nil)
		a.shared.mu.Lock()
		a.shared.runs = slices.DeleteFunc(a.shared.runs, func(x *ui.Run) bool { return x == r })
		a.shared.mu.Unlock()
		r.End()
	})
}

// status answers SIGUSR1.
func (a *app) status() {
	a.shared.mu.Lock()
	runs := slices.Clone(a.shared.runs)
	a.shared.mu.Unlock()
	for _, r := range runs {
		r.Status()
	}
	if len(runs) > 0 {
		return
	}
	// Not by a.ui, which start may just be replacing.
	ui.New(ui.Options{Out: a.stdout, Err: a.stderr}).Note("mailhaul: nothing is being transferred at the moment")
}

// tell tells an error. That a signal ended the runs of several accounts is told
// once, by what runs them.
func (a *app) tell(ctx context.Context, err error) {
	err = asInterrupted(ctx, err)
	if _, ok := errors.AsType[interrupted](err); ok {
		if a.only != "" {
			return
		}
		if e, ok := errors.AsType[*mail.Error](err); ok && a.interruptHint != "" {
			e.Hint = a.interruptHint
		}
	}
	a.ui.Error(err)
}

// transfer runs a verb that copies messages and tells how it ended. run fills the
// summary and the name of the account as far as it comes.
func (a *app) transfer(ctx context.Context, s ui.Summary, run func(ctx context.Context, s *ui.Summary, label *string) error) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	began := time.Now()
	label := "mailhaul"
	err := run(ctx, &s, &label)
	s.Seconds = time.Since(began).Seconds()
	return a.conclude(ctx, label, s, err)
}

// conclude tells how a run ended, in words and as a summary, and fixes the exit
// code. It returns nil or errSaid.
func (a *app) conclude(ctx context.Context, label string, s ui.Summary, err error) error {
	code := a.code(ctx, err)
	if err == nil && (count(s.Failed) > 0 || count(s.Suspicious) > 0) {
		code = exitPartial
	}
	if err != nil {
		a.tell(ctx, err)
		if count(s.Failed) > 0 {
			code = worse(code, exitPartial)
		}
	}
	s.Exit = code
	if err == nil || a.flags.json || count(s.Listed) > 0 {
		a.ended = s
		a.ui.Summary(label, s)
	}
	a.exit.Store(int32(code))
	if code == exitDone {
		return nil
	}
	return errSaid
}

func count(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
