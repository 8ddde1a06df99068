package crash

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// reported gathers what a run has put on record.
type reported struct {
	mu   sync.Mutex
	list []struct {
		mailbox string
		digest  mail.Digest
	}
}

func (r *reported) note(mailbox string, d mail.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, struct {
		mailbox string
		digest  mail.Digest
	}{mailbox, d})
}

// missing returns how many of them are not held.
func (r *reported) missing(c rig.Multiset) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.list {
		name, _ := archive.Path(m.mailbox)
		if !c.Has(name, m.digest.String()) {
			n++
		}
	}
	return n
}

// Each operation of the file system fails once: the run says so or gets over it,
// what it has reported verifies, and the next run completes the archive.
func TestEveryOperationFails(t *testing.T) {
	plans := []faultfs.Plan{
		{Mode: faultfs.Fail, Err: syscall.EIO},
		{Mode: faultfs.Short, Err: syscall.ENOSPC},
		{Mode: faultfs.Late, Err: syscall.EDQUOT},
	}
	everyStart(t, func(t *testing.T, st start, fresh func(*testing.T) place) {
		tried, fatal := 0, 0
		for k, plan := range plans {
			for n := 1 + k; ; n += rig.Stride(71) {
				if n > stepLimit {
					t.Fatalf("no end after %d operations", n)
				}
				plan.At = n
				hit, failed := oneFault(t, st, fresh(t), plan)
				if t.Failed() {
					return
				}
				if !hit {
					break
				}
				tried++
				if failed {
					fatal++
				}
			}
		}
		if fatal == 0 {
			t.Errorf("none of %d faults ended a run", tried)
		}
		t.Logf("%d faults, %d of them ended the run", tried, fatal)
	})
}

func oneFault(t *testing.T, st start, p place, plan faultfs.Plan) (hit, failed bool) {
	t.Helper()
	var fsys *faultfs.FS
	var done reported
	s := later()
	res, err := p.backup(s, run{recorded: done.note, wrap: func(inner durable.FS) durable.FS {
		fsys = faultfs.New(inner, plan)
		return fsys
	}})
	when := fmt.Sprintf("%v (%v) at %s", plan.Mode, plan.Err, fsys.Where())
	for _, v := range fsys.Violations() {
		t.Errorf("%s: %s", when, v)
	}
	if !fsys.Hit() {
		if err != nil {
			t.Errorf("without a fault: %v", err)
		}
		return false, false
	}
	if err != nil && mail.KindOf(err) != mail.KindDisk {
		t.Errorf("%s: the error is of kind %d: %v", when, mail.KindOf(err), err)
	}
	if res.Failed > 0 {
		t.Errorf("%s: %d messages failed, as if that were the server's fault", when, res.Failed)
	}
	if got, herr := p.held(); done.missing(got) > 0 {
		t.Errorf("%s: %d messages were reported and are not held (%v)", when, done.missing(got), herr)
	}
	p.complete(t, s, when, st.more...)
	return true, err != nil
}
