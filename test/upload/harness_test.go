package upload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

var (
	buildDir string
	built    = sync.OnceValues(func() (string, error) { return rig.Build(buildDir) })
)

func TestMain(m *testing.M) {
	rig.Obey(obey)
	dir, err := os.MkdirTemp("", "mailhaul-upload")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// host is somebody's computer.
type host struct {
	*testing.T
	rig.User
	env []string
}

func newHost(t *testing.T, ca string) *host {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return &host{t, rig.User{Bin: bin, Home: t.TempDir(), CAFile: ca, Password: dovecot.Password}, nil}
}

// run runs mailhaul and wants an exit code.
func (h *host) run(code int, args ...string) string {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 2*time.Minute)
	defer cancel()
	cmd := h.Command(ctx, args...)
	cmd.Env = append(cmd.Env, h.env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		h.Fatalf("mailhaul %s: exit %d, want %d\n%s", strings.Join(args, " "), got, code, out)
	}
	return string(out)
}

// summary is what --json says last.
type summary struct{ Listed, Uploaded, Adopted, Skipped, Failed, Archived, Flags, Altered, Repaired, Gone, Removed int64 }

func (h *host) json(code int, args ...string) (s summary) {
	h.Helper()
	out := h.run(code, append(args, "--json")...)
	for line := range strings.Lines(out) {
		if strings.Contains(line, `"type":"summary"`) {
			if err := json.Unmarshal([]byte(line), &s); err != nil {
				h.Fatal(err)
			}
			return s
		}
	}
	h.Fatalf("no summary:\n%s", out)
	return s
}

func url(scheme, user string, s *dovecot.Server, port int) string {
	return scheme + "://" + user + "@" + net.JoinHostPort(s.Host, strconv.Itoa(port))
}

func imaps(s *dovecot.Server, user string) string { return url("imaps", user, s, s.IMAPS) }

// copies is what a mailbox holds, as a multiset of digest, date and flags.
func copies(t testing.TB, s *dovecot.Server, user, mailbox string) []string {
	t.Helper()
	msgs, err := s.Messages(user, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range msgs {
		all = append(all, fmt.Sprintf("%s %s %s", rig.Digest(rig.Canonical(m.Octets)), m.Date.UTC().Format(time.RFC3339), mail.NewFlags(m.Flags...)))
	}
	slices.Sort(all)
	return all
}

// letters are plain messages.
func letters(n int) (all []dovecot.Message) {
	for i := range n {
		all = append(all, dovecot.Message{
			Date: time.Date(2022, 3, 4, 5, 6, i%60, 0, time.UTC),
			Octets: fmt.Appendf(nil, "From: ada@example.org\r\nDate: Fri, 4 Mar 2022 05:06:%02d +0000\r\nMessage-ID: <%d@example.org>\r\nSubject: %d\r\n\r\nbody %d\r\n",
				i%60, i, i, i),
		})
	}
	return all
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *host) path(name string) string { return filepath.Join(h.Home, name) }
