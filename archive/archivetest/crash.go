package archivetest

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"mailhaul/archive"
	"mailhaul/internal/faultfs"
)

// stepLimit is far above the operations of one run: reaching it means that a run
// never ends.
const stepLimit = 5000

// crashMessages are few, since every step of a run with them is tried: two
// mailboxes at different depth, two equal mails, one longer than a buffer.
func crashMessages() []Message {
	return []Message{
		{Mailbox: "INBOX", Wire: "Subject: one\r\n\r\nFrom here\r\n", Flags: mailSeen},
		{Mailbox: "Archive/2023", Wire: "Subject: two\r\n\r\nbody"},
		{Mailbox: "INBOX", Wire: "Subject: twin\r\n\r\nbody\r\n"},
		{Mailbox: "INBOX", Wire: "Subject: twin\r\n\r\nbody\r\n", Flags: mailSeen},
		{Mailbox: "Archive/2023", Wire: "Subject: long\r\n\r\n" + strings.Repeat("0123456789 \r\n", 5400)},
		{Mailbox: "INBOX", Wire: ""},
	}
}

const (
	mailSeen  = `\Seen`
	groupSize = 2
)

// earlier is what a run before the one under test has left.
func earlier(t *testing.T, open Open) (*faultfs.Mem, *Ledger) {
	t.Helper()
	disk, l := faultfs.NewMem(), NewLedger()
	if err := runOnce(open(t, disk, l), l, crashMessages()[:2], groupSize); err != nil {
		t.Fatal(err)
	}
	disk.Restart()
	return disk, l
}

// starts are the two states a run may begin with.
var starts = map[string]func(*testing.T, Open) (*faultfs.Mem, *Ledger){
	"empty":    func(t *testing.T, _ Open) (*faultfs.Mem, *Ledger) { return faultfs.NewMem(), NewLedger() },
	"extended": earlier,
}

// everyStep runs with a fault at operation 1, 2, ... until a run does not reach it
// and calls check after each.
func everyStep(t *testing.T, open Open, plan faultfs.Plan,
	check func(t *testing.T, disk *faultfs.Mem, l *Ledger, fsys *faultfs.FS, err error, when string)) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			for n := 1; ; n++ {
				if n > stepLimit {
					t.Fatalf("no end after %d operations", n)
				}
				disk, l := start(t, open)
				plan.At = n
				fsys := faultfs.New(disk, plan)
				err := runOnce(open(t, fsys, l), l, crashMessages(), groupSize)
				when := fmt.Sprintf("%v at %s", plan.Mode, fsys.Where())
				for _, v := range fsys.Violations() {
					t.Errorf("%s: %s", when, v)
				}
				if !fsys.Hit() {
					if err != nil {
						t.Errorf("without a fault: %v", err)
					}
					return
				}
				disk.Restart()
				check(t, disk, l, fsys, err, when)
				if t.Failed() {
					return
				}
			}
		})
	}
}

// finish runs again without a fault: everything is there exactly once then.
func finish(t *testing.T, open Open, disk *faultfs.Mem, l *Ledger, when string) {
	t.Helper()
	messages := crashMessages()
	if err := runOnce(open(t, disk, l), l, messages, groupSize); err != nil {
		t.Errorf("%s: the next run: %v", when, err)
		return
	}
	disk.Restart()
	a := open(t, disk, l)
	defer a.Close()
	checkReadable(t, a, l, when+", after the next run")
	checkSame(t, l.count(), wanted(messages), when+", in the ledger after the next run")
	checkSame(t, onDisk(t, a), wanted(messages), when+", on disk after the next run")
}

// everyFault lets each operation fail once. What was reported is there; what was
// not has left nothing in a final place.
func everyFault(t *testing.T, open Open) {
	for _, plan := range []faultfs.Plan{
		{Mode: faultfs.Fail, Err: syscall.EIO},
		{Mode: faultfs.Short, Err: syscall.ENOSPC},
		{Mode: faultfs.Late, Err: syscall.EIO},
	} {
		t.Run(plan.Mode.String(), func(t *testing.T) {
			everyStep(t, open, plan, func(t *testing.T, disk *faultfs.Mem, l *Ledger, _ *faultfs.FS, err error, when string) {
				a := open(t, disk, l)
				checkReadable(t, a, l, when)
				checkNothingMore(t, a, l, when)
				if err := a.Close(); err != nil {
					t.Errorf("%s: close: %v", when, err)
				}
				disk.Restart()
				finish(t, open, disk, l, when)
			})
		})
	}
}

// checkNothingMore asserts that Recover finds no message without a receipt.
func checkNothingMore(t *testing.T, a archive.Archive, l *Ledger, when string) {
	t.Helper()
	before := l.count()
	if err := recoverAll(t.Context(), a, l, crashMessages()); err != nil {
		t.Errorf("%s: recover: %v", when, err)
	}
	checkSame(t, l.count(), before, when+", left in a final place")
}

// everyDeath ends the process at each operation. From there the next run finds the
// disk as it was, or as one of the power losses leaves it.
func everyDeath(t *testing.T, open Open) {
	everyStep(t, open, faultfs.Plan{Mode: faultfs.Die},
		func(t *testing.T, disk *faultfs.Mem, l *Ledger, fsys *faultfs.FS, _ error, when string) {
			for _, loss := range faultfs.Losses {
				after, ledger := disk.Crash(loss, uint64(fsys.Ops())), l.clone()
				when := fmt.Sprintf("%s, power loss (%v)", when, loss)
				a := open(t, after, ledger)
				checkRecovered(t, a, ledger, when)
				if err := a.Close(); err != nil {
					t.Errorf("%s: close: %v", when, err)
				}
				after.Restart()
				finish(t, open, after, ledger, when)
			}
			lateLoss(t, open, disk, l, when)
			finish(t, open, disk, l, when)
		})
}

// lateLoss lets the power go when the next run has just taken on record what it found
// of one that was killed: its files were in their places, and perhaps not for good.
func lateLoss(t *testing.T, open Open, disk *faultfs.Mem, l *Ledger, when string) {
	t.Helper()
	when += ", after the next run's recovery"
	a := open(t, disk, l)
	if err := recoverAll(t.Context(), a, l, crashMessages()); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	after, ledger := disk.Crash(faultfs.LoseAll, 0), l.clone()
	b := open(t, after, ledger)
	checkRecovered(t, b, ledger, when+", power loss")
	if err := errors.Join(b.Close(), a.Close()); err != nil {
		t.Errorf("%s: close: %v", when, err)
	}
	disk.Restart()
}

// checkRecovered asserts that what was reported is there and readable, and that
// Recover takes nothing for a message that is none.
func checkRecovered(t *testing.T, a archive.Archive, l *Ledger, when string) {
	t.Helper()
	reported := l.count() // Recover takes off the record what it does not find
	if err := recoverAll(t.Context(), a, l, crashMessages()); err != nil {
		t.Errorf("%s: recover: %v", when, err)
		return
	}
	checkReadable(t, a, l, when)
	for k, n := range reported {
		if have := l.count()[k]; have < n {
			t.Errorf("%s: %v: reported %d times, there %d times", when, k, n, have)
		}
	}
	want := wanted(crashMessages())
	for k, n := range l.count() {
		if n > want[k] {
			t.Errorf("%s: %v: %d times after recovery", when, k, n)
		}
	}
}
