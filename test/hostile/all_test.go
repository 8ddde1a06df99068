package hostile

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"mailhaul/internal/testserver"
)

// allMemory is the most that a run for many accounts may have resident, in KiB.
const allMemory = 80 << 10

// neighbours is a configuration of many accounts, of which some never work.
type neighbours struct {
	h      *house
	config string
	good   []string
	bad    map[string]string // account to what is said of it
	cured  *atomic.Bool      // those that are stuck or take no password work, too
}

// newNeighbours makes twenty accounts: four of servers that take a connection and
// say nothing, two that fall silent behind the login, two where nobody listens, two with a
// wrong password, and ten that work. The bad ones come first.
func newNeighbours(t *testing.T, top string, msgs []string) neighbours {
	t.Helper()
	n := neighbours{h: newHouse(t), bad: map[string]string{}, cured: new(atomic.Bool)}
	dir := t.TempDir()
	n.config = filepath.Join(dir, "config.toml")
	n.h.user.Password = ""
	secret := func(name, password string) string {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	right, wrong := secret("right", password), secret("wrong", "battery staple")
	var b strings.Builder
	b.WriteString(top)
	account := func(name string, port int, secret string) {
		fmt.Fprintf(&b, "\n[account.%s]\nserver = \"imap+insecure://%s@127.0.0.1:%d\"\npassword-file = %q\narchive = %q\n[account.%s.clean]\nlarger = \"1\"\n",
			name, user, port, secret, filepath.Join(n.h.user.Home, "archive", name), name)
	}
	bad := func(name string, port int, secret, says string) {
		account(name, port, secret)
		n.bad[name] = says
	}
	served := func(edit func(*testserver.IMAP)) int {
		return imapPort(imap(msgs, edit)(t).place)
	}
	for i := range 4 {
		s, err := testserver.NewScript([]testserver.Step{testserver.Hold()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		bad(fmt.Sprintf("mute%d", i), s.Port(), right, "did not answer for")
	}
	for i := range 2 {
		bad(fmt.Sprintf("stuck%d", i), served(func(s *testserver.IMAP) {
			s.Answer = func(_ *testserver.IMAPConn, cmd string) bool {
				return !n.cured.Load() && !strings.HasPrefix(cmd, "AUTHENTICATE")
			}
		}), right, "did not answer for")
	}
	for i := range 2 {
		closed, err := testserver.NewRefusing()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { closed.Close() })
		bad(fmt.Sprintf("closed%d", i), closed.Port(), right, "connection refused")
	}
	for i := range 2 {
		bad(fmt.Sprintf("wrong%d", i), served(func(s *testserver.IMAP) {
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if n.cured.Load() || !strings.HasPrefix(cmd, "AUTHENTICATE") {
					return false
				}
				c.NO("[AUTHENTICATIONFAILED] no")
				return true
			}
		}), wrong, "AUTHENTICATIONFAILED")
	}
	for i := range 10 {
		name := fmt.Sprintf("good%d", i)
		account(name, served(nil), right)
		n.good = append(n.good, name)
	}
	if err := os.WriteFile(n.config, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return n
}

func imapPort(place string) (port int) {
	_, _ = fmt.Sscan(place[strings.LastIndexByte(place, ':')+1:], &port)
	return port
}

// held counts what is archived of an account.
func (n neighbours) held(t *testing.T, name string) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.h.user.Home, "archive", name, "INBOX", "cur", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// Accounts that hang, refuse or are refused do not hold up the others, and do not
// make the run endless; each ends with one line, and the worst code counts.
func TestAllAccounts(t *testing.T) {
	t.Parallel()
	n := newNeighbours(t, "", letters(40))
	all := []string{"--all", "--config", n.config, "--timeout", "3s", "--json"}
	n.ended(t, n.h.run(append([]string{"backup"}, all...)...), "backup", 77)
	n.cured.Store(true)
	for name := range n.bad {
		if strings.HasPrefix(name, "stuck") || strings.HasPrefix(name, "wrong") {
			n.h.run("backup", name, "--config", n.config)
		} else {
			n.bad[name] = "there is no archive"
		}
	}
	n.cured.Store(false)
	n.ended(t, n.h.run(append([]string{"clean", "--yes"}, all...)...), "clean", 64)
	for name, says := range n.bad {
		if says != "there is no archive" {
			delete(n.bad, name)
			n.good = append(n.good, name)
		}
	}
	n.ended(t, n.h.run(append([]string{"verify"}, all...)...), "verify", 64)
}

// Memory is bounded for all accounts together, however many run at once.
func TestAllAccountsMemory(t *testing.T) {
	t.Parallel()
	var msgs []string
	for i := range 16 {
		msgs = append(msgs, letter(i)+strings.Repeat(strings.Repeat("x", 76)+"\r\n", 12000+i))
	}
	n := newNeighbours(t, "accounts-at-once = 20\nconnections-per-host = 1000\n", msgs)
	r := n.h.run("backup", "--all", "--config", n.config, "--timeout", "3s", "--json")
	n.ended(t, r, "backup", 77)
	if r.kib > allMemory {
		t.Errorf("%d KiB of memory", r.kib)
	}
	for _, name := range n.good {
		if got := n.held(t, name); got != len(msgs) {
			t.Errorf("%s: %d messages are archived", name, got)
		}
	}
}

var closing = regexp.MustCompile(`(?m)^\{"account":"([a-z0-9]+)","type":"(?:summary|account)",.*"exit":(\d+)\}$`)

// ended checks how each account ended.
func (n neighbours) ended(t *testing.T, r result, verb string, code int) {
	t.Helper()
	if r.code != code {
		t.Errorf("want exit %d: %v", code, r)
	}
	seen := map[string]string{}
	for _, m := range closing.FindAllStringSubmatch(r.stdout, -1) {
		if seen[m[1]] != "" {
			t.Errorf("%s ends twice: %v", m[1], r)
		}
		seen[m[1]] = m[2]
	}
	for _, name := range n.good {
		if seen[name] != "0" {
			t.Errorf("%s %s: exit %q: %v", verb, name, seen[name], r)
		}
	}
	for name, says := range n.bad {
		want := "75"
		switch {
		case says == "there is no archive":
			want = "64"
		case strings.HasPrefix(name, "wrong"):
			want = "77"
		}
		if seen[name] != want {
			t.Errorf("%s %s: exit %q, want %s: %v", verb, name, seen[name], want, r)
		}
		if !regexp.MustCompile(`error: ` + name + `: .*` + regexp.QuoteMeta(says)).MatchString(r.stderr) {
			t.Errorf("%s %s: it should say %q: %v", verb, name, says, r)
		}
	}
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var last struct {
		Type     string
		Accounts int
		Failed   int `json:"accounts_failed"`
		Exit     int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Type != "summary" || last.Accounts != 20 || last.Failed != len(n.bad) || last.Exit != code {
		t.Errorf("the last line is %q, %v", lines[len(lines)-1], err)
	}
}
