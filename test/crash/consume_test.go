package crash

import (
	"path/filepath"
	"syscall"
	"testing"

	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
	"mailhaul/test/rig"
)

// Where reading a message uses it up, each is durable before the next is asked
// for: the power may fail at any moment.
func TestConsumedMessageIsDurable(t *testing.T) {
	for _, format := range rig.Formats {
		t.Run(format, func(t *testing.T) {
			dir := rig.MemoryDir(t)
			p := place{root: filepath.Join(dir, "run"), format: format}
			m := &machine{p: p, disk: faultfs.NewMem(), seed: 1}
			s := later()
			s.consumes = true
			taken := 0
			s.delivered = func(msg message, mailbox string) {
				s.mu.Lock()
				defer s.mu.Unlock()
				taken++
				to := place{root: filepath.Join(dir, "rebooted"), format: format}
				if err := m.reboot(to, faultfs.LoseAll); err != nil {
					t.Error(err)
				}
				want := to.message(mailbox, msg)
				if got, _ := to.held(); !got.Has(want.Mailbox, want.Digest) {
					t.Errorf("%s %s is used up and would not survive", mailbox, msg.uid)
				}
			}
			if _, err := p.backup(s, run{wrap: m.wrap(0), hook: m.hook, recorded: m.note}); err != nil {
				t.Fatal(err)
			}
			if taken == 0 || s.abandoned {
				t.Errorf("%d messages were taken, abandoned: %v", taken, s.abandoned)
			}
		})
	}
}

// Where it uses it up and the disk is full, the session is given up, so that the
// server keeps what was not stored.
func TestFullDiskAbandonsTheSession(t *testing.T) {
	for _, format := range rig.Formats {
		t.Run(format, func(t *testing.T) {
			tried := 0
			for n := 1; n < 400; n += rig.Stride(37) {
				p := place{root: rig.MemoryDir(t), format: format}
				var fsys *faultfs.FS
				s := later()
				s.consumes = true
				_, err := p.backup(s, run{wrap: func(inner durable.FS) durable.FS {
					fsys = faultfs.New(inner, faultfs.Plan{At: n, Mode: faultfs.Fail, Err: syscall.ENOSPC})
					return fsys
				}})
				if !fsys.Hit() {
					break
				}
				if err != nil && s.asked > 0 && !s.abandoned && !s.concluded() {
					t.Errorf("%s: the session goes on to its end: %v", fsys.Where(), err)
				}
				tried++
			}
			t.Logf("%d faults", tried)
		})
	}
}
