package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/fetch"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/undo"
	"mailhaul/upload"
)

type undoFlags struct {
	secret secretFlags
	since  time.Time
	dryRun bool
}

func newUndo(a *app) *cobra.Command {
	var o undoFlags
	cmd := &cobra.Command{
		Use:   "undo ARCHIVE SOURCE | undo ACCOUNT",
		Short: "Put back at the server what clean or backup --delete deleted there",
		Long: `undo puts back at the server what mailhaul clean and mailhaul backup --delete with
this archive deleted there: with flags, keywords and dates (INTERNALDATE), each
message once, also if it is stopped and run again. What lies in the server's trash is
moved back, the rest is appended from the archive. The next backup adds nothing.

It takes IMAP. What was deleted over POP3 can be put back over IMAP if the server
has both.`,
		Example: `  mailhaul undo ~/Mail imaps://ada@example.org --dry-run
  mailhaul undo ~/Mail imaps://ada@example.org
  mailhaul undo ~/Mail imaps://ada@example.org --deleted-since 2026-01-31`,
		Args: arguments(1, 2, "an ARCHIVE and a SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			args, err := a.sides(cmd, args, 1, "an ARCHIVE and a SOURCE")
			if err != nil {
				return err
			}
			return a.undo(cmd.Context(), args[0], args[1], o)
		},
	}
	o.secret.register(cmd)
	f := cmd.Flags()
	f.Func("deleted-since", "only what was deleted from this `TIME` on (2024-12-31, or RFC 3339)", func(v string) (err error) {
		o.since, err = parseDate(v)
		return err
	})
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "say what would be put back, and change nothing")
	return cmd
}

func (a *app) undo(ctx context.Context, archive, source string, o undoFlags) error {
	return a.transfer(ctx, uploadSummary("undo", o.dryRun), func(ctx context.Context, s *ui.Summary, label *string) error {
		return a.undoInto(ctx, archive, source, o, s, label)
	})
}

// undoInto reads what was typed and opens both sides.
func (a *app) undoInto(ctx context.Context, archive, source string, o undoFlags, s *ui.Summary, label *string) (err error) {
	from, err := a.archivePlace(archive, "")
	if err != nil {
		return err
	}
	ac, err := a.account(ctx, source, o.secret, nil)
	if err != nil {
		return err
	}
	s.Archive, s.Dest, *label = absolute(from.Dir), ac.key(), ac.label()
	if ac.server.Protocol == "pop3" {
		return &mail.Error{Kind: mail.KindLacking, Ref: mail.Ref{Account: ac.key()}, Err: errors.New("POP3 has no way to put a message into a mailbox"),
			Hint: "if the server has IMAP, too: mailhaul undo " + archive + " imaps://" + ac.place.User + "@" + ac.place.Host +
				"; every message is in the archive, and mailhaul upload sends it to any IMAP server"}
	}
	v, err := a.openVault(ctx, from, vault.Options{ReadOnly: o.dryRun, Notify: a.warnings})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	credentials, err := ac.credentials(ctx)
	if err != nil {
		return err
	}
	src, err := a.openSource(ac.server, credentials, defaultConnections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dest, err := openDestination(ac.server, credentials, defaultConnections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dest.Close()) }()
	return a.putBack(ctx, src, dest, v, o, s)
}

// putBack runs the engine.
func (a *app) putBack(ctx context.Context, src fetch.Source, dest upload.Destination, v *vault.Vault, o undoFlags, s *ui.Summary) error {
	accounts, err := v.Ledger.Accounts(ctx)
	if err != nil {
		return err
	}
	accounts = slices.DeleteFunc(accounts, func(account string) bool { return !vault.SameUser(account, dest.Account()) })
	run, end := a.show(mail.AccountLabel(dest.Account()))
	defer end()
	res, err := undo.Run(ctx, undo.Options{
		Source: src, Destination: dest, Archive: v.Archive, Ledger: v.Ledger, Accounts: accounts, Since: o.since,
		DryRun: o.dryRun, Parallel: defaultConnections, Notify: run.Notify,
	})
	end()
	fillUpload(s, res.Counts)
	for _, m := range res.Mailboxes {
		a.ui.UploadMailbox(uploadTotals(m))
	}
	if res.Moved > 0 {
		a.ui.Note("%s moved back from the trash", ui.Plural(res.Moved, "message"))
	}
	if err == nil {
		err = s.Balance()
	}
	return err
}
