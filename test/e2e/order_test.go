package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// What the system was asked to do, in order: before DELE or STORE goes out, every
// message file is synced, its directory after the last rename too, and the ledger
// has the intent and is synced behind it. Before the next order its outcome is.
func TestSyncedBeforeDeletion(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("strace is for Linux")
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		missing(t, "strace is not installed")
	}
	s := server(t)
	for _, scheme := range []string{"imap+insecure", "pop3+insecure"} { // so that the wire can be read
		for _, format := range formats {
			t.Run(scheme+"-"+format, func(t *testing.T) {
				h := newHost(t, s)
				if h.bin, err = plain(); err != nil {
					t.Fatal(err)
				}
				proto, _, _ := strings.Cut(scheme, "+")
				user := "order-" + proto + "-" + format
				load(t, s, user, "INBOX", aged(12, 0)...)
				port := map[string]int{"imap": s.IMAP, "pop3": s.POP3}[proto]
				archive := filepath.Join(h.home, "archive")
				log := filepath.Join(h.home, "log")
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				run := h.command(ctx, "backup", at(scheme, user, s.Host, port), archive, "--format", format, "--delete", "--keep", "4d")
				cmd := exec.CommandContext(ctx, strace, append([]string{"-f", "-y", "-s", "100000", "-o", log, "-e",
					"trace=write,sendto,pwrite64,fsync,fdatasync,rename,renameat,renameat2"}, run.Args...)...)
				cmd.Env, cmd.Dir = run.Env, run.Dir
				if out, err := cmd.CombinedOutput(); err != nil {
					if strings.Contains(string(out), "ptrace") {
						t.Skipf("no tracing here: %s", out)
					}
					t.Fatalf("%v: %s", err, out)
				}
				count(t, s, user, "INBOX", 3)
				b, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				checkOrder(t, string(b), format, 12)
			})
		}
	}
}

var (
	straceCall = regexp.MustCompile(`^(\d+) +(\w+)\((.*)$`)
	resumed    = regexp.MustCompile(`^(\d+) +<\.\.\. \w*sync resumed>`)
	straceFD   = regexp.MustCompile(`^\d+<([^>]*)>`)
	orders     = regexp.MustCompile(`DELE \d+|UID STORE [0-9:,]+ .*\+FLAGS`)
	goneOrder  = regexp.MustCompile(`QUIT\\r|UID EXPUNGE`)
)

// checkOrder reads a log of strace. A sync counts when it has ended, anything else
// when it begins.
func checkOrder(t *testing.T, log, format string, messages int) {
	t.Helper()
	synced := map[string]bool{}
	waiting := map[string]string{} // a sync that has not ended, by thread
	var renamed, directory, intended, walSynced, ordered, ended bool
	for line := range strings.Lines(log) {
		m := straceCall.FindStringSubmatch(strings.TrimSpace(line))
		path := ""
		if r := resumed.FindStringSubmatch(line); r != nil && waiting[r[1]] != "" {
			m, path = []string{"", r[1], "fsync", ""}, waiting[r[1]]
		}
		if m == nil {
			continue
		}
		if fd := straceFD.FindStringSubmatch(m[3]); fd != nil {
			path = fd[1]
		}
		if strings.HasSuffix(m[2], "sync") && strings.HasSuffix(m[3], "<unfinished ...>") {
			waiting[m[1]] = path
			continue
		}
		switch call := m[2]; {
		case strings.HasPrefix(call, "rename") && strings.Contains(m[3], "/cur"):
			renamed, directory = true, false
		case call == "fsync", call == "fdatasync":
			synced[path] = true
			if strings.HasSuffix(path, "/INBOX/cur") || strings.HasSuffix(path, "/archive") {
				directory = true
			}
			if strings.HasSuffix(path, "-wal") && intended {
				walSynced = true
			}
		case strings.HasSuffix(path, "-wal") && strings.Contains(m[3], "--keep 4d"):
			intended = true
		case orders.MatchString(m[3]):
			ordered = true
			if !intended || !walSynced {
				t.Errorf("an order before its intent was on record (written %v, synced %v): %.200s", intended, walSynced, line)
			}
			files := 0
			for path := range synced {
				if strings.Contains(path, "/INBOX/tmp/") || strings.HasSuffix(path, "/INBOX.mbox") {
					files++
				}
			}
			if format == "maildir" && (files != messages || !renamed || !directory) || format == "mbox" && (files != 1 || !directory) {
				t.Errorf("an order with %d files synced, renamed %v, directory synced %v: %.200s", files, renamed, directory, line)
			}
		case ordered && goneOrder.MatchString(m[3]):
			ended = true
		}
	}
	if !ordered || !ended {
		t.Errorf("no order in the log: %v %v", ordered, ended)
	}
}
