package crash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"mailhaul/archive"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// hostileNames are names that a server may give its mailboxes.
var hostileNames = []string{
	"../escaped", "../../escaped", "..", ".", "./x", "/etc/escaped", "//x", "a//b", "a/../../escaped", "a/./b", "~root", "C:\\x", "C:x", "\\\\host\\share",
	"%2e%2e", "%2F", "%", "a%", "\x00", "a\x00b", "a\r\nb", "\x1b[31mred", "\u202egnp", "\u0085", "<b>x</b>", "a\x7f",
	"Inbox2", "INBOX2", "inbox2", "Café", "Cafe\u0301", "\xff\xfe", "a\xc0\xafb", "日本",
	"CON", "con", "NUL.txt", "com1", "dot.", "space ", " space", "a:b", "a*b", "a?b", "a|b", "-rf", "=cmd()", "\"q\"", "'q'",
	"cur", "new", "tmp", "a/cur", "a/new", "a/tmp/x", ".lock", ".mailhaul", ".mailhaul/ledger.sqlite", "lost+found", "a", "a.mbox", "a.mbox.lock", "a.lock", ".a.mbox.claim",
	"dovecot-keywords", "a/dovecot-keywords",
	strings.Repeat("n", 255), strings.Repeat("n", 256), strings.Repeat("n", 5000), strings.Repeat("日", 100), strings.Repeat("d/", 60) + "end",
}

// Whatever mailboxes are called, each is a mailbox of its own, and nothing is
// created or changed outside the archive.
func TestHostileNames(t *testing.T) {
	for _, format := range rig.Formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := place{root: filepath.Join(t.TempDir(), "run"), format: format}
			outside := filepath.Join(filepath.Dir(p.root), "outside")
			if err := os.WriteFile(outside, []byte("mine\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := &server{name: "hostile", validity: 1, uids: true, boxes: map[string][]message{}}
			for i, name := range hostileNames {
				wire := "Subject: " + strings.Repeat("x", i) + "\r\n\r\nbody\r\n"
				s.boxes[name] = []message{{uid: "1", wire: wire, listed: int64(len(wire)), flags: mail.NewFlags(mail.Seen, "key")}}
			}
			if len(s.boxes) != len(hostileNames) {
				t.Fatal("a name stands there twice")
			}
			for range 2 {
				if _, err := p.backup(s, run{}); err != nil {
					t.Fatal(err)
				}
			}
			seen := map[string]string{}
			for name := range s.boxes {
				path, _ := archive.Path(name)
				if other, ok := seen[strings.ToLower(path)]; ok {
					t.Errorf("%q and %q share a path", name, other)
				}
				seen[strings.ToLower(path)] = name
			}
			if err := p.verify(); err != nil {
				t.Error(err)
			}
			p.checkNames(t, s)
			entries, err := os.ReadDir(filepath.Dir(p.root))
			if err != nil || len(entries) != 2 {
				t.Errorf("beside the archive lie %v, %v", entries, err)
			}
			if b, err := os.ReadFile(outside); string(b) != "mine\n" || err != nil {
				t.Errorf("a file outside was changed: %q %v", b, err)
			}
		})
	}
}

// checkNames compares what lies in each mailbox, also when it is learnt again from
// the disk alone.
func (p place) checkNames(t *testing.T, s *server) {
	t.Helper()
	if err := os.Remove(filepath.Join(p.archive(), vault.Dir, "ledger.sqlite")); err != nil {
		t.Fatal(err)
	}
	v, err := p.open(vault.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	want, got := map[string]string{}, map[string]string{}
	for name, list := range s.boxes {
		want[name] = rig.Digest(rig.Canonical([]byte(list[0].wire)))
		err := v.Ledger.Messages(t.Context(), name, func(h mail.Held) error {
			got[name] += h.Receipt.Digest.String()
			return nil
		})
		if err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
