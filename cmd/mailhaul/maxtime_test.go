package main

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// A connection that was being made when the time was over only says that a
// deadline passed; a person is told which.
func TestMaxTimeIsNamed(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, errMaxTime)
	defer cancel()
	<-ctx.Done()
	if err := asInterrupted(ctx, fmt.Errorf("connect: %w", context.DeadlineExceeded)); !errors.Is(err, errMaxTime) {
		t.Errorf("told as %v", err)
	}
	other := errors.New("other")
	if err := asInterrupted(ctx, other); err != other {
		t.Errorf("told as %v", err)
	}
}
