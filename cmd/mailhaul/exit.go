package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"mailhaul/mail"
)

// Exit codes.
const (
	exitDone      = 0
	exitFailed    = 1
	exitPartial   = 3
	exitUsage     = 64
	exitIntegrity = 65
	exitLacking   = 69
	exitDisk      = 74
	exitTemporary = 75
	exitAuth      = 77
	exitConfig    = 78
)

// exitCodes is what the manual says of them, for people; README has the same rows.
var exitCodes = []struct{ code, meaning string }{
	{"0", "all done, also when nothing was new"},
	{"3", "finished, but some messages failed or are suspicious; each was named, the rest is safe"},
	{"64", "wrong usage: flags, places, a mailbox that does not exist, a directory that is no archive"},
	{"65", "octets differ from what was archived, or are missing"},
	{"1", "failed, or not confirmed, in a way that no other row names (clean without --yes, more than --max-delete allows)"},
	{"69", "the server lacks what is needed (no STARTTLS, login disabled, no way to delete safely)"},
	{"74", "local disk: full, read-only, unmounted"},
	{"75", "try again later: network, server busy, another run holds the archive, --max-time is over"},
	{"77", "login refused, no password, or a connection that cannot be trusted"},
	{"78", "configuration wrong, or an archive of a newer version"},
	{"130, 143", "interrupted by SIGINT, SIGTERM; what was fetched is safe"},
}

// worst first: where several things go wrong, the first of these is the code.
var worst = []int{exitUsage, exitConfig, exitIntegrity, exitDisk, exitAuth, exitLacking, exitFailed, exitPartial, exitTemporary}

// errMaxTime ends a run that has taken the time it was given.
var errMaxTime = &mail.Error{
	Kind: mail.KindTemporary,
	Err:  errors.New("the time given by --max-time is over"),
	Hint: "what was fetched is safe; run the same command again to go on",
}

// errSaid is an error that was already told.
var errSaid = errors.New("failed")

// interrupted says which signal ended the run.
type interrupted struct{ signal syscall.Signal }

func (i interrupted) Error() string { return "interrupted by " + signalName(i.signal) }

// code is the exit code of a run that ended with err.
func (a *app) code(ctx context.Context, err error) int {
	code := exitCode(err)
	if chosen := int(a.exit.Load()); chosen != exitDone {
		if err == nil || errors.Is(err, errSaid) {
			code = chosen
		} else {
			code = worse(code, chosen)
		}
	}
	var sig interrupted
	if errors.As(context.Cause(ctx), &sig) && code != exitDone && code != exitIntegrity && code != exitDisk && code != exitUsage && code != exitConfig {
		return 128 + int(sig.signal)
	}
	return code
}

// exitCode finds the worst of what went wrong.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if many := joined(err); many != nil {
		code := exitDone
		for _, e := range many {
			code = worse(code, exitCode(e))
		}
		return code
	}
	switch mail.KindOf(err) {
	case mail.KindUsage:
		return exitUsage
	case mail.KindIntegrity:
		return exitIntegrity
	case mail.KindLacking:
		return exitLacking
	case mail.KindDisk:
		return exitDisk
	case mail.KindTemporary:
		return exitTemporary
	case mail.KindAuth:
		return exitAuth
	case mail.KindConfig:
		return exitConfig
	case mail.KindPartial:
		return exitPartial
	case mail.KindOther:
		if errors.Is(err, mail.ErrAltered) {
			return exitIntegrity
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return exitTemporary
		}
	}
	return exitFailed
}

func worse(a, b int) int {
	switch {
	case a == exitDone:
		return b
	case b == exitDone:
		return a
	case slices.Index(worst, b) < slices.Index(worst, a):
		return b
	}
	return a
}

// joined returns what errors.Join put together; nil for any other error.
func joined(err error) []error {
	j, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var texts []string
	for _, e := range j.Unwrap() {
		texts = append(texts, e.Error())
	}
	if err.Error() != strings.Join(texts, "\n") {
		return nil // several %w in one sentence
	}
	return j.Unwrap()
}

// asInterrupted tells the person that a signal ended the run rather than what
// the signal made fail.
func asInterrupted(ctx context.Context, err error) error {
	// Whatever waited when the time was over may only say that a deadline passed.
	if errors.Is(err, context.DeadlineExceeded) && errors.Is(context.Cause(ctx), errMaxTime) {
		return errMaxTime
	}
	var sig interrupted
	if !errors.As(context.Cause(ctx), &sig) {
		return err
	}
	switch exitCode(err) {
	case exitIntegrity, exitDisk, exitUsage, exitConfig:
		return err
	}
	return &mail.Error{Err: sig, Hint: "what was fetched is safe; run the same command again to go on"}
}
