package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/demo"
	"mailhaul/internal/dial"
	"mailhaul/internal/place"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

func newDemo(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo [DIR]",
		Short: "Try it: servers and mail are built in",
		Long: `demo starts an IMAP and a POP3 server on this machine, with TLS and some hundred
made-up messages, and works on them with the same code as the other verbs: it
backs them up over POP3, then over IMAP, verifies the archive, and backs up once more
to show that nothing is new. The archive stays in DIR (./mailhaul-demo), to look at.`,
		Example: "  mailhaul demo\n  mailhaul demo mbox:/tmp/mailhaul-demo",
		Args:    arguments(0, 1, "at most a DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "mailhaul-demo"
			if len(args) > 0 {
				dir = args[0]
			}
			return a.demo(cmd.Context(), dir)
		},
	}
}

// demoMark lies in the archive's own directory and says that it is a demo.
const demoMark = "demo"

func (a *app) demo(ctx context.Context, typed string) (err error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	dest, err := place.ParseArchive(typed)
	if err != nil {
		return err
	}
	if err := checkDemo(dest.Dir); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "mailhaul-demo-")
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "demo", Err: err}
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	a.stateDir = filepath.Join(scratch, "state") // a demo is not worth remembering
	servers, err := demo.Serve(demo.Account())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Close()) }()
	ca := filepath.Join(scratch, "ca.pem")
	if err := os.WriteFile(ca, servers.CA, 0o600); err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "demo", Err: err}
	}
	pop3 := dial.Server{Protocol: "pop3", Host: demo.Host, Port: servers.POP3Port, CAFile: ca, Timeout: a.flags.timeout}
	imap := dial.Server{Protocol: "imap", Host: demo.Host, Port: servers.IMAPPort, CAFile: ca, Timeout: a.flags.timeout}
	a.ui.Note("An IMAP and a POP3 server run at %s, for as long as this takes. Their user is %s.", demo.Host, demo.User)
	steps := []struct {
		note string
		do   func() error
	}{
		{"\nBack up over POP3, which shows the INBOX only:", func() error { return a.demoBackup(ctx, pop3, dest) }},
		{"\nBack up over IMAP, which shows all mailboxes. The INBOX is recognised by content, not stored twice:", func() error { return a.demoBackup(ctx, imap, dest) }},
		{"\nRead every octet back:", func() error { return a.verify(ctx, []string{dest.Dir}, verifyFlags{share: 1, connections: 1}) }},
		{"\nBack up once more. Nothing is new:", func() error { return a.demoBackup(ctx, imap, dest) }},
	}
	for _, step := range steps {
		a.note(step.note)
		if err := step.do(); err != nil {
			return err
		}
	}
	return a.demoEnd(ctx, dest)
}

// note prints a paragraph for a person.
func (a *app) note(text string) {
	if text[0] == '\n' {
		a.ui.Note("")
		text = text[1:]
	}
	a.ui.Note("%s", text)
}

// checkDemo refuses a directory that holds something else.
func checkDemo(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case os.IsNotExist(err) || err == nil && len(entries) == 0:
		return nil
	case err != nil:
		return usage("name a directory for the demo", "%v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, vault.Dir, demoMark)); err != nil {
		return usage("name an empty directory or a new one: mailhaul demo DIR", "%s is not empty and holds no demo", dir)
	}
	return nil
}

func (a *app) demoBackup(ctx context.Context, server dial.Server, dest place.Archive) error {
	began := time.Now()
	p := place.Server{Protocol: server.Protocol, Security: server.Security, User: demo.User, Host: server.Host, Port: server.Port}
	a.ui.Note("$ mailhaul backup %s %s", p, dest.Dir)
	s := backupSummary(false)
	credentials := auth.Credentials{User: demo.User, Password: demo.Password}
	err := a.copyFrom(ctx, server, credentials, dest, mail.Selection{}, backupFlags{connections: defaultConnections}, &s)
	if err == nil {
		err = os.WriteFile(filepath.Join(dest.Dir, vault.Dir, demoMark), nil, 0o600)
	}
	s.Seconds = time.Since(began).Seconds()
	return a.conclude(ctx, demo.User, s, err)
}

// demoEnd says how to go on.
func (a *app) demoEnd(ctx context.Context, dest place.Archive) (err error) {
	v, err := a.openToRead(ctx, dest.Dir)
	if err != nil {
		return err
	}
	inbox := filepath.Join(dest.Dir, "INBOX")
	if v.Format() == "mbox" {
		inbox += ".mbox"
	}
	if err := v.Close(); err != nil {
		return err
	}
	a.note("\nThe archive stays in " + dest.Dir + ". Look at it:")
	for _, line := range []string{
		"mailhaul ls " + dest.Dir,
		"mailhaul ls " + dest.Dir + " INBOX",
		"mailhaul cat " + dest.Dir + " INBOX 1",
		"mutt -R -f " + inbox,
	} {
		a.note("  " + line)
	}
	return nil
}
