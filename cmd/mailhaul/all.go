package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/semaphore"

	"mailhaul/internal/config"
	"mailhaul/internal/ui"
)

// registerAll adds --all to a verb, which then takes no place.
func registerAll(cmd *cobra.Command) {
	cmd.Flags().Bool("all", false, "do it for every account of the configuration")
	inner := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if all, _ := cmd.Flags().GetBool("all"); !all {
			return inner(cmd, args)
		}
		if len(args) > 0 {
			return usage("leave one of them out", "--all is every account, and a place was given, too")
		}
		return nil
	}
}

// wantsAll tells whether a verb is to be run for every account.
func (a *app) wantsAll(cmd *cobra.Command) bool {
	all, _ := cmd.Flags().GetBool("all")
	return all && a.only == ""
}

// every runs the verb once for each account, so many at once; each run is that of
// the same command line with the account's name. The worst exit code counts.
func (a *app) every(cmd *cobra.Command, atOnce func(*config.File) int) error {
	f, err := a.configuration()
	if err != nil {
		return err
	}
	if len(f.Accounts) == 0 {
		return usage("mailhaul setup ADDRESS makes one", "there are no accounts in %s", f.Path)
	}
	if err := a.takePassword(); err != nil {
		return err
	}
	began := time.Now()
	e := &everyone{app: a, file: f, cmd: cmd, hosts: map[string]*semaphore.Weighted{}, archives: map[string]*sync.Mutex{}}
	n := min(atOnce(f), len(f.Accounts))
	e.slots = semaphore.NewWeighted(int64(n))
	e.alone = n == 1
	a.shared.atOnce = n
	e.prepare()
	var wg sync.WaitGroup
	for i, ac := range f.Accounts {
		if e.alone {
			e.outcomes[i] = e.run(cmd.Context(), ac)
			continue
		}
		wg.Go(func() { e.outcomes[i] = e.run(cmd.Context(), ac) })
	}
	wg.Wait()
	if sig, ok := errors.AsType[interrupted](context.Cause(cmd.Context())); ok {
		a.tell(cmd.Context(), sig)
	}
	return e.conclude(time.Since(began))
}

// oneByOne is for verbs that ask, or that are no faster together.
func oneByOne(*config.File) int { return 1 }

func together(f *config.File) int { return f.AccountsAtOnce }

// everyone is one run over all accounts.
type everyone struct {
	app   *app
	file  *config.File
	cmd   *cobra.Command
	alone bool // one account at a time

	// What accounts share: so many may run, a host takes so many connections, an
	// archive one run.
	slots    *semaphore.Weighted
	hosts    map[string]*semaphore.Weighted
	archives map[string]*sync.Mutex

	outcomes []outcome
}

// outcome is how one account ended.
type outcome struct {
	code  int
	ended any // what was told as its end: a summary of the verb's own kind; nil if it did not come so far
}

func (e *everyone) prepare() {
	e.outcomes = make([]outcome, len(e.file.Accounts))
	for _, ac := range e.file.Accounts {
		if e.hosts[ac.Server.Host] == nil {
			e.hosts[ac.Server.Host] = semaphore.NewWeighted(int64(e.file.ConnectionsPerHost))
		}
		if e.archives[ac.Archive.Dir] == nil {
			e.archives[ac.Archive.Dir] = new(sync.Mutex)
		}
	}
}

// run waits until an account may run, and runs the verb for it.
func (e *everyone) run(ctx context.Context, ac *config.Account) outcome {
	host, weight := e.hosts[ac.Server.Host], e.connections(ac)
	if err := host.Acquire(ctx, weight); err != nil {
		return outcome{code: exitTemporary} // the signal that ended it has a code of its own
	}
	defer host.Release(weight)
	archive := e.archives[ac.Archive.Dir]
	archive.Lock()
	defer archive.Unlock()
	if err := e.slots.Acquire(ctx, 1); err != nil {
		return outcome{code: exitTemporary}
	}
	defer e.slots.Release(1)
	return e.runOne(ctx, ac)
}

// connections is how many connections an account may open.
func (e *everyone) connections(ac *config.Account) int64 {
	n := int64(1)
	if ac.Server.Protocol == "imap" {
		n = defaultConnections
		if typed, err := e.cmd.Flags().GetInt("connections"); err == nil && e.cmd.Flags().Changed("connections") {
			n = int64(typed)
		} else {
			for _, s := range ac.Flags {
				if s.Flag == "connections" {
					_, _ = fmt.Sscan(s.Value, &n) // checked when it was read
				}
			}
		}
	}
	return max(1, min(n, int64(e.file.ConnectionsPerHost)))
}

// runOne runs the command line for one account. One that does not end when its
// --max-time is over is left behind.
func (e *everyone) runOne(ctx context.Context, ac *config.Account) outcome {
	a := e.app
	sub := &app{
		stdout: a.stdout, stderr: a.stderr, ui: a.ui.For(ac.Name), args: a.args, only: ac.Name,
		shared: a.shared, stateDir: a.stateDir, late: make(chan struct{}),
	}
	if e.alone {
		sub.stdin = a.stdin
	}
	began := time.Now()
	done := make(chan error, 1)
	go func() {
		root := newRoot(sub)
		root.SetArgs(a.args)
		root.SetOut(a.stdout)
		root.SetErr(a.stderr)
		done <- root.ExecuteContext(ctx)
	}()
	var o outcome
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, errSaid) {
			sub.tell(ctx, err)
		}
		o = outcome{code: sub.code(ctx, err), ended: sub.ended}
	case <-sub.late:
		sub.ui.Error(errMaxTime)
		o = outcome{code: exitTemporary}
	}
	if o.ended == nil {
		seconds := time.Since(began)
		sub.ui.Object(map[string]any{"type": "account", "command": e.cmd.Name(), "seconds": seconds.Seconds(), "exit": o.code})
		if o.code != exitDone {
			sub.ui.Result("%s: nothing was done, see above (exit code %d), in %s", ac.Name, o.code, ui.Duration(seconds))
		}
	}
	return o
}

// conclude tells the whole, and fixes the exit code.
func (e *everyone) conclude(took time.Duration) error {
	a := e.app
	code, failed := exitDone, 0
	total := map[string]any{}
	for _, o := range e.outcomes {
		code = worse(code, o.code)
		if o.code != exitDone {
			failed++
		}
		add(total, o.ended)
	}
	n := len(e.outcomes)
	for key, v := range map[string]any{
		"type": "summary", "command": e.cmd.Name(), "accounts": n, "accounts_failed": failed, "seconds": took.Seconds(), "exit": code,
	} {
		total[key] = v
	}
	a.ui.Object(total)
	text := fmt.Sprintf("%s: all done, in %s", ui.Plural(int64(n), "account"), ui.Duration(took))
	if failed > 0 {
		text = fmt.Sprintf("%s: %d done, %d not, in %s", ui.Plural(int64(n), "account"), n-failed, failed, ui.Duration(took))
	}
	if !a.flags.json {
		a.ui.Note("%s", text)
	}
	a.exit.Store(int32(code))
	if code == exitDone {
		return nil
	}
	return errSaid
}

// add adds the counters of one account to those of all.
func add(total map[string]any, ended any) {
	b, err := json.Marshal(ended)
	if err != nil {
		return
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var one map[string]any
	if dec.Decode(&one) != nil {
		return
	}
	for key, v := range one {
		if number, ok := v.(json.Number); ok {
			if n, err := number.Int64(); err == nil {
				sum, _ := total[key].(int64)
				total[key] = sum + n
			}
		}
	}
}

// takePassword takes MAILHAUL_PASSWORD out of the environment for all accounts
// that have no entry of their own: one password is hardly that of all.
func (a *app) takePassword() error {
	s, err := config.TakeEnvironment(config.Env)
	if err != nil {
		return err
	}
	a.shared.password = s
	return nil
}
