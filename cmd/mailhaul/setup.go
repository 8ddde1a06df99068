package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/discover"
	"mailhaul/internal/durable"
	"mailhaul/internal/keyring"
	"mailhaul/internal/place"
	"mailhaul/mail"
)

type setupFlags struct {
	secret               secretFlags
	yes                  bool
	name, archive        string
	protocol, store      string
	servers              []string
	nameServer           string
	autoconfig           []string
	backup, schedule     bool
	noBackup, noSchedule bool
	dryRun               bool
}

func newSetup(a *app) *cobra.Command {
	var o setupFlags
	cmd := &cobra.Command{
		Use:   "setup ADDRESS",
		Short: "Find the servers of an address, test them, store the account",
		Long: `setup knows nothing but your mail address: it finds the servers, shows them, asks for
the password, logs in over IMAP and POP3, says what each of them gives you, stores the
password in the system's keyring or in a file that only you can read, and writes the
account into the configuration. Then "mailhaul backup NAME" is all there is to type.

Servers are looked for, in this order, among known providers, in the domain's SRV records
(RFC 6186, RFC 8314), in Thunderbird's autoconfiguration at the domain and in its central
database, by the domain's MX record, and by trying imap., pop. and mail. Those with a
certificate that holds count. The password goes nowhere before you have seen where.

With --yes nothing is asked: the password comes from --password-command,
--password-file or MAILHAUL_PASSWORD. A command or file is not copied: the account
refers to it.`,
		Example: `  mailhaul setup ada@example.org
  mailhaul setup ada@example.org --yes --password-command 'pass show mail'
  mailhaul setup ada@example.org --name home --archive /srv/mail/ada --password-file ~/.mail-password
  mailhaul setup ada@example.org --server imaps://mail.example.net --server pop3s://mail.example.net`,
		Args: arguments(1, 1, "a mail ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.setup(cmd, args[0], o) },
	}
	o.secret.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.yes, "yes", false, "ask nothing; take what was found")
	f.StringVar(&o.name, "name", "", "call the account `NAME` (default: the address up to the @)")
	f.StringVar(&o.archive, "archive", "", "keep its mail in `DIR` (default ~/Mail/NAME)")
	f.StringVar(&o.protocol, "protocol", "", "use `imap|pop3` (default IMAP, if the server has it)")
	f.StringVar(&o.store, "store", "", "keep the password in the `keyring|file` (default the keyring, if there is one)")
	f.StringArrayVar(&o.servers, "server", nil, "do not look, use `imaps://HOST` or pop3s://HOST (repeatable)")
	f.StringVar(&o.nameServer, "name-server", "", "ask the name server `HOST:PORT`")
	f.StringArrayVar(&o.autoconfig, "autoconfig", nil, "look for autoconfiguration at this `URL` instead (repeatable; DOMAIN and ADDRESS are replaced)")
	f.BoolVar(&o.backup, "backup", false, "make the first backup at once, without a question")
	f.BoolVar(&o.noBackup, "no-backup", false, "make no backup now, without a question")
	f.BoolVar(&o.schedule, "schedule", false, "make a backup every day, without a question")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "find and test the servers, and store nothing")
	f.BoolVar(&o.noSchedule, "no-schedule", false, "make no schedule, without a question")
	return cmd
}

func (o setupFlags) check() error {
	switch {
	case o.protocol != "" && o.protocol != "imap" && o.protocol != "pop3":
		return usage("write imap or pop3", "--protocol %q is neither", o.protocol)
	case o.store != "" && o.store != "keyring" && o.store != "file":
		return usage("write keyring or file", "--store %q is neither", o.store)
	case o.backup && o.noBackup || o.schedule && o.noSchedule:
		return usage("leave one of them out", "a flag and its --no- twin contradict each other")
	}
	if o.name != "" && config.CheckName(o.name) != nil {
		return usage("use letters, digits, - and _", "%q cannot be the name of an account", o.name)
	}
	return nil
}

// setting is a setup under way.
type setting struct {
	a       *app
	o       setupFlags
	address string
	found   *discover.Found
	ask     bool // there is a person, who wants to be asked

	secret auth.Secret // typed; "" where the account refers to it
	again  bool        // it was refused once, and is asked for again
	imap   *account    // logged in
	pop3   *account
}

func (a *app) setup(cmd *cobra.Command, address string, o setupFlags) (err error) {
	ctx, cancel := a.limit(cmd.Context())
	defer cancel()
	if err := o.check(); err != nil {
		return err
	}
	if _, _, err := discover.SplitAddress(address); err != nil {
		return err
	}
	s := &setting{a: a, o: o, address: address, ask: !o.yes && a.canAsk()}
	if !s.ask && !o.yes {
		return &mail.Error{Err: errors.New("there is no terminal to ask on"), Hint: "add --yes, and --password-command, --password-file or MAILHAUL_PASSWORD"}
	}
	file, err := a.configuration()
	if errors.Is(err, fs.ErrNotExist) { // the one of --config, which this makes
		file, err = &config.File{Path: absolute(a.flags.config)}, nil
	}
	if err != nil {
		return err
	}
	if err := notTaken(o.name, file); err != nil {
		return err
	}
	if err := s.find(ctx); err != nil {
		return err
	}
	chosen, err := s.test(ctx)
	if err != nil {
		return err
	}
	name, archive, err := s.choose(ctx, file)
	if err != nil {
		return err
	}
	if o.dryRun {
		a.ui.Done("The account %s would be in %s, its mail in %s.", name, file.Path, archive)
	} else if err := s.store(ctx, file.Path, name, archive, chosen); err != nil {
		return err
	}
	a.ui.Object(struct {
		Type    string `json:"type"`
		Command string `json:"command"`
		Account string `json:"account"`
		Source  string `json:"source"`
		Archive string `json:"archive"`
		Found   string `json:"found"`
		DryRun  bool   `json:"dry_run,omitempty"`
		Exit    int    `json:"exit"`
	}{"summary", "setup", name, chosen.key(), archive, s.found.By, o.dryRun, exitDone})
	if o.dryRun {
		return nil
	}
	return s.goOn(ctx, cmd.Root(), name, chosen)
}

// say prints what was found; who is asked sees it with --quiet, too.
func (s *setting) say(format string, args ...any) {
	if s.ask {
		s.a.ui.Result(format, args...)
		return
	}
	s.a.ui.Done(format, args...)
}

// choose finds a name and a directory.
func (s *setting) choose(ctx context.Context, file *config.File) (name, archive string, err error) {
	name = s.o.name
	if name == "" {
		name = freeName(s.address, file)
		if s.ask {
			for {
				answer, err := s.a.answer(ctx, fmt.Sprintf("Name of the account [%s]: ", name))
				if err != nil {
					return "", "", err
				}
				if answer == "" {
					break
				}
				if err = config.CheckName(answer); err == nil && file.Account(answer) == nil {
					name = answer
					break
				}
				if err == nil {
					err = fmt.Errorf("there is an account %q already", answer)
				}
				s.a.ui.Warn(err)
			}
		}
	}
	if err := notTaken(name, file); err != nil {
		return "", "", err
	}
	archive = s.o.archive
	if archive == "" {
		archive = "~/Mail/" + name
		for s.ask {
			answer, err := s.a.answer(ctx, fmt.Sprintf("Keep its mail in [%s]: ", archive))
			if err != nil {
				return "", "", err
			}
			if answer == "" {
				break
			}
			if _, err = place.ParseArchive(answer); err == nil {
				archive = answer
				break
			}
			s.a.ui.Warn(err)
		}
	}
	if _, err := place.ParseArchive(archive); err != nil {
		return "", "", err
	}
	// What is written into the configuration is relative to nothing.
	if format, dir, ok := strings.Cut(archive, ":"); ok && slices.Contains(place.Formats, format) {
		return name, format + ":" + rooted(dir), nil
	}
	return name, rooted(archive), nil
}

// notTaken tells whether a name is free for an account.
func notTaken(name string, file *config.File) error {
	if file.Account(name) == nil {
		return nil
	}
	return usage("choose another --name, or mailhaul account remove "+name, "there is an account %q already", name)
}

func rooted(dir string) string {
	if strings.HasPrefix(dir, "~/") {
		return dir
	}
	return absolute(dir)
}

// freeName makes a name of the address.
func freeName(address string, file *config.File) string {
	local, domain, _ := strings.Cut(address, "@")
	for _, name := range []string{local, domain, address} {
		if config.CheckName(name) == nil && !strings.Contains(name, "+") && file.Account(name) == nil {
			return name
		}
	}
	for i := 2; ; i++ {
		if name := fmt.Sprintf("mail%d", i); file.Account(name) == nil {
			return name
		}
	}
}

// store keeps the password and writes the account.
func (s *setting) store(ctx context.Context, path, name, archive string, ac *account) error {
	keys := []config.Key{{Name: "server", Value: ac.place.String()}, {Name: "archive", Value: archive}}
	l := s.o.secret.login
	for key, value := range map[string]string{
		"ca-file": absoluteOr(s.a.flags.caFile), "tls-fingerprint": s.a.flags.fingerprint, "auth": l.mechanism, "login-as": l.admin,
		"token-command": l.tokenCommand, "client-cert": absoluteOr(l.clientCert), "client-key": absoluteOr(l.clientKey),
	} {
		if value != "" {
			keys = append(keys, config.Key{Name: key, Value: value})
		}
	}
	if l.clientCert != "" && l.clientKey == "" {
		keys = append(keys, config.Key{Name: "client-key", Value: absoluteOr(l.clientCert)})
	}
	slices.SortStableFunc(keys[2:], func(a, b config.Key) int { return strings.Compare(a.Name, b.Name) })
	secret, where, undo, err := s.keep(ctx, path, name, ac)
	if err != nil {
		return err
	}
	if err := config.Add(path, name, append(keys, secret...), newChecker()); err != nil {
		undo()
		return err
	}
	if where != "" {
		s.say("The password is kept in %s.", where)
	}
	s.say("The account %s is in %s.", name, path)
	s.a.interruptHint = "the account is stored; go on with mailhaul backup " + name
	return nil
}

func absoluteOr(path string) string {
	if path == "" {
		return ""
	}
	return absolute(path)
}

// secretsBeside is where passwords are kept that no keyring takes.
func secretsBeside(configuration string) string {
	return filepath.Join(filepath.Dir(configuration), "secrets")
}

// keep stores the password where the account then says it is; undo takes it away.
func (s *setting) keep(ctx context.Context, configuration, name string, ac *account) (keys []config.Key, where string, undo func(), err error) {
	undo = func() {}
	switch o := s.o.secret; {
	case o.command != "":
		return []config.Key{{Name: "password-command", Value: o.command}}, "", undo, nil
	case o.file != "":
		return []config.Key{{Name: "password-file", Value: absolute(o.file)}}, "", undo, nil
	case s.secret == "":
		return nil, "", undo, nil
	}
	if s.o.store == "keyring" || s.o.store == "" && keyring.Available() {
		err := keyring.Set(ctx, ac.key(), s.secret)
		if err == nil {
			return []config.Key{{Name: "keyring", Value: true}}, "the keyring", func() { _ = keyring.Delete(ctx, ac.key()) }, nil
		}
		if s.o.store == "keyring" || ctx.Err() != nil {
			return nil, "", undo, err
		}
		s.a.ui.Warn(err)
	}
	dir := secretsBeside(configuration)
	fsys, err := durable.MakeRoot(dir)
	if err == nil {
		err = os.Chmod(dir, 0o700)
		defer fsys.Close()
	}
	if err == nil {
		err = durable.WriteFileAtomic(fsys, name, []byte(s.secret.Reveal()+"\n"))
	}
	if err != nil {
		return nil, "", undo, &mail.Error{Kind: mail.KindDisk, Op: "keep the password", Err: err}
	}
	path := filepath.Join(dir, name)
	return []config.Key{{Name: "password-file", Value: path}}, path, func() { _ = os.Remove(path) }, nil
}

// goOn offers the first backup and a schedule.
func (s *setting) goOn(ctx context.Context, root *cobra.Command, name string, ac *account) error {
	backup, schedule := s.o.backup, s.o.schedule
	if s.ask && !backup && !s.o.noBackup {
		answer, err := s.a.answer(ctx, "Make the first backup now? [Y/n] ")
		if err != nil {
			return err
		}
		backup = isYes(answer, true)
	}
	var failed error
	if backup {
		failed = s.verb(ctx, root, "backup", name)
	} else {
		s.a.ui.Note("To make a backup: mailhaul backup %s", name)
	}
	if ctx.Err() != nil {
		return failed
	}
	if sub, _, err := root.Find([]string{"schedule"}); err != nil || sub == root {
		return failed
	}
	if s.ask && !schedule && !s.o.noSchedule {
		answer, err := s.a.answer(ctx, "And one every day? [Y/n] ")
		if err != nil {
			return errors.Join(failed, err)
		}
		schedule = isYes(answer, true)
	}
	if schedule {
		return errors.Join(failed, s.verb(ctx, root, "schedule", name, "--daily"))
	}
	s.a.ui.Note("To make one every day: mailhaul schedule %s --daily", name)
	return failed
}

// verb runs another verb, as if it were typed.
func (s *setting) verb(ctx context.Context, root *cobra.Command, args ...string) error {
	s.a.shared.file, s.a.shared.err = config.Load(s.a.flags.config, newChecker())
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}
