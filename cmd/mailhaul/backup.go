package main

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"mailhaul/fetch"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/place"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// defaultConnections is how many connections an IMAP server is asked for.
const defaultConnections = 4

type backupFlags struct {
	secret      secretFlags
	selection   selectionFlags
	format      string
	connections int
	limit       *rate.Limiter
	daily       int64 // octets
	fresh       bool  // --new
	merge       bool
	dryRun      bool
	free        freeFlags
}

func newBackup(a *app) *cobra.Command {
	var o backupFlags
	cmd := &cobra.Command{
		Use:   "backup SOURCE ARCHIVE | backup ACCOUNT | backup --all",
		Short: "Copy what is new into the archive",
		Long: `backup copies the messages that the archive does not have yet, and nothing else:
nothing is changed at the server, no message is marked as read. A run may be
stopped or cut off at any point; the same command run again goes on.

With --delete it then frees the server of every selected message that this archive
proves to hold (read back, and asked about again), those of earlier runs too, except
flagged mail, and without asking: see mailhaul clean --help for how, and mailhaul
undo for the way back.

An account of the configuration has both: mailhaul backup ACCOUNT. --all takes every
account, several at once; one that fails does not stop the others, and the worst exit
code counts. What is typed goes before what the configuration says.

SOURCE is imaps://USER@HOST or pop3s://USER@HOST (imap:// and pop3:// ask for
STARTTLS and STLS). ARCHIVE is a directory; it is made as Maildir, or as mbox if
it is written mbox:DIR on the first run.

The password is taken from the first of these that is there: --password-command,
--password-file, MAILHAUL_PASSWORD, what the configuration says of the account, the
keyring of the system, ~/.netrc, a question on the terminal. The command is run
without a shell; write sh -c '…' if it needs one.

The selection flags only narrow. Dates are the server's (INTERNALDATE; over POP3
the topmost Received line).`,
		Example: `  mailhaul backup imaps://ada@example.org ~/Mail
  mailhaul backup pop3s://ada@mail.example.net mbox:~/Mail --password-file ~/.mail-password
  mailhaul backup imaps://ada@example.org ~/Mail --mailbox INBOX --mailbox 'Archive/**' --newer-than 1y
  mailhaul backup imaps://ada@example.org ~/Mail -q --max-time 50m    # from cron
  mailhaul backup home                                           # an account of the configuration
  mailhaul backup --all -q
  mailhaul backup pop3s://ada@mail.example.net ~/Mail --delete --keep 30d
  mailhaul backup imaps://ada@example.org ~/Mail --dry-run`,
		Args: arguments(1, 2, "a SOURCE and an ARCHIVE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.wantsAll(cmd) {
				return a.every(cmd, together)
			}
			args, err := a.sides(cmd, args, 0, "a SOURCE and an ARCHIVE")
			if err != nil {
				return err
			}
			return a.remembered(cmd, args[0], func() error { return a.backup(cmd.Context(), args[0], args[1], o) })
		},
	}
	registerAll(cmd)
	o.secret.register(cmd)
	o.selection.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", "make the archive as `maildir|mbox` (first run only; default maildir)")
	f.IntVar(&o.connections, "connections", defaultConnections, "at most `N` connections to an IMAP server")
	f.Func("limit-rate", "at most this `RATE` in octets per second (500K, 2M)", func(v string) (err error) {
		o.limit, err = parseRate(v)
		return err
	})
	registerDaily(f, &o.daily)
	f.BoolVar(&o.fresh, "new", false, "begin a new archive where one was remembered and is gone")
	f.BoolVar(&o.merge, "merge", false, "let another user's mail into this archive")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "say what would be copied, and change nothing")
	o.free.register(cmd)
	return cmd
}

func (a *app) backup(ctx context.Context, source, archive string, o backupFlags) error {
	return a.transfer(ctx, backupSummary(o.dryRun), func(ctx context.Context, s *ui.Summary, label *string) error {
		return a.backupInto(ctx, source, archive, o, s, label)
	})
}

// backupSummary holds every counter a backup can have.
func backupSummary(dryRun bool) ui.Summary {
	return ui.Summary{
		Command: "backup", DryRun: dryRun,
		Listed: new(int64), Archived: new(int64), Adopted: new(int64), Deleted: new(int64), Skipped: new(int64), Failed: new(int64), Suspicious: new(int64),
	}
}

// backupInto reads what was typed, opens both sides and runs the engine.
func (a *app) backupInto(ctx context.Context, source, archive string, o backupFlags, s *ui.Summary, label *string) (err error) {
	selection, err := o.selection.selection()
	if err != nil {
		return err
	}
	if o.connections < 1 || o.connections > 50 {
		return usage("write a number from 1 to 50", "--connections %d makes no sense", o.connections)
	}
	if err := o.free.check(); err != nil {
		return err
	}
	dest, err := a.archivePlace(archive, o.format)
	if err != nil {
		return err
	}
	ac, err := a.account(ctx, source, o.secret, o.limit)
	if err != nil {
		return err
	}
	s.Source, s.Archive, *label = ac.key(), absolute(dest.Dir), ac.label()
	if err := a.lookAt(dest, vault.Options{Create: true, New: o.fresh}); err != nil {
		return err
	}
	credentials, err := ac.credentials(ctx)
	if err != nil {
		return err
	}
	ctx, done, err := a.daily(ctx, &ac, o.daily)
	if err != nil {
		return err
	}
	defer done()
	return a.copyFrom(ctx, ac.server, credentials, dest, selection, o, s)
}

// copyFrom connects the two sides.
func (a *app) copyFrom(ctx context.Context, server dial.Server, c auth.Credentials, dest place.Archive, selection mail.Selection, o backupFlags, s *ui.Summary) (err error) {
	src, err := a.openSource(server, c, o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	selectMailboxes(src, selection)
	s.Source, s.Archive = src.Account(), absolute(dest.Dir)
	opts := fetch.Options{Source: src, Selection: selection, DryRun: o.dryRun, Parallel: parallel(server, o.connections), Share: a.shared.atOnce}
	return a.copyInto(ctx, opts, dest, o, s)
}

// copyInto opens the archive and runs the engine. An archive that does not exist
// yet is made only once the server has let us in and has the mailboxes asked for.
func (a *app) copyInto(ctx context.Context, opts fetch.Options, dest place.Archive, o backupFlags, s *ui.Summary) (err error) {
	run, end := a.show(mail.AccountLabel(opts.Source.Account()))
	defer end()
	opts.Notify = run.Notify
	opts.Ledger = noLedger{}
	missing := !vaultExists(dest.Dir)
	if missing && !o.dryRun {
		if e, ok := opts.Source.(fetch.Expecter); ok {
			e.ExpectAll()
		}
		if opts.Mailboxes, err = fetch.Select(ctx, opts.Source, opts.Selection); err != nil {
			return err
		}
	}
	var v *vault.Vault
	if !missing || !o.dryRun {
		v, err = a.openVault(ctx, dest, vault.Options{Create: true, New: o.fresh, ReadOnly: o.dryRun, Notify: run.Notify})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeBoth(opts.Source, v)) }()
		if err := v.Admit(opts.Source.Account(), o.merge); err != nil {
			return err
		}
		opts.Archive, opts.Ledger = v.Archive, v.Ledger
		s.Archive = v.Path()
		if err := v.KeepCopy(ctx, run.Notify); err != nil {
			return err
		}
	}
	res, err := a.fetchAndFree(ctx, opts, o.free, v, s)
	end()
	c := res.Counts
	s.Listed, s.Archived, s.Adopted, s.Skipped = &c.Listed, &c.Archived, &c.Adopted, &c.Skipped
	s.Failed, s.Suspicious, s.Octets = &c.Failed, &c.Suspicious, c.Octets
	if o.dryRun {
		s.Octets = run.Planned()
	}
	for _, m := range res.Mailboxes {
		a.ui.Mailbox(mailboxTotals(m))
	}
	if err == nil {
		err = s.Balance()
	}
	return err
}

// closeBoth ends the session while the ledger is closed: whatever was read is recorded
// by then, or the source knows that it was not.
func closeBoth(src fetch.Source, v *vault.Vault) error {
	var left error
	var wg sync.WaitGroup
	wg.Go(func() { left = src.Close() })
	err := v.Close()
	wg.Wait()
	return errors.Join(err, left)
}

func mailboxTotals(m fetch.MailboxResult) ui.Mailbox {
	t := ui.Mailbox{
		Mailbox: m.Name, Listed: m.Listed, Archived: m.Archived, Adopted: m.Adopted,
		Skipped: m.Skipped, Failed: m.Failed, Suspicious: m.Suspicious, Octets: m.Octets,
	}
	if m.Err != nil {
		t.Error = m.Err.Error()
	}
	return t
}

// noLedger stands for the ledger of an archive that does not exist: nothing is
// known, and nothing can be recorded.
type noLedger struct{}

var errNoLedger = errors.New("there is no archive")

func (noLedger) Cursor(context.Context, string, string) (string, error) { return "", nil }
func (noLedger) Claims(context.Context, string, string, func(mail.Claim) error) error {
	return nil
}
func (noLedger) Free(context.Context, string, string, func(mail.Held) error) error { return nil }
func (noLedger) Trashed(context.Context, string, string, func(mail.Held) error) error {
	return nil
}
func (noLedger) Same(context.Context, string, string) ([]mail.Held, error) { return nil, nil }
func (noLedger) Message(context.Context, int64) (mail.Held, error)         { return mail.Held{}, errNoLedger }
func (noLedger) Record(context.Context, mail.Change) error                 { return errNoLedger }
