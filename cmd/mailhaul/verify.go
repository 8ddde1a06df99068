package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"mailhaul/internal/place"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/upload"
)

type verifyFlags struct {
	secret       secretFlags
	dest         destFlags
	selection    selectionFlags
	share        float64
	repair       bool
	accept       bool
	dryRun       bool
	report       string
	connections  int
	limit        *rate.Limiter
	maps         []upload.Rule
	prefix       string
	noSpecialUse bool
}

func newVerify(a *app) *cobra.Command {
	o := verifyFlags{share: 1}
	cmd := &cobra.Command{
		Use:   "verify ARCHIVE [SERVER] | verify SOURCE DEST | verify ACCOUNT | verify --all",
		Short: "Re-read every octet of the archive; compare it with a server, or two servers",
		Long: `verify ARCHIVE reads every message of the archive back to the end and compares length
and SHA-256 with what was recorded when it was fetched. It names what is missing,
altered or unreadable (exit 65) and mentions files that no backup wrote, which are
no error.

With a SERVER it then compares the two, and verify SOURCE DEST compares two servers:
messages and octets of each mailbox side by side, then every message by the SHA-256 of
its octets. What is missing, altered or extra is named. Exit 65 unless complete:

  - every message of the ARCHIVE or SOURCE is at the other side. What we deleted there
    (clean, backup --delete), and what an earlier backup recorded as removed there, is
    not missing, nor is what lies there in another mailbox;
  - where the archive was filled from that SERVER, every message there is in it, too.
    New mail since the last backup is named as not archived.

What servers are known to alter (NUL, CR without LF, header fields in which they keep
their own state, empty lines at the end) is listed as such, and so are repaired copies
that upload or migrate sent from here. Before a message counts as missing its mailbox
is opened by name and listed once more. Mailboxes are mapped as
upload and migrate map them; give the same --map, --prefix and --no-special-use.

Nothing is changed at any server (but many mark what is read over POP3 as seen), and
nothing in the archive but by --repair and --accept. --repair fetches again what is damaged, and only octets with the recorded
SHA-256 take its place; the damaged file goes to .mailhaul/damaged. Without a SERVER
the next backup fetches it. --accept takes what a person removed or changed in the
archive for wanted.`,
		Example: `  mailhaul verify ~/Mail
  mailhaul verify ~/Mail -q && echo all there
  mailhaul verify ~/Mail imaps://ada@example.org
  mailhaul verify ~/Mail imaps://ada@example.org --repair
  mailhaul verify imaps://ada@old.example.org imaps://ada@new.example.org --report ada.html
  mailhaul verify imaps://ada@old.example.org imaps://ada@new.example.org --sample 5%`,
		Args: arguments(1, 2, "an ARCHIVE, an ARCHIVE and a SERVER, or a SOURCE and a DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.wantsAll(cmd) {
				if o.report != "" {
					return usage("leave one of them out", "--report is one file, and --all are many archives")
				}
				return a.every(cmd, oneByOne)
			}
			if a.only != "" {
				args = []string{a.only}
			}
			return a.remembered(cmd, args[0], func() error { return a.verify(cmd.Context(), args, o) })
		},
	}
	registerAll(cmd)
	o.secret.register(cmd)
	o.selection.register(cmd)
	f := cmd.Flags()
	f.Func("sample", "look at the octets of a random `P%` of the messages only", func(v string) (err error) {
		o.share, err = parseShare(v)
		return err
	})
	f.BoolVar(&o.repair, "repair", false, "fetch again what is damaged in the archive")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "name what --repair or --accept would work on, and change nothing")
	f.BoolVar(&o.accept, "accept", false, "what a person removed or changed in the archive is wanted")
	f.StringVar(&o.report, "report", "", "write a report to this `FILE`: .html, .json or .csv")
	f.StringVar(&o.dest.secret.command, "dest-password-command", "", "run `CMD` (no shell) and take the first line of its output as the password of DEST")
	f.StringVar(&o.dest.secret.file, "dest-password-file", "", "read the password of DEST from this `FILE`, which others must not be able to read")
	o.dest.secret.login.register(cmd, "dest-", "DEST")
	f.StringVar(&o.dest.caFile, "dest-ca-file", "", "like --ca-file `FILE`, for DEST")
	f.StringVar(&o.dest.fingerprint, "dest-tls-fingerprint", "", "like --tls-fingerprint `SHA256`, for DEST")
	f.Func("map", "mailbox `OLD=NEW`, as upload and migrate were told (repeatable)", func(v string) error {
		r, err := upload.ParseRule(v)
		o.maps = append(o.maps, r)
		return err
	})
	f.StringVar(&o.prefix, "prefix", "", "all mailboxes lie below the mailbox `NAME`, as upload and migrate were told")
	f.BoolVar(&o.noSpecialUse, "no-special-use", false, "mailboxes have the same names, whatever their role")
	f.IntVar(&o.connections, "connections", defaultConnections, "at most `N` connections to a server")
	f.Func("limit-rate", "at most this `RATE` in octets per second (500K, 2M)", func(v string) (err error) {
		o.limit, err = parseRate(v)
		return err
	})
	return cmd
}

// parseShare reads a percentage, 0.1% too, as a share.
func parseShare(s string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !strings.HasSuffix(s, "%") || !(n > 0 && n <= 100) {
		return 0, errors.New("a sample is written 5% or 0.5%")
	}
	return n / 100, nil
}

func (o *verifyFlags) check(args []string) error {
	o.dest.connections = o.connections
	if err := o.dest.check(); err != nil {
		return err
	}
	switch {
	case o.repair && o.accept:
		return usage("leave one of them out", "--repair and --accept exclude each other")
	case len(args) == 1 && place.IsServer(args[0]):
		return usage("write mailhaul verify ARCHIVE SERVER, or two servers", "one server has nothing to be compared with")
	}
	if o.dryRun { // both begin by naming what is damaged
		o.repair, o.accept = false, false
	}
	return nil
}

// errDamaged says that findings were told.
var errDamaged = &mail.Error{Kind: mail.KindIntegrity, Err: errors.New("the archive is damaged")}

// told are errors whose findings were told one by one.
func told(err error) bool { return errors.Is(err, errDamaged) || errors.Is(err, errIncomplete) }

func (a *app) verify(ctx context.Context, args []string, o verifyFlags) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	if err := o.check(args); err != nil {
		return err
	}
	selection, err := o.selection.selection()
	if err != nil {
		return err
	}
	rep, err := a.openReport(o.report)
	if err != nil {
		return err
	}
	defer rep.drop()
	if len(args) == 2 {
		return a.verifyWith(ctx, args[0], args[1], selection, o, rep)
	}
	if !selection.All() {
		return usage("--mailbox and --exclude work without a server, too", "an archive is verified by mailboxes, not by dates, sizes or flags")
	}
	began := time.Now()
	s := ui.Verified{Command: "verify"}
	err = a.verifyAlone(ctx, args[0], selection, o, rep, &s)
	s.Seconds = time.Since(began).Seconds()
	s.Exit = a.code(ctx, err)
	if err != nil && !told(err) {
		a.tell(ctx, err)
	}
	if err == nil || told(err) || a.flags.json {
		a.ended = s
	}
	a.ui.Verified(s, err == nil || told(err))
	a.exit.Store(int32(s.Exit))
	if err == nil {
		return nil
	}
	return errSaid
}

func (a *app) verifyAlone(ctx context.Context, typed string, selection mail.Selection, o verifyFlags, rep *report, s *ui.Verified) (err error) {
	v, err := a.openToVerify(ctx, typed, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	s.Archive = v.Path()
	rep.begin("Verification of an archive", v.Path(), "")
	m := a.mender(v, o, rep)
	sum, err := a.verifyVault(ctx, v, selection, o.share, m)
	s.Mailboxes, s.Messages, s.Verified, s.Octets = sum.Mailboxes, sum.Messages, sum.Verified, sum.Octets
	s.Missing, s.Altered, s.Unreadable, s.Extra = sum.Missing, sum.Altered, sum.Unreadable, sum.Extra
	s.Skipped = sum.Skipped
	if err == nil && (o.accept || o.repair) {
		err = m.alone(ctx)
		s.Accepted, s.SetAside = m.accepted, m.aside
	}
	if err == nil {
		err = m.verdict(sum)
	}
	if err == nil || told(err) {
		return errors.Join(err, rep.finishArchive(sum, m))
	}
	return err
}

// openToVerify opens an archive; what mends it needs it for writing.
func (a *app) openToVerify(ctx context.Context, typed string, o verifyFlags) (*vault.Vault, error) {
	p, err := a.archivePlace(typed, "")
	if err != nil {
		return nil, err
	}
	return a.openVault(ctx, p, vault.Options{ReadOnly: !o.repair && !o.accept, Notify: a.warnOf})
}

// verifyVault reads the archive back, with a live line, and gives the findings to m.
func (a *app) verifyVault(ctx context.Context, v *vault.Vault, selection mail.Selection, share float64, m *mender) (vault.Summary, error) {
	if err := a.checkArchived(ctx, v, selection); err != nil {
		return vault.Summary{}, err
	}
	run, end := a.show("verify")
	defer end()
	vo := vault.VerifyOptions{Share: share, Report: m.found, Notify: run.Notify}
	if len(selection.Mailboxes)+len(selection.Exclude) > 0 {
		vo.Select = selection.MatchMailbox
	}
	return v.VerifyWith(ctx, vo)
}

func (a *app) checkArchived(ctx context.Context, v *vault.Vault, selection mail.Selection) error {
	names, err := v.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	return known(selection.Mailboxes, names)
}

// maxMended bounds how many damaged messages are remembered to be mended.
const maxMended = 1 << 20

func finding(root string, f vault.Finding, mending bool) ui.Finding {
	out := ui.Finding{Kind: f.Kind.String(), Mailbox: f.Mailbox, Place: f.Place}
	if f.Kind == vault.Extra {
		return out
	}
	rc := f.Held.Receipt
	out.Digest, out.Date = rc.Digest.String(), rc.Info.InternalDate
	if f.Err != nil {
		out.Reason = f.Err.Error()
	}
	switch f.Kind {
	case vault.Missing:
		out.Hint = "somebody removed it, or a disk was restored from an older copy; verify --repair fetches it again, --accept takes it for wanted"
	case vault.Altered:
		out.Hint = "a program or a bad disk changed it; verify --repair fetches it again, --accept takes it for wanted"
	case vault.Unreadable:
		out.Hint = "check the disk that holds " + root
	}
	if mending && f.Kind != vault.Unreadable {
		out.Hint = ""
	}
	return out
}

// sentence is the verdict of an archive alone.
func sentence(sum vault.Summary, m *mender) (text string, good bool) {
	good = len(m.damaged) == 0
	text = fmt.Sprintf("Every one of %s was read back with the octets that were archived.", ui.Plural(sum.Verified, "message"))
	if !good {
		text = fmt.Sprintf("Damaged: %s missing, %s altered, %s unreadable.", ui.Count(sum.Missing), ui.Count(sum.Altered), ui.Count(sum.Unreadable))
	} else if !sum.Whole() {
		text = fmt.Sprintf("%s that a person removed or changed were accepted; the rest was read back with the octets that were archived.", ui.Plural(m.accepted, "message"))
	}
	return text, good
}
