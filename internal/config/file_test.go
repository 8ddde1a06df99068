package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailhaul/internal/dial"
	"mailhaul/internal/place"
	"mailhaul/mail"
)

const whole = `
accounts-at-once = 8
connections-per-host = 20
metrics = "~/metrics.prom"

[notify]
to = "ada@example.org"
from = "mailhaul@example.org"
server = "smtp://ada@smtp.example.org"
password-command = "pass show smtp"
on = ["failure", "weekly"]
trouble-after = 5

[account.home]
server = "imaps://mail.example.org:1993"
user = "ada@example.org"
archive = "mbox:~/Mail/home"
password = "hunter2"
ca-file = "ca.pem"
client-cert = "/etc/cert.pem"
client-key = "/etc/key.pem"
tls-fingerprint = "` + pin + `"
timeout = "2m"
connections = 2
limit-rate = "500K"
max-time = "50m"
lock-wait = "1m"

[account.home.backup]
mailbox = ["INBOX", "Archive/**"]
since = 2024-01-31
seen = false
delete = true
keep = "30d"

[account.home.clean]
older-than = "1y"
flagged = true

[account.home.notify]
command = "logger -t mail"

[account."b@example.org"]
server = "pop3://b@example.org@h"
allow-cleartext = true
keyring = true
format = "maildir"
archive = "rel"
`

const pin = "4F:2A:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD"

func config(t *testing.T, mode fs.FileMode, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLoad(t *testing.T) {
	t.Setenv("HOME", "/home/ada")
	path := config(t, 0o600, whole)
	f, err := Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	notify := Notify{
		To: []string{"ada@example.org"}, From: "mailhaul@example.org",
		Server: place.Submission{Security: dial.StartTLS, User: "ada", Host: "smtp.example.org", Port: 587},
		Entry:  Entry{Command: "pass show smtp"}, On: []string{"failure", "weekly"}, After: 5,
	}
	own := notify
	own.Command = "logger -t mail"
	want := &File{
		Path: path, Exists: true, AccountsAtOnce: 8, ConnectionsPerHost: 20, Metrics: "/home/ada/metrics.prom", Notify: notify,
		Accounts: []*Account{
			{
				Name: "home", Line: 14,
				Server:  place.Server{Protocol: "imap", Security: dial.TLS, User: "ada@example.org", Host: "mail.example.org", Port: 1993},
				Archive: place.Archive{Format: "mbox", Dir: "/home/ada/Mail/home"},
				Entry:   Entry{Password: "hunter2"},
				CAFile:  filepath.Join(dir, "ca.pem"), ClientCert: "/etc/cert.pem", ClientKey: "/etc/key.pem", Fingerprint: pin,
				Timeout: 2 * time.Minute,
				Flags:   []Setting{{"connections", "2", 24}, {"limit-rate", "500K", 25}, {"max-time", "50m", 26}, {"lock-wait", "1m", 27}},
				Verbs: map[string][]Setting{
					"backup": {{"mailbox", "INBOX", 30}, {"mailbox", "Archive/**", 30}, {"since", "2024-01-31", 31}, {"no-seen", "true", 32}, {"delete", "true", 33}, {"keep", "30d", 34}},
					"clean":  {{"older-than", "1y", 37}, {"flagged", "true", 38}},
				},
				Notify: own,
			},
			{
				Name: "b@example.org", Line: 43,
				Server:         place.Server{Protocol: "pop3", Security: dial.StartTLS, User: "b@example.org", Host: "h", Port: 110},
				Archive:        place.Archive{Format: "maildir", Dir: filepath.Join(dir, "rel")},
				AllowCleartext: true, Entry: Entry{Keyring: true}, Verbs: map[string][]Setting{}, Notify: notify,
			},
		},
	}
	if diff := cmp.Diff(want, f); diff != "" {
		t.Error(diff)
	}
	if got := f.Names(); !cmp.Equal(got, []string{"home", "b@example.org"}) || f.Account("home") != f.Accounts[0] || f.Account("c") != nil {
		t.Errorf("names %q", got)
	}
	if !own.Wants("weekly") || own.Wants("trouble") || (Notify{On: Occasions}).Wants("failure") {
		t.Error("who is told of what")
	}
}

func TestLoadWithoutFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	f, err := Load("", nil)
	if err != nil || f.Exists || len(f.Accounts) != 0 || f.Path != filepath.Join(dir, "mailhaul", "config.toml") {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := Load(filepath.Join(dir, "named.toml"), nil); mail.KindOf(err) != mail.KindConfig || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was named is missing: %v", err)
	}
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("HOME", "/home/ada")
	if got := DefaultPath(); got != "/home/ada/.config/mailhaul/config.toml" {
		t.Error(got)
	}
	t.Setenv("HOME", "")
	if f, err := Load("", nil); err != nil || f.Path != "" || f.Exists {
		t.Errorf("without a home: %+v, %v", f, err)
	}
}

// Every mistake is told with its line and what to do.
func TestLoadErrors(t *testing.T) {
	check := func(verb, flag, value string) error {
		if value == "bad" {
			return &mail.Error{Kind: mail.KindUsage, Err: fmt.Errorf("%s --%s", verb, flag), Hint: "mend it"}
		}
		return nil
	}
	const server = "[account.a]\nserver=\"imaps://a@h\"\n"
	for _, tt := range []struct{ text, err, hint string }{
		{"\n\nfoo = 1", `line 3: unknown key "foo" at the top of the file`, "known here are account"},
		{"metric = 1", `line 1: unknown key "metric"`, "did you mean metrics?"},
		{"archive = 1", `line 1: unknown key "archive"`, "it belongs below a line [account.NAME]"},
		{"\n[accounts.a]", `line 2: unknown key "accounts"`, "did you mean account?"},
		{"account = 1", "line 1: account wants keys of its own", "write [account]"},
		{"[account]\nhome = 1", "line 2: home wants keys", "[account.home]"},
		{"[account.a]", `line 1: the account "a" has no server`, "server = "},
		{"[account.a]\nserver = 1", "line 2: server wants a text", `server = "…"`},
		{"[account.a]\nserver = \"\"", "line 2: server wants a text", ""},
		{"[account.a]\nserver = \"h\"", "line 2: the place of a server needs a scheme", "imaps://USER@HOST"},
		{"[account.a]\nserver = \"imaps://h\"", "names no user", ""},
		{"[account.a]\nserver = \"imaps://a@h\"\nuser=\"b\"", "the user is there twice", "leave it out"},
		{"[account.a]\nserver = \"imaps://a:secret@h\"", "must not hold a password", ""},
		{"[account.a]\nserver = \"imaps://h\"\nuser=\"a\\u0000\"", "control character", ""},
		{server + "bakcup = {}", `line 3: unknown key "bakcup"`, "did you mean backup?"},
		{server + "[account.a.backup]\nfree = \"1G\"", `line 4: unknown key "free" in [account.a.backup]`, "known here are before"},
		{server + "trash = true", `line 3: unknown key "trash"`, "[account.a.clean]"},
		{server + "frobnicate = true", `unknown key "frobnicate"`, "known here are allow-cleartext, archive, auth, backup"},
		{server + "archive = \"\\u0000\"", "line 3: the name of the archive holds a NUL", ""},
		{server + "archive = \"imaps://a@h\"", "line 3: an archive is a directory", ""},
		{server + "archive = \"mbox:x\"\nformat = \"maildir\"", "line 4: archive says one format", "leave one"},
		{server + "format = \"eml\"", "line 3: there is no archive format", "maildir"},
		{server + "password = \"x\"\nkeyring = true", "line 4: [account.a] says more than once where its password is", "keep one"},
		{server + "password-command = \"a 'b\"", "line 3: password-command: a quote is not closed", "sh -c"},
		{server + "keyring = \"yes\"", "line 3: keyring wants true or false", "keyring = true"},
		{server + "tls-fingerprint = \"12\"", "line 3: tls-fingerprint is no SHA-256", "openssl"},
		{server + "client-key = \"x\"", "line 3: client-key without a certificate", "client-cert"},
		{server + "timeout = \"soon\"", `line 3: timeout = "soon" is no time`, "30s"},
		{server + "connections = 1.5", "line 3: connections cannot be read", "--connections"},
		{server + "max-time = \"bad\"", `line 3: max-time = "bad": backup --max-time`, "mend it"},
		{server + "[account.a.clean]\nmailbox = [\"x\", 1]", "line 4: mailbox cannot be read", ""},
		{server + "[account.a.clean]\nbefore = \"bad\"", "line 4: before = \"bad\": clean --before", "mend it"},
		{"accounts-at-once = 0", "line 1: accounts-at-once wants a number from 1 to 200", "= 4"},
		{"[notify]\non = \"always\"", `line 2: there is no occasion "always"`, "failure, trouble, weekly"},
		{"[notify]\nto = []\nfrobnicate = 1", "unknown key \"frobnicate\" in [notify]", "known here are"},
		{"[notify]\nserver = \"imaps://a@h\"", "unknown scheme \"imaps\" for reports", "smtps://"},
		{"[notify]\nserver = \"smtp://h\"", "names no user", "or give user"},
		{"[notify]\ntoken-command = \"'\"", "line 2: token-command: a quote", "sh -c"},
		{"[notify]\ntoken-command = \"t\"\nkeyring = true", "line 2: [notify] has a password and a token-command", "keep one"},
		{"[notify]\ncommand = \"'\"", "line 2: command: a quote", "sh -c"},
		{"[account.\"a/b\"]\nserver=\"imaps://a@h\"", "line 1: \"a/b\" cannot be the name", "letters"},
		{"[account.-a]\nserver=\"imaps://a@h\"", "line 1: \"-a\" cannot be the name", "letters"},
		{"a = 1\na = 2", "line 2: \"a\" is there twice", "leave one"},
		{"x = hunter2", "line 1: this is no TOML", "quotes"},
	} {
		_, err := Load(config(t, 0o600, tt.text), check)
		if mail.KindOf(err) != mail.KindConfig || !strings.Contains(err.Error(), tt.err) || !strings.Contains(hints(err), tt.hint) {
			t.Errorf("%q:\n%v (hint %q), want\n%s (hint %q)", tt.text, err, hints(err), tt.err, tt.hint)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "secret@")) {
			t.Errorf("a secret is repeated: %v", err)
		}
	}
}

// hints are those of every error that was joined.
func hints(err error) string {
	var all []string
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			all = append(all, mail.HintOf(e))
		}
	}
	return strings.Join(append(all, mail.HintOf(err)), "\n")
}

func TestErrorsStandInTheOrderOfTheFile(t *testing.T) {
	_, err := Load(config(t, 0o600, "a = 1\nb = 2\n[account.x]\nserver = 1\n[notify]\nc = 3"), nil)
	last := -1
	for line := 1; line <= 6; line++ {
		if line == 3 || line == 5 {
			continue
		}
		at := strings.Index(err.Error(), fmt.Sprintf("line %d:", line))
		if at <= last {
			t.Fatalf("line %d is missing or out of order in\n%v", line, err)
		}
		last = at
	}
}

func TestPrivateFile(t *testing.T) {
	const server = "[account.a]\nserver=\"imaps://a@h\"\n"
	for _, tt := range []struct {
		mode fs.FileMode
		text string
		err  string
	}{
		{0o600, server + `password = "x"`, ""},
		{0o640, server + `password = "x"`, "can be read by others (mode 0640), and [account.a] holds a secret"},
		{0o604, "[notify]\npassword = \"x\"", "and [notify] holds a secret"},
		{0o604, server + "[account.a.notify]\npassword = \"x\"", "and [account.a.notify] holds a secret"},
		{0o644, server + `password-command = "pass x"`, ""},
		{0o664, server, "can be changed by others (mode 0664)"},
		{0o602, server, "can be changed by others"},
	} {
		_, err := Load(config(t, tt.mode, tt.text), nil)
		if tt.err == "" {
			if err != nil {
				t.Errorf("%04o %q: %v", tt.mode, tt.text, err)
			}
			continue
		}
		if mail.KindOf(err) != mail.KindConfig || !strings.Contains(err.Error(), tt.err) || !strings.Contains(mail.HintOf(err), "chmod 600") {
			t.Errorf("%04o %q: %v", tt.mode, tt.text, err)
		}
	}
	if os.Getuid() == 0 {
		path := config(t, 0o600, server)
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, nil); mail.KindOf(err) != mail.KindConfig || !strings.Contains(err.Error(), "belongs to another user") {
			t.Error(err)
		}
	}
}

func TestFileOfAnyLength(t *testing.T) {
	if _, err := Load(config(t, 0o600, strings.Repeat("#", fileLimit+1)), nil); mail.KindOf(err) != mail.KindConfig {
		t.Error(err)
	}
	if _, err := Load(t.TempDir(), nil); mail.KindOf(err) != mail.KindConfig || !strings.Contains(err.Error(), "is a directory") {
		t.Error(err)
	}
}

func TestConfigured(t *testing.T) {
	found(t, Password{Entry: Entry{Password: secret}})
	found(t, Password{Entry: Entry{Command: "printf '" + secret + "'"}})
	found(t, Password{Entry: Entry{File: write(t, 0o600, secret)}})
	refused(t, Password{Entry: Entry{Command: "false"}, Netrc: write(t, 0o600, "default password "+secret)}, mail.KindAuth, "failed", "")
	refused(t, Password{User: "a", Host: "h", Entry: Entry{Keyring: true}}, mail.KindAuth, "there is no keyring in this session", "password-file")
	// What is typed, and the environment, go before it.
	other := Entry{Password: "other"}
	found(t, Password{Given: secret, Entry: other})
	found(t, Password{File: write(t, 0o600, secret), Entry: other})
	t.Setenv("MAILHAUL_PASSWORD", secret)
	found(t, Password{Env: "MAILHAUL_PASSWORD", Entry: other})
}

func FuzzLoad(f *testing.F) {
	f.Add(whole)
	f.Add("[account.a]\nserver = \"imaps://a@h\"\npassword = \"\"\"\nx\"\"\"\n")
	f.Add("account = [{server = 1}]\n[notify]\nto = [1, 2, {}]\n")
	f.Add("account.a.server = \"imaps://a@h\"\naccount.a.backup.mailbox = [[]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := &File{Path: "/x/config.toml"}
		if err := c.parse(text, nil); err != nil {
			for _, e := range []error{err} {
				if mail.KindOf(e) != mail.KindConfig {
					t.Fatalf("%v is no error of the configuration", e)
				}
			}
			return
		}
		for _, a := range c.Accounts {
			if a.Server.Host == "" || a.Server.User == "" || CheckName(a.Name) != nil {
				t.Fatalf("%+v", a)
			}
		}
	})
}
