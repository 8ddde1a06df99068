package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/discover"
	"mailhaul/internal/durable"
	"mailhaul/internal/keyring"
	"mailhaul/internal/place"
	"mailhaul/internal/ui"
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
	if err != nil {
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
		return nil
	}
	if err := s.store(ctx, file.Path, name, archive, chosen); err != nil {
		return err
	}
	a.ui.Object(struct {
		Type    string `json:"type"`
		Command string `json:"command"`
		Account string `json:"account"`
		Source  string `json:"source"`
		Archive string `json:"archive"`
		Found   string `json:"found"`
		Exit    int    `json:"exit"`
	}{"summary", "setup", name, chosen.key(), archive, s.found.By, exitDone})
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

// find looks for the servers and shows them.
func (s *setting) find(ctx context.Context) error {
	var err error
	if len(s.o.servers) > 0 {
		s.found, err = s.given()
	} else {
		finder := discover.Finder{DNS: net.DefaultResolver, HTTP: discover.HTTPClient(), Autoconfig: s.o.autoconfig, Probe: func(ctx context.Context, p place.Server) error {
			return discover.Reach(ctx, s.server(p))
		}}
		if s.o.nameServer != "" {
			finder.DNS = discover.NameServer(s.o.nameServer)
		}
		s.a.ui.Note("Looking for the servers of %s …", s.address)
		s.found, err = finder.Find(ctx, s.address)
	}
	if err != nil {
		return err
	}
	s.say("%s, found by %s", s.address, s.found.By)
	for _, p := range []*place.Server{s.found.IMAP, s.found.POP3} {
		if p != nil {
			s.say("  %-6s %s", strings.ToUpper(p.Protocol)+":", p)
		}
	}
	if s.found.Provider != nil {
		for _, note := range s.found.Provider.Notes {
			s.say("  %s", note)
		}
		if at := s.found.Provider.AppPassword; at != "" {
			s.say("  App passwords are made at %s", at)
		}
	}
	if s.found.IMAP == nil && s.found.POP3 == nil {
		return usage("name the server: --server imaps://HOST", "%s has no server that mailhaul could use directly", s.found.Provider.Name)
	}
	return s.agree(ctx)
}

// given reads the servers that were named.
func (s *setting) given() (*discover.Found, error) {
	local, _, err := discover.SplitAddress(s.address)
	if err != nil {
		return nil, err
	}
	f := &discover.Found{By: "--server", Users: []string{s.address, local}}
	for _, text := range s.o.servers {
		p, err := place.ParseServer(text)
		if err != nil {
			if p, err = place.WithUser(text, s.address); err != nil {
				return nil, err
			}
		} else {
			f.Users = []string{p.User}
		}
		if p.Protocol == "pop3" {
			f.POP3 = &p
		} else {
			f.IMAP = &p
		}
	}
	return f, nil
}

// agree asks before a password goes where only the domain name system points to.
func (s *setting) agree(ctx context.Context) error {
	if !s.found.Foreign {
		return nil
	}
	if !s.ask {
		return &mail.Error{
			Kind: mail.KindAuth, Err: errors.New("the servers are outside of the domain of the address, and nothing but the domain name system says that they are right"),
			Hint: "if they are, name them: --server " + serverOf(s.found),
		}
	}
	answer, err := s.a.answer(ctx, "These servers are outside of the address's domain. Send the password there? [y/N] ")
	if err == nil && !isYes(answer, false) {
		err = &mail.Error{Err: errors.New("nothing was set up: not confirmed"), Hint: "name the right server: --server imaps://HOST"}
	}
	return err
}

func serverOf(f *discover.Found) string {
	p := f.IMAP
	if p == nil {
		p = f.POP3
	}
	scheme, _, _ := strings.Cut(p.String(), "://")
	return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(p.Host, fmt.Sprint(p.Port)))
}

// server is how a place is connected to.
func (s *setting) server(p place.Server) dial.Server {
	return dial.Server{
		Protocol: p.Protocol, Host: p.Host, Port: p.Port, Security: p.Security, CAFile: s.a.flags.caFile,
		Fingerprint: s.a.flags.fingerprint, AllowCleartext: s.a.flags.allowCleartext, Timeout: s.a.flags.timeout,
	}
}

// test logs in by both protocols, and says what they give. It returns the one to use.
func (s *setting) test(ctx context.Context) (*account, error) {
	chosen, err := s.testOnce(ctx)
	if err != nil && s.ask && !s.again && s.secret != "" && ctx.Err() == nil && refused(err) {
		s.a.ui.Warn(err)
		s.a.ui.Note("Perhaps it was mistyped: once more, and no oftener, since some servers lock accounts.")
		s.again, s.secret = true, ""
		chosen, err = s.testOnce(ctx)
	}
	return chosen, err
}

// refused tells whether a login was refused; err may join several errors.
func refused(err error) bool {
	all := joined(err)
	if all == nil {
		return refusal(err)
	}
	return slices.ContainsFunc(all, func(e error) bool { return e != nil && refused(e) })
}

// testOnce does it with one password.
func (s *setting) testOnce(ctx context.Context) (*account, error) {
	var imapErr, pop3Err error
	if p := s.found.IMAP; p != nil {
		s.imap, imapErr = s.try(ctx, *p)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if p := s.found.POP3; p != nil {
		if s.imap != nil {
			p.User = s.imap.place.User
		}
		// One refusal is enough: a second wrong password may lock the account.
		if untrusted := mail.KindOf(imapErr) == mail.KindAuth; !untrusted || s.found.IMAP == nil {
			s.pop3, pop3Err = s.try(ctx, *p)
		}
	}
	switch {
	case s.imap == nil && s.pop3 == nil:
		return nil, errors.Join(imapErr, pop3Err)
	case s.o.protocol == "imap" && s.imap == nil:
		return nil, s.unwanted("IMAP", imapErr)
	case s.o.protocol == "pop3" && s.pop3 == nil:
		return nil, s.unwanted("POP3", pop3Err)
	}
	for _, err := range []error{imapErr, pop3Err} {
		if err != nil {
			s.a.ui.Warn(err)
		}
	}
	chosen := s.imap
	if chosen == nil || s.o.protocol == "pop3" {
		chosen = s.pop3
	}
	s.explain(chosen)
	return chosen, nil
}

func (s *setting) unwanted(protocol string, err error) error {
	if err != nil {
		return err
	}
	return usage("leave out --protocol", "no %s server was found", protocol)
}

// try logs in at a server, by the names that may be right.
func (s *setting) try(ctx context.Context, p place.Server) (*account, error) {
	var err, first error
	for _, user := range s.found.Users {
		p.User = user
		if s.imap != nil {
			p.User = s.imap.place.User
		}
		var ac account
		if ac, err = s.account(ctx, p); err != nil {
			return nil, err
		}
		var seen string
		if seen, err = s.look(ctx, ac); err == nil {
			s.say("  %-6s logged in as %s: %s", strings.ToUpper(p.Protocol)+":", p.User, seen)
			return &ac, nil
		}
		if s.imap != nil || ac.tokens != nil || mail.KindOf(err) != mail.KindAuth || !refusal(err) {
			break
		}
		if first == nil {
			first = err
		}
	}
	if refusal(err) && first != nil {
		err = first // what was said of the likeliest name
	}
	return nil, err
}

// refusal tells a login that was refused from a connection that is not to be trusted.
func refusal(err error) bool {
	e, ok := errors.AsType[*mail.Error](err)
	return ok && e.Op == "log in"
}

// account is a place with its password, which is asked for once.
func (s *setting) account(ctx context.Context, p place.Server) (account, error) {
	ac, err := s.a.account(ctx, p.String(), s.o.secret, nil, nil)
	if err != nil {
		return ac, err
	}
	if s.found.Provider != nil && s.found.Provider.OAuthOnly && ac.tokens == nil {
		return ac, &mail.Error{Kind: mail.KindAuth, Err: fmt.Errorf("%s takes no password", s.found.Provider.Name), Hint: "register a client id (docs/oauth.md), then: mailhaul login " + p.String() + " --client-id ID, and mailhaul setup again"}
	}
	if s.secret != "" {
		ac.secret = config.Password{Given: s.secret}
		return ac, nil
	}
	if ac.tokens != nil || ac.secret.Command != "" || ac.secret.File != "" {
		return ac, nil
	}
	if s.again { // what other places have was refused
		ac.secret = config.Password{Prompt: ac.secret.Prompt}
	}
	ac.secret.User, ac.secret.Host = s.address, p.Host
	if s.secret, err = ac.secret.Find(ctx); err != nil {
		return ac, err
	}
	ac.secret = config.Password{Given: s.secret}
	return ac, nil
}

// look logs in and counts.
func (s *setting) look(ctx context.Context, ac account) (string, error) {
	c, err := ac.credentials(ctx)
	if err != nil {
		return "", err
	}
	src, err := s.a.openSource(ac.server, c, 1)
	if err != nil {
		return "", err
	}
	boxes, err := src.Mailboxes(ctx)
	if err = errors.Join(err, src.Close()); err != nil {
		return "", err
	}
	var messages int64
	known := true
	for _, b := range boxes {
		known = known && b.Messages >= 0
		messages += b.Messages
	}
	text := ui.Plural(int64(len(boxes)), "mailbox")
	if known {
		text = ui.Plural(messages, "message") + " in " + text
	}
	return text, nil
}

// explain says what the protocols mean for this person.
func (s *setting) explain(chosen *account) {
	switch {
	case chosen.place.Protocol == "pop3" && s.imap != nil:
		s.say("POP3 is used, as you asked: it sees the INBOX only, and not which messages were read or flagged. IMAP would see all mailboxes.")
	case chosen.place.Protocol == "pop3":
		s.say("Only POP3 works here: it sees the INBOX and no other mailbox, and not which messages were read or flagged. What you sent is not in it.")
	case s.pop3 != nil:
		s.say("IMAP is used: it sees all mailboxes, and what was read or flagged. POP3 would see the INBOX only.")
	default:
		s.say("IMAP is used: it sees all mailboxes, and what was read or flagged.")
	}
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
	if file.Account(name) != nil {
		return "", "", usage("choose another --name, or mailhaul account remove "+name, "there is an account %q already", name)
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
	dir := filepath.Join(filepath.Dir(configuration), "secrets")
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
