package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// On a terminal clean asks, and what happens at the server while a person thinks
// counts: what is no longer as it was planned stays.
func TestCleanAsks(t *testing.T) {
	s := server(t)
	for i, c := range []struct {
		name, scheme, answer string
		meanwhile            func(user string) error
		code, left           int
		says                 string
	}{
		{name: "yes", scheme: "imaps", answer: "y\n", left: 2},
		{name: "yes over POP3", scheme: "pop3s", answer: "yes\n", left: 2},
		{name: "no", scheme: "imaps", answer: "n\n", code: 1, left: 6, says: "not confirmed"},
		{name: "nothing", scheme: "imaps", answer: "\n", code: 1, left: 6, says: "not confirmed"},
		{name: "flagged", scheme: "imaps", answer: "y\n", left: 3, says: "1 flagged",
			meanwhile: func(user string) error { return s.Store(user, "INBOX", "5", "+FLAGS", `\Flagged`) }},
		{name: "marked", scheme: "imaps", answer: "y\n", left: 3, says: "marked",
			meanwhile: func(user string) error { return s.Store(user, "INBOX", "5,1", "+FLAGS", `\Deleted`) }},
		{name: "expunged", scheme: "imaps", answer: "y\n", left: 2, says: "no longer at the server",
			meanwhile: func(user string) error { return s.Expunge(user, "INBOX", "5") }},
		{name: "expunged, POP3", scheme: "pop3s", answer: "y\n", code: 3, left: 2, says: "does not show it again",
			meanwhile: func(user string) error { return s.Expunge(user, "INBOX", "5") }},
		{name: "new UIDVALIDITY", scheme: "imaps", answer: "y\n", code: 3, left: 6, says: "UIDVALIDITY",
			meanwhile: func(user string) error { return s.SetUIDValidity(user, "INBOX", 4711) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, s)
			user := fmt.Sprint("asks", i)
			archive := filepath.Join(h.home, "archive")
			load(t, s, user, "INBOX", aged(6, 0)...)
			source := place(c.scheme, s, user)
			h.complete(source, archive)
			code, drawn := h.answer(c.answer, func() error {
				if c.meanwhile == nil {
					return nil
				}
				return c.meanwhile(user)
			}, "clean", source, archive, "--older-than", "3d")
			if code != c.code || !strings.Contains(drawn, c.says) {
				t.Errorf("exit %d, want %d and %q: %s", code, c.code, c.says, drawn)
			}
			if plan, _, _ := strings.Cut(drawn, "[y/N]"); !strings.Contains(plan, "to go") {
				t.Errorf("no plan before the question: %s", drawn)
			}
			count(t, s, user, "INBOX", c.left)
		})
	}
}

// answer runs mailhaul on a terminal, and answers its question.
func (h *host) answer(answer string, before func() error, args ...string) (code int, drawn string) {
	h.t.Helper()
	master, slave, err := openTerminal()
	if err != nil {
		h.t.Fatal(err)
	}
	defer master.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := h.command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	_ = slave.Close()
	var b strings.Builder
	asked := false
	buf := make([]byte, 4096)
	for { // ends with EIO when the last user of the terminal is gone
		n, err := master.Read(buf)
		b.Write(buf[:n])
		if !asked && strings.Contains(b.String(), "[y/N]") {
			asked = true
			if err := before(); err != nil {
				h.t.Error(err)
			}
			if _, err := master.WriteString(answer); err != nil {
				h.t.Error(err)
			}
		}
		if err != nil {
			break
		}
	}
	_ = cmd.Wait() // the code tells
	return cmd.ProcessState.ExitCode(), b.String()
}
