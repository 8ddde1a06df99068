package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/fetch"
	"mailhaul/internal/config"
	"mailhaul/internal/durable"
	"mailhaul/internal/ledger"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/migrate"
	"mailhaul/upload"
)

type migrateFlags struct {
	daily int64 // octets, of the source
	destFlags
	own       secretFlags
	selection selectionFlags
	archive   string
	remove    removeFlags
}

// removeFlags are those that delete.
type removeFlags struct {
	source, extra, yes bool
	ceiling            ceiling
}

func (o *removeFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.source, "delete-source", false, "delete at the source what was read back from the destination and is the same, octet for octet")
	f.BoolVar(&o.extra, "delete-extra", false, "remove at the destination what was sent by migrate and the source lacked in two runs (IMAP only); asks first")
	f.BoolVar(&o.yes, "yes", false, "do not ask before --delete-extra removes something")
	o.ceiling.register(f)
}

func (o *removeFlags) check(protocol string) error {
	switch {
	case o.extra && protocol != "imap":
		return usage("over POP3 nothing can be concluded from a message that is not there", "--delete-extra needs an IMAP source")
	case o.yes && !o.extra:
		return usage("add --delete-extra, or leave it out", "--yes answers what only --delete-extra asks")
	case o.ceiling.set && !o.extra && !o.source:
		return usage("add --delete-source or --delete-extra, or leave it out", "--max-delete says what these may do")
	}
	return nil
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
stopped or cut off at any point; the same command run again goes on. Empty mailboxes
and subscriptions go along, once. Unless asked to, nothing is changed at the source,
and nothing is removed at either.

--delete-source deletes at the source what the destination holds: the copy is read
back, and the message goes only if both are the same, octet for octet. It does not
ask. --delete-extra removes at the destination what migrate itself put there and
nobody changed, once the source lacked it in two runs; a mailbox that vanished, was
renamed or emptied there removes nothing. It shows what would go, and asks; without a
terminal it needs --yes, and without --max-delete it does not take more than half of
a mailbox of over 100 messages.

How far each message got is remembered below $XDG_STATE_HOME/mailhaul/migrate; if
that is lost, it is learnt again by content. With --archive the messages are kept
in an archive on the way, and it remembers.

The source's password is found as backup does. The destination's comes from
--dest-password-command, --dest-password-file, MAILHAUL_DEST_PASSWORD, and then as the
source's.`,
		Example: `  mailhaul migrate imaps://ada@old.example.org imaps://ada@new.example.org --dry-run
  mailhaul migrate imaps://ada@old.example.org imaps://ada@new.example.org
  mailhaul migrate pop3s://ada@old.example.org imaps://ada@new.example.org --mark-seen
  mailhaul migrate imaps://ada@old.example.org imaps://ada@new.example.org --archive ~/Mail
  mailhaul migrate imaps://ada@old.example.org imaps://ada@new.example.org --delete-extra --yes --max-delete 500`,
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
	registerDaily(cmd.Flags(), &o.daily)
	o.remove.register(cmd)
	return cmd
}

func (a *app) migrate(ctx context.Context, source, dest string, o migrateFlags) error {
	sum := uploadSummary("migrate", o.dryRun)
	sum.Deleted = new(int64) // with --delete-source
	return a.transfer(ctx, sum, func(ctx context.Context, s *ui.Summary, label *string) error {
		return a.migrateFrom(ctx, source, dest, o, s, label)
	})
}

func (a *app) migrateFrom(ctx context.Context, source, dest string, o migrateFlags, s *ui.Summary, label *string) (err error) {
	selection, err := o.selection.selection()
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	from, err := a.account(ctx, source, o.own, o.limit)
	if err != nil {
		return err
	}
	to, err := a.destination(ctx, dest, o.destFlags)
	if err != nil {
		return err
	}
	to.secret.Env = config.DestEnv // the source's is no guess to make
	if o.fingerprint == "" && a.flags.fingerprint != "" {
		to.server.Fingerprint = "" // that of the source
		if to.named != nil {
			to.server.Fingerprint = to.named.Fingerprint
		}
		if err := a.usePin(&to.server); err != nil {
			return err
		}
	}
	s.Source, s.Dest, *label = from.key(), to.key(), from.label()
	switch {
	case destinations[to.server.Protocol] == nil:
		return usage("write imaps://USER@HOST", "messages cannot be added over %s", to.server.Protocol)
	case from.key() == to.key() && from.server.Addr() == to.server.Addr():
		return usage("", "source and destination are the same account")
	}
	if err := o.remove.check(from.server.Protocol); err != nil {
		return err
	}
	fromSecret, err := from.credentials(ctx)
	if err != nil {
		return err
	}
	toSecret, err := to.credentials(ctx)
	if err != nil {
		return err
	}
	ctx, done, err := a.daily(ctx, &from, o.daily)
	if err != nil {
		return err
	}
	defer done()
	src, err := a.openSource(from.server, fromSecret, o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	selectMailboxes(src, selection)
	d, err := openDestination(to.server, toSecret, o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(movingLimit)
	}
	m := &migration{
		app: a, flags: o, src: src, dest: d, s: s,
		options: migrate.Options{
			Source: src, Destination: d, Selection: selection, Parallel: parallel(from.server, o.connections), Now: steady(),
			Upload: upload.Options{
				Mapping: o.mapping(), MarkSeen: o.markSeen, Subscribe: o.subscribe, SendRepaired: o.sendRepaired, DryRun: o.dryRun, Parallel: o.connections,
			},
		},
		reread: func() (fetch.Source, error) { return a.openSource(to.server, toSecret, o.connections) },
	}
	return m.run(ctx)
}

// movingLimit is memoryLimit for a run with connections on two sides: more of its
// memory is outside of the garbage collector's.
const movingLimit = 30 << 20

// migration is one run.
type migration struct {
	*app
	flags   migrateFlags
	src     fetch.Source
	dest    upload.Destination
	reread  func() (fetch.Source, error) // the destination as a source
	options migrate.Options
	ledger  migrateLedger
	s       *ui.Summary
}

// migrateLedger is what moving and deleting need.
type migrateLedger interface {
	migrate.Ledger
	migrate.RemoveLedger
	uidlSource
}

// account is the destination's name in the ledger.
func (m *migration) account() string {
	if m.options.Upload.Account != "" {
		return m.options.Upload.Account
	}
	return migrate.AccountOf(m.dest.Account())
}

func (m *migration) run(ctx context.Context) (err error) {
	open := m.withoutArchive
	if m.flags.archive != "" {
		open = m.withArchive
	}
	closeAll, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	run, end := m.show(mail.AccountLabel(m.dest.Account()))
	defer end()
	o := m.options
	o.Ledger, o.Notify = m.ledger, run.Notify
	if o.Upload.DryRun {
		o.Upload.Plan, o.Upload.Forecast = m.showPlan, m.showForecast
	}
	res, err := migrate.Run(ctx, o)
	end()
	fillUpload(m.s, res.Counts)
	m.s.Suspicious = &res.Suspicious
	for _, mr := range res.Mailboxes {
		m.ui.UploadMailbox(uploadTotals(mr))
	}
	if m.flags.uidlMap != "" && !m.flags.dryRun {
		err = errors.Join(err, m.writeUIDLMap(ctx, m.ledger, m.account(), m.flags.uidlMap))
	}
	if err == nil {
		err = m.s.Balance()
	}
	if (m.flags.remove.source || m.flags.remove.extra) && (err == nil || !endsAll(ctx, err)) && !errors.Is(err, ui.ErrUnbalanced) {
		err = errors.Join(err, m.remove(ctx, res))
	}
	return err
}

// steady is a clock that starts with the system's and goes on evenly, whatever is
// made of that one meanwhile: what this run records is never older than its begin.
func steady() func() time.Time {
	began := time.Now()
	return func() time.Time { return began.Add(time.Since(began)) }
}

// withoutArchive opens the ledger of the two accounts.
func (m *migration) withoutArchive(ctx context.Context) (func() error, error) {
	dir, err := migrationDir(m.src.Account(), m.dest.Account(), m.s.Source+" "+m.s.Dest)
	if err != nil {
		return nil, err
	}
	m.options.Dir = dir
	l, closeLedger, err := m.openLedger(ctx, dir)
	m.ledger = l
	return closeLedger, err
}

// withArchive opens the archive that is filled on the way.
func (m *migration) withArchive(ctx context.Context) (func() error, error) {
	place, err := m.archivePlace(m.flags.archive, "")
	if err != nil {
		return nil, err
	}
	if m.flags.dryRun && !vaultExists(place.Dir) {
		m.ledger = unknown{}
		m.s.Archive = absolute(place.Dir)
		return func() error { return nil }, nil
	}
	if _, err := m.src.Mailboxes(ctx); err != nil { // nothing is made for an account that cannot be read
		return nil, err
	}
	v, err := m.openVault(ctx, place, vault.Options{Create: true, ReadOnly: m.flags.dryRun, Notify: m.warnOf, Now: m.options.Now})
	if err != nil {
		return nil, err
	}
	if err := v.Admit(m.src.Account(), false); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	m.s.Archive, m.ledger = v.Path(), v.Ledger
	m.options.Archive, m.options.Dir = v.Archive, filepath.Join(v.Path(), vault.Dir)
	if m.dest.Account() != m.src.Account() { // as upload has it
		m.options.Upload.Account = m.dest.Account()
	}
	return v.Close, nil
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

// openLedger opens the ledger of a migration under its lock.
func (m *migration) openLedger(ctx context.Context, dir string) (migrateLedger, func() error, error) {
	if m.flags.dryRun {
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
	lock, err := durable.LockFile(ctx, filepath.Join(dir, "lock"), m.app.flags.lockWait)
	if errors.Is(err, durable.ErrLocked) {
		return nil, nil, &mail.Error{Kind: mail.KindTemporary, Op: "migrate", Err: errors.New("another run is migrating these accounts"),
			Hint: "wait for it to end, or use --lock-wait"}
	}
	if err != nil {
		return nil, nil, &mail.Error{Kind: mail.KindDisk, Op: "lock " + dir, Err: err}
	}
	l, err := ledger.Open(dir, ledger.Options{Format: "maildir", Now: m.options.Now})
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
func (unknown) Newest(context.Context, string) (int64, error)                             { return 0, nil }
func (unknown) Note(context.Context, string) (string, error)                              { return "", nil }
func (unknown) SetNotes(context.Context, map[string]string) error                         { return errNoLedger }
func (unknown) UIDLs(context.Context, string, func(ledger.UIDL) error) error              { return nil }
func (unknown) Backup(context.Context) error                                              { return errNoLedger }
func (unknown) OpenDeletions(context.Context, string, string) ([]mail.Deletion, error) {
	return nil, nil
}
func (unknown) SettleDeletions(context.Context, []mail.DeletionResult) error { return errNoLedger }
func (unknown) IntendDeletions(context.Context, []mail.Doomed, string, string) ([]int64, error) {
	return nil, errNoLedger
}
