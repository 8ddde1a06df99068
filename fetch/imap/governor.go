package imap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// firstWaits are the first pauses, in units of Config.Pause, where a server wants
// one and does not say how long. They double while nothing comes.
var firstWaits = map[imapconn.LimitKind]time.Duration{
	imapconn.LimitRate: 15, imapconn.LimitTraffic: 300, imapconn.LimitConnections: 15, imapconn.LimitInUse: 10,
}

// comeBack is after how long it is worth coming back, in units of Config.Pause,
// where the server does not say: limits of traffic are of a day.
var comeBack = map[imapconn.LimitKind]time.Duration{
	imapconn.LimitRate: 15 * 60, imapconn.LimitTraffic: 24 * 3600, imapconn.LimitConnections: 15 * 60, imapconn.LimitInUse: 5 * 60,
}

const longestWait = 600 // likewise, for waits of our own choice

// governor holds back all connections of an account while the server wants a
// pause.
type governor struct {
	account string
	unit    time.Duration // of the waits above
	budget  time.Duration // of waiting, while nothing comes
	notify  mail.Notify

	mu    sync.Mutex
	until time.Time // nothing is sent before
	back  time.Time // when it is worth coming back
	spent time.Duration
	times int // pauses since something came
	words string
}

func newGovernor(account string, unit, budget time.Duration, notify mail.Notify) *governor {
	if budget <= 0 {
		budget = 15 * time.Minute
	}
	if notify == nil {
		notify = func(mail.Event) {}
	}
	return &governor{account: account, unit: unit, budget: budget, notify: notify}
}

// said takes a server's word that it wants a pause. It tells whether a new pause
// begins: what several connections hear at the same time is said once.
func (g *governor) said(l imapconn.Limit, words string) bool {
	wait, begins := g.plan(l, words, time.Now())
	if !begins {
		return false
	}
	why := map[imapconn.LimitKind]string{
		imapconn.LimitRate: "the server wants fewer requests", imapconn.LimitTraffic: "the server allows no more traffic now",
		imapconn.LimitConnections: "the server allows fewer connections", imapconn.LimitInUse: "another session holds the mailbox",
	}[l.Kind]
	if wait > 0 {
		g.notify(mail.Event{
			Kind: mail.EventWaiting, Ref: mail.Ref{Account: g.account},
			Waiting: fmt.Sprintf("%s; going on in %v", why, rounded(wait)),
		})
	}
	return true
}

// rounded leaves out digits nobody needs.
func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

// plan fixes the next pause; wait is 0 if it is more than may be waited.
func (g *governor) plan(l imapconn.Limit, words string, now time.Time) (wait time.Duration, begins bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	begun := max(0, g.until.Sub(now)) // left of a pause that is on
	if begun > 0 && l.Wait <= begun {
		return 0, false
	}
	wait = min(firstWaits[l.Kind]<<min(g.times, 10), longestWait) * g.unit
	if l.Wait > 0 {
		wait = max(l.Wait, g.unit<<min(g.times, 10))
	}
	wait += jitter(wait / 10)
	g.words = words
	g.times++
	g.spent += wait - begun
	g.until = now.Add(wait)
	g.back = g.until
	if back := now.Add(comeBack[l.Kind] * g.unit); l.Wait <= 0 && back.After(g.back) {
		g.back = back
	}
	if g.spent > g.budget {
		return 0, true
	}
	return wait, true
}

// holding tells whether a pause is on.
func (g *governor) holding() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.until)
}

// came notes that the server gives what it is asked for.
func (g *governor) came() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.times > 0 && !time.Now().Before(g.until) {
		g.spent, g.times = 0, 0
	}
}

// wait returns when the pause is over. If that would take longer than is left of
// ctx or of what may be waited, it returns an error at once.
func (g *governor) wait(ctx context.Context) error {
	for {
		g.mu.Lock()
		left := time.Until(g.until)
		deadline, limited := ctx.Deadline()
		over := g.spent > g.budget || limited && deadline.Before(g.until)
		err := g.error()
		g.mu.Unlock()
		switch {
		case left <= 0:
			return nil
		case over:
			return err
		}
		t := time.NewTimer(left)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// error says when to come back. It is called with mu held.
func (g *governor) error() error {
	at := g.back.Add(time.Minute).Local()
	clock := at.Format("15:04")
	if now := time.Now(); at.YearDay() != now.YearDay() || at.Year() != now.Year() {
		clock = at.Format("2006-01-02 15:04")
	}
	return &mail.Error{
		Kind: mail.KindTemporary, Ref: mail.Ref{Account: g.account}, Op: "wait for the server", Server: g.words,
		Err:  givenUp{errors.New("it wants a longer pause than this run may wait")},
		Hint: "run the same command again after " + clock + ": it goes on where this one stopped",
	}
}
