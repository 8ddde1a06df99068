package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"mailhaul/internal/auth"
	"mailhaul/internal/place"
)

// takesPlaces are the verbs where a server, a directory or an account may stand, by
// how many of them; takesAccount those where only an account makes sense.
var (
	takesPlaces = map[string]int{
		"backup": 2, "clean": 2, "verify": 2, "upload": 2, "migrate": 2, "undo": 2, "doctor": 1, "size": 1, "trust": 1, "ls": 1, "cat": 1,
	}
	takesAccount = map[string]bool{"schedule": true, "login": true, "show": true, "remove": true}
)

// complete has the shell complete the names of accounts, and the values of flags that
// take one of a few words. It is not for the roots of --all: cobra keeps what it is
// told of flags for ever.
func (a *app) complete(root *cobra.Command) {
	words := map[string][]string{
		"format": place.Formats, "protocol": {"imap", "pop3"}, "store": {"keyring", "file"}, "with": {"systemd", "cron"},
		"provider": {"google", "microsoft"}, "log-level": {"debug", "info", "warn", "error"}, "auth": mechanisms(), "dest-auth": mechanisms(),
	}
	flags := func(cmd *cobra.Command, set *pflag.FlagSet) {
		set.VisitAll(func(f *pflag.Flag) {
			if w, ok := words[f.Name]; ok {
				_ = cmd.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(w, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
			}
		})
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		flags(cmd, cmd.LocalFlags())
		switch n := takesPlaces[cmd.Name()]; {
		case n > 0:
			cmd.ValidArgsFunction = a.accountNames(n, cobra.ShellCompDirectiveDefault)
		case takesAccount[cmd.Name()]:
			cmd.ValidArgsFunction = a.accountNames(1, cobra.ShellCompDirectiveNoFileComp)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

// accountNames completes the names of accounts in the first n arguments. A
// configuration that cannot be read has none.
func (a *app) accountNames(n int, otherwise cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, typed string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, otherwise
		}
		f, err := a.configuration()
		if err != nil {
			return nil, otherwise
		}
		for _, ac := range f.Accounts {
			if strings.HasPrefix(ac.Name, typed) {
				names = append(names, cobra.CompletionWithDesc(ac.Name, ac.Server.String()))
			}
		}
		return names, otherwise
	}
}

// mechanisms are what --auth takes.
func mechanisms() []string {
	list := auth.Mechanisms()
	words := make([]string, len(list))
	for i, m := range list {
		words[i] = strings.ToLower(m)
	}
	return words
}
