package e2e

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"mailhaul/internal/dovecot"
)

// canonical works out the canonical octets of a wire form: CRLF becomes LF, a
// missing final LF is added.
func canonical(wire []byte) []byte {
	b := bytes.ReplaceAll(wire, []byte("\r\n"), []byte("\n"))
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return b
}

func digest(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// multiset counts digests.
type multiset map[string]int

func (m multiset) size() int {
	n := 0
	for _, c := range m {
		n += c
	}
	return n
}

func (m multiset) add(octets []byte) { m[digest(octets)]++ }

// wanted is what a mailbox at the server should look like in an archive.
func wanted(t *testing.T, s *dovecot.Server, user, mailbox string) multiset {
	t.Helper()
	msgs, err := s.Messages(user, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	m := multiset{}
	for _, msg := range msgs {
		m.add(canonical(msg.Octets))
	}
	return m
}

func wantedPOP3(t *testing.T, s *dovecot.Server, user string) multiset {
	t.Helper()
	_, all, err := s.MessagesPOP3(user)
	if err != nil {
		t.Fatal(err)
	}
	m := multiset{}
	for _, octets := range all {
		m.add(canonical(octets))
	}
	return m
}

// file is one message as it lies in a Maildir.
type file struct {
	path   string
	info   string // what follows ":2,"
	mtime  time.Time
	octets []byte
}

// maildir reads one mailbox of a Maildir archive: everything in cur, and it wants
// new and tmp to be empty.
func maildir(t *testing.T, archive, mailbox string) []file {
	t.Helper()
	var files []file
	for _, sub := range []string{"cur", "new", "tmp"} {
		dir := filepath.Join(archive, filepath.FromSlash(mailbox), sub)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if sub != "cur" {
				t.Errorf("%s holds %s", dir, e.Name())
				continue
			}
			f := file{path: filepath.Join(dir, e.Name())}
			_, f.info, _ = strings.Cut(e.Name(), ":2,")
			st, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			f.mtime = st.ModTime()
			if st.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", f.path, st.Mode())
			}
			if f.octets, err = os.ReadFile(f.path); err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	return files
}

var fromLine = regexp.MustCompile(`^From \S+ (Mon|Tue|Wed|Thu|Fri|Sat|Sun) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d \d{4}\n$`)
var quotedFrom = regexp.MustCompile(`(?m)^>(>*From )`)

// mbox reads one mailbox of an mbox archive as docs/formats.md describes it: each
// From_ line begins a message, three status lines, the message, one empty line.
func mbox(t *testing.T, archive, mailbox string) [][]byte {
	t.Helper()
	path := filepath.Join(archive, filepath.FromSlash(mailbox)+".mbox")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for len(b) > 0 {
		end := bytes.Index(b, []byte("\nFrom "))
		if end < 0 {
			end = len(b) - 1
		}
		msg := b[:end+1]
		b = b[end+1:]
		first, rest, _ := bytes.Cut(msg, []byte("\n"))
		if !fromLine.Match(append(slices.Clone(first), '\n')) {
			t.Fatalf("%s: From_ line %q", path, first)
		}
		for _, name := range []string{"Status:", "X-Status:", "X-Keywords:"} {
			line, after, ok := bytes.Cut(rest, []byte("\n"))
			if !ok || !bytes.HasPrefix(line, []byte(name)) {
				t.Fatalf("%s: %q instead of %s", path, line, name)
			}
			rest = after
		}
		body, ok := bytes.CutSuffix(rest, []byte("\n"))
		if !ok {
			t.Fatalf("%s: a message does not end in an empty line", path)
		}
		all = append(all, quotedFrom.ReplaceAll(body, []byte("$1")))
	}
	return all
}

// held is what an archive holds of a mailbox.
func held(t *testing.T, format, archive, mailbox string) multiset {
	t.Helper()
	m := multiset{}
	if format == "mbox" {
		for _, octets := range mbox(t, archive, mailbox) {
			m.add(octets)
		}
		return m
	}
	for _, f := range maildir(t, archive, mailbox) {
		m.add(f.octets)
	}
	return m
}

func same(t *testing.T, what string, want, got multiset) {
	t.Helper()
	if d := gocmp.Diff(want, got); d != "" {
		t.Errorf("%s: %d messages expected, %d held: %s", what, want.size(), got.size(), d)
	}
}

// entry is one file or directory as a snapshot sees it.
type entry struct {
	Mode   fs.FileMode
	Size   int64
	MTime  int64
	Inode  uint64
	Digest string
}

// snapshot is everything in an archive: names, times, inodes, octets. Of the
// ledger's own files only the octets count.
func snapshot(t *testing.T, archive string) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	err := filepath.WalkDir(archive, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(archive, path)
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		own := name == ".mailhaul" || strings.HasPrefix(name, ".mailhaul"+string(filepath.Separator))
		e := entry{Mode: st.Mode()}
		if st.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.Size, e.Digest = st.Size(), digest(b)
		}
		if !own && name != "." {
			e.MTime, e.Inode = st.ModTime().UnixNano(), inode(st)
		}
		all[name] = e
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func unchanged(t *testing.T, before, after map[string]entry) {
	t.Helper()
	if d := gocmp.Diff(before, after); d != "" {
		t.Errorf("the archive changed: %s", d)
	}
}

// mailboxes lists the mailboxes of an archive by their paths.
func mailboxes(t *testing.T, format, archive string) []string {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(archive, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(archive, path)
		if err != nil {
			return err
		}
		switch {
		case d.Name() == ".mailhaul":
			return fs.SkipDir
		case format == "mbox" && strings.HasSuffix(name, ".mbox"):
			found[filepath.ToSlash(strings.TrimSuffix(name, ".mbox"))] = true
		case format == "maildir" && d.Name() == "cur":
			found[filepath.ToSlash(filepath.Dir(name))] = true
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slices.SortedFunc(maps.Keys(found), cmp.Compare[string])
}
