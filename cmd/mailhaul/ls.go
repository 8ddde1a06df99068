package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/internal/headline"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

func newLs(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ls ARCHIVE [MAILBOX…]",
		Short: "List the mailboxes of an archive, or the messages of some",
		Long: `ls lists the mailboxes of an archive with the number and size of their messages.
With mailboxes (globs as for --mailbox) it lists their messages: number, date in
local time, size, flags, sender, subject and the beginning of the digest, so far as the
terminal is wide. mailhaul cat shows a message by its number or digest.`,
		Example: `  mailhaul ls ~/Mail
  mailhaul ls ~/Mail INBOX
  mailhaul ls ~/Mail 'Archive/**' --json`,
		Args: arguments(1, -1, "an ARCHIVE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ls(cmd.Context(), args[0], args[1:])
		},
	}
}

func (a *app) ls(ctx context.Context, typed string, patterns []string) (err error) {
	v, err := a.openToRead(ctx, typed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	names, err := v.Ledger.Mailboxes(ctx)
	if err != nil {
		return err
	}
	if len(patterns) == 0 {
		return a.lsMailboxes(ctx, v, names)
	}
	if err := known(patterns, names); err != nil {
		return err
	}
	for _, name := range names {
		if (mail.Selection{Mailboxes: patterns}).MatchMailbox(name) {
			if err := a.lsMessages(ctx, v, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// known checks that every mailbox named without a pattern is there.
func known(patterns, names []string) error {
	for _, p := range patterns {
		found := mail.IsGlob(p)
		for _, name := range names {
			found = found || mail.MatchGlob(p, name)
		}
		if !found {
			return usage("mailhaul ls ARCHIVE lists the mailboxes", "there is no mailbox %q in the archive", p)
		}
	}
	return nil
}

func (a *app) lsMailboxes(ctx context.Context, v *vault.Vault, names []string) error {
	var messages, octets int64
	for _, name := range names {
		var n, size int64
		err := present(ctx, v, name, func(_ int64, h mail.Held) error {
			n, size = n+1, size+h.Receipt.Octets
			return nil
		})
		if err != nil {
			return err
		}
		messages, octets = messages+n, octets+size
		a.ui.Result("%9s  %9s  %s", ui.Count(n), ui.Octets(size), name)
		a.ui.Object(map[string]any{"type": "mailbox", "mailbox": name, "messages": n, "octets": size})
	}
	a.ui.Result("%9s  %9s  in %s", ui.Count(messages), ui.Octets(octets), ui.Plural(int64(len(names)), "mailbox"))
	a.ui.Object(map[string]any{"type": "summary", "command": "ls", "archive": v.Path(), "mailboxes": len(names), "messages": messages, "octets": octets, "exit": exitDone})
	return nil
}

// present yields the messages of a mailbox that are in the archive, numbered from
// 1 in the order in which they were archived.
func present(ctx context.Context, v *vault.Vault, mailbox string, yield func(n int64, h mail.Held) error) error {
	var n int64
	return v.Ledger.Messages(ctx, mailbox, func(h mail.Held) error {
		if h.Receipt.Place == "" {
			return nil
		}
		n++
		return yield(n, h)
	})
}

func (a *app) lsMessages(ctx context.Context, v *vault.Vault, mailbox string) error {
	a.ui.Result("%s:", mailbox)
	row := messageRow(a.ui.Columns())
	return present(ctx, v, mailbox, func(n int64, h mail.Held) error {
		rc := h.Receipt
		from, subject := headlineOf(ctx, v, rc)
		a.ui.Result("%s", row(n, rc, ui.Escape(from), ui.Escape(subject)))
		a.ui.Object(map[string]any{
			"type": "message", "mailbox": mailbox, "number": n, "digest": rc.Digest.String(), "date": rc.Info.InternalDate.UTC().Format(time.RFC3339),
			"octets": rc.Octets, "flags": rc.Info.Flags.List(), "from": from, "subject": subject, "place": rc.Place, "suspicious": h.Suspicious,
		})
		return a.writeError()
	})
}

// messageRow returns what writes the line of a message, no wider than the terminal
// where it can: senders and subjects are cut, and where they have no room left the
// digest goes, then time, size and flags. Elsewhere than on a terminal nothing does.
func messageRow(columns int) func(n int64, rc mail.Receipt, from, subject string) string {
	const (
		before   = 43 // columns of number, date, size and flags, and what parts them
		dayOnly  = 20 // of number and day
		digest   = 14
		most     = 64 // of sender and subject
		readable = 28
	)
	text, whole, brief := most, true, false
	if columns > 0 {
		text = columns - before
		if whole = text >= readable+digest; whole {
			text -= digest
		}
		if brief = text < readable; brief {
			text = columns - dayOnly
		}
		text = min(max(text, 12), most)
	}
	sender := min(22, text/3+1)
	return func(n int64, rc mail.Receipt, from, subject string) string {
		at := rc.Info.InternalDate.Local()
		line := fmt.Sprintf("%6d  %s  %9s  %-4s", n, at.Format("2006-01-02 15:04"), ui.Octets(rc.Octets), letters(rc.Info.Flags))
		if brief {
			line = fmt.Sprintf("%6d  %s", n, at.Format(time.DateOnly))
		}
		line += "  " + ui.Pad(from, sender) + "  " + ui.Pad(subject, text-2-sender)
		if whole {
			line += fmt.Sprintf("  %.12s", rc.Digest)
		}
		return strings.TrimRight(line, " ")
	}
}

// letters abbreviates the system flags as Maildir does.
func letters(f mail.Flags) string {
	var b strings.Builder
	for _, l := range []struct{ flag, letter string }{
		{mail.Draft, "D"}, {mail.Flagged, "F"}, {mail.Answered, "R"}, {mail.Seen, "S"}, {mail.Deleted, "T"},
	} {
		if f.Has(l.flag) {
			b.WriteString(l.letter)
		}
	}
	return b.String()
}

// headlineOf reads sender and subject for a person. What cannot be read is left
// empty: a listing is no verification.
func headlineOf(ctx context.Context, v *vault.Vault, rc mail.Receipt) (from, subject string) {
	r, err := v.Archive.Open(ctx, rc)
	if err != nil {
		return "(missing)", ""
	}
	defer r.Close()
	h := headline.Read(r)
	return h.From(), h.Subject
}
