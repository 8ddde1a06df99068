package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mailhaul/internal/place"
	"mailhaul/internal/ui"
	"mailhaul/mail"
)

// memoryLimit is what the garbage collector aims to stay under, in octets, so
// that the whole process stays under 48 MiB: its text and what it maps count, too.
const memoryLimit = 26 << 20

// gcPercent is how much garbage may gather, in parts of what is in use. That is a
// few MiB, and the default makes the collector run all the time.
const gcPercent = 200

// app is one run of the program.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer
	ui             *ui.UI
	flags          globalFlags
	current        atomic.Pointer[ui.Run] // being shown
	exit           atomic.Int32           // code the verb chose for a run without error
	stateDir       string                 // where archives are remembered; "" for the user's
	typed          lineReader
	shared         *shared
	args           []string // as typed
	interruptHint  string   // the hint when a signal ends a verb that fetches nothing

	// Where the verb is run for several accounts, each has an app of its own.
	only  string        // the name of the account; "" where there is one run only
	late  chan struct{} // closed when it has not ended in time
	ended any           // what was told as the end of the run
}

// run runs the program and returns its exit code.
func run(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	harden()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, shared: &shared{}, args: args}
	a.flags.json = wantsJSON(args) // until the flags are parsed, which may fail
	a.ui = a.newUI()
	ctx, stop := a.watchSignals(context.Background())
	defer stop()
	end := a.tellManager()
	root := newRoot(a)
	a.complete(root)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	began := time.Now()
	cmd, err := root.ExecuteContextC(ctx)
	if cerr := a.closeTrace(); err == nil {
		err = cerr
	}
	if err == nil {
		err = a.writeError()
	}
	if err != nil && !errors.Is(err, errSaid) {
		a.tell(ctx, err)
	}
	code := a.code(ctx, err)
	a.ui.End(strings.TrimPrefix(cmd.CommandPath(), root.Name()+" "), time.Since(began), code)
	a.deliver()
	end(code)
	return code
}

// wantsJSON looks for --json in a command line that may be wrong.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "--json=true")
}

// newUI makes the user interface the flags ask for.
func (a *app) newUI() *ui.UI {
	o := ui.Options{
		Out: a.stdout, Err: a.stderr,
		OutWidth: func() int { return columnsOf(a.stdout) }, Plain: !localeIsUTF8(),
		Quiet: a.flags.quiet, Verbose: a.flags.verbose, JSON: a.flags.json, Journal: isJournal(a.stderr),
	}
	if f, ok := a.stderr.(*os.File); ok && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd())) {
		o.Terminal = true
		o.Width = func() int {
			columns, _, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0
			}
			return columns
		}
		o.Height = func() int {
			_, rows, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0
			}
			return rows
		}
	}
	return ui.New(o)
}

// writeError tells of results that could not be written.
func (a *app) writeError() error {
	err := a.ui.Err()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EPIPE): // the reader has seen enough
		return errSaid
	}
	return &mail.Error{Kind: mail.KindDisk, Op: "write to standard output", Err: err}
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "mailhaul",
		Short: "Move mail: archive it, and know that it is archived",
		Long: `mailhaul copies what is new at a POP3 or IMAP server into a local archive
(Maildir or mbox) that other programs can open, and proves that it is there.

A server is written imaps://USER@HOST or pop3s://USER@HOST (imap:// and pop3://
ask for STARTTLS and STLS), an archive as a directory. Passwords are never part of
a place: see mailhaul backup --help.`,
		Example: `  mailhaul demo                                    try it: servers and mail are built in
  mailhaul setup ada@example.org                   from a mail address to a backup, step by step
  mailhaul backup imaps://ada@example.org ~/Mail   copy what is new
  mailhaul verify ~/Mail                           read every octet back`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.start(cmd) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.flags.version {
				return a.version()
			}
			if len(args) > 0 {
				return unknownVerb(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	a.flags.register(root)
	root.SetFlagErrorFunc(flagError)
	for _, g := range []struct {
		id, title string
		verbs     []*cobra.Command
	}{
		{"begin", "To begin:", []*cobra.Command{newDemo(a), newSetup(a), newLogin(a), newTrust(a), newDoctor(a)}},
		{"keep", "To keep mail:", []*cobra.Command{newBackup(a), newVerify(a), newSchedule(a), newAccount(a), newLs(a), newCat(a)}},
		{"room", "To make room at the server:", []*cobra.Command{newSize(a), newClean(a), newUndo(a)}},
		{"move", "To move to another server:", []*cobra.Command{newMigrate(a), newUpload(a)}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, verb := range g.verbs {
			verb.GroupID = g.id
		}
		root.AddCommand(g.verbs...)
	}
	root.AddCommand(newVersion(a), newMan())
	return root
}

// start applies the global flags, before any verb.
func (a *app) start(cmd *cobra.Command) error {
	if err := a.flags.check(); err != nil {
		return err
	}
	a.flags.timeoutTyped = cmd.Flags().Changed("timeout")
	a.interruptHint = ""
	switch cmd.Name() {
	case "setup":
		a.interruptHint = "no account was stored; run the same command again"
	case "login", "trust", "schedule", "remove", "doctor", "size", "ls", "cat":
		a.interruptHint = "run the same command again"
	}
	if a.only != "" {
		return nil // prints with the others
	}
	a.ui = a.newUI()
	slog.SetDefault(a.ui.Logger(a.flags.level()))
	return nil
}

func usage(hint, format string, args ...any) error {
	return &mail.Error{Kind: mail.KindUsage, Err: fmt.Errorf(format, args...), Hint: hint}
}

// unknownVerb does not repeat what may be a place with a password in it.
func unknownVerb(root *cobra.Command, word string) error {
	if strings.ContainsAny(word, ":@/") {
		return usage("write for example: mailhaul backup imaps://USER@HOST ~/Mail", "a place was given where a verb belongs")
	}
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	hint := root.CommandPath() + " --help lists the verbs"
	if near := place.Nearest(word, names); near != "" {
		hint = "did you mean " + root.CommandPath() + " " + near + "?"
	}
	return usage(hint, "there is no verb %q", word)
}

// flagError makes one clear sentence of what the flag parser says, without the
// values it may repeat.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	hint := cmd.CommandPath() + " --help lists the flags"
	if name, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		name, _, _ = strings.Cut(name, "=")
		if near := place.Nearest(name, flagNames(cmd)); near != "" {
			hint = "did you mean --" + near + "?"
		}
		if name == "password" {
			hint = "a secret is never given on the command line; use --password-command, --password-file or MAILHAUL_PASSWORD"
		}
		return usage(hint, "unknown flag --%s", name)
	}
	if strings.HasPrefix(text, "unknown shorthand flag") {
		text, _, _ = strings.Cut(text, " in -")
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		if strings.HasPrefix(m[3], "time: ") {
			m[3] = "a time is written 30s, 5m or 1h30m"
		}
		return usage(hint, "--%s %s: %s", m[2], m[1], m[3])
	}
	return usage(hint, "%s", text)
}

// badValue is what the flag parser says of a value: the value in quotes, the flag,
// the reason.
var badValue = regexp.MustCompile(`^invalid argument (".*") for "(?:-., )?--([^"]+)" flag: (.*)$`)

// arguments checks the number of arguments and says what is missing.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		first, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n")
		first, _, _ = strings.Cut(first, "  ")
		return usage("write for example: "+first, "%s needs %s; %s", cmd.CommandPath(), what, given(len(args)))
	}
}

func given(n int) string {
	switch n {
	case 0:
		return "nothing was given"
	case 1:
		return "one argument was given"
	}
	return fmt.Sprintf("%d arguments were given", n)
}
