package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"mailhaul/internal/vault"
	"mailhaul/mail"
)

func newCat(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "cat ARCHIVE DIGEST | cat ARCHIVE MAILBOX NUMBER",
		Short: "Write the octets of one message",
		Long: `cat writes the octets of one message to standard output, exactly as they are
archived. The message is named by the beginning of its SHA-256 digest (at least
four digits) or by mailbox and number, both as mailhaul ls shows them.

If the octets differ from what was archived, they are written all the same, and
the exit code is 65.`,
		Example: `  mailhaul cat ~/Mail INBOX 1
  mailhaul cat ~/Mail INBOX 1 | sha256sum`,
		Args: arguments(2, 3, "an ARCHIVE and a message"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.cat(cmd.Context(), args[0], args[1:])
		},
	}
}

func (a *app) cat(ctx context.Context, typed string, message []string) (err error) {
	if a.flags.json {
		return usage("leave --json out", "the octets of a message are no JSON")
	}
	v, err := a.openToRead(ctx, typed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	var rc mail.Receipt
	if len(message) == 2 {
		rc, err = byNumber(ctx, v, message[0], message[1])
	} else {
		rc, err = byDigest(ctx, v, message[0])
	}
	if err != nil {
		return err
	}
	return a.write(ctx, v, rc)
}

// write writes the message and compares on the way.
func (a *app) write(ctx context.Context, v *vault.Vault, rc mail.Receipt) error {
	r, err := v.Archive.Open(ctx, rc)
	if errors.Is(err, fs.ErrNotExist) {
		return &mail.Error{Kind: mail.KindIntegrity, Ref: rc.Info.Ref, Op: "the message is gone", Err: err, Hint: "mailhaul verify names all that is missing"}
	}
	if err != nil {
		return err
	}
	defer r.Close()
	sink := &stdout{w: a}
	_, err = mail.Prove(rc, io.TeeReader(r, sink))
	switch {
	case errors.Is(sink.err, syscall.EPIPE):
		return errSaid
	case sink.err != nil:
		return &mail.Error{Kind: mail.KindDisk, Op: "write to standard output", Err: sink.err}
	case errors.Is(err, mail.ErrAltered):
		return &mail.Error{Kind: mail.KindIntegrity, Ref: rc.Info.Ref, Err: err, Hint: "mailhaul verify names all that is altered"}
	}
	return err
}

// stdout notes which side of a copy failed.
type stdout struct {
	w   *app
	err error
}

func (s *stdout) Write(p []byte) (int, error) {
	s.err = s.w.ui.Raw(bytes.NewReader(p))
	if s.err != nil {
		return 0, s.err
	}
	return len(p), nil
}

var errFound = errors.New("found")

func byNumber(ctx context.Context, v *vault.Vault, mailbox, number string) (found mail.Receipt, err error) {
	want, err := strconv.ParseInt(number, 10, 64)
	if err != nil || want < 1 {
		return found, usage("mailhaul ls ARCHIVE MAILBOX shows the numbers", "%q is no number of a message", number)
	}
	names, err := v.Ledger.Mailboxes(ctx)
	if err != nil {
		return found, err
	}
	if err := known([]string{mailbox}, names); err != nil {
		return found, err
	}
	if strings.EqualFold(mailbox, "INBOX") {
		mailbox = "INBOX"
	}
	var last int64
	err = present(ctx, v, mailbox, func(n int64, h mail.Held) error {
		last = n
		if n == want {
			found = h.Receipt
			return errFound
		}
		return nil
	})
	switch {
	case errors.Is(err, errFound):
		return found, nil
	case err != nil:
		return found, err
	}
	return found, usage("mailhaul ls ARCHIVE MAILBOX shows the numbers", "%s has no message %d; the last is %d", mailbox, want, last)
}

func byDigest(ctx context.Context, v *vault.Vault, prefix string) (found mail.Receipt, err error) {
	const least = 4
	prefix = strings.ToLower(prefix)
	if _, err := hex.DecodeString(prefix + strings.Repeat("0", len(prefix)%2)); err != nil || len(prefix) < least || len(prefix) > 64 {
		return found, usage("mailhaul ls ARCHIVE MAILBOX shows the digests; a message is also named by MAILBOX NUMBER",
			"a message is named by at least %d digits of its digest", least)
	}
	names, err := v.Ledger.Mailboxes(ctx)
	if err != nil {
		return found, err
	}
	for _, name := range names {
		err := present(ctx, v, name, func(_ int64, h mail.Held) error {
			switch {
			case !strings.HasPrefix(h.Receipt.Digest.String(), prefix), h.Receipt.Digest == found.Digest:
			case found.Digest.IsZero():
				found = h.Receipt
			default:
				return usage("write more digits", "several messages have a digest that begins with %s", prefix)
			}
			return nil
		})
		if err != nil {
			return found, err
		}
	}
	if found.Digest.IsZero() {
		return found, usage("mailhaul ls ARCHIVE MAILBOX shows the digests", "no message has a digest that begins with %s", prefix)
	}
	return found, nil
}
