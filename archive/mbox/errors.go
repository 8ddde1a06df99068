package mbox

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

var errClosed = errors.New("archive is closed")

// changedError says that somebody else wrote to the file in spite of the locks,
// or before they were taken.
func changedError(mailbox, file string) error {
	return &mail.Error{Kind: mail.KindTemporary, Ref: mail.Ref{Mailbox: mailbox}, Op: "append to " + file,
		Err: errors.New("changed by another program during this run"), Hint: "run the same command again"}
}

// diskError says what failed on which file, and what a person can do about it.
func diskError(mailbox, op, file string, err error) error {
	if err == nil {
		return nil
	}
	e := &mail.Error{Kind: mail.KindDisk, Ref: mail.Ref{Mailbox: mailbox}, Op: op + " " + file, Err: err}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		e.Hint = "free space (or raise the quota) and run the same command again"
	case errors.Is(err, syscall.EFBIG):
		e.Hint = "the file cannot grow further: raise the file-size limit (ulimit -f), use another file system, or archive as Maildir"
	case errors.Is(err, syscall.EROFS):
		e.Hint = "the file system is mounted read-only"
	case errors.Is(err, durable.ErrNotRegular):
		e.Hint = "something that is no file is in the way; move it and run the same command again"
	}
	return e
}

func busyError(mailbox, file, hint string, err error) error {
	return &mail.Error{Kind: mail.KindTemporary, Ref: mail.Ref{Mailbox: mailbox}, Op: "lock " + file, Hint: hint, Err: err}
}

func missingError(mailbox, place string) error {
	return &mail.Error{Kind: mail.KindIntegrity, Ref: mail.Ref{Mailbox: mailbox}, Op: "open " + place,
		Err: fmt.Errorf("message is not in the mbox: %w", fs.ErrNotExist)}
}
