// Package docs runs what README and docs/ tell people to type.
package docs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/test/rig"
)

// untried are commands that no test can type as they stand, and what holds them
// instead.
var untried = map[string]string{
	"go build":                       "test.sh builds",
	"go run ./bench":                 "measures for minutes; test.sh builds it",
	"go run ./test/":                 "takes an hour",
	"go test":                        "test.sh runs them",
	"./test.sh":                      "is what runs this",
	"packaging/":                     "packaging/check",
	"goreleaser":                     "publishes",
	"apt ":                           "packaging/check installs the package",
	"apt-get ":                       "packaging/check installs the package",
	"podman ":                        "takes images from elsewhere",
	"crontab ":                       "changes the user's crontab",
	"systemctl ":                     "changes the user's services",
	"loginctl ":                      "changes the user's services",
	"launchctl ":                     "macOS",
	"schtasks ":                      "Windows",
	"mailhaul setup":                 "asks the DNS: TestScripts/setup",
	"mailhaul login":                 "opens a browser: TestScripts/login",
	"mailhaul trust":                 "asks a person: TestScripts/trust",
	"MAILHAUL_CRASH":                 "takes an hour",
	"MAILHAUL_FUZZ":                  "takes an hour",
	"mailhaul migrate \"imaps://{}@": "stands for many",
	"mailhaul backup imaps://ada@example.com@outlook": "takes a token: TestScripts/login",
	"mailhaul VERB":    "stands for any verb",
	"mailhaul schedul": "changes the user's services: TestScripts/schedule",
}

// ends are commands that end with another code than 0, and why.
var ends = []end{
	{regexp.MustCompile(`^mailhaul clean .*--larger 100K$`), 0}, // the mail here is smaller: nothing to ask
	{regexp.MustCompile(`^mailhaul clean (?:.*[^\w-])?(?:--yes|--dry-run|-n)\b`), 0},
	{regexp.MustCompile(`^mailhaul clean `), 1}, // asks, and here is nobody to answer
}

type end struct {
	match *regexp.Regexp
	code  int
}

// A line of a document is a command if it is in a block of code and begins so.
var command = regexp.MustCompile(`^(?:\$ )?((?:mailhaul|go|packaging/|goreleaser|apt|apt-get|podman|crontab|systemctl|loginctl|launchctl|schtasks|\./test\.sh|MAILHAUL_\w+=)[ /].*|\./test\.sh)$`)

// A line of a crontab has five fields before it.
var crontab = regexp.MustCompile(`^(?:[\d*/,-]+\s+){5}(mailhaul .*)$`)

// commands are those of a document, in its order.
func commands(text string) (found []string) {
	fenced, joined := false, ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced && !strings.HasPrefix(line, "    ") {
			continue
		}
		line = joined + strings.TrimSpace(line)
		joined = ""
		if rest, more := strings.CutSuffix(line, `\`); more {
			joined = rest
			continue
		}
		if m := crontab.FindStringSubmatch(line); m != nil {
			found = append(found, m[1])
		} else if m := command.FindStringSubmatch(line); m != nil {
			found = append(found, m[1])
		}
	}
	return found
}

// configuration is what a document's first block of TOML says.
func configuration(text string) string {
	_, rest, found := strings.Cut(text, "```toml\n")
	if !found {
		return ""
	}
	block, _, _ := strings.Cut(rest, "```")
	return block
}

// reader is somebody who types what a document says.
type reader struct {
	t      *testing.T
	server *dovecot.Server
	user   rig.User
	filled map[string]bool // users whose mailboxes have mail
}

var remote = regexp.MustCompile(`\b(imaps|pop3s|imap|pop3)://([\w.%+-]+(?:@[\w.-]+)?)@([\w.-]+)`)

// nearby replaces the servers of a text by accounts at the one that runs here:
// one for each host, whatever it is called for a protocol, all with mail but those
// that are new.
func (r *reader) nearby(text string) string {
	return remote.ReplaceAllStringFunc(text, func(place string) string {
		m := remote.FindStringSubmatch(place)
		scheme, host := m[1], m[3]
		for _, prefix := range []string{"imap.", "pop.", "mail."} {
			host = strings.TrimPrefix(host, prefix)
		}
		user := "ada." + host
		if !strings.HasPrefix(host, "new.") {
			r.fill(user)
		}
		port := map[string]int{"imaps": r.server.IMAPS, "pop3s": r.server.POP3S, "imap": r.server.IMAP, "pop3": r.server.POP3}[scheme]
		return fmt.Sprintf("%s://%s@127.0.0.1:%d", scheme, user, port)
	})
}

// fill gives a user mail of several years.
func (r *reader) fill(user string) {
	r.t.Helper()
	if r.filled[user] {
		return
	}
	r.filled[user] = true
	for i, mailbox := range []string{"INBOX", "Archive/2023", "Sent", "Junk", "Trash"} {
		var list []dovecot.Message
		for k := range 24 {
			m := corpus.Generate(corpus.Small, 100*i+k)
			list = append(list, dovecot.Message{Octets: m.Octets, Date: time.Now().AddDate(0, -k, -1)})
		}
		if err := r.server.Append(user, mailbox, list...); err != nil {
			r.t.Fatal(err)
		}
	}
}

// own replaces places of the whole system by places of this user.
func (r *reader) own(text string) string {
	for _, dir := range []string{"/srv/", "/etc/mailhaul", "/var/lib/"} {
		text = strings.ReplaceAll(text, " "+dir, " "+r.user.Home+dir)
		text = strings.ReplaceAll(text, `"`+dir, `"`+r.user.Home+dir)
	}
	return text
}

// types runs one line as a shell would.
func (r *reader) types(line string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	typed := r.own(r.nearby(line))
	cmd := exec.CommandContext(ctx, "bash", "-c", typed)
	cmd.Env = append(r.user.Command(ctx).Env, "SSL_CERT_FILE="+r.user.CAFile,
		"MAILHAUL_DEST_PASSWORD="+r.user.Password, "PATH="+filepath.Dir(r.user.Bin)+":"+filepath.Join(r.user.Home, "bin")+":"+os.Getenv("PATH"))
	cmd.Dir, cmd.WaitDelay = r.user.Home, 5*time.Second
	out, err := cmd.CombinedOutput()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		r.t.Fatal(err)
	}
	want := 0
	if i := slices.IndexFunc(ends, func(e end) bool { return e.match.MatchString(line) }); i >= 0 {
		want = ends[i].code
	}
	if code != want {
		r.t.Errorf("%s\nexit %d, not %d:\n%s", line, code, want, out)
	}
}

// prepare lays out what documents take for granted: files of passwords, and a
// program that knows one.
func (r *reader) prepare(text string) {
	r.t.Helper()
	for _, m := range regexp.MustCompile(`--password-file (\S+)|password-file = "([^"]+)"`).FindAllStringSubmatch(text, -1) {
		name := m[1] + m[2]
		if rest, home := strings.CutPrefix(name, "~"); home {
			name = r.user.Home + rest
		} else {
			name = r.user.Home + name
		}
		r.write(name, r.user.Password+"\n", 0o600)
	}
	for _, program := range []string{"pass", "secret-tool", "systemd-creds"} {
		r.write(filepath.Join(r.user.Home, "bin", program), "#!/bin/sh\necho '"+r.user.Password+"'\n", 0o700)
	}
	r.write(filepath.Join(r.user.Home, "config", "mailhaul", "config.toml"), r.own(r.nearby(configuration(text))), 0o600)
}

func (r *reader) write(name, text string, mode os.FileMode) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		r.t.Fatal(err)
	}
}

func TestCommands(t *testing.T) {
	bin := t.TempDir()
	program, err := rig.Build(bin)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	all := 0
	for _, name := range append(docs, "../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := commands(string(text))
		all += len(lines)
		if len(lines) == 0 {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			server := dovecot.Start(t, dovecot.Options{Quota: "100M"})
			r := &reader{t: t, server: server, filled: map[string]bool{}, user: rig.User{
				Bin: program, Home: t.TempDir(), CAFile: server.CAFile, Password: dovecot.Password,
			}}
			r.prepare(string(text))
			for _, line := range lines {
				if why := reason(line); why == "" {
					r.types(repository(t, line))
				}
			}
		})
	}
	if all < 15 {
		t.Errorf("only %d commands in all documents", all)
	}
}

// reason says why a command is not typed; "" if it is.
func reason(line string) string {
	for start, why := range untried {
		if strings.HasPrefix(line, start) {
			return why
		}
	}
	return ""
}

// repository lets go find the sources, wherever the command is typed.
func repository(t *testing.T, line string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if rest, is := strings.CutPrefix(line, "go run ./cmd/mailhaul"); is {
		return "mailhaul" + rest // built from the same sources
	}
	if strings.HasPrefix(line, "go ") {
		return "cd " + root + " && " + line
	}
	return line
}
