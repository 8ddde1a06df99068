package main

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

func newVerify(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify ARCHIVE | verify ACCOUNT | verify --all",
		Short: "Re-read every octet of the archive",
		Long: `verify reads every message of the archive back to the end and compares length and
SHA-256 with what was recorded when it was fetched. It names what is missing,
altered or unreadable (exit 65) and mentions files that no backup wrote, which are
no error. Nothing is changed, and no server is asked.`,
		Example: `  mailhaul verify ~/Mail
  mailhaul verify ~/Mail -q && echo all there
  mailhaul verify ~/Mail --json`,
		Args: arguments(1, 1, "an ARCHIVE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.wantsAll(cmd) {
				return a.every(cmd, oneByOne)
			}
			if a.only != "" {
				args = []string{a.only}
			}
			return a.verify(cmd.Context(), args[0])
		},
	}
	registerAll(cmd)
	return cmd
}

func (a *app) verify(ctx context.Context, typed string) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	began := time.Now()
	s := ui.Verified{Command: "verify"}
	err := a.verifyArchive(ctx, typed, &s)
	s.Seconds = time.Since(began).Seconds()
	s.Exit = a.code(ctx, err)
	if err != nil && !errors.Is(err, errDamaged) {
		a.ui.Error(asInterrupted(ctx, err))
	}
	if err == nil || errors.Is(err, errDamaged) || a.flags.json {
		a.ended = s
	}
	a.ui.Verified(s, err == nil || errors.Is(err, errDamaged))
	a.exit.Store(int32(s.Exit))
	if err == nil {
		return nil
	}
	return errSaid
}

// errDamaged says that findings were told.
var errDamaged = &mail.Error{Kind: mail.KindIntegrity, Err: errors.New("the archive is damaged")}

func (a *app) verifyArchive(ctx context.Context, typed string, s *ui.Verified) (err error) {
	v, err := a.openToRead(ctx, typed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	s.Archive = v.Path()
	sum, err := v.Verify(ctx, func(f vault.Finding) { a.ui.Finding(finding(v.Path(), f)) })
	s.Mailboxes, s.Messages, s.Verified, s.Octets = sum.Mailboxes, sum.Messages, sum.Verified, sum.Octets
	s.Missing, s.Altered, s.Unreadable, s.Extra = sum.Missing, sum.Altered, sum.Unreadable, sum.Extra
	switch {
	case err != nil:
		return err
	case sum.Unreadable > 0 && sum.Missing+sum.Altered == 0:
		return &mail.Error{Kind: mail.KindDisk, Op: "verify", Err: errors.New("the disk does not give every message")}
	case !sum.Whole():
		return errDamaged
	}
	return nil
}

func finding(root string, f vault.Finding) ui.Finding {
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
		out.Hint = "somebody removed it, or a disk was restored from an older copy"
	case vault.Altered:
		out.Hint = "a program or a bad disk changed it; compare it with another copy"
	case vault.Unreadable:
		out.Hint = "check the disk that holds " + root
	}
	return out
}
