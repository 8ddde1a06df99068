package disk

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

// System calls fail under the program: it ends with the right code, and the next
// run completes the archive. (Not write: the Go runtime itself dies of that.)
func TestSystemCallsFail(t *testing.T) {
	need(t, "strace")
	a := newAccount(t, 24)
	trial := []string{"strace", "-f", "-qq", "-o", join(t.TempDir(), "trace"), "-e", "trace=fsync"}
	if r := a.wrapped(trial, "version"); r.code != 0 {
		skip(t, "no tracing here: exit %d: %s", r.code, r.text)
	}
	faults := []string{
		"fsync:error=EIO", "fdatasync:error=EIO", "pwrite64:error=ENOSPC", "renameat:error=EIO",
		"ftruncate:error=EIO", "mkdirat:error=ENOSPC", "openat:error=EMFILE", "fsync:error=ENOSPC", "pwrite64:error=EIO",
		"utimensat:error=EPERM", "unlinkat:error=EIO",
	}
	points := []int{1, 4}
	if rig.All() {
		points = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20, 24, 28, 33, 40, 50}
	}
	tried, ended := 0, 0
	for i, fault := range faults {
		for _, n := range points {
			for k, format := range rig.Formats {
				if !rig.All() && (i+n+k)%2 == 0 {
					continue
				}
				when := fmt.Sprintf("%s at call %d, %s", fault, n, format)
				archive := join(t.TempDir(), "archive")
				verb, _, _ := strings.Cut(fault, ":")
				trace := join(t.TempDir(), "trace")
				wrap := []string{"strace", "-f", "-qq", "--seccomp-bpf", "-o", trace, "-e", "trace=" + verb, "-e", fmt.Sprintf("inject=%s:when=%d", fault, n)}
				// strace counts calls per thread, so that a late one may never come;
				// and it is not only the disk's: the code may be that of a broken
				// connection, too.
				r := a.wrapped(wrap, "backup", a.place(a.port), archive, "--format", format, "--max-time", "20s")
				switch r.code {
				case 0, 3:
				case 74, 75, 1, 77, 2, 64: // 77: the file of certificates could not be opened
					ended++
				default:
					t.Errorf("%s: exit %d: %s", when, r.code, r.text)
				}
				failed := injected(t, trace)
				if strings.HasPrefix(fault, "fsync") && failed && r.code != 74 {
					t.Errorf("%s: exit %d: %s", when, r.code, r.text)
				}
				if n == 1 && strings.HasPrefix(fault, "fsync") && !failed {
					t.Errorf("%s: no call failed", when)
				}
				if failed {
					tried++
				}
				a.completes(archive, format, when)
				if t.Failed() {
					return
				}
			}
		}
	}
	if ended == 0 {
		t.Errorf("%d faults, and none ended the run", tried)
	}
	t.Logf("%d faults, %d ended the run", tried, ended)
}

// injected tells whether strace made a call fail.
func injected(t *testing.T, trace string) bool {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), "(INJECTED)")
}

// A limit on the size of files, as FAT and quotas have one.
func TestFileSizeLimit(t *testing.T) {
	need(t, "bash")
	a := newAccount(t, 60)
	for _, format := range rig.Formats {
		for _, kib := range []int{20, 100, 600, 1000} {
			when := fmt.Sprintf("files of %d KiB at most, %s", kib, format)
			archive := join(t.TempDir(), "archive")
			r := a.wrapped([]string{"bash", "-c", `ulimit -f "$0"; exec "$@"`, fmt.Sprint(kib)}, "backup", a.place(a.port), archive, "--format", format)
			if r.code != 74 {
				t.Errorf("%s: exit %d: %s", when, r.code, r.text)
			}
			a.completes(archive, format, when)
		}
	}
}

// full is what a full disk says, SQLite's own words among them.
var full = regexp.MustCompile("no space left on device|disk is full|unable to open database file")

// A full disk, by octets and by inodes; with more room the next run goes on.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	a := newAccount(t, 60)
	for _, format := range rig.Formats {
		for _, limit := range []string{"size=60k", "size=200k", "size=400k", "size=1100k", "nr_inodes=5", "nr_inodes=9", "nr_inodes=30"} {
			if format == "mbox" && limit == "nr_inodes=30" {
				continue // it needs fewer
			}
			t.Run(format+"-"+limit, func(t *testing.T) {
				a := a.in(t)
				mount := mounted(t, "-t", "tmpfs", "-o", limit, "tmpfs")
				archive := join(mount, "archive")
				r := a.backup(archive, format)
				if r.code != 74 || !full.MatchString(r.text) {
					t.Errorf("exit %d: %s", r.code, r.text)
				}
				if n := strings.Count(r.text, "\n"); n > 10 {
					t.Errorf("%d lines for one full disk: %s", n, r.text)
				}
				if left := len(a.server.Messages()); left != 60 {
					t.Errorf("%d messages left at the server", left)
				}
				command(t, "mount", "-o", "remount,size=64m,nr_inodes=10000", mount)
				a.completes(archive, format, limit)
			})
		}
	}
}

// deliver adds a message.
func (a *account) deliver(wire string) {
	a.server.Add(testserver.POP3Message{Octets: []byte(wire)})
	a.want[rig.Message{Mailbox: "INBOX", Digest: rig.Digest(rig.Canonical([]byte(wire)))}]++
}

// in is the account for a test within the test.
func (a *account) in(t *testing.T) *account {
	b := *a
	b.t = t
	return &b
}

// mounted mounts what mount is told, for the duration of the test.
func mounted(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	command(t, "mount", append(args, dir)...)
	t.Cleanup(func() { command(t, "umount", dir) })
	return dir
}

// A read-only disk: backup says so, verify works.
func TestReadOnly(t *testing.T) {
	needRoot(t)
	a := newAccount(t, 30)
	for _, format := range rig.Formats {
		mount := mounted(t, "-t", "tmpfs", "tmpfs")
		archive := join(mount, "archive")
		a.completes(archive, format, "at first")
		before, err := rig.Tree(archive)
		if err != nil {
			t.Fatal(err)
		}
		command(t, "mount", "-o", "remount,ro", mount)
		if r := a.backup(archive, format); r.code != 74 {
			t.Errorf("%s: exit %d: %s", format, r.code, r.text)
		}
		if r := a.wrapped(nil, "verify", archive); r.code != 0 {
			t.Errorf("%s: verify: exit %d: %s", format, r.code, r.text)
		}
		command(t, "mount", "-o", "remount,rw", mount)
		after, err := rig.Tree(archive)
		if err != nil || len(before) != len(after) {
			t.Errorf("%s: %d files became %d, %v", format, len(before), len(after), err)
		}
		a.completes(archive, format, "read-write again")
	}
}

// files lists what is below a directory.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The archive is moved away during the run, or another directory or a symbolic
// link takes its place: nothing is written to the wrong place.
func TestArchiveTakenAway(t *testing.T) {
	a := newAccount(t, 150)
	for _, format := range rig.Formats {
		for what, put := range map[string]func(dir, elsewhere string) error{
			"gone":      func(string, string) error { return nil },
			"empty":     func(dir, _ string) error { return os.Mkdir(dir, 0o700) },
			"symlinked": func(dir, elsewhere string) error { return os.Symlink(elsewhere, dir) },
		} {
			for _, after := range []int64{30_000, 400_000} {
				t.Run(fmt.Sprintf("%s-%s-%d", format, what, after), func(t *testing.T) {
					a := a.in(t)
					dir := t.TempDir()
					archive, away, elsewhere := join(dir, "archive"), join(dir, "away"), join(dir, "elsewhere")
					if err := os.Mkdir(elsewhere, 0o700); err != nil {
						t.Fatal(err)
					}
					r := a.during(archive, format, after, func() {
						if err := os.Rename(archive, away); err != nil {
							t.Fatal(err)
						}
						if err := put(archive, elsewhere); err != nil {
							t.Fatal(err)
						}
					})
					if r.code != 74 {
						t.Errorf("exit %d: %s", r.code, r.text)
					}
					if list := files(t, elsewhere); len(list) > 0 {
						t.Errorf("written elsewhere: %q", list)
					}
					if what == "empty" {
						if list := files(t, archive); len(list) > 0 {
							t.Errorf("written into the new directory: %q", list)
						}
					}
					if err := os.RemoveAll(archive); err != nil {
						t.Fatal(err)
					}
					if err := os.Rename(away, archive); err != nil {
						t.Fatal(err)
					}
					a.completes(archive, format, what)
				})
			}
		}
	}
}

// await waits until a file is there: the first group is committed then.
func await(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Lstat(name); err == nil {
			return
		}
	}
	t.Fatalf("%s does not come", name)
}

// A mailbox is swapped for a symbolic link that leads outside, before the run or
// during it: nothing outside is created or changed.
func TestSymlinkSwapped(t *testing.T) {
	a := newAccount(t, 150)
	victim := map[string]string{"maildir": "INBOX/cur", "mbox": "INBOX.mbox"}
	for _, format := range rig.Formats {
		for _, when := range []string{"before", "during"} {
			t.Run(format+"-"+when, func(t *testing.T) {
				a := a.in(t)
				dir := t.TempDir()
				archive, outside := join(dir, "archive"), join(dir, "outside")
				target := outside
				if format == "mbox" {
					target = join(outside, "file")
				}
				if err := os.Mkdir(outside, 0o700); err != nil {
					t.Fatal(err)
				}
				if format == "mbox" {
					if err := os.WriteFile(target, []byte("mine\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				inside, aside := join(archive, victim[format]), join(archive, ".mailhaul", "aside")
				var before map[string]string
				swap := func() {
					await(t, inside)
					if err := os.Rename(inside, aside); err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink(target, inside); err != nil {
						t.Fatal(err)
					}
					var err error
					if before, err = rig.Tree(outside); err != nil {
						t.Fatal(err)
					}
				}
				var r result
				if when == "before" {
					a.during(archive, format, 400_000, func() {}) // the first run completes
					a.deliver("Subject: one more " + format + "\r\n\r\nbody\r\n")
					swap()
					r = a.backup(archive, format)
				} else {
					r = a.during(archive, format, 400_000, swap)
				}
				if r.code == 0 {
					t.Errorf("exit %d: %s", r.code, r.text)
				}
				after, err := rig.Tree(outside)
				if err != nil || len(after) != len(before) {
					t.Errorf("outside: %v became %v, %v", before, after, err)
				}
				for name, was := range before {
					if after[name] != was {
						t.Errorf("%s was changed", name)
					}
				}
				if err := os.Remove(inside); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(aside, inside); err != nil {
					t.Fatal(err)
				}
				a.completes(archive, format, when)
			})
		}
	}
}
