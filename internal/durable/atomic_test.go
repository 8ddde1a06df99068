package durable_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
)

// A file that is replaced is the old or the new one, whole, whatever operation
// fails or is the last before the power goes; success means that it is the new one.
func TestAtomicAtEveryStep(t *testing.T) {
	const name, was, is = "dir/state", "the old one", "the new one, which is longer"
	begin := func(t *testing.T) *faultfs.Mem {
		disk := faultfs.NewMem()
		if err := disk.Mkdir("dir"); err != nil {
			t.Fatal(err)
		}
		if err := durable.SyncChain(disk, "dir"); err != nil {
			t.Fatal(err)
		}
		if err := durable.WriteFileAtomic(disk, name, []byte(was)); err != nil {
			t.Fatal(err)
		}
		return disk
	}
	for _, plan := range []faultfs.Plan{
		{Mode: faultfs.Fail, Err: syscall.EIO}, {Mode: faultfs.Short, Err: syscall.ENOSPC}, {Mode: faultfs.Late, Err: syscall.EIO}, {Mode: faultfs.Die},
	} {
		for n := 1; ; n++ {
			disk := begin(t)
			plan.At = n
			f := faultfs.New(disk, plan)
			err := durable.WriteFileAtomic(f, name, []byte(is))
			when := fmt.Sprintf("%v at %s", plan.Mode, f.Where())
			if f.Hit() != (err != nil) {
				t.Errorf("%s: %v", when, err)
			}
			disks := map[string]*faultfs.Mem{"as it is": disk}
			for _, loss := range faultfs.Losses {
				disks["power loss: "+loss.String()] = disk.Crash(loss, uint64(n))
			}
			for after, disk := range disks {
				got, rerr := durable.ReadFile(disk, name, 100)
				if s := string(got); rerr != nil || s != is && (err == nil || s != was) {
					t.Errorf("%s, %s: %q, %v", when, after, s, rerr)
				}
			}
			if plan.Mode == faultfs.Fail && err != nil {
				list, err := disk.ReadDir("dir")
				if len(list) != 1 && !strings.Contains(when, "remove") || err != nil {
					t.Errorf("%s: left behind: %v, %v", when, list, err)
				}
			}
			if !f.Hit() {
				break
			}
		}
	}
}
