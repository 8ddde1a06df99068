package disk

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

// A file system that takes upper and lower case for the same and refuses what
// Windows refuses: mailboxes whose names differ in case only, or that no such file
// system likes, each have their own place, and nothing is merged.
func TestCaseInsensitive(t *testing.T) {
	needRoot(t)
	need(t, "mount.exfat-fuse")
	need(t, "mkfs.exfat")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE here")
	}
	names := []string{"Work", "work", "WORK", "wOrK/Sub", "work/sub", "\u00c9t\u00e9", "\u00e9t\u00e9", "con", "CON", "nul.txt", "a:b", "a?b", "dot.", "space ", "INBOX/Inbox"}
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	s := &testserver.IMAP{Boxes: map[string][]testserver.IMAPMessage{}}
	if s.TLS, err = ca.TLS(testserver.Leaf{}); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{}
	for _, name := range names {
		octets := "Subject: in " + name + "\r\n\r\nbody\r\n"
		s.Boxes[name] = []testserver.IMAPMessage{{UID: 1, Octets: octets, Flags: `\Seen`}}
		want[rig.Digest(rig.Canonical([]byte(octets)))]++
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for _, format := range rig.Formats {
		t.Run(format, func(t *testing.T) {
			a := &account{t: t, user: rig.User{Bin: bin, Home: t.TempDir(), Password: password}}
			if a.user.CAFile, err = ca.WriteFile(a.user.Home); err != nil {
				t.Fatal(err)
			}
			mount := folding(t)
			archive, from := join(mount, "archive"), fmt.Sprintf("imaps://ada@127.0.0.1:%d", s.Port())
			for range 2 {
				if r := a.wrapped(nil, "backup", from, archive, "--format", format); r.code != 0 {
					t.Errorf("exit %d: %s", r.code, r.text)
				}
				held, err := rig.Held(format, archive)
				if err != nil {
					t.Error(err)
				}
				places, digests := map[string]bool{}, map[string]int{}
				for m, n := range held {
					places[m.Mailbox] = true
					digests[m.Digest] += n
				}
				if len(places) != len(names) {
					t.Errorf("%d mailboxes lie in %d places: %v", len(names), len(places), places)
				}
				for d, n := range want {
					if digests[d] != n {
						t.Errorf("%s is held %d times instead of %d", d, digests[d], n)
					}
				}
				if r := a.wrapped(nil, "verify", archive); r.code != 0 {
					t.Errorf("verify: exit %d: %s", r.code, r.text)
				}
			}
			if n := a.recorded(archive, "at the end"); n != len(names) {
				t.Errorf("%d messages are on record", n)
			}
		})
	}
}

// folding mounts exFAT, which folds case as NTFS does.
func folding(t *testing.T) string {
	t.Helper()
	image, dir := join(t.TempDir(), "image"), t.TempDir()
	command(t, "truncate", "-s", "24M", image)
	command(t, "mkfs.exfat", image)
	device, err := exec.Command("losetup", "--show", "-f", image).Output()
	if err != nil {
		skip(t, "no loop devices here: %v", err)
	}
	loop := strings.TrimSpace(string(device))
	t.Cleanup(func() { command(t, "losetup", "-d", loop) })
	if out, err := exec.Command("mount.exfat-fuse", loop, dir).CombinedOutput(); err != nil {
		t.Skipf("no FUSE here: %v: %s", err, out)
	}
	t.Cleanup(func() { command(t, "umount", dir) })
	// It does fold case.
	if err := os.WriteFile(join(dir, "Name"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(join(dir, "nAME")); err != nil {
		t.Fatalf("it does not fold case: %v", err)
	}
	return dir
}
