package e2e

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

// Other programs open the archive and find the same messages. The corpus leaves
// out messages that those programs themselves cannot tell from none.
func TestOtherReaders(t *testing.T) {
	s := server(t)
	load(t, s, "readers", "INBOX", hazards()...)
	load(t, s, "readers", nested, ordinary(7, 0)...)
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			h := newHost(t, s)
			archive := filepath.Join(h.home, "archive")
			if sum, r := h.backup(place("imaps", s, "readers"), archive, "--format", format); sum.Failed != 0 {
				t.Fatal(r)
			}
			want := map[string]multiset{"INBOX": wanted(t, s, "readers", "INBOX"), nested: wanted(t, s, "readers", nested)}
			t.Run("python", func(t *testing.T) { python(t, format, archive, want) })
			t.Run("mutt", func(t *testing.T) { mutt(t, format, archive, want) })
			t.Run("dovecot", func(t *testing.T) { reread(t, format, archive, want) })
			h.must(0, "verify", archive)
		})
	}
}

// mailboxPath is where a mailbox lies.
func mailboxPath(format, archive, mailbox string) string {
	p := filepath.Join(archive, filepath.FromSlash(mailbox))
	if format == "mbox" {
		p += ".mbox"
	}
	return p
}

// The mailbox module of Python knows no mboxrd, so only its count is compared.
const countInPython = `
import mailbox, sys
box = mailbox.Maildir(sys.argv[2], create=False) if sys.argv[1] == "maildir" else mailbox.mbox(sys.argv[2], create=False)
print(sum(1 for _ in box.iterkeys()))
`

func python(t *testing.T, format, archive string, want map[string]multiset) {
	bin, err := exec.LookPath("python3")
	if err != nil {
		missing(t, "python3 is not installed")
	}
	for name, w := range want {
		out, err := exec.Command(bin, "-c", countInPython, format, mailboxPath(format, archive, name)).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != fmt.Sprint(w.size()) {
			t.Errorf("%s: %s, want %d (%v)", name, got, w.size(), err)
		}
	}
}

var muttCount = regexp.MustCompile(`total=(\d+)`)

// mutt opens a mailbox, shows how many messages it has and leaves.
func mutt(t *testing.T, format, archive string, want map[string]multiset) {
	bin, err := exec.LookPath("mutt")
	if err != nil {
		missing(t, "mutt is not installed")
	}
	for name, w := range want {
		dir := t.TempDir()
		rc := filepath.Join(dir, "muttrc")
		if err := os.WriteFile(rc, []byte("set status_format=\"total=%m \"\nset quit=yes\nset folder=\""+dir+"\"\nset move=no\nset mark_old=no\nset spoolfile=/dev/null\npush <exit>\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin, "-n", "-R", "-F", rc, "-f", mailboxPath(format, archive, name))
		cmd.Env = []string{"TERM=vt100", "HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
		drawn, err := onTerminal(cmd)
		if err != nil {
			t.Fatalf("%s: %v\n%q", name, err, drawn)
		}
		if m := muttCount.FindSubmatch(drawn); m == nil || string(m[1]) != fmt.Sprint(w.size()) {
			t.Errorf("%s: mutt has %q, want %d messages", name, m, w.size())
		}
	}
}

// reread lets a Dovecot serve a copy of the archive and drains it: not only the
// count, the octets too must be the same, but for a CR that stands before an LF
// in the file (from CR CR LF on the wire): Dovecot takes the two for one line end.
// It reads mbox without undoing quotes, so there the count must do.
func reread(t *testing.T, format, archive string, want map[string]multiset) {
	server(t)
	location := "maildir:~/mail:LAYOUT=fs:INBOX=~/mail/INBOX"
	if format == "mbox" {
		location = "mbox:~/mail:INBOX=~/mail/INBOX.mbox"
	}
	s := dovecot.Start(t, dovecot.Options{MailLocation: location})
	home := s.Home("reader")
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(home, "mail"), os.DirFS(archive)); err != nil {
		t.Fatal(err)
	}
	if err := s.Own("reader"); err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		raw := name
		if format == "mbox" && name != "INBOX" {
			raw += ".mbox"
		}
		if format == "mbox" {
			if n, err := s.Count("reader", raw); n != w.size() || err != nil {
				t.Errorf("%s: Dovecot has %d messages, want %d, %v", name, n, w.size(), err)
			}
			continue
		}
		w = multiset{}
		for _, f := range maildir(t, archive, name) {
			w.add(canonical(f.octets))
		}
		same(t, name, w, wanted(t, s, "reader", raw))
	}
}
