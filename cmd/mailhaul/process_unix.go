//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// harden keeps what the process writes to its owner: no file for others whatever
// the umask was, and no core file with a password in it.
func harden() {
	unix.Umask(0o077)
	// Not being allowed to lower a limit is no reason to refuse work.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

func signalName(s syscall.Signal) string { return unix.SignalName(s) }

// watchSignals ends the context at SIGINT or SIGTERM; a second one, or a run that
// does not leave in time, ends the process at once: everything on disk is made to
// survive that. SIGUSR1 shows where the run stands. A closed pipe is an error of
// the write, not the end of the run.
func (a *app) watchSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 4)
	signal.Ignore(syscall.SIGPIPE)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1)
	done := make(chan struct{})
	go func() {
		var late <-chan time.Time
		first := 0
		for {
			select {
			case <-done:
				return
			case <-late:
				os.Exit(first)
			case s := <-signals:
				sig, _ := s.(syscall.Signal)
				switch {
				case sig == syscall.SIGUSR1:
					a.status()
				case first != 0:
					os.Exit(128 + int(sig))
				default:
					first = 128 + int(sig)
					late = time.After(grace)
					cancel(interrupted{sig})
				}
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// isJournal tells whether what is written there is read by the journal of systemd,
// which understands priorities in front of a line (sd-daemon(3)).
func isJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	stream := os.Getenv("JOURNAL_STREAM")
	if !ok || stream == "" {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && stream == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
