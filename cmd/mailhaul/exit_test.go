package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"mailhaul/mail"
)

func kind(k mail.Kind) error { return &mail.Error{Kind: k, Op: "test"} }

func TestExitCode(t *testing.T) {
	tests := []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{kind(mail.KindPartial), 3},
		{kind(mail.KindUsage), 64},
		{kind(mail.KindIntegrity), 65},
		{fmt.Errorf("read back: %w", mail.ErrAltered), 65},
		{kind(mail.KindLacking), 69},
		{kind(mail.KindDisk), 74},
		{kind(mail.KindTemporary), 75},
		{errMaxTime, 75},
		{context.DeadlineExceeded, 75},
		{kind(mail.KindAuth), 77},
		{kind(mail.KindConfig), 78},
		{fmt.Errorf("INBOX: %w", kind(mail.KindDisk)), 74},
		{errors.Join(kind(mail.KindTemporary), kind(mail.KindPartial)), 3},
		{errors.Join(kind(mail.KindTemporary), errors.Join(kind(mail.KindAuth), kind(mail.KindLacking))), 77},
		{fmt.Errorf("%w and %w", kind(mail.KindAuth), kind(mail.KindDisk)), 77}, // one sentence, one kind
	}
	for _, tt := range tests {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
	order := []int{exitUsage, exitConfig, 65, 74, 77, 69, 1, 3, 75, 0}
	for i, a := range order {
		for _, b := range order[i:] {
			if worse(a, b) != a || worse(b, a) != a {
				t.Errorf("of %d and %d the worse is %d, %d", a, b, worse(a, b), worse(b, a))
			}
		}
	}
}

func TestInterruptedCode(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(interrupted{syscall.SIGTERM})
	a := &app{}
	for err, want := range map[error]int{
		nil: 0, context.Canceled: 143, kind(mail.KindTemporary): 143, kind(mail.KindDisk): 74, kind(mail.KindIntegrity): 65,
	} {
		if got := a.code(ctx, err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
	if err := asInterrupted(ctx, context.Canceled); err.Error() != "interrupted by SIGTERM" || mail.HintOf(err) == "" {
		t.Errorf("%v (hint %q)", err, mail.HintOf(err))
	}
	disk := kind(mail.KindDisk)
	if err := asInterrupted(ctx, disk); err != disk {
		t.Errorf("the disk is not named: %v", err)
	}
	if err := asInterrupted(t.Context(), context.Canceled); err != context.Canceled {
		t.Errorf("no signal came: %v", err)
	}
}
