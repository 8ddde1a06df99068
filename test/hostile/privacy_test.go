package hostile

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
)

// spellings are the ways a password can be written down.
func spellings() map[string]string {
	b64 := base64.StdEncoding.EncodeToString
	all := map[string]string{
		"as it is":          password,
		"in base64":         b64([]byte(password)),
		"in base64 for URL": base64.RawURLEncoding.EncodeToString([]byte(password)),
		"in a query":        url.QueryEscape(password),
		"in a path":         url.PathEscape(password),
		"as user info":      strings.TrimPrefix(url.UserPassword("", password).String(), ":"),
		"quoted":            fmt.Sprintf("%q", password),
	}
	for _, name := range []string{user, "grace"} {
		all["SASL PLAIN of "+name] = b64([]byte("\x00" + name + "\x00" + password))
	}
	return all
}

// telling returns how a password stands in octets; "" if it does not.
func telling(octets []byte) string {
	for how, s := range spellings() {
		if bytes.Contains(octets, []byte(s)) {
			return how
		}
	}
	return ""
}

// secure starts an IMAP server over TLS that logs in only who knows the password,
// and counts those who did.
func secure(t *testing.T, caps string, msgs []string) (*testserver.IMAP, string) {
	t.Helper()
	cfg, err := authority.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	s := &testserver.IMAP{Capabilities: caps, TLS: cfg, Boxes: map[string][]testserver.IMAPMessage{}}
	for i, m := range msgs {
		s.Messages = append(s.Messages, testserver.IMAPMessage{UID: uint32(i + 1), Octets: m, Flags: `\Seen`})
	}
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		// An answer that repeats the secret is not to bring it into a log.
		if strings.HasPrefix(cmd, "EXAMINE") {
			c.Send("* OK [ALERT] your password is " + password + "\r\n")
		}
		return false
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, fmt.Sprintf("imaps://%%s@127.0.0.1:%d", s.Port())
}

// TestPrivacy runs every verb with -v, --trace and the log at debug, and looks for
// the password in all it prints, in every file it writes, in its arguments, its
// environment and those of its children, and for connections to anywhere but the
// servers that were named.
func TestPrivacy(t *testing.T) {
	for name, caps := range map[string]string{
		"PLAIN":            capable + " MOVE",
		"PLAIN, two steps": "IMAP4rev1 AUTH=PLAIN UIDPLUS MOVE",
		"LOGIN":            "IMAP4rev1 UIDPLUS MOVE",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			privacy(t, caps)
		})
	}
}

func privacy(t *testing.T, caps string) {
	h := newHouse(t)
	h.user.Password = "" // nothing of the environment
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, at := secure(t, caps, letters(4))
	d, to := secure(t, caps, nil)
	source, dest := fmt.Sprintf(at, user), fmt.Sprintf(to, "grace")
	p, err := testserver.NewPOP3(testserver.POP3Options{User: user, Password: password, TLS: s.TLS, Implicit: true,
		Messages: []testserver.POP3Message{{Octets: []byte(letter(9))}}, Faults: testserver.POP3Faults{NoSASL: strings.Contains(caps, "LOGIN")}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pop := fmt.Sprintf("pop3s://%s@127.0.0.1:%d", user, p.Port())
	pops := h.archive() + "/../source"
	file := []string{"--password-file", secret}
	command := []string{"--password-command", "cat " + secret}
	both := append(file, "--dest-password-file", secret)

	verbs := verbsWithSecrets(t)
	for _, run := range [][]string{
		append([]string{"backup", source, h.archive(), "--mailbox", "INBOX"}, file...),
		append([]string{"backup", pop, pops}, command...),
		append([]string{"clean", source, h.archive(), "--larger", "1", "--dry-run"}, command...),
		append([]string{"clean", source, h.archive(), "--larger", "1", "--yes", "--max-delete", "100%"}, file...),
		append([]string{"undo", h.archive(), source}, file...),
		append([]string{"backup", source, h.archive(), "--delete"}, file...),
		append([]string{"backup", pop, pops, "--delete"}, file...),
		append([]string{"undo", pops, source}, file...),
		append([]string{"upload", h.archive(), dest}, "--dest-password-command", "cat "+secret),
		append([]string{"migrate", source, dest}, both...),
		append([]string{"backup", source, h.archive()}, file...),
		append([]string{"verify", h.archive(), source}, file...),
		append([]string{"verify", source, dest}, both...),
		append([]string{"doctor", source}, file...),
		append([]string{"size", source}, file...),
		{"verify", h.archive()}, {"ls", h.archive()}, {"ls", h.archive(), "INBOX"},
	} {
		if !slices.Contains(verbs, run[0]) && run[0] != "ls" {
			continue // not in this program
		}
		h.discreet(t, run, []int{s.Port(), d.Port(), p.Port()})
	}
	for _, v := range verbs {
		if !slices.Contains([]string{"backup", "clean", "undo", "upload", "migrate", "verify", "doctor", "size", "setup"}, v) {
			t.Errorf("%s takes a password and is not looked at here", v)
		}
	}
	if len(s.Held("INBOX")) == 0 && len(d.Held("INBOX")) == 0 {
		t.Error("no run did anything")
	}
	if in := strings.Join(append(s.Sent(), d.Sent()...), "\n"); telling([]byte(in)) == "" && !strings.Contains(in, "PLAIN") {
		t.Error("nobody ever logged in")
	}
}

// helpVerb is a line of the help about a verb.
var helpVerb = regexp.MustCompile(`(?m)^  ([a-z]+) {2,}[A-Z]`)

// verbsWithSecrets are those that log in somewhere.
func verbsWithSecrets(t *testing.T) (verbs []string) {
	t.Helper()
	help, err := exec.Command(bin, "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range helpVerb.FindAllStringSubmatch(string(help), -1) {
		verb := m[1]
		out, err := exec.Command(bin, verb, "--help").Output()
		if err != nil {
			t.Fatalf("%s --help: %v", verb, err)
		}
		if strings.Contains(string(out), "password-file") {
			verbs = append(verbs, verb)
		}
	}
	if len(verbs) < 6 {
		t.Errorf("only %v take a password", verbs)
	}
	return verbs
}

// tells returns how a secret stands in octets; "" if none does.
func (h *house) tells(octets []byte) string {
	for how, s := range h.secrets {
		if bytes.Contains(octets, []byte(s)) {
			return how
		}
	}
	return telling(octets)
}

// discreet runs a verb and looks for the password everywhere.
func (h *house) discreet(t *testing.T, run []string, ports []int) result {
	t.Helper()
	return h.ending(t, 0, run, ports)
}

// ending is discreet for a run that ends with an exit code.
func (h *house) ending(t *testing.T, code int, run []string, ports []int) result {
	t.Helper()
	trace := filepath.Join(h.user.Home, "state", "trace")
	if err := os.MkdirAll(filepath.Dir(trace), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	cmd := h.user.Command(ctx, append(slices.Clone(run), "-v", "--trace", trace, "--log-level", "debug")...)
	cmd.Env = append(cmd.Env, mark)
	calls := filepath.Join(t.TempDir(), "calls")
	traced := straced(t, cmd, calls)
	done := make(chan struct{})
	seen := make(chan string, 1)
	go func() { seen <- lookAround(done, h.tells) }()
	r := h.finish(ctx, cmd)
	close(done)
	if how := <-seen; how != "" {
		t.Errorf("%s: the password stands %s", run[0], how)
	}
	if r.code != code {
		t.Errorf("want exit %d: %s %v", code, run[0], r)
	}
	if how := h.tells([]byte(r.stdout + r.stderr)); how != "" {
		t.Errorf("the password stands %s in the output: %v", how, r)
	}
	err := filepath.WalkDir(h.user.Home, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		octets, err := os.ReadFile(path)
		how := h.tells(octets)
		if how == "" || err != nil {
			return err
		}
		info, err := e.Info()
		if within, _ := filepath.Rel(h.user.Home, filepath.Dir(path)); err != nil || !slices.Contains(h.keeps, within) || info.Mode().Perm() != 0o600 {
			t.Errorf("after %s the password stands %s in %s (%v)", run[0], how, path, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if traced {
		onlyTo(t, run[0], calls, ports)
	}
	return r
}

// lookAround looks, until done, at the arguments and environments of all processes
// that are running the program.
func lookAround(done <-chan struct{}, tells func([]byte) string) (found string) {
	for {
		procs, _ := filepath.Glob("/proc/[0-9]*")
		for _, p := range procs {
			exe, err := os.Readlink(p + "/exe")
			if err != nil || exe != bin && !strings.HasSuffix(exe, "/cat") {
				continue
			}
			for _, name := range []string{"cmdline", "environ"} {
				octets, _ := os.ReadFile(p + "/" + name) // it may be gone
				if how := tells(octets); how != "" && private(p) {
					found = how + " in " + name
				}
			}
		}
		select {
		case <-done:
			return found
		case <-time.After(3 * time.Millisecond):
		}
	}
}

// private tells whether a process belongs to a test of privacy: the others have the
// password in the environment that they were given.
func private(proc string) bool {
	octets, _ := os.ReadFile(proc + "/environ")
	return bytes.Contains(octets, []byte(mark))
}

// mark stands in the environment of what TestPrivacy runs.
const mark = "RUN_BY=TestPrivacy"

// straced makes strace note where the program connects to, if there is a strace.
func straced(t *testing.T, cmd *exec.Cmd, out string) bool {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv(dovecot.RequireEnv) == "1" {
			t.Fatal(err)
		}
		return false
	}
	cmd.Args = append([]string{path, "-f", "-qq", "-e", "trace=connect,sendto", "-o", out, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = path
	return true
}

var connected = regexp.MustCompile(`sin6?_port=htons\((\d+)\).*?inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"`)

// onlyTo checks that all connections went to the servers.
func onlyTo(t *testing.T, verb, calls string, ports []int) {
	t.Helper()
	octets, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range connected.FindAllStringSubmatch(string(octets), -1) {
		if m[2] != "127.0.0.1" || !slices.ContainsFunc(ports, func(p int) bool { return fmt.Sprint(p) == m[1] }) {
			t.Errorf("%s connected to %s port %s", verb, m[2], m[1])
		}
	}
}
