package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/internal/config"
	"mailhaul/internal/history"
	"mailhaul/internal/ui"
	"mailhaul/mail"
)

func newAccount(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "account",
		Short: "List, show or remove what is configured",
		Long: `account lists the accounts of the configuration, shows one with everything that is
set and how its last runs ended, or removes one from the file. Archives are never
touched.`,
		Example: `  mailhaul account list
  mailhaul account show home
  mailhaul account remove home`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return a.accountList()
		},
	}
	var yes, dryRun bool
	list := &cobra.Command{
		Use: "list", Short: "List the accounts",
		Example: `  mailhaul account list
  mailhaul account list --json`,
		Args: arguments(0, 0, "no argument"),
		RunE: func(*cobra.Command, []string) error { return a.accountList() },
	}
	show := &cobra.Command{
		Use: "show ACCOUNT", Short: "Show everything that is set for an account",
		Example: "  mailhaul account show home",
		Args:    arguments(1, 1, "an ACCOUNT"),
		RunE:    func(_ *cobra.Command, args []string) error { return a.accountShow(args[0]) },
	}
	remove := &cobra.Command{
		Use: "remove ACCOUNT", Short: "Remove an account from the configuration",
		Long: `remove takes an account out of the configuration file and leaves every other line as
it is. The archive, the password where it is kept, and a schedule stay: see mailhaul
schedule ACCOUNT --remove.`,
		Example: "  mailhaul account remove home --yes",
		Args:    arguments(1, 1, "an ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.accountRemove(cmd.Context(), args[0], yes, dryRun)
		},
	}
	remove.Flags().BoolVar(&yes, "yes", false, "do not ask")
	remove.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "say what would be removed, and change nothing")
	cmd.AddCommand(list, show, remove)
	return cmd
}

func (a *app) accountList() error {
	f, err := a.configuration()
	if err != nil {
		return err
	}
	if len(f.Accounts) == 0 {
		a.ui.Note("there are no accounts in %s; mailhaul setup ADDRESS makes one", f.Path)
		return nil
	}
	names, servers := 0, 0
	for _, ac := range f.Accounts {
		names, servers = max(names, len(ac.Name)), max(servers, len(ac.Server.String()))
	}
	for _, ac := range f.Accounts {
		s := a.history(ac.Name)
		a.ui.Field(names+1, ac.Name, "%-*s  %s  %s", servers, ac.Server, archiveText(ac), lastText(s, "backup"))
		a.ui.Object(a.accountObject(ac, s))
	}
	return nil
}

func (a *app) history(account string) history.State {
	st, ok := a.store()
	if !ok {
		return history.State{}
	}
	return st.Get(account)
}

func archiveText(ac *config.Account) string {
	switch {
	case ac.Archive.Dir == "":
		return "no archive"
	case ac.Archive.Format != "":
		return ac.Archive.Format + ":" + belowHome(ac.Archive.Dir)
	}
	return belowHome(ac.Archive.Dir)
}

// belowHome writes a path as a person would, with ~/ for the home.
func belowHome(path string) string {
	home, err := os.UserHomeDir()
	if err != nil || home == "/" {
		return path
	}
	if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(home, "/")+"/"); ok {
		return "~/" + rest
	}
	return path
}

// lastText says how the last run of a verb ended.
func lastText(s history.State, command string) string {
	r, ok := s.Last[command]
	if !ok {
		return "no " + command + " yet"
	}
	text := fmt.Sprintf("last %s %s: ", command, r.Began.Local().Format("2006-01-02 15:04"))
	if r.Exit == exitDone {
		return text + "all well"
	}
	return text + fmt.Sprintf("exit code %d", r.Exit)
}

func (a *app) accountObject(ac *config.Account, s history.State) map[string]any {
	o := map[string]any{
		"type": "account", "account": ac.Name, "server": ac.Server.String(), "archive": ac.Archive.Dir,
		"format": ac.Archive.Format, "password": entryText(ac.Entry),
	}
	if r, ok := s.Last["backup"]; ok {
		o["last"] = r.Began.UTC().Format(time.RFC3339)
		o["last_exit"] = r.Exit
	}
	return o
}

// entryText says where a password is, and never what it is.
func entryText(e config.Entry) string {
	switch {
	case e.Password != "":
		return "in the configuration"
	case e.Command != "":
		return "by the command " + e.Command
	case e.File != "":
		return "in the file " + e.File
	case e.Keyring:
		return "in the keyring"
	}
	return "not said: MAILHAUL_PASSWORD, the keyring, ~/.netrc or a question"
}

func (a *app) accountShow(name string) error {
	ac, err := a.named(name)
	if err != nil {
		return err
	}
	if ac == nil {
		return a.noAccount(name)
	}
	s := a.history(name)
	a.ui.Object(a.accountObject(ac, s))
	row := func(what, text string) {
		if text != "" {
			a.ui.Field(16, what, "%s", text)
		}
	}
	row("account", ac.Name)
	row("server", ac.Server.String())
	row("archive", archiveText(ac))
	row("password", entryText(ac.Entry))
	row("ca-file", ac.CAFile)
	row("tls-fingerprint", ac.Fingerprint)
	row("client-cert", ac.ClientCert)
	row("client-key", ac.ClientKey)
	if ac.AllowCleartext {
		row("allow-cleartext", "true")
	}
	if ac.Timeout > 0 {
		row("timeout", ac.Timeout.String())
	}
	row("always", typed(ac.Flags))
	row("backup", typed(ac.Verbs["backup"]))
	row("clean", typed(ac.Verbs["clean"]))
	row("notify", notifyText(ac.Notify))
	for _, command := range []string{"backup", "clean", "verify"} {
		if _, ok := s.Last[command]; ok || command == "backup" {
			row("", lastText(s, command))
		}
	}
	return nil
}

// typed writes settings as flags would be typed.
func typed(settings []config.Setting) string {
	var words []string
	for _, s := range settings {
		w := "--" + s.Flag
		if s.Value != "true" {
			w += " " + s.Value
		}
		words = append(words, w)
	}
	return strings.Join(words, " ")
}

func notifyText(n config.Notify) string {
	var to []string
	if len(n.To) > 0 {
		to = append(to, strings.Join(n.To, ", ")+" by "+n.Server.Host)
	}
	if n.Command != "" {
		to = append(to, "the command "+n.Command)
	}
	if len(to) == 0 {
		return ""
	}
	return strings.Join(to, "; ") + " on " + strings.Join(n.On, ", ")
}

func (a *app) accountRemove(ctx context.Context, name string, yes, dryRun bool) error {
	ac, err := a.named(name)
	if err != nil {
		return err
	}
	if ac == nil {
		return a.noAccount(name)
	}
	f, err := a.configuration()
	if err != nil {
		return err
	}
	switch {
	case dryRun:
		a.ui.Done("%s: would be removed from %s; the archive would stay", name, f.Path)
		return nil
	case yes:
	case a.canAsk():
		a.ui.Note("the archive %s, the password and a schedule stay", archiveText(ac))
		if err := a.askYes(ctx, fmt.Sprintf("Remove %s from %s? [y/N] ", ui.Escape(name), f.Path)); err != nil {
			return &mail.Error{Err: errors.New("nothing was removed: not confirmed")}
		}
	default:
		return &mail.Error{Err: errors.New("nothing was removed: there is no terminal to ask on"), Hint: "add --yes if it is wanted"}
	}
	if err := config.Remove(f.Path, name, newChecker()); err != nil {
		return err
	}
	if st, ok := a.store(); ok {
		if err := st.Forget(name); err != nil {
			a.ui.Warn(err)
		}
	}
	a.ui.Done("%s: removed from %s; the archive stays", name, f.Path)
	a.sayLeft(ctx, ac, f.Path)
	a.ui.Object(map[string]any{"type": "summary", "command": "account remove", "account": name, "exit": exitDone})
	return nil
}

// sayLeft names what an account that was removed leaves behind, but for its archive.
func (a *app) sayLeft(ctx context.Context, ac *config.Account, configuration string) {
	if file := ac.Entry.File; file != "" && filepath.Dir(file) == secretsBeside(configuration) {
		a.ui.Note("%s: its password stays in %s", ac.Name, file)
	}
	for _, s := range (&scheduleFlags{}).schedulers() {
		if in, err := s.Find(ctx, ac.Name); err == nil && in != nil {
			a.ui.Note("%s: its schedule stays, and runs of it will fail; to remove it: mailhaul schedule %s --remove", ac.Name, ac.Name)
			return
		}
	}
}
