package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
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

// On a terminal setup asks, and asks again what makes no sense; a wrong password may be
// mended once. An end leaves nothing behind, and says so.
func TestSetupAsks(t *testing.T) {
	s := server(t)
	load(t, s, "asked", "INBOX", ordinary(3, 0)...)
	right := exchange{"Password of", dovecot.Password + "\n"}
	for _, c := range []struct {
		name  string
		turns []exchange
		code  int
		says  string
		kept  bool
	}{
		{"all well", []exchange{right, {"Name of the account [asked]: ", "\n"}, {"Keep its mail in [~/Mail/asked]: ", "archive\n"},
			{"Make the first backup now?", "\n"}, {"And one every day?", "n\n"}}, 0, "asked: 3 new messages", true},
		{"what makes no sense", []exchange{right, {"Name of the account", "a/b\n"}, {"cannot be the name", ""}, {"Name of the account", "home\n"},
			{"Keep its mail in [~/Mail/home]: ", "imaps://x\n"}, {"an archive is a directory", ""}, {"Keep its mail in", "archive\n"},
			{"Make the first backup now?", "n\n"}, {"And one every day?", "n\n"}}, 0, "mailhaul backup home", true},
		{"mistyped once", []exchange{{"Password of", "wrong\n"}, {"Perhaps it was mistyped", ""}, right, {"Name of the account", "\n"}, {"Keep its mail in", "archive\n"},
			{"Make the first backup now?", "n\n"}, {"And one every day?", "n\n"}}, 0, "mailhaul backup asked", true},
		{"mistyped twice", []exchange{{"Password of", "wrong\n"}, {"Password of", "wrong\n"}}, 77, "check user name and password", false},
		{"no password", []exchange{{"Password of", "\n"}}, 77, "no password was typed", false},
		{"interrupted at the password", []exchange{{"Password of", "\x03"}}, 130, "no account was stored", false},
		{"interrupted at the name", []exchange{right, {"Name of the account", "\x03"}}, 130, "no account was stored", false},
		{"interrupted when it is stored", []exchange{right, {"Name of the account", "\n"}, {"Keep its mail in", "archive\n"}, {"Make the first backup now?", "\x03"}},
			130, "the account is stored", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, s)
			h.password = ""
			code, drawn := h.converse(c.turns, "setup", "asked@example.org", "--server", place("imaps", s, "asked"), "--store", "file")
			if code != c.code || !strings.Contains(drawn, c.says) {
				t.Errorf("exit %d, want %d and %q: %s", code, c.code, c.says, drawn)
			}
			if strings.Contains(drawn, dovecot.Password) {
				t.Errorf("the password is shown: %s", drawn)
			}
			_, err := os.Stat(filepath.Join(h.home, "config", "mailhaul", "config.toml"))
			secrets, _ := os.ReadDir(filepath.Join(h.home, "config", "mailhaul", "secrets"))
			if (err == nil) != c.kept || (len(secrets) == 1) != c.kept {
				t.Errorf("configuration %v, %d secrets, want kept %v", err, len(secrets), c.kept)
			}
		})
	}
}

// answer runs mailhaul on a terminal, and answers its question.
func (h *host) answer(answer string, before func() error, args ...string) (code int, drawn string) {
	h.t.Helper()
	return h.onTerminal(func(drawn string, typed int) (string, bool) {
		if typed > 0 || !strings.Contains(drawn, "[y/N]") {
			return "", false
		}
		if err := before(); err != nil {
			h.t.Error(err)
		}
		return answer, true
	}, args...)
}

// exchange is what is awaited on the terminal, and what is typed then.
type exchange struct{ await, answer string }

// converse runs mailhaul on a terminal, with a person who answers in turn.
func (h *host) converse(turns []exchange, args ...string) (code int, drawn string) {
	h.t.Helper()
	seen := 0
	return h.onTerminal(func(drawn string, typed int) (string, bool) {
		if typed >= len(turns) {
			return "", false
		}
		at := strings.Index(drawn[seen:], turns[typed].await)
		if at < 0 {
			return "", false
		}
		seen += at + len(turns[typed].await)
		return turns[typed].answer, true
	}, args...)
}

// onTerminal runs mailhaul on a terminal. person is told what was drawn and how often
// something was typed, and says what to type now.
func (h *host) onTerminal(person func(drawn string, typed int) (string, bool), args ...string) (code int, drawn string) {
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
	typed := 0
	buf := make([]byte, 4096)
	for { // ends with EIO when the last user of the terminal is gone
		n, err := master.Read(buf)
		b.Write(buf[:n])
		for {
			text, ok := person(b.String(), typed)
			if !ok {
				break
			}
			typed++
			if _, err := master.WriteString(text); err != nil {
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
