package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/discover"
	"mailhaul/internal/place"
	"mailhaul/internal/ui"
	"mailhaul/mail"
)

// shared is what the runs of several accounts have in common.
type shared struct {
	configured sync.Once
	file       *config.File
	err        error
	atOnce     int // accounts; 0 for one

	mu       sync.Mutex
	runs     []*ui.Run   // being shown
	password auth.Secret // of the environment, once it was taken from there
	pending  []pending   // to be told when all is over
	trace    *dial.Trace // to traceFile; nil before the first connection, and without --trace

	traceFile *os.File
}

// configuration reads the configuration file, once.
func (a *app) configuration() (*config.File, error) {
	a.shared.configured.Do(func() {
		a.shared.file, a.shared.err = config.Load(a.flags.config, newChecker())
	})
	return a.shared.file, a.shared.err
}

// newChecker returns a check of values that asks the flags themselves.
func newChecker() config.Check {
	scratch := &app{shared: &shared{}}
	root := newRoot(scratch)
	return func(verb, flag, value string) error {
		cmd, _, err := root.Find([]string{verb})
		if err != nil {
			return err
		}
		_ = cmd.ParseFlags(nil) // merges the flags of every verb
		f := cmd.Flags().Lookup(flag)
		if f == nil {
			return usage("mailhaul "+verb+" --help lists the flags", "there is no flag --%s", flag)
		}
		if err := f.Value.Set(value); err != nil {
			return err
		}
		err = scratch.flags.check()
		if err != nil {
			_ = f.Value.Set(f.DefValue)
		}
		return err
	}
}

// named returns the account that a place names; nil where it is a server or a
// directory.
func (a *app) named(typed string) (*config.Account, error) {
	if place.IsServer(typed) || config.CheckName(typed) != nil {
		return nil, nil
	}
	f, err := a.configuration()
	if err != nil {
		return nil, err
	}
	ac := f.Account(typed)
	if ac != nil && a.only == "" && vaultExists(typed) && !sameDir(typed, ac.Archive.Dir) {
		return nil, usage("write ./"+typed+" for the directory, or rename the account", "%q is an account, and here also an archive", typed)
	}
	return ac, nil
}

func sameDir(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// noServer says that a place is neither a server nor the name of an account.
func (a *app) noServer(typed string) error {
	const hint = "write imaps://USER@HOST or pop3s://USER@HOST, or the name of an account"
	if _, _, err := discover.SplitAddress(typed); err == nil && !strings.ContainsAny(typed, ":/") {
		return usage("mailhaul setup "+typed+" finds its servers and makes an account of it; a server is written imaps://USER@HOST", "%s is a mail address, not a server", typed)
	}
	if config.CheckName(typed) != nil || strings.Contains(typed, "@") {
		return usage(hint, "the source is no server")
	}
	f, err := a.configuration()
	switch {
	case err != nil:
		return err
	case len(f.Accounts) == 0:
		return usage(hint+"; there are no accounts yet, mailhaul setup ADDRESS makes one", "%q is neither a server nor an account", typed)
	}
	if near := place.Nearest(typed, f.Names()); near != "" {
		return usage("did you mean "+near+"?", "there is no account %q", typed)
	}
	if strings.Contains(typed, ".") {
		return usage("a server is written imaps://USER@"+typed, "%q is neither a server nor an account", typed)
	}
	return usage("configured: "+strings.Join(f.Names(), ", "), "there is no account %q", typed)
}

// twins are flags that exclude each other: one that was typed replaces one of the
// configuration.
var twins = map[string]string{
	"flagged": "no-flagged", "no-flagged": "flagged", "seen": "no-seen", "no-seen": "seen",
	"free": "until-quota", "until-quota": "free",
}

// adopt takes from an account what the command line leaves open.
func (a *app) adopt(cmd *cobra.Command, ac *config.Account) error {
	typed := func(flag string) bool { return cmd.Flags().Changed(flag) }
	var todo []config.Setting
	for _, s := range slices.Concat(ac.Flags, ac.Verbs[cmd.Name()]) {
		if cmd.Flags().Lookup(s.Flag) != nil && !typed(s.Flag) && !(twins[s.Flag] != "" && typed(twins[s.Flag])) {
			todo = append(todo, s)
		}
	}
	for _, s := range todo {
		if err := cmd.Flags().Set(s.Flag, s.Value); err != nil {
			return usage("", "%s: --%s %s: %w", ac.Name, s.Flag, s.Value, err)
		}
	}
	return nil
}

// sides completes the two places of a verb, which what names. One argument is an
// account, which has both; the settings of the one that stands for the server are
// adopted.
func (a *app) sides(cmd *cobra.Command, args []string, server int, what string) ([]string, error) {
	if a.only != "" {
		args = []string{a.only}
	}
	if len(args) == 1 {
		ac, err := a.named(args[0])
		if err != nil {
			return nil, err
		}
		if ac == nil {
			return nil, a.oneSide(cmd, args[0], what)
		}
		args = []string{args[0], args[0]}
	}
	return args, a.adoptFrom(cmd, args[server])
}

// adoptFrom adopts the settings of an account, if the place is one.
func (a *app) adoptFrom(cmd *cobra.Command, typed string) error {
	ac, err := a.named(typed)
	if err != nil || ac == nil {
		return err
	}
	return a.adopt(cmd, ac)
}

// oneSide says what is missing beside a place.
func (a *app) oneSide(cmd *cobra.Command, typed, what string) error {
	err := arguments(2, 2, what+", or an account that has both")(cmd, []string{typed})
	if place.IsServer(typed) || config.CheckName(typed) != nil || vaultExists(typed) {
		return err
	}
	f, wrong := a.configuration()
	if wrong != nil || len(f.Accounts) > 0 {
		return a.noServer(typed)
	}
	if e, ok := errors.AsType[*mail.Error](err); ok {
		e.Hint += "; there are no accounts yet, mailhaul setup ADDRESS makes one"
	}
	return err
}
