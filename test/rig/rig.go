// Package rig is what the tests of whole runs share: the built program, a user to
// run it as, a reader of archives that owes nothing to mailhaul's own, and child
// processes that are killed at one of their steps.
package rig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// Formats are those of archives.
var Formats = []string{"maildir", "mbox"}

// Build builds mailhaul in dir and returns its path.
func Build(dir string, flags ...string) (string, error) {
	bin := filepath.Join(dir, "mailhaul")
	if runtime.GOOS == "windows" {
		bin += ".exe"
	}
	args := append(append([]string{"build"}, flags...), "-o", bin, "mailhaul/cmd/mailhaul")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return bin, nil
}

// User is somebody who runs mailhaul.
type User struct {
	Bin      string
	Home     string
	CAFile   string
	Password string // for the environment; "" for none
}

// Command prepares a run: no terminal, no input, nothing of the caller's
// environment that a configuration could come from.
func (u User) Command(ctx context.Context, args ...string) *exec.Cmd {
	if u.CAFile != "" {
		args = append(args, "--ca-file", u.CAFile)
	}
	cmd := exec.CommandContext(ctx, u.Bin, args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + u.Home, "TMPDIR=" + os.TempDir(),
		"XDG_CONFIG_HOME=" + filepath.Join(u.Home, "config"),
		"XDG_STATE_HOME=" + filepath.Join(u.Home, "state"),
	}
	if u.Password != "" {
		cmd.Env = append(cmd.Env, "MAILHAUL_PASSWORD="+u.Password, "MAILHAUL_DEST_PASSWORD="+u.Password)
	}
	cmd.Dir = u.Home
	return cmd
}

// Message is one message in an archive.
type Message struct {
	Mailbox string // by its path in the archive
	Digest  string // SHA-256 of the canonical octets
	Flags   string // letters of a Maildir file; "" in an mbox
}

// Canonical works out the canonical octets of a wire form: CRLF becomes LF, a
// missing final LF is added.
func Canonical(wire []byte) []byte {
	b := bytes.ReplaceAll(wire, []byte("\r\n"), []byte("\n"))
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return b
}

// Digest is the SHA-256 as sha256sum prints it.
func Digest(octets []byte) string {
	d := sha256.Sum256(octets)
	return hex.EncodeToString(d[:])
}

// Multiset counts messages.
type Multiset map[Message]int

// Size is how many there are.
func (m Multiset) Size() (n int) {
	for _, c := range m {
		n += c
	}
	return n
}

// Has tells whether the octets are held in the mailbox, with whatever flags.
func (m Multiset) Has(mailbox, digest string) bool {
	for k := range m {
		if k.Mailbox == mailbox && k.Digest == digest {
			return true
		}
	}
	return false
}

// Plain is m without the flags.
func (m Multiset) Plain() Multiset {
	p := Multiset{}
	for k, n := range m {
		k.Flags = ""
		p[k] += n
	}
	return p
}

// Held reads an archive. What does not belong into one at rest (a file in tmp or
// new, a lock, half a message) is an error; the messages are returned as well.
func Held(format, archive string) (Multiset, error) {
	m := Multiset{}
	var strange []error
	err := filepath.WalkDir(archive, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".mailhaul" || d.Name() == "lost+found" {
				return fs.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(archive, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			strange = append(strange, err)
			return nil
		}
		if err := m.file(format, filepath.ToSlash(name), b); err != nil {
			strange = append(strange, err)
		}
		return nil
	})
	return m, errors.Join(append(strange, err)...)
}

func (m Multiset) file(format, name string, b []byte) error {
	dir, base := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, base = name[:i], name[i+1:]
	}
	mailbox, inCur := strings.CutSuffix(dir, "/cur")
	switch {
	case hashed.MatchString(base), format == "maildir" && base == "dovecot-keywords" && !inCur:
		return nil // docs/formats.md
	case format == "maildir" && inCur:
		_, flags, _ := strings.Cut(base, ":2,")
		m[Message{mailbox, Digest(b), flags}]++
		return nil
	case format == "mbox" && strings.HasSuffix(name, ".mbox"):
		return m.mbox(strings.TrimSuffix(name, ".mbox"), b)
	}
	return fmt.Errorf("%s does not belong there", name)
}

// hashed is the name of a file that tells the name of a mailbox too long for one.
var hashed = regexp.MustCompile(`^\.%h[0-9a-f]{40}\.name$`)

var beginning = regexp.MustCompile(`^From \S+ \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\nStatus:.*\nX-Status:.*\nX-Keywords:.*\n`)

// unquoted takes the mboxrd quoting away. (By hand: a regular expression takes
// seconds for a long message under the race detector.)
func unquoted(body []byte) []byte {
	out := make([]byte, 0, len(body))
	for line := range bytes.Lines(body) {
		if line[0] == '>' && bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
			line = line[1:]
		}
		out = append(out, line...)
	}
	return out
}

// mbox reads an mbox as docs/formats.md describes it.
func (m Multiset) mbox(mailbox string, b []byte) error {
	for len(b) > 0 {
		head := beginning.Find(b)
		if head == nil {
			return fmt.Errorf("%s.mbox: %.80q begins no message", mailbox, b)
		}
		end := bytes.Index(b[len(head)-1:], []byte("\nFrom "))
		if end < 0 {
			end = len(b) - len(head)
		}
		body, ok := bytes.CutSuffix(b[len(head):len(head)+end], []byte("\n"))
		if !ok {
			return fmt.Errorf("%s.mbox: a message does not end in an empty line", mailbox)
		}
		m[Message{Mailbox: mailbox, Digest: Digest(unquoted(body))}]++
		b = b[len(head)+end:]
	}
	return nil
}

// Tree is every file below a directory: length, mtime and digest. Of the ledger's
// own files the mtime does not count.
func Tree(root string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mtime := st.ModTime().UnixNano()
		if strings.Contains(filepath.ToSlash(path), "/.mailhaul/") {
			mtime = 0
		}
		all[path] = fmt.Sprintf("%d %d %s", len(b), mtime, Digest(b))
		return nil
	})
	return all, err
}
