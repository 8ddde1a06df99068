package disk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"mailhaul/test/rig"
)

// The power fails at a random moment, for real: the file system is shut down
// without writing out its log. After it is mounted again every message that the
// ledger has is whole, and the next run completes the archive.
func TestPowerCut(t *testing.T) {
	needRoot(t)
	need(t, "xfs_io")
	cuts := 1
	if rig.All() {
		cuts = 60
	}
	for _, kind := range []string{"ext4", "xfs"} {
		need(t, "mkfs."+kind)
		for _, format := range rig.Formats {
			t.Run(kind+"-"+format, func(t *testing.T) {
				a := newAccount(t, 900)
				d := newDisk(t, kind)
				seed := uint64(time.Now().UnixNano())
				t.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, 0))
				survived := 0
				for n := range cuts {
					when := fmt.Sprintf("cut %d", n+1)
					archive := join(d.mount, fmt.Sprint("archive-", n))
					a.cut(d, archive, format, time.Duration(random.IntN(3000))*time.Millisecond)
					if _, err := os.Stat(join(archive, ".mailhaul", "ledger.sqlite")); err == nil {
						survived += a.in(t).recorded(archive, when)
					}
					a.in(t).completes(archive, format, when)
					if t.Failed() {
						return
					}
					if err := os.RemoveAll(archive); err != nil {
						t.Fatal(err)
					}
				}
				if cuts > 1 && survived == 0 {
					t.Error("no message was on record at any cut")
				}
				t.Logf("%d power cuts, %d messages on record at them, all whole", cuts, survived)
			})
		}
	}
}

// disk is a file system of its own.
type disk struct {
	t     *testing.T
	kind  string
	image string
	mount string
}

func newDisk(t *testing.T, kind string) *disk {
	t.Helper()
	d := &disk{t: t, kind: kind, image: join(t.TempDir(), "image"), mount: t.TempDir()}
	command(t, "truncate", "-s", "320M", d.image)
	if kind == "xfs" {
		command(t, "mkfs.xfs", "-q", d.image)
	} else {
		command(t, "mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", d.image)
	}
	if out, err := exec.Command("mount", "-o", "loop", d.image, d.mount).CombinedOutput(); err != nil {
		skip(t, "no loop devices here: %v: %s", err, out)
	}
	t.Cleanup(func() { command(t, "umount", d.mount) })
	return d
}

// fail cuts the power and brings the disk back.
func (d *disk) fail(whileOff func()) {
	d.t.Helper()
	command(d.t, "xfs_io", "-x", "-c", "shutdown", d.mount)
	whileOff()
	command(d.t, "umount", d.mount)
	command(d.t, "mount", "-o", "loop", d.image, d.mount)
}

// cut runs a backup and cuts the power after a while.
func (a *account) cut(d *disk, archive, format string, after time.Duration) {
	a.t.Helper()
	// Some seconds long, so that groups are committed on the way.
	cmd := a.user.Command(limited(a.t), "backup", a.place(a.port), archive, "--format", format, "--limit-rate", "2M")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	time.Sleep(after)
	d.fail(func() {
		if err := cmd.Process.Kill(); err != nil && err != os.ErrProcessDone {
			a.t.Fatal(err)
		}
		_ = cmd.Wait() // killed, or ended by what the disk said
	})
}
