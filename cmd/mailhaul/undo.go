package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/clean"
	"mailhaul/fetch"
	"mailhaul/internal/ledger"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
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
	ctx, cancel := a.limit(ctx)
	defer cancel()
	began := time.Now()
	s := ui.Summary{
		Command: "undo", DryRun: o.dryRun,
		Listed: new(int64), Uploaded: new(int64), Adopted: new(int64), Skipped: new(int64), Failed: new(int64),
	}
	label := "mailhaul"
	err := a.undoInto(ctx, archive, source, o, &s, &label)
	s.Seconds = time.Since(began).Seconds()
	return a.conclude(ctx, label, s, err)
}

// undoInto reads what was typed and opens both sides.
func (a *app) undoInto(ctx context.Context, archive, source string, o undoFlags, s *ui.Summary, label *string) (err error) {
	from, err := a.archivePlace(archive, "")
	if err != nil {
		return err
	}
	trace, closeTrace, err := a.openTrace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeTrace()) }()
	ac, err := a.account(ctx, source, o.secret, nil, trace)
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
	u := &undoing{app: a, src: src, dest: dest, vault: v, undoFlags: o}
	return u.run(ctx, s)
}

// undoing is one undo.
type undoing struct {
	undoFlags
	app   *app
	src   fetch.Source
	dest  upload.Destination
	vault *vault.Vault
}

func (u *undoing) run(ctx context.Context, s *ui.Summary) error {
	l := u.vault.Ledger
	if c, ok := u.src.(clean.Source); ok && !u.dryRun {
		if err := clean.Settle(ctx, c, l); err != nil {
			return err
		}
	}
	list, err := u.deletions(ctx)
	if err != nil || len(list.ids) == 0 {
		return err
	}
	moved := 0
	if !u.dryRun {
		if moved, err = u.moveBack(ctx, list); err != nil {
			return err
		}
	}
	run, end := u.app.show(mail.AccountLabel(u.dest.Account()))
	defer end()
	res, err := upload.Run(ctx, upload.Options{
		Destination: u.dest, Messages: list, Ledger: l, Mapping: upload.Mapping{NoSpecialUse: true},
		DryRun: u.dryRun, Parallel: defaultConnections, Notify: run.Notify,
	})
	end()
	fillUpload(s, res.Counts)
	for _, m := range res.Mailboxes {
		u.app.ui.UploadMailbox(uploadTotals(m))
	}
	if moved > 0 {
		u.app.ui.Note("%s moved back from the trash", ui.Plural(int64(moved), "message"))
	}
	if !u.dryRun {
		err = errors.Join(err, u.conclude(ctx, list))
	}
	if err == nil {
		err = s.Balance()
	}
	return err
}

// deletions finds what was deleted in this account, by whatever protocol.
func (u *undoing) deletions(ctx context.Context) (*deleted, error) {
	l := u.vault.Ledger
	accounts, err := l.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	list := &deleted{Ledger: l, archive: u.vault.Archive, flags: make(map[int64]mail.Flags), boxes: make(map[string][]int64), ids: make(map[int64][]int64)}
	for _, account := range accounts {
		if !vault.SameUser(account, u.dest.Account()) {
			continue
		}
		err := l.Deletions(ctx, account, u.since, func(d mail.Deletion) error {
			list.add(d)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// restorer moves messages back from the trash.
type restorer interface {
	Restore(ctx context.Context, to mail.Mailbox, wanted []mail.Receipt) (int, error)
}

// moveBack moves back what still lies in the trash; upload.Run then finds it where
// it belongs.
func (u *undoing) moveBack(ctx context.Context, list *deleted) (moved int, err error) {
	r, ok := u.src.(restorer)
	if !ok || len(list.trashed) == 0 {
		return 0, nil
	}
	there, err := u.src.Mailboxes(ctx)
	if err != nil {
		return 0, err
	}
	for _, mb := range there {
		if wanted := list.trashed[mb.Name]; len(wanted) > 0 {
			live, err := u.live(ctx, mb.Name)
			if err != nil {
				return moved, err
			}
			var rcs []mail.Receipt
			for _, w := range wanted {
				if !live[w.message] {
					rcs = append(rcs, w.rc)
				}
			}
			n, err := r.Restore(ctx, mb, rcs)
			moved += n
			if err != nil {
				return moved, err
			}
		}
	}
	return moved, nil
}

// live returns the messages that the server is known to have in a mailbox.
func (u *undoing) live(ctx context.Context, mailbox string) (map[int64]bool, error) {
	live := make(map[int64]bool)
	err := u.vault.Ledger.Claims(ctx, u.dest.Account(), mailbox, func(c mail.Claim) error {
		if c.Gone.IsZero() {
			live[c.Message] = true
		}
		return nil
	})
	return live, err
}

// conclude records what is back.
func (u *undoing) conclude(ctx context.Context, list *deleted) error {
	var undone []int64
	for name, messages := range list.boxes {
		live, err := u.live(context.WithoutCancel(ctx), name)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if live[m] {
				undone = append(undone, list.ids[m]...)
			}
		}
	}
	return u.vault.Ledger.Undone(ctx, undone)
}

// deleted is the archived messages that were deleted at the server, in the
// mailboxes where they were. It implements upload.Messages.
type deleted struct {
	*ledger.Ledger
	archive clean.Archive
	flags   map[int64]mail.Flags // as they were at the server, by message
	boxes   map[string][]int64   // messages by mailbox
	ids     map[int64][]int64    // deletions by message
	trashed map[string][]inTrash // what was moved to the trash, by mailbox
}

type inTrash struct {
	message int64
	rc      mail.Receipt
}

func (l *deleted) add(d mail.Deletion) {
	m := d.Held.Message
	l.ids[m] = append(l.ids[m], d.ID)
	if strings.HasPrefix(d.Account, "imap:") {
		l.flags[m] = d.Claim.Flags
	}
	if len(l.ids[m]) > 1 {
		return
	}
	l.boxes[d.Mailbox] = append(l.boxes[d.Mailbox], m)
	if d.Mode == mail.ModeTrash {
		rc := d.Held.Receipt
		rc.Info.Size = d.Claim.Size
		if l.trashed == nil {
			l.trashed = make(map[string][]inTrash)
		}
		l.trashed[d.Mailbox] = append(l.trashed[d.Mailbox], inTrash{m, rc})
	}
}

// Mailboxes lists where something was deleted.
func (l *deleted) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	var all []mail.Mailbox
	for name := range l.boxes {
		all = append(all, mail.Mailbox{Name: name})
	}
	slices.SortFunc(all, func(a, b mail.Mailbox) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// Messages yields what was deleted in a mailbox.
func (l *deleted) Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error {
	for _, id := range l.boxes[mailbox] {
		h, err := l.Message(ctx, id)
		if err != nil {
			return err
		}
		if err := yield(h); err != nil {
			return err
		}
	}
	return nil
}

// Message returns one of them with the flags it had at the server.
func (l *deleted) Message(ctx context.Context, id int64) (mail.Held, error) {
	h, err := l.Ledger.Message(ctx, id)
	if flags, ok := l.flags[id]; ok {
		h.Receipt.Info.Flags = flags
	}
	return h, err
}

// Open opens the archived octets.
func (l *deleted) Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error) {
	return l.archive.Open(ctx, rc)
}
