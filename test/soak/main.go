// Command soak kills mailhaul at random moments, thousands of times, against real
// Dovecots on this machine, cuts its connections in between, and checks after each
// round that every message ever delivered is in the archive exactly once.
//
//	go run ./test/soak -kills 5000 -seed 1
//	go run ./test/soak -kills 1000000 -for 20m -workers 20 -pace 1s -seed 1
//
// The second works on twenty accounts at once for twenty minutes. The variants are both protocols by both formats, by backup alone, with clean
// behind it, by backup --delete, with upload behind it, and by migrate. Where mail
// is deleted the server has to be empty in the end, and after each kill server and
// archive together hold everything; where it is moved the other account holds each
// message exactly once. A failure prints the seed and leaves everything to look at;
// the exit code is 1.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/test/rig"
)

type options struct {
	kills    int64
	seed     uint64
	limit    time.Duration
	messages int
	workers  int
	pace     time.Duration
	maxTime  time.Duration
	only     string
	hold     string
}

// tally is what was done so far.
type tally struct {
	runs, kills, cuts, terms, rounds, messages, deleted, uploaded atomic.Int64
}

func main() {
	var o options
	flag.Int64Var(&o.kills, "kills", 1000, "stop after so many kills")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the random choices; not of the moments they meet")
	flag.DurationVar(&o.limit, "for", 0, "stop after this time, too (0: no limit)")
	flag.IntVar(&o.messages, "messages", 120, "messages delivered in each round")
	flag.IntVar(&o.workers, "workers", 2, "variants at a time")
	flag.DurationVar(&o.pace, "pace", 150*time.Millisecond, "mean time before a run is killed; longer for many workers")
	flag.DurationVar(&o.maxTime, "max-time", 20*time.Second, "of each run; longer on a machine that is busy with other work")
	flag.StringVar(&o.only, "only", "", "only variants whose name contains this")
	flag.StringVar(&o.hold, "hold", "", "begin no run while this `FILE` exists")
	flag.Parse()
	if err := soak(o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func soak(o options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if o.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.limit)
		defer cancel()
	}
	dir, err := os.MkdirTemp("", "mailhaul-soak-")
	if err != nil {
		return err
	}
	server, err := dovecot.Run("", dovecot.Options{})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	bin, err := rig.Build(dir)
	if err == nil {
		began := time.Now()
		w := &world{options: o, dir: dir, bin: bin, server: server}
		err = w.all(ctx, began)
		w.summary(time.Since(began))
	}
	server.Stop()
	if err != nil {
		return fmt.Errorf("seed %d, everything is left in %s and %s: %w", o.seed, dir, server.Dir, err)
	}
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(server.Dir))
}

// world is what all variants share.
type world struct {
	options
	tally
	dir    string
	bin    string
	server *dovecot.Server
}

func (w *world) summary(took time.Duration) {
	fmt.Printf("soak: seed %d: %d runs, %d of them killed, %d ended by SIGTERM, %d with a connection cut; "+
		"%d rounds checked, %d messages delivered, %d deleted at the server, %d sent to another (by runs that ended well), in %s\n",
		w.seed, w.runs.Load(), w.tally.kills.Load(), w.terms.Load(), w.cuts.Load(),
		w.rounds.Load(), w.tally.messages.Load(), w.deleted.Load(), w.uploaded.Load(), took.Round(time.Second))
}

// progress says each minute how far it is.
func (w *world) progress(ctx context.Context, began time.Time) {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-minute.C:
			w.summary(time.Since(began))
		}
	}
}

// held waits while the file of -hold exists.
func (w *world) held(ctx context.Context) {
	for w.hold != "" && ctx.Err() == nil {
		if _, err := os.Stat(w.hold); err != nil {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// over tells whether enough was done.
func (w *world) over(ctx context.Context) bool {
	return ctx.Err() != nil || w.tally.kills.Load() >= w.options.kills
}

// all works through the variants, again and again, some at a time.
func (w *world) all(ctx context.Context, began time.Time) error {
	var variants []variant
	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, format := range rig.Formats {
			for _, mode := range modes {
				v := variant{world: w, scheme: scheme, format: format, mode: mode}
				if strings.Contains(v.name(), w.only) {
					variants = append(variants, v)
				}
			}
		}
	}
	if len(variants) == 0 {
		return fmt.Errorf("no variant is called %s", w.only)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go w.progress(ctx, began)
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed error
	var once sync.Once
	for range w.workers {
		wg.Go(func() {
			for !w.over(ctx) {
				n := next.Add(1) - 1
				v := variants[int(n)%len(variants)]
				if err := v.life(ctx, n); err != nil {
					once.Do(func() { failed = fmt.Errorf("%s: %w", v.name(), err) })
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return failed
}
