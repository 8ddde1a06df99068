package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
)

// Every way to fail has its exit code, names what failed, and leaves no archive
// behind where there was none.
func TestExitCodes(t *testing.T) {
	s := server(t)
	load(t, s, "codes", "INBOX", ordinary(3, 0)...)
	refused, err := testserver.NewRefusing()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { refused.Close() })

	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, c := range []struct {
			name, source string
			args         []string
			change       func(h *host)
			code         int
			says         string
		}{
			{name: "wrong password", change: func(h *host) { h.password = "not-that-one" }, code: 77, says: "codes"},
			{name: "no password", change: func(h *host) { h.password = "" }, code: 77, says: "hint:"},
			{name: "unknown host", source: scheme + "://codes@nowhere.invalid", code: 75, says: "nowhere.invalid"},
			{name: "refused port", source: at(scheme, "codes", "127.0.0.1", refused.Port()), code: 75, says: "refused"},
			{name: "unknown authority", change: func(h *host) { h.caFile = "" }, code: 77, says: "certificate"},
			{name: "other fingerprint", args: []string{"--tls-fingerprint", strings.Repeat("ab", 32)}, code: 77, says: "fingerprint"},
			{name: "password in the place", source: fmt.Sprintf("%s://codes:secret@127.0.0.1:1", scheme), code: 64, says: "password"},
			{name: "unknown scheme", source: "gopher://codes@127.0.0.1", code: 64},
			{name: "unknown flag", args: []string{"--no-such-flag"}, code: 64},
			{name: "unknown mailbox", args: []string{"--mailbox", "No/Such"}, code: 64, says: "No/Such"},
			{name: "unknown format", args: []string{"--format", "zip"}, code: 64},
		} {
			t.Run(scheme+" "+c.name, func(t *testing.T) {
				t.Parallel()
				h := newHost(t, s)
				if c.change != nil {
					c.change(h)
				}
				if c.source == "" {
					c.source = place(scheme, s, "codes")
				}
				archive := filepath.Join(h.home, "archive")
				r := h.must(c.code, append([]string{"backup", c.source, archive}, c.args...)...)
				if !strings.Contains(r.stderr, "error:") || !strings.Contains(strings.ToLower(r.stderr), strings.ToLower(c.says)) {
					t.Errorf("it should say %q: %v", c.says, r)
				}
				if strings.Contains(r.stderr, "secret@") {
					t.Errorf("the password is repeated: %v", r)
				}
				if entries, err := os.ReadDir(archive); err == nil && len(entries) > 0 && c.code == 64 {
					t.Errorf("%d entries were left in the archive", len(entries))
				}
			})
		}
	}
}

// The fingerprint of the leaf replaces the authority.
func TestFingerprint(t *testing.T) {
	s := server(t)
	load(t, s, "pinned", "INBOX", ordinary(1, 0)...)
	pemOctets, err := os.ReadFile(filepath.Join(s.Dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(pemOctets)
	h := newHost(t, s)
	h.caFile = ""
	h.complete(place("imaps", s, "pinned"), filepath.Join(h.home, "archive"), "--tls-fingerprint", digest(block.Bytes))
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Error(err)
	}
}

// What is no archive is left alone.
func TestNotAnArchive(t *testing.T) {
	s := server(t)
	load(t, s, "notarchive", "INBOX", ordinary(1, 0)...)
	h := newHost(t, s)
	source := place("imaps", s, "notarchive")

	full := filepath.Join(h.home, "full")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(full, "letter"), []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, full)
	h.must(64, "backup", source, full)
	unchanged(t, before, snapshot(t, full))

	h.must(64, "backup", source, filepath.Join(full, "letter"))

	archive := filepath.Join(h.home, "archive")
	h.complete(source, archive)
	h.must(64, "backup", source, archive, "--format", "mbox")
	h.must(64, "backup", place("imaps", s, "somebody-else"), archive)
}

// A damaged ledger is set aside and learnt again, never overwritten; verify
// notices damaged octets.
func TestDamage(t *testing.T) {
	s := server(t)
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			h := newHost(t, s)
			user := "damage-" + format
			load(t, s, user, "INBOX", ordinary(10, 0)...)
			archive := filepath.Join(h.home, "archive")
			h.complete(place("imaps", s, user), archive, "--format", format)
			h.must(0, "verify", archive)

			path := filepath.Join(archive, "INBOX.mbox")
			if format == "maildir" {
				path = maildir(t, archive, "INBOX")[3].path
			}
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			octets := []byte(read(t, path))
			octets[len(octets)-20] ^= 1
			if err := os.WriteFile(path, octets, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, st.ModTime(), st.ModTime()); err != nil {
				t.Fatal(err)
			}
			if r := h.must(65, "verify", archive); !strings.Contains(r.stderr+r.stdout, "INBOX") {
				t.Errorf("it does not say where: %v", r)
			}
		})
	}
}

// An archive of a newer version is refused, and not touched.
func TestNewerArchive(t *testing.T) {
	s := server(t)
	load(t, s, "newer", "INBOX", ordinary(2, 0)...)
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	h.complete(place("imaps", s, "newer"), archive)
	ledger := filepath.Join(archive, ".mailhaul", "ledger.sqlite")
	octets := []byte(read(t, ledger))
	octets[60] = 99 // the user_version of SQLite's header, most significant octet
	if err := os.WriteFile(ledger, octets, 0o600); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, archive)
	for _, args := range [][]string{{"backup", place("imaps", s, "newer"), archive}, {"verify", archive}, {"ls", archive}} {
		if r := h.must(78, args...); !strings.Contains(r.stderr, "newer") {
			t.Errorf("it does not say why: %v", r)
		}
	}
	after := snapshot(t, archive)
	for name := range after {
		if strings.HasSuffix(name, "lock") { // taken to look inside
			delete(after, name)
			delete(before, name)
		}
	}
	unchanged(t, before, after)
}

// A full disk ends the run; what was archived before is safe, and with space the
// same command finishes.
func TestFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("mounting a small file system takes root on Linux")
	}
	s := server(t)
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			h := newHost(t, s)
			user := "full-" + format
			load(t, s, user, "INBOX", ordinary(800, 0)...)
			mount := filepath.Join(h.home, "small")
			if err := os.Mkdir(mount, 0o700); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount).CombinedOutput(); err != nil {
				missing(t, fmt.Sprintf("no mounting here: %v %s", err, out))
			}
			defer func() {
				if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
					t.Errorf("umount: %v %s", err, out)
				}
			}()
			archive := filepath.Join(mount, "archive")
			r := h.must(74, "backup", place("imaps", s, user), archive, "--format", format)
			if !strings.Contains(r.stderr, "no space left") {
				t.Errorf("it does not say why: %v", r)
			}
			if n := strings.Count(r.stderr, "\n"); n > 10 {
				t.Errorf("%d lines for one full disk: %v", n, r)
			}
			if n, err := s.Count(user, "INBOX"); n != 800 || err != nil {
				t.Errorf("%d messages at the server, %v", n, err)
			}
			if out, err := exec.Command("mount", "-o", "remount,size=40m", mount).CombinedOutput(); err != nil {
				t.Fatalf("remount: %v %s", err, out)
			}
			h.complete(place("imaps", s, user), archive)
			same(t, format, wanted(t, s, user, "INBOX"), held(t, format, archive, "INBOX"))
			h.must(0, "verify", archive)
		})
	}
}

// One message the server refuses: the others are archived, it is named, exit 3,
// in every run.
func TestRefusedMessage(t *testing.T) {
	s := server(t) // for its certificate
	port := refusing(t, s)
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	for run := range 2 {
		sum, r := h.backup(at("pop3s", "ada", "127.0.0.1", port), archive)
		if r.code != 3 || sum.Failed != 1 || sum.Listed != 3 || sum.Archived != int64(2-2*run) {
			t.Errorf("run %d: %v", run, r)
		}
		if !strings.Contains(r.stdout+r.stderr, "message is damaged") || !strings.Contains(r.stdout+r.stderr, "uidl-2") {
			t.Errorf("the message is not named: %v", r)
		}
	}
	if got := held(t, "maildir", archive, "INBOX"); got.size() != 2 {
		t.Errorf("%d messages held", got.size())
	}
}

// refusing is a POP3S server with three messages, the second of which it does not
// give away.
func refusing(t *testing.T, s *dovecot.Server) int {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, "cert.pem"), filepath.Join(s.Dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if c.SetDeadline(time.Now().Add(time.Minute)) == nil {
					refuse(c)
				}
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func refuse(c net.Conn) {
	body := func(i string) string { return "Subject: " + i + "\r\n\r\nbody " + i + "\r\n" }
	size := len(body("1"))
	fmt.Fprint(c, "+OK ready\r\n")
	in := bufio.NewScanner(c)
	for in.Scan() {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		switch strings.ToUpper(verb) {
		case "CAPA":
			fmt.Fprint(c, "+OK\r\nUSER\r\nUIDL\r\nTOP\r\nPIPELINING\r\n.\r\n")
		case "STAT":
			fmt.Fprintf(c, "+OK 3 %d\r\n", 3*size)
		case "UIDL":
			fmt.Fprint(c, "+OK\r\n1 uidl-1\r\n2 uidl-2\r\n3 uidl-3\r\n.\r\n")
		case "LIST":
			fmt.Fprintf(c, "+OK\r\n1 %d\r\n2 %d\r\n3 %d\r\n.\r\n", size, size, size)
		case "RETR":
			if arg == "2" {
				fmt.Fprint(c, "-ERR message is damaged\r\n")
			} else {
				fmt.Fprintf(c, "+OK\r\n%s.\r\n", body(arg))
			}
		case "TOP":
			n, _, _ := strings.Cut(arg, " ")
			fmt.Fprintf(c, "+OK\r\nSubject: %s\r\n\r\n.\r\n", n)
		case "QUIT":
			fmt.Fprint(c, "+OK bye\r\n")
			return
		case "AUTH":
			fmt.Fprint(c, "-ERR no\r\n")
		default:
			fmt.Fprint(c, "+OK\r\n")
		}
	}
}
