package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"mailhaul/internal/demo"
	"mailhaul/internal/testserver"
)

// The scripts run this test binary as mailhaul, a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"mailhaul": main, "xdg-open": browser})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else each race-checked process lingers for a second
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":     serve,
			"directory": directory,
			"provider":  provider,
			"revoke":    revoke,
			"code":      code,
			"lines":     lines,
			"smtp":      smtp,
			"mail":      mailed,
		},
	})
}

// serve starts the demo's servers until the script ends. It sets $IMAP, $POP3,
// $IMAPPORT and $POP3PORT, the password, and writes ca.pem. With "unknown" the
// password is in the file password and not in the environment.
//
//	serve [MESSAGES-PER-MAILBOX] [unknown]
func serve(ts *testscript.TestScript, neg bool, args []string) {
	all := demo.Account()
	if len(args) > 0 {
		n := 0
		_, err := fmt.Sscan(args[0], &n)
		ts.Check(err)
		for i := range all {
			all[i].Messages = slices.Clip(all[i].Messages[:min(n, len(all[i].Messages))])
		}
	}
	s, err := demo.Serve(all)
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Close()) })
	ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), s.CA, 0o600))
	for name, port := range map[string]int{"IMAP": s.IMAPPort, "POP3": s.POP3Port} {
		ts.Setenv(name, fmt.Sprintf("%ss://%s@%s:%d", strings.ToLower(name), demo.User, demo.Host, port))
		ts.Setenv(name+"PORT", fmt.Sprint(port))
	}
	if len(args) > 1 {
		ts.Check(os.WriteFile(ts.MkAbs("password"), []byte(demo.Password+"\n"), 0o600))
		return
	}
	ts.Setenv("MAILHAUL_PASSWORD", demo.Password)
}

// code runs mailhaul and wants an exit code, and that no secret is printed.
//
//	code 64 backup ...
func code(ts *testscript.TestScript, neg bool, args []string) {
	want := 0
	_, err := fmt.Sscan(args[0], &want)
	ts.Check(err)
	got := 0
	if err := ts.Exec("mailhaul", args[1:]...); err != nil {
		if _, scanErr := fmt.Sscanf(err.Error(), "exit status %d", &got); scanErr != nil {
			ts.Fatalf("%v", err)
		}
	}
	if (got == want) == neg {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	for _, name := range []string{"stdout", "stderr"} {
		if strings.Contains(ts.ReadFile(name), demo.Password) {
			ts.Fatalf("the password is in %s", name)
		}
	}
}

// lines counts the lines of a file or of stdout or stderr.
//
//	lines stdout 1
func lines(ts *testscript.TestScript, neg bool, args []string) {
	want := 0
	_, err := fmt.Sscan(args[1], &want)
	ts.Check(err)
	if got := strings.Count(ts.ReadFile(args[0]), "\n"); (got == want) == neg {
		ts.Fatalf("%s has %d lines, want %d", args[0], got, want)
	}
}

// tokens tell whether the provider of a script gave a token, by their directories.
var tokens sync.Map

// smtp starts a server for reports until the script ends, with the demo's user and
// password; it takes tokens of the script's provider, too. It sets $SMTPPORT and writes smtp-ca.pem.
func smtp(ts *testscript.TestScript, neg bool, args []string) {
	ca, err := testserver.NewCA()
	ts.Check(err)
	config, err := ca.TLS(testserver.Leaf{})
	ts.Check(err)
	s, err := testserver.StartSMTP(&testserver.SMTP{TLS: config, User: demo.User, Password: demo.Password, Takes: func(token string) bool {
		valid, ok := tokens.Load(ts.MkAbs("."))
		return token == "a-token-of-ada" || ok && valid.(func(string) bool)(token)
	}})
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Close()) })
	ts.Check(os.WriteFile(ts.MkAbs("smtp-ca.pem"), ca.PEM, 0o600))
	ts.Setenv("SMTPPORT", fmt.Sprint(s.Port()))
	reports.Store(ts.MkAbs("."), s)
}

// reports are the servers of running scripts, by their directories.
var reports sync.Map

// mailed wants so many reports to have been handed in, and text in the last one.
//
//	mail 1 'Subject: x'
func mailed(ts *testscript.TestScript, neg bool, args []string) {
	v, _ := reports.Load(ts.MkAbs("."))
	all := v.(*testserver.SMTP).Messages()
	if fmt.Sprint(len(all)) != args[0] || len(all) == 0 || !strings.Contains(all[len(all)-1].Data, args[1]) {
		ts.Fatalf("%d reports: %+v", len(all), all)
	}
}
