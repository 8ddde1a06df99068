package upload

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mailhaul/internal/dovecot"
)

// recipe is what docs/formats.md tells to do in the directory of INBOX.
func recipe(t *testing.T, list string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/formats.md")
	must(t, err)
	m := regexp.MustCompile(`(?s)\n    (awk 'NR==FNR.*?)\n\n`).FindSubmatch(b)
	if m == nil {
		t.Fatal("docs/formats.md has no recipe")
	}
	return strings.ReplaceAll(string(m[1]), "FILE.dovecot-uidlist", list)
}

// uidls are the UIDLs a POP3 client sees, by octets.
func uidls(t *testing.T, s *dovecot.Server, user string) map[string]string {
	t.Helper()
	list, octets, err := s.MessagesPOP3(user)
	must(t, err)
	by := make(map[string]string)
	for i, uidl := range list {
		by[string(octets[i])] = uidl
	}
	return by
}

// After POP3 to IMAP a POP3 client sees the UIDLs it knows, once the map is put
// where docs/formats.md says.
func TestUIDLMap(t *testing.T) {
	if _, err := exec.LookPath("awk"); err != nil {
		if os.Getenv(dovecot.RequireEnv) == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for name, carry := range map[string]func(h *host, from, to, file string) summary{
		"upload": func(h *host, from, to, file string) summary {
			h.run(0, "backup", from, h.path("mail"))
			return h.json(0, "upload", h.path("mail"), to, "--uidl-map", file)
		},
		"migrate": func(h *host, from, to, file string) summary {
			return h.json(0, "migrate", from, to, "--uidl-map", file)
		},
	} {
		t.Run(name, func(t *testing.T) { uidlMap(t, carry) })
	}
}

func uidlMap(t *testing.T, carry func(h *host, from, to, file string) summary) {
	s := dovecot.Start(t, dovecot.Options{})
	must(t, s.Append("old", "INBOX", letters(7)...))
	must(t, s.Expunge("old", "INBOX", "2,5"))
	// A message of the new account's own comes first.
	must(t, s.Append("new", "INBOX", letters(8)[7]))
	was := uidls(t, s, "old")

	h := newHost(t, s.CAFile)
	file := h.path("map")
	carry(h, url("pop3s", "old", s, s.POP3S), imaps(s, "new"), file)
	b, err := os.ReadFile(file)
	must(t, err)
	msgs, err := s.Messages("new", "INBOX")
	must(t, err)
	for _, m := range msgs[1:] {
		if want := fmt.Sprintf("%s\t%d\t", was[string(m.Octets)], m.UID); !strings.Contains(string(b), want) {
			t.Errorf("%q is not in\n%s", want, b)
		}
	}

	cmd := exec.Command("sh", "-ec", recipe(t, file+".dovecot-uidlist"))
	cmd.Dir = filepath.Join(s.Home("new"), "mail", "INBOX")
	if _, err := os.Stat(filepath.Join(cmd.Dir, "dovecot-uidlist")); err != nil {
		cmd.Dir = filepath.Join(s.Home("new"), "mail")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	now := uidls(t, s, "new")
	for octets, uidl := range was {
		if now[octets] != uidl {
			t.Errorf("UIDL %q, was %q", now[octets], uidl)
		}
	}
	// The IMAP side sees no difference.
	if got := copies(t, s, "new", "INBOX"); len(got) != 6 {
		t.Errorf("%d messages", len(got))
	}
	if sum := carry(h, url("pop3s", "old", s, s.POP3S), imaps(s, "new"), file); sum.Skipped != 5 {
		t.Errorf("%+v", sum)
	}
}
