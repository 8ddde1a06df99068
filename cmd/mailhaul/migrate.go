package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/fetch"
	"mailhaul/internal/durable"
	"mailhaul/internal/ledger"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/migrate"
	"mailhaul/upload"
)

type migrateFlags struct {
	destFlags
	own       secretFlags
	selection selectionFlags
	archive   string
}

func newMigrate(a *app) *cobra.Command {
	var o migrateFlags
	cmd := &cobra.Command{
		Use:   "migrate SOURCE DEST",
		Short: "POP3 or IMAP to IMAP, every message once",
		Long: `migrate sends the messages of one server to another, with their flags, keywords
and dates. Run it days ahead, again and again while both are in use, and a last time
after the switch: a later run sends only what is new and follows flags that changed
at the source; flags changed at the destination stay. Mail that is there already,
from other programs too, is recognised by content and not sent twice. A run may be
stopped or cut off at any point; the same command run again goes on. Nothing is
changed at the source, and nothing is removed at either.

How far each message got is remembered below $XDG_STATE_HOME/mailhaul/migrate; if
that is lost, it is learnt again by content. With --archive the messages are kept
in an archive on the way, and it remembers.

The source's password is found as backup does. The destination's comes from
--dest-password-command, --dest-password-file, MAILHAUL_DEST_PASSWORD, ~/.netrc or a
question on the terminal.`,
		Example: `  mailhaul migrate imaps://ada@old.example.org imaps://ada@new.example.org --dry-run
  mailhaul migrate imaps://ada@old.example.org imaps://ada@new.example.org
  mailhaul migrate pop3s://ada@old.example.org imaps://ada@new.example.org --mark-seen
  mailhaul migrate imaps://ada@old.example.org imaps://ada@new.example.org --archive ~/Mail`,
		Args: arguments(2, 2, "a SOURCE and a DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.adoptFrom(cmd, args[0]); err != nil {
				return err
			}
			return a.migrate(cmd.Context(), args[0], args[1], o)
		},
	}
	o.own.register(cmd)
	o.destFlags.register(cmd)
	o.selection.register(cmd)
	cmd.Flags().StringVar(&o.archive, "archive", "", "keep a copy of every message in the archive `DIR`")
	return cmd
}

func (a *app) migrate(ctx context.Context, source, dest string, o migrateFlags) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	began := time.Now()
	s := ui.Summary{
		Command: "migrate", DryRun: o.dryRun,
		Listed: new(int64), Uploaded: new(int64), Adopted: new(int64), Skipped: new(int64), Failed: new(int64),
	}
	label := "mailhaul"
	err := a.migrateFrom(ctx, source, dest, o, &s, &label)
	s.Seconds = time.Since(began).Seconds()
	return a.conclude(ctx, label, s, err)
}

func (a *app) migrateFrom(ctx context.Context, source, dest string, o migrateFlags, s *ui.Summary, label *string) (err error) {
	selection, err := o.selection.selection()
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	trace, closeTrace, err := a.openTrace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeTrace()) }()
	from, err := a.account(ctx, source, o.own, o.limit, trace)
	if err != nil {
		return err
	}
	to, err := a.destination(ctx, dest, o.destFlags, trace)
	if err != nil {
		return err
	}
	to.secret.Env = "MAILHAUL_DEST_PASSWORD" // the source's is no guess to make
	if o.fingerprint == "" && a.flags.fingerprint != "" {
		to.server.Fingerprint = "" // that of the source
		if to.named != nil {
			to.server.Fingerprint = to.named.Fingerprint
		}
	}
	s.Source, s.Dest, *label = from.key(), to.key(), from.label()
	switch {
	case to.server.Protocol != "imap":
		return usage("write imaps://USER@HOST", "messages cannot be added over %s", to.server.Protocol)
	case from.key() == to.key() && from.server.Addr() == to.server.Addr():
		return usage("", "source and destination are the same account")
	}
	fromSecret, err := from.credentials(ctx)
	if err != nil {
		return err
	}
	toSecret, err := to.credentials(ctx)
	if err != nil {
		return err
	}
	src, err := a.openSource(from.server, fromSecret, o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	d, err := openDestination(to.server, toSecret, o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if o.archive != "" {
		return a.migrateOver(ctx, src, d, selection, parallel(from.server, o.connections), o, s)
	}
	return a.migrateThrough(ctx, src, d, selection, parallel(from.server, o.connections), o, s)
}

// migrateThrough keeps no octets.
func (a *app) migrateThrough(ctx context.Context, src fetch.Source, d upload.Destination, selection mail.Selection, connections int, o migrateFlags, s *ui.Summary) (err error) {
	dir, err := migrationDir(src.Account(), d.Account(), s.Source+" "+s.Dest)
	if err != nil {
		return err
	}
	l, closeLedger, err := a.migrationLedger(ctx, dir, o.dryRun)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLedger()) }()
	run, end := a.show(mail.AccountLabel(d.Account()))
	defer end()
	u := upload.Options{Mapping: o.mapping(), MarkSeen: o.markSeen, Subscribe: o.subscribe, SendRepaired: o.sendRepaired, DryRun: o.dryRun, Parallel: o.connections}
	if o.dryRun {
		u.Plan = a.showPlan
	}
	res, err := migrate.Run(ctx, migrate.Options{
		Source: src, Destination: d, Ledger: l, Selection: selection, Upload: u, Parallel: connections, Dir: dir, Notify: run.Notify,
	})
	end()
	fillUpload(s, res.Counts)
	for _, m := range res.Mailboxes {
		a.ui.UploadMailbox(uploadTotals(m))
	}
	if u, ok := l.(uidlSource); ok && o.uidlMap != "" && !o.dryRun {
		err = errors.Join(err, a.writeUIDLMap(ctx, u, "to:"+d.Account(), o.uidlMap))
	}
	if err == nil {
		err = s.Balance()
	}
	return err
}

// migrationDir is where the ledger of two accounts lies.
func migrationDir(from, to, more string) (string, error) {
	state := vault.StateDir()
	if state == "" {
		return "", &mail.Error{Kind: mail.KindDisk, Op: "find state directory", Err: errors.New("there is no home directory"), Hint: "set XDG_STATE_HOME"}
	}
	sum := sha256.Sum256([]byte(from + "\x00" + to + "\x00" + more))
	readable := strings.Map(func(r rune) rune {
		if r == '@' || r == '.' || r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, mail.AccountLabel(from)+"--"+mail.AccountLabel(to))
	return filepath.Join(state, "migrate", readable[:min(len(readable), 150)]+"-"+hex.EncodeToString(sum[:4])), nil
}

// migrationLedger opens the ledger of a migration under its lock.
func (a *app) migrationLedger(ctx context.Context, dir string, dryRun bool) (migrate.Ledger, func() error, error) {
	if dryRun {
		l, err := ledger.OpenReadOnly(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return unknown{}, func() error { return nil }, nil
		}
		if err != nil {
			return nil, nil, err
		}
		return l, l.Close, nil
	}
	root, err := durable.MakeRoot(dir)
	if err != nil {
		return nil, nil, &mail.Error{Kind: mail.KindDisk, Op: "make " + dir, Err: err}
	}
	_ = root.Close() // it is there; the ledger opens it again
	lock, err := durable.LockFile(ctx, filepath.Join(dir, "lock"), a.flags.lockWait)
	if errors.Is(err, durable.ErrLocked) {
		return nil, nil, &mail.Error{Kind: mail.KindTemporary, Op: "migrate", Err: errors.New("another run is migrating these accounts"),
			Hint: "wait for it to end, or use --lock-wait"}
	}
	if err != nil {
		return nil, nil, &mail.Error{Kind: mail.KindDisk, Op: "lock " + dir, Err: err}
	}
	l, err := ledger.Open(dir, ledger.Options{Format: "maildir"})
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	if err := l.Rebuilt(ctx); err != nil { // there are no octets to learn from
		return nil, nil, errors.Join(err, l.Close(), lock.Close())
	}
	return l, func() error { return errors.Join(l.Close(), lock.Close()) }, nil
}

// unknown is the ledger of a migration that never ran.
type unknown struct{ noLedger }

func (unknown) Accounts(context.Context) ([]string, error)                                { return nil, nil }
func (unknown) Uploads(context.Context, string, string, func(mail.Upload) error) error    { return nil }
func (unknown) OpenUploads(context.Context, string, string) ([]mail.Upload, error)        { return nil, nil }
func (unknown) IntendUploads(context.Context, mail.Sending) ([]int64, error)              { return nil, errNoLedger }
func (unknown) SettleUploads(context.Context, []mail.Uploaded) error                      { return errNoLedger }
func (unknown) Messages(context.Context, string, func(mail.Held) error) error             { return nil }
func (unknown) MessagesAfter(context.Context, string, int64, func(mail.Held) error) error { return nil }
func (unknown) Note(context.Context, string) (string, error)                              { return "", nil }
func (unknown) SetNotes(context.Context, map[string]string) error                         { return errNoLedger }

// migrateOver fills an archive first and sends it on.
func (a *app) migrateOver(ctx context.Context, src fetch.Source, d upload.Destination, selection mail.Selection, connections int, o migrateFlags, s *ui.Summary) (err error) {
	if o.dryRun {
		return usage("mailhaul backup --dry-run and mailhaul upload --dry-run show both halves", "--archive and --dry-run do not go together")
	}
	place, err := a.archivePlace(o.archive, "")
	if err != nil {
		return err
	}
	mailboxes, err := src.Mailboxes(ctx)
	if err != nil {
		return err
	}
	v, err := a.openVault(ctx, place, vault.Options{Create: true, Notify: a.warnOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	s.Archive = v.Path()
	if err := v.Admit(src.Account(), false); err != nil {
		return err
	}
	run, end := a.show(mail.AccountLabel(src.Account()))
	defer end()
	got, err := fetch.Run(ctx, fetch.Options{Source: src, Archive: v.Archive, Ledger: v.Ledger, Selection: selection, Parallel: connections, Notify: run.Notify})
	end()
	if err != nil && (ctx.Err() != nil || mail.KindOf(err) == mail.KindDisk || mail.KindOf(err) == mail.KindUsage) {
		return err
	}
	fetched := err
	defer func() {
		if o.uidlMap != "" {
			err = errors.Join(err, a.writeUIDLMap(ctx, v.Ledger, d.Account(), o.uidlMap))
		}
	}()
	archived := upload.FromArchive(v.Ledger, v.Archive)
	if err := a.send(ctx, upload.Options{Destination: d, Messages: ofSource{archived, mailboxes}, Ledger: v.Ledger, Selection: selection}, o.destFlags, s); err != nil {
		return errors.Join(fetched, err)
	}
	*s.Failed += got.Failed // they never came
	*s.Listed += got.Failed
	if fetched == nil && got.Suspicious > 0 {
		a.ui.Warn(fmt.Errorf("%d messages may not be what the source should have sent", got.Suspicious))
	}
	return fetched
}

// ofSource is what an archive has of the source's mailboxes, with their roles there.
type ofSource struct {
	messages
	source []mail.Mailbox
}

type messages interface{ upload.Messages }

func (o ofSource) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return slices.Clone(o.source), nil
}
