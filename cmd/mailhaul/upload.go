package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/upload"
)

// destFlags are those of every verb that adds messages to a server.
type destFlags struct {
	secret              secretFlags
	caFile, fingerprint string
	maps                []upload.Rule
	prefix              string
	noSpecialUse        bool
	subscribe, markSeen bool
	sendRepaired        bool
	uidlMap             string
	connections         int
	limit               *rate.Limiter
	dryRun              bool
}

func (o *destFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.secret.command, "dest-password-command", "", "run `CMD` (no shell) and take the first line of its output as the destination's password")
	f.StringVar(&o.secret.file, "dest-password-file", "", "read the destination's password from this `FILE`, which others must not be able to read")
	o.secret.login.register(cmd, "dest-", "the destination")
	f.StringVar(&o.caFile, "dest-ca-file", "", "like --ca-file `FILE`, for the destination")
	f.StringVar(&o.fingerprint, "dest-tls-fingerprint", "", "like --tls-fingerprint `SHA256`, for the destination")
	f.Func("map", "send mailbox `OLD=NEW` (repeatable; * stands for anything but /, ** for anything)", func(v string) error {
		r, err := upload.ParseRule(v)
		o.maps = append(o.maps, r)
		return err
	})
	f.StringVar(&o.prefix, "prefix", "", "put all mailboxes below the mailbox `NAME`")
	f.BoolVar(&o.noSpecialUse, "no-special-use", false, "do not put sent mail, drafts, junk and trash into the mailboxes the server has for them")
	f.BoolVar(&o.subscribe, "subscribe", false, "subscribe to every mailbox that gets messages")
	f.BoolVar(&o.markSeen, "mark-seen", false, "mark as read what comes from POP3, which knows no flags")
	f.BoolVar(&o.sendRepaired, "send-repaired", false, "send a repaired copy of a message that the server refuses (NUL, bare CR, long lines, broken header)")
	f.StringVar(&o.uidlMap, "uidl-map", "", "write to `FILE` which UIDL of a POP3 source became which UID, and to FILE.dovecot-uidlist what Dovecot can use")
	f.IntVar(&o.connections, "connections", defaultConnections, "at most `N` connections to a server")
	f.Func("limit-rate", "at most this `RATE` in octets per second (500K, 2M)", func(v string) (err error) {
		o.limit, err = parseRate(v)
		return err
	})
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "show where everything would go, and change nothing")
}

func (o *destFlags) check() error {
	if err := checkUIDLMap(o.uidlMap); err != nil {
		return err
	}
	if o.connections < 1 || o.connections > 50 {
		return usage("write a number from 1 to 50", "--connections %d makes no sense", o.connections)
	}
	if o.fingerprint != "" {
		if _, err := dial.ParseFingerprint(o.fingerprint); err != nil {
			return usage("write it as openssl x509 -fingerprint -sha256 prints it", "--dest-tls-fingerprint is no SHA-256")
		}
	}
	return nil
}

func (o *destFlags) mapping() upload.Mapping {
	return upload.Mapping{Rules: o.maps, Prefix: o.prefix, NoSpecialUse: o.noSpecialUse}
}

// destination reads a destination as typed.
func (a *app) destination(ctx context.Context, typed string, o destFlags) (account, error) {
	ac, err := a.account(ctx, typed, o.secret, o.limit)
	if err == nil {
		o.apply(&ac)
	}
	return ac, err
}

// apply puts what the flags and the environment say of a destination before what
// holds for every server.
func (o *destFlags) apply(ac *account) {
	if o.caFile != "" {
		ac.server.CAFile = o.caFile
	}
	if o.fingerprint != "" {
		ac.server.Fingerprint = o.fingerprint
	}
	if os.Getenv(config.DestEnv) != "" {
		ac.secret.Env = config.DestEnv
	}
}

type uploadFlags struct {
	destFlags
	own       secretFlags // without "dest-": there is one server only
	present   bool
	selection selectionFlags
}

func newUpload(a *app) *cobra.Command {
	var o uploadFlags
	cmd := &cobra.Command{
		Use:   "upload ARCHIVE DEST",
		Short: "Append to an IMAP server what it lacks",
		Long: `upload sends the messages of an archive that the server does not have yet, with
their flags, keywords and dates (INTERNALDATE). Mail that is there already, from
earlier runs or from other programs, is recognised by content and not sent twice. A
run may be stopped or cut off at any point; the same command run again goes on, and
every message arrives once. Nothing is removed at the server.

What the source no longer had at the last complete backup is sent, too, and counted;
--present leaves it out. Quota and the limit for one message are asked for before
anything is sent, and what will not fit is said. A message that the server refuses is
named with the server's words and tried again in the next run; --send-repaired sends a
repaired copy of it instead, the archive keeps the original.

Mailboxes are made as needed. Sent mail, drafts, junk, trash and archive go to the
mailboxes the server has for them, whatever they are called here; --map, --prefix
and --no-special-use change that, and --dry-run shows the plan. In later runs flags
that changed in the archive are followed; those changed at the server stay. A name
that the server cannot have is escaped, which is said.

After --uidl-map FILE, FILE has for every message that came from POP3 its old UIDL and
its new UID. FILE.dovecot-uidlist has the same for INBOX as Dovecot keeps it, so that
POP3 clients that leave mail on the server do not download all of it again:
docs/formats.md tells how to put it there.

The password is that of backup: --password-command, --password-file,
MAILHAUL_PASSWORD and so on; each also with dest- (MAILHAUL_DEST_PASSWORD), which
wins.`,
		Example: `  mailhaul upload ~/Mail imaps://ada@new.example.org
  mailhaul upload ~/Mail imaps://ada@new.example.org --dry-run
  mailhaul upload ~/Mail imaps://ada@new.example.org --prefix Old
  mailhaul upload ~/Mail imaps://ada@new.example.org --map 'Archive/*=Archiv/*' --mailbox 'Archive/**'`,
		Args: arguments(2, 2, "an ARCHIVE and a DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.adoptFrom(cmd, args[1]); err != nil {
				return err
			}
			return a.upload(cmd.Context(), args[0], args[1], o)
		},
	}
	o.own.register(cmd)
	o.destFlags.register(cmd)
	o.selection.register(cmd)
	cmd.Flags().BoolVar(&o.present, "present", false, "only what the source still had at the last complete backup, and what mailhaul deleted there")
	return cmd
}

func (a *app) upload(ctx context.Context, archive, dest string, o uploadFlags) error {
	return a.transfer(ctx, uploadSummary("upload", o.dryRun), func(ctx context.Context, s *ui.Summary, label *string) error {
		return a.uploadFrom(ctx, archive, dest, o, s, label)
	})
}

func (a *app) uploadFrom(ctx context.Context, archive, dest string, o uploadFlags, s *ui.Summary, label *string) (err error) {
	selection, err := o.selection.selection()
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	if o.secret == (secretFlags{}) {
		o.secret = o.own
	}
	from, err := a.archivePlace(archive, "")
	if err != nil {
		return err
	}
	ac, err := a.destination(ctx, dest, o.destFlags)
	if err != nil {
		return err
	}
	s.Archive, s.Dest, *label = absolute(from.Dir), ac.key(), ac.label()
	if ac.server.Protocol != "imap" {
		return usage("write imaps://USER@HOST", "messages cannot be added over %s", ac.server.Protocol)
	}
	v, err := a.openVault(ctx, from, vault.Options{ReadOnly: o.dryRun, Notify: a.warnOf})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	credentials, err := ac.credentials(ctx)
	if err != nil {
		return err
	}
	d, err := openDestination(ac.server, credentials, o.connections)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	err = a.send(ctx, upload.Options{
		Destination: d, Messages: upload.FromArchive(v.Ledger, v.Archive), Ledger: v.Ledger, Selection: selection, Present: o.present,
	}, o.destFlags, s)
	if o.uidlMap != "" && !o.dryRun {
		err = errors.Join(err, a.writeUIDLMap(ctx, v.Ledger, d.Account(), o.uidlMap))
	}
	return err
}

// warnOf shows what is known before a run is shown.
func (a *app) warnOf(e mail.Event) {
	if e.Kind == mail.EventWarning {
		a.ui.Warn(e.Err)
	}
}

// send runs the engine and fills s.
func (a *app) send(ctx context.Context, u upload.Options, o destFlags, s *ui.Summary) error {
	run, end := a.show(mail.AccountLabel(u.Destination.Account()))
	defer end()
	u.Mapping, u.MarkSeen, u.Subscribe, u.DryRun, u.Parallel = o.mapping(), o.markSeen, o.subscribe, o.dryRun, o.connections
	u.SendRepaired, u.Notify = o.sendRepaired, run.Notify
	if o.dryRun {
		u.Plan, u.Forecast = a.showPlan, a.showForecast
	}
	res, err := upload.Run(ctx, u)
	end()
	fillUpload(s, res.Counts)
	for _, m := range res.Mailboxes {
		a.ui.UploadMailbox(uploadTotals(m))
	}
	if err == nil {
		err = s.Balance()
	}
	return err
}

// uploadSummary holds the counters that every verb has that sends.
func uploadSummary(verb string, dryRun bool) ui.Summary {
	return ui.Summary{
		Command: verb, DryRun: dryRun,
		Listed: new(int64), Uploaded: new(int64), Adopted: new(int64), Skipped: new(int64), Failed: new(int64),
	}
}

func fillUpload(s *ui.Summary, c upload.Counts) {
	s.Listed, s.Uploaded, s.Adopted, s.Skipped, s.Failed = &c.Listed, &c.Uploaded, &c.Adopted, &c.Skipped, &c.Failed
	s.Flags, s.Altered, s.Repaired, s.Gone, s.Octets = &c.Flags, &c.Altered, &c.Repaired, &c.Gone, c.Octets
}

func (a *app) showForecast(f upload.Forecast) {
	messages, octets := f.Excess()
	a.ui.Forecast(ui.Forecast{
		Messages: f.Messages, Octets: f.Octets, TooBig: f.TooBig, Limit: f.Limit,
		FreeOctets: f.Space.Octets, FreeMessages: f.Space.Messages, ExcessMessages: messages, ExcessOctets: octets,
		Uncompared: f.Uncompared,
	})
}

func (a *app) showPlan(targets []upload.Target) {
	for _, t := range targets {
		a.ui.Target(ui.Target{From: t.From, To: t.To, Why: t.Why, New: !t.Exists})
	}
}

func uploadTotals(m upload.MailboxResult) ui.UploadMailbox {
	t := ui.UploadMailbox{
		Mailbox: m.Name, From: m.From, Listed: m.Listed, Uploaded: m.Uploaded, Adopted: m.Adopted, Skipped: m.Skipped,
		Failed: m.Failed, Flags: m.Flags, Altered: m.Altered, Repaired: m.Repaired, Gone: m.Gone, Octets: m.Octets,
	}
	if m.Err != nil {
		t.Error = m.Err.Error()
	}
	return t
}
