package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"mailhaul/internal/faultfs"
	"mailhaul/internal/vault"
	"mailhaul/test/rig"
)

// The power fails at each operation on the mail. Whatever of the legal disks that
// leaves, with the ledger lagging as far as it can: what was reported is whole,
// and the next run completes the archive.
func TestPowerFailsAtEveryOperation(t *testing.T) {
	everyStart(t, func(t *testing.T, st start, fresh func(*testing.T) place) {
		tried := 0
		for n := 1; ; n += rig.Stride(97) {
			if n > stepLimit {
				t.Fatalf("no end after %d operations", n)
			}
			p := fresh(t)
			m := &machine{p: p, disk: faultfs.NewMem(), seed: uint64(n)}
			if err := load(m.disk, p.archive()); err != nil {
				t.Fatal(err)
			}
			if err := m.keepStart(); err != nil {
				t.Fatal(err)
			}
			s := later()
			_, err := p.backup(s, run{wrap: m.wrap(n), hook: m.hook, recorded: m.note})
			if !m.fsys.Hit() {
				if err != nil {
					t.Errorf("without a fault: %v", err)
				}
				break
			}
			for _, loss := range faultfs.Losses {
				tried++
				afterPower(t, m, loss, st, fmt.Sprintf("power loss (%v) at %s", loss, m.fsys.Where()))
				if t.Failed() {
					return
				}
			}
		}
		t.Logf("%d power losses", tried)
	})
}

// keepStart is keep before the run, when there may be nothing.
func (m *machine) keepStart() error {
	if _, err := os.Stat(filepath.Join(m.p.archive(), vault.Dir)); err != nil {
		return nil
	}
	return m.keep()
}

func afterPower(t *testing.T, m *machine, loss faultfs.Loss, st start, when string) {
	t.Helper()
	to := place{root: filepath.Join(filepath.Dir(m.p.root), "rebooted"), format: m.p.format}
	defer os.RemoveAll(to.root)
	if err := m.reboot(to, loss); err != nil {
		t.Fatal(err)
	}
	// Only opened, which recovers: nothing of it may need a server.
	v, err := to.open(vault.Options{Create: true})
	if err != nil {
		t.Errorf("%s: open: %v", when, err)
		return
	}
	sum, err := v.Verify(context.Background(), func(f vault.Finding) {
		if f.Kind != vault.Extra {
			t.Errorf("%s: %v: %s: %v", when, f.Kind, f.Place, f.Err)
		}
	})
	if err != nil || !sum.Whole() {
		t.Errorf("%s: %+v, %v", when, sum, err)
	}
	if err := v.Close(); err != nil {
		t.Errorf("%s: close: %v", when, err)
	}
	if got, err := to.held(); m.done.missing(got) > 0 {
		t.Errorf("%s: %d of %d messages that were reported are not held (%v)", when, m.done.missing(got), len(m.done.list), err)
	}
	to.complete(t, later(), when, st.more...)
}
