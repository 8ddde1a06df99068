package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailhaul/internal/config"
	"mailhaul/internal/schedule"
	"mailhaul/mail"
)

type scheduleFlags struct {
	daily     bool
	at, every schedule.When
	atSet     bool
	remove    bool
	with      string
	dryRun    bool
}

// scheduler is a way to have the system run something.
type scheduler interface {
	Available(context.Context) error
	Install(context.Context, schedule.Job) error
	Find(ctx context.Context, account string) (*schedule.Installed, error)
	Remove(ctx context.Context, account string) error
}

func newSchedule(a *app) *cobra.Command {
	var o scheduleFlags
	cmd := &cobra.Command{
		Use:   "schedule ACCOUNT",
		Short: "Have the system back up an account by itself",
		Long: `schedule installs a timer that runs mailhaul backup ACCOUNT --quiet: a systemd timer
of the user (of the system, if root asks for it), or lines in the crontab where
there is no systemd. Without a time it shows what is installed.

A run begins up to 15 minutes later than said, so that not everybody asks at the same
time; one that was missed because the machine was off is made up for; and there are
never two at once: systemd starts no second one, and an archive lets only one in
(exit code 75).

A run is silent when all is well. What went wrong is in the journal (journalctl --user
-u mailhaul-ACCOUNT), is mailed by cron, and told by [notify] in the configuration.
docs/schedule.md shows the same for macOS (launchd) and Windows (Task Scheduler).`,
		Example: `  mailhaul schedule home --daily          # at 03:15
  mailhaul schedule home --at 22:30
  mailhaul schedule home --every 6h
  mailhaul schedule home                  # show it
  mailhaul schedule home --remove`,
		Args: arguments(1, 1, "an ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.schedule(cmd.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.daily, "daily", false, "every day at 03:15")
	f.Func("at", "every day at this `TIME` (22:30)", func(v string) (err error) {
		o.at, err = schedule.ParseAt(v)
		o.atSet = true
		return err
	})
	f.Func("every", "again and again after this `DURATION` (15m, 1h, 6h)", func(v string) (err error) {
		o.every, err = schedule.ParseEvery(v)
		return err
	})
	f.BoolVar(&o.remove, "remove", false, "remove what is installed")
	f.StringVar(&o.with, "with", "", "use `systemd|cron` (default: systemd where it runs, else cron)")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show what would be installed, and change nothing")
	return cmd
}

// when returns the time asked for; ok is false where none was.
func (o *scheduleFlags) when() (w schedule.When, ok bool, err error) {
	n := 0
	for _, c := range []struct {
		set  bool
		when schedule.When
	}{{o.daily, schedule.Daily}, {o.atSet, o.at}, {o.every.Every > 0, o.every}} {
		if c.set {
			n, w = n+1, c.when
		}
	}
	if n > 1 || n > 0 && o.remove {
		return w, false, usage("keep one of them", "--daily, --at, --every and --remove exclude each other")
	}
	return w, n > 0, nil
}

func (a *app) schedule(ctx context.Context, name string, o scheduleFlags) error {
	when, install, err := o.when()
	if err != nil {
		return err
	}
	switch o.with {
	case "", "systemd", "cron":
	default:
		return usage("write --with systemd or --with cron", "--with %s is unknown", o.with)
	}
	if o.remove { // of an account that is no more, too
		if err := config.CheckName(name); err != nil {
			return usage("", "%w", err)
		}
		return a.unschedule(ctx, name, o)
	}
	ac, err := a.named(name)
	if err != nil {
		return err
	}
	if ac == nil {
		return a.noAccount(name)
	}
	if !install {
		return a.showSchedule(ctx, a.ui.Result, name, o)
	}
	if ac.Archive.Dir == "" {
		_, err := archiveOf(ac, "")
		return err
	}
	return a.install(ctx, ac, when, o)
}

// systemdUnits are those of the user, or of the system for root.
func systemdUnits() schedule.Systemd {
	if os.Geteuid() == 0 {
		return schedule.Systemd{System: true, Dir: schedule.SystemUnits}
	}
	return schedule.Systemd{Dir: schedule.UserUnits()}
}

// schedulers are those that may be used, the preferred one first.
func (o *scheduleFlags) schedulers() []scheduler {
	switch o.with {
	case "systemd":
		return []scheduler{systemdUnits()}
	case "cron":
		return []scheduler{schedule.Cron{}}
	}
	return []scheduler{systemdUnits(), schedule.Cron{}}
}

func (a *app) install(ctx context.Context, ac *config.Account, when schedule.When, o scheduleFlags) error {
	job, err := a.job(ac, when)
	if err != nil {
		return err
	}
	all := o.schedulers()
	var why []error
	for i, s := range all {
		if err := s.Available(ctx); err != nil {
			why = append(why, err)
			continue
		}
		if o.dryRun {
			a.showJob(s, job)
			return nil
		}
		if err := s.Install(ctx, job); err != nil {
			return err
		}
		for _, other := range all[i+1:] { // not by both
			if err := other.Remove(ctx, ac.Name); err != nil && other.Available(ctx) == nil {
				return err
			}
		}
		a.warnOfSecret(ac)
		return a.showSchedule(ctx, a.ui.Done, ac.Name, o)
	}
	texts := make([]string, len(why))
	for i, err := range why {
		texts[i] = err.Error()
	}
	return &mail.Error{Kind: mail.KindLacking, Err: fmt.Errorf("nothing here runs programs by the clock: %s", strings.Join(texts, "; ")),
		Hint: "docs/schedule.md shows how to do it by hand; the command is: " + strings.Join(job.Argv, " ")}
}

// job is the command line of a run without a person.
func (a *app) job(ac *config.Account, when schedule.When) (schedule.Job, error) {
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return schedule.Job{}, &mail.Error{Op: "find this program", Err: err}
	}
	f, err := a.configuration()
	if err != nil {
		return schedule.Job{}, err
	}
	argv := []string{program, "backup", ac.Name, "--quiet", "--config", f.Path}
	if state := os.Getenv("XDG_STATE_HOME"); state != "" { // the timer does not know it
		argv = append([]string{"/usr/bin/env", "XDG_STATE_HOME=" + state}, argv...)
	}
	if !slices.ContainsFunc(ac.Flags, func(s config.Setting) bool { return s.Flag == "lock-wait" }) {
		argv = append(argv, "--lock-wait", "5m")
	}
	return schedule.Job{Account: ac.Name, Argv: argv, When: when}, nil
}

// warnOfSecret tells of a password that may be out of reach at night.
func (a *app) warnOfSecret(ac *config.Account) {
	if ac.Entry.Keyring {
		a.ui.Note("%s: its password is in the keyring, which is locked while nobody is logged in; for runs at any time keep it in a file of mode 0600 (password-file)", ac.Name)
	}
	if ac.Entry == (config.Entry{}) {
		a.ui.Note("%s: make sure that the password is found without a terminal: password-command, password-file or keyring in the configuration, or ~/.netrc", ac.Name)
	}
}

func (a *app) showJob(s scheduler, job schedule.Job) {
	switch s := s.(type) {
	case schedule.Systemd:
		units := s.Units(job)
		for _, name := range slices.Sorted(maps.Keys(units)) {
			a.ui.Done("%s:", filepath.Join(s.Dir, name))
			for line := range strings.Lines(units[name]) {
				a.ui.Done("  %s", strings.TrimSuffix(line, "\n"))
			}
		}
	case schedule.Cron:
		a.ui.Done("crontab:")
		for _, line := range s.Lines(job) {
			a.ui.Done("  %s", line)
		}
	}
}

func (a *app) showSchedule(ctx context.Context, show func(string, ...any), name string, o scheduleFlags) error {
	for _, s := range o.schedulers() {
		in, err := s.Find(ctx, name)
		if err != nil {
			return err
		}
		if in == nil {
			continue
		}
		when := "at a time of its own"
		if in.Known {
			when = in.When.String()
		}
		by := "by cron"
		if in.Kind == "systemd" {
			by = "by the systemd timer " + in.Name
		}
		show("%s: backed up %s, %s", name, when, by)
		a.ui.Object(map[string]any{"type": "schedule", "account": name, "kind": in.Kind, "unit": in.Name, "when": when, "files": in.Files})
		if u, err := user.Current(); err == nil && in.Kind == "systemd" && os.Geteuid() != 0 && !schedule.Lingers(u.Username) {
			a.ui.Note("%s: only while you are logged in; to run always: loginctl enable-linger", name)
		}
		return nil
	}
	show("%s: not scheduled; mailhaul schedule %s --daily would do it", name, name)
	a.ui.Object(map[string]any{"type": "schedule", "account": name, "kind": ""})
	return nil
}

func (a *app) unschedule(ctx context.Context, name string, o scheduleFlags) error {
	removed := false
	for _, s := range o.schedulers() {
		in, err := s.Find(ctx, name)
		if err != nil {
			return err
		}
		if in == nil {
			continue
		}
		removed = true
		if o.dryRun {
			a.ui.Done("%s: would be removed from %s", name, in.Kind)
			continue
		}
		if err := s.Remove(ctx, name); err != nil {
			return err
		}
		a.ui.Done("%s: no longer scheduled by %s", name, in.Kind)
	}
	if !removed {
		a.ui.Done("%s: was not scheduled", name)
	}
	return nil
}

// noAccount says that there is no account of that name.
func (a *app) noAccount(typed string) error {
	f, err := a.configuration()
	if err != nil {
		return err
	}
	if len(f.Accounts) == 0 {
		return usage("mailhaul setup ADDRESS makes one", "there is no account %q: there are none in %s", typed, f.Path)
	}
	return a.noServer(typed)
}
