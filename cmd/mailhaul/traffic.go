package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"mailhaul/internal/durable"
	"mailhaul/internal/providers"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// providerDaily has a run keep to what is known of the provider.
const providerDaily = -1

// traffic counts what an account has read today, across runs: providers that are
// asked for more than they give in a day lock the account for a while. Days are UTC.
type traffic struct {
	dir, name string
	limit     int64
	stop      context.CancelCauseFunc

	mu     sync.Mutex
	before int64 // of the day, when it was last looked up
	since  int64 // read since then
}

// traffics is a file of the state directory.
type traffics struct {
	Day    string `json:"day"`
	Octets int64  `json:"octets"`
}

// trafficStep is how much a crash may leave uncounted, in octets.
const trafficStep = 16 << 20

// daily bounds a run by what an account may read in a day: limit octets, 0 for any
// number, providerDaily for what is known of its provider. The run ends like one whose
// time is over. done must be called after it.
func (a *app) daily(ctx context.Context, ac *account, limit int64) (_ context.Context, done func(), err error) {
	if limit == providerDaily {
		limit = dailyOf(ac)
	}
	dir := a.stateDir
	if dir == "" {
		dir = vault.StateDir()
	}
	if limit <= 0 || dir == "" {
		return ctx, func() {}, nil
	}
	t := &traffic{dir: filepath.Join(dir, "traffic"), name: trafficName(ac.key()), limit: limit}
	if err := t.save(ctx); err != nil {
		return ctx, nil, err
	}
	if t.before >= t.limit {
		return ctx, nil, t.over()
	}
	ctx, t.stop = context.WithCancelCause(ctx)
	ac.server.Count = t.count
	return ctx, func() {
		if err := t.save(context.WithoutCancel(ctx)); err != nil {
			a.ui.Warn(err)
		}
		t.stop(nil)
	}, nil
}

// dailyOf leaves a twentieth of what the provider gives to other programs.
func dailyOf(ac *account) int64 {
	p := providers.ForHost(ac.place.Host)
	switch {
	case p == nil:
		return 0
	case ac.place.Protocol == "pop3":
		return p.DownPOP3 / 20 * 19
	}
	return p.DownIMAP / 20 * 19
}

func (t *traffic) over() error {
	return &mail.Error{
		Kind: mail.KindTemporary, Err: fmt.Errorf("this account has been read for %s today, and %s a day is the limit", ui.Octets(max(t.before+t.since, t.limit)), ui.Octets(t.limit)),
		Hint: "what was fetched is safe; run the same command again tomorrow (days are UTC) to go on, or give --daily-limit",
	}
}

// count is told of what was read.
func (t *traffic) count(octets int) {
	t.mu.Lock()
	t.since += int64(octets)
	over, save := t.before+t.since >= t.limit, t.since >= trafficStep
	err := t.over()
	t.mu.Unlock()
	if save {
		_ = t.save(context.Background()) // the end of the run tells
	}
	if over {
		t.stop(err)
	}
}

// save adds what was read to what other runs of the day have read.
func (t *traffic) save(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fail := func(err error) error {
		return &mail.Error{Kind: mail.KindDisk, Op: "count what was read today", Err: err}
	}
	fsys, err := durable.MakeRoot(t.dir)
	if err != nil {
		return fail(err)
	}
	defer fsys.Close()
	lock, err := durable.LockFile(ctx, filepath.Join(t.dir, t.name+".lock"), 5*time.Second)
	if err != nil {
		return fail(err)
	}
	defer lock.Close()
	today := traffics{Day: time.Now().UTC().Format(time.DateOnly)}
	var kept traffics
	// A file that cannot be read counts as none: the provider's own word stands.
	if b, err := durable.ReadFile(fsys, t.name, 4096); err == nil && json.Unmarshal(b, &kept) == nil && kept.Day == today.Day && kept.Octets > 0 {
		today.Octets = kept.Octets
	}
	today.Octets += t.since
	if t.since > 0 {
		b, err := json.Marshal(today)
		if err == nil {
			err = durable.WriteFileAtomic(fsys, t.name, b)
		}
		if err != nil {
			return fail(err)
		}
	}
	t.before, t.since = today.Octets, 0
	return nil
}

func trafficName(key string) string {
	return strings.Map(func(r rune) rune {
		if r == '@' || r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, key) + ".json"
}

// registerDaily adds --daily-limit.
func registerDaily(f *pflag.FlagSet, limit *int64) {
	*limit = providerDaily
	f.Func("daily-limit", "read at most this `SIZE` from the account in a day, all runs together (0: any; default what is known of the provider)", func(v string) (err error) {
		*limit, err = parseDaily(v)
		return err
	})
}

// parseDaily reads --daily-limit.
func parseDaily(v string) (int64, error) {
	if v == "0" {
		return 0, nil
	}
	n, err := parseSize(v)
	if err != nil {
		return 0, errors.New("a size is written 500M or 2G, 0 for no limit")
	}
	return n, nil
}
