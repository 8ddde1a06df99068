//go:build !unix

package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// harden has nothing to do where files belong to their owner by inheritance.
func harden() {}

func signalName(s syscall.Signal) string { return s.String() }

// watchSignals ends the context at the first interrupt and the process at the
// second.
func (a *app) watchSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt)
	done := make(chan struct{})
	go func() {
		select {
		case <-done:
			return
		case <-signals:
			cancel(interrupted{syscall.SIGINT})
		}
		select {
		case <-done:
		case <-signals:
			os.Exit(128 + int(syscall.SIGINT))
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// isJournal is for systemd only.
func isJournal(io.Writer) bool { return false }
