package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailhaul/clean"
	"mailhaul/fetch"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

type cleanFlags struct {
	secret         secretFlags
	selection      selectionFlags
	free           int64
	untilQuota     int
	includeFlagged bool
	trash, yes     bool
	ceiling        ceiling
	dryRun         bool
	rule           *rule
}

func newClean(a *app) *cobra.Command {
	var o cleanFlags
	cmd := &cobra.Command{
		Use:   "clean SOURCE ARCHIVE | clean ACCOUNT | clean --all",
		Short: "Delete at the server, by rule, only what the archive provably holds",
		Long: `clean frees the server. A message goes only if the rule selects it, the archive has
it under this very UID (or UIDL), it was just read back with the right SHA-256, and
the server, asked again, still shows the same message. Flagged mail stays unless
--flagged or --include-flagged says otherwise. Nothing in the archive changes.

The plan comes first. On a terminal clean asks; without one it needs --yes, and
without --max-delete it does not take more than half of a mailbox of over 100
messages.

A rule is needed: a selection, --free or --until-quota, which go oldest first and
stop when reached. mailhaul undo puts back what was deleted.`,
		Example: `  mailhaul clean imaps://ada@example.org ~/Mail --older-than 180d
  mailhaul clean imaps://ada@example.org ~/Mail --until-quota 70% --yes
  mailhaul clean pop3s://ada@mail.example.net ~/Mail --free 500M --dry-run
  mailhaul clean imaps://ada@example.org ~/Mail --larger 10M --seen --trash
  mailhaul clean imaps://ada@example.org ~/Mail --mailbox Lists --before 2024-01-01 --yes --max-delete 5000`,
		Args: arguments(1, 2, "a SOURCE and an ARCHIVE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.wantsAll(cmd) {
				return a.every(cmd, oneByOne)
			}
			args, err := a.sides(cmd, args, 0, "a SOURCE and an ARCHIVE")
			if err != nil {
				return err
			}
			if a.only != "" && !o.rule.selects("include-flagged") {
				a.ui.Note("no rule below [account.%s.clean]: nothing to do", a.only)
				return nil
			}
			return a.remembered(cmd, args[0], func() error { return a.clean(cmd.Context(), args[0], args[1], o) })
		},
	}
	registerAll(cmd)
	o.secret.register(cmd)
	f := cmd.Flags()
	o.rule = record(f, func() {
		o.selection.register(cmd)
		f.Func("free", "stop when this `SIZE` is freed, oldest first (500M)", func(v string) (err error) {
			o.free, err = parseSize(v)
			return err
		})
		f.Func("until-quota", "stop when at most `P%` of the quota is used, oldest first", func(v string) (err error) {
			o.untilQuota, err = parsePercent(v)
			return err
		})
		f.BoolVar(&o.includeFlagged, "include-flagged", false, "let flagged messages go, too")
	})
	f.BoolVar(&o.trash, "trash", false, `move to the server's \Trash mailbox instead of deleting for good`)
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	o.ceiling.register(f)
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show the plan, and change nothing")
	return cmd
}

// rule remembers the flags of a rule as they were typed.
type rule struct{ words []string }

// record notes which of the flags that register adds are set, and to what.
func record(f *pflag.FlagSet, register func()) *rule {
	before := make(map[string]bool)
	f.VisitAll(func(fl *pflag.Flag) { before[fl.Name] = true })
	register()
	r := &rule{}
	f.VisitAll(func(fl *pflag.Flag) {
		if !before[fl.Name] {
			if fl.DefValue == "[]" { // which only a value of the parser's own is known not to show
				fl.DefValue = ""
			}
			fl.Value = recorded{fl.Value, fl, r}
		}
	})
	return r
}

type recorded struct {
	pflag.Value
	flag *pflag.Flag
	rule *rule
}

// Set implements pflag.Value.
func (v recorded) Set(s string) error {
	err := v.Value.Set(s)
	word := "--" + v.flag.Name
	if v.flag.NoOptDefVal == "" || s != v.flag.NoOptDefVal {
		word += " " + s
	}
	v.rule.words = append(v.rule.words, word)
	return err
}

func (r *rule) String() string { return strings.Join(r.words, " ") }

// selects tells whether something other than the named flags was set.
func (r *rule) selects(but ...string) bool {
	for _, w := range r.words {
		name, _, _ := strings.Cut(w, " ")
		none := true
		for _, b := range but {
			none = none && name != "--"+b
		}
		if none {
			return true
		}
	}
	return false
}

// ceiling is the most that may be deleted.
type ceiling struct {
	set     bool
	n       int64
	percent bool // n is a percentage of each mailbox
}

func (c *ceiling) register(f *pflag.FlagSet) {
	f.Func("max-delete", "refuse to delete more than `N|P%`: messages in all, or percent of a mailbox", func(v string) error {
		n, err := strconv.ParseInt(strings.TrimSuffix(v, "%"), 10, 64)
		c.set, c.n, c.percent = true, n, strings.HasSuffix(v, "%")
		if err != nil || n < 0 || c.percent && n > 100 {
			return errors.New("a ceiling is written 500 or 20%")
		}
		return nil
	})
}

// check refuses a plan above the ceiling.
func (c *ceiling) check(p *clean.Plan) error {
	if !c.set {
		return nil
	}
	what, over := p.Exceeds(c.n, c.percent)
	if !over {
		return nil
	}
	return &mail.Error{Ref: mail.Ref{Account: p.Account}, Err: fmt.Errorf("nothing was deleted: %s, more than --max-delete allows", what),
		Hint: "look at the plan with mailhaul clean --dry-run, then narrow the rule or raise --max-delete"}
}

func parsePercent(s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSuffix(s, "%"))
	if err != nil || n < 1 || n > 100 || !strings.HasSuffix(s, "%") {
		return 0, errors.New("a percentage is written 70%")
	}
	return n, nil
}

func (a *app) clean(ctx context.Context, source, archive string, o cleanFlags) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	began := time.Now()
	s := ui.Cleaned{Command: "clean", DryRun: o.dryRun}
	label := "mailhaul"
	err := a.cleanFrom(ctx, source, archive, o, &s, &label)
	s.Seconds = time.Since(began).Seconds()
	s.Exit = a.code(ctx, err)
	if err != nil {
		a.tell(ctx, err)
	}
	if s.Failed > 0 {
		s.Exit = worse(s.Exit, exitPartial)
	}
	if err == nil || a.flags.json || s.Deleted+s.Failed > 0 {
		a.ended = s
		a.ui.Cleaned(label, s)
	}
	a.exit.Store(int32(s.Exit))
	if s.Exit == exitDone {
		return nil
	}
	return errSaid
}

// cleanFrom reads what was typed, opens both sides and runs the engine.
func (a *app) cleanFrom(ctx context.Context, source, archive string, o cleanFlags, s *ui.Cleaned, label *string) (err error) {
	selection, err := o.selection.selection()
	if err != nil {
		return err
	}
	switch {
	case o.free > 0 && o.untilQuota > 0:
		return usage("leave one of them out", "--free and --until-quota exclude each other")
	case !o.rule.selects("include-flagged"):
		return usage("write for example --older-than 180d, --free 500M or --until-quota 70%", "clean needs a rule: what may be deleted?")
	}
	dest, err := a.archivePlace(archive, "")
	if err != nil {
		return err
	}
	ac, err := a.account(ctx, source, o.secret, nil)
	if err != nil {
		return err
	}
	s.Source, s.Archive, *label = ac.key(), absolute(dest.Dir), ac.label()
	if err := a.lookAt(dest, vault.Options{ReadOnly: o.dryRun}); err != nil {
		return err
	}
	credentials, err := ac.credentials(ctx)
	if err != nil {
		return err
	}
	src, err := a.openSource(ac.server, credentials, defaultConnections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	opts := clean.Options{
		Selection: selection, IncludeFlagged: o.includeFlagged || o.selection.flagged, Free: o.free, UntilQuota: o.untilQuota,
		Mode: mail.ModeExpunge, Rule: o.rule.String(), DryRun: o.dryRun,
	}
	if o.trash {
		opts.Mode = mail.ModeTrash
	}
	opts.Confirm = func(p *clean.Plan) error { return a.confirm(ctx, p, o) }
	v, err := a.openVault(ctx, dest, vault.Options{ReadOnly: o.dryRun, Notify: a.warnings})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	return a.cleanWith(ctx, src, v, opts, s)
}

// warnings prints the events a person should know of whatever is being shown.
func (a *app) warnings(e mail.Event) {
	if e.Kind == mail.EventWarning {
		a.ui.Warn(e.Err)
	}
}

// cleanWith runs the engine. The live line waits for the answer to the question.
func (a *app) cleanWith(ctx context.Context, src fetch.Source, v *vault.Vault, o clean.Options, s *ui.Cleaned) error {
	deleter, ok := src.(clean.Source)
	if !ok {
		return &mail.Error{Kind: mail.KindLacking, Ref: mail.Ref{Account: src.Account()}, Err: errors.New("nothing can be deleted over this protocol")}
	}
	run, end := a.show(mail.AccountLabel(src.Account()))
	ask := o.Confirm
	o.Confirm = func(p *clean.Plan) error {
		end()
		if err := ask(p); err != nil {
			return err
		}
		run, end = a.show(mail.AccountLabel(src.Account()))
		return nil
	}
	defer func() { end() }()
	o.Source, o.Archive, o.Ledger = deleter, v.Archive, v.Ledger
	o.Notify = func(e mail.Event) { run.Notify(e) }
	res, err := clean.Run(ctx, o)
	end()
	s.Listed, s.Deleted, s.Skipped, s.Failed, s.Octets, s.Stayed = res.Listed, res.Deleted, res.Skipped, res.Failed, res.Octets, res.Stayed
	if res.Plan == nil {
		return err
	}
	s.Mode = res.Plan.Mode
	switch {
	case o.DryRun:
		s.Deleted, s.Octets = res.Plan.Go.Messages, res.Plan.Go.Octets
	case err != nil: // what was not reached belongs to the next run
		s.Listed = s.Deleted + s.Skipped + s.Failed
	}
	if err == nil && s.Listed != s.Deleted+s.Skipped+s.Failed {
		err = fmt.Errorf("%w: %d listed, but %d deleted, %d stayed and %d failed", ui.ErrUnbalanced, s.Listed, s.Deleted, s.Skipped, s.Failed)
	}
	if n := res.Stayed[clean.WhyBack]; n > 0 {
		err = errors.Join(err, ignored(src.Account(), n, "they stay"))
	}
	return err
}

// confirm shows the plan and finds out whether it is wanted.
func (a *app) confirm(ctx context.Context, p *clean.Plan, o cleanFlags) error {
	ask := !o.yes && !o.dryRun && a.canAsk()
	if !a.flags.quiet || ask {
		a.ui.Plan(planHead(p, o), planned(p))
	}
	if p.Go.Messages == 0 {
		return nil
	}
	err := o.ceiling.check(p)
	switch {
	case err != nil:
	case ask:
		err = a.askYes(ctx, fmt.Sprintf("%s %s (%s)? [y/N] ", verbOf(p.Mode), ui.Plural(p.Go.Messages, "message"), ui.Octets(p.Go.Octets)))
	case !o.yes && !o.dryRun:
		err = &mail.Error{Ref: mail.Ref{Account: p.Account}, Err: errors.New("nothing was deleted: there is no terminal to ask on"),
			Hint: "add --yes if the plan above is wanted"}
	case !o.ceiling.set:
		err = overHalf(p)
	}
	if o.dryRun && err != nil {
		a.ui.Note("without --dry-run: %v", err)
		return nil
	}
	return err
}

func verbOf(mode string) string {
	if mode == mail.ModeTrash {
		return "Move to the trash"
	}
	return "Delete for good at the server"
}

// overHalf refuses what nobody was asked about.
func overHalf(p *clean.Plan) error {
	names := p.OverHalf()
	if len(names) == 0 {
		return nil
	}
	return &mail.Error{Ref: mail.Ref{Account: p.Account},
		Err:  fmt.Errorf("nothing was deleted: more than half of %s would go", strings.Join(names, ", ")),
		Hint: "if that is wanted, say how many with --max-delete N or --max-delete P%"}
}

func planHead(p *clean.Plan, o cleanFlags) string {
	what := "to be deleted for good at the server"
	if p.Mode == mail.ModeTrash {
		what = "to be moved to the server's trash"
	}
	if p.Go.Messages == 0 {
		head := mail.AccountLabel(p.Account) + ": nothing is " + what
		if o.untilQuota > 0 && p.Already == 0 {
			head += fmt.Sprintf("; the quota is not over %d%%", o.untilQuota)
		}
		return head
	}
	head := fmt.Sprintf("%s: %s: %s (%s)", mail.AccountLabel(p.Account), what, ui.Plural(p.Go.Messages, "message"), ui.Octets(p.Go.Octets))
	if o.untilQuota > 0 {
		head += fmt.Sprintf("; the quota is %s over %d%%", ui.Octets(p.Already), o.untilQuota)
	}
	if p.Mode == mail.ModeTrash && (o.free > 0 || o.untilQuota > 0) {
		head += "; the space comes back when the trash is emptied"
	}
	return head
}

func planned(p *clean.Plan) []ui.Planned {
	var list []ui.Planned
	for _, m := range p.Mailboxes {
		list = append(list, ui.Planned{
			Mailbox: m.Name, Messages: m.Messages, Go: m.Go.Messages, GoOctets: m.Go.Octets,
			Stay: m.Stay.Messages, StayOctets: m.Stay.Octets, Why: m.Why, Oldest: m.Oldest, Newest: m.Newest,
		})
	}
	return list
}

// askYes asks on the terminal; anything but yes is an error.
func (a *app) askYes(ctx context.Context, question string) error {
	a.ui.Prompt(question)
	got := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n') // an end of input is no yes
		got <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case answer := <-got:
		if answer == "y" || answer == "yes" {
			return nil
		}
		return &mail.Error{Err: errors.New("nothing was deleted: not confirmed")}
	case <-ctx.Done():
		a.ui.Break()
		return context.Cause(ctx)
	}
}
