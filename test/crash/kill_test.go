package crash

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"

	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// order is what a child process is to do: one backup, and to kill itself at one
// of its steps.
type order struct {
	Root, Format string
	Server       string // "later", or "nameless" for one without UIDs
	FSStep       int    // operation of the file system, from 1; 0 for none
	LedgerStep   int    // step of the ledger, likewise
}

func TestMain(m *testing.M) {
	rig.Obey(obey)
	os.Exit(m.Run())
}

func (o order) server() *server {
	s := later()
	s.uids = o.Server != "nameless"
	return s
}

// obey writes to stdout what is on record, one message a line.
func obey(o order) error {
	steps := &rig.Steps{At: o.LedgerStep}
	r := run{
		recorded: func(mailbox string, d mail.Digest) { fmt.Printf("recorded %s %q\n", d, mailbox) },
		wrap: func(fsys durable.FS) durable.FS {
			return faultfs.New(fsys, faultfs.Plan{At: o.FSStep, Mode: faultfs.Kill})
		},
		hook: steps.Step,
	}
	_, err := place{root: o.Root, format: o.Format}.backup(o.server(), r)
	return err
}

// kill runs a child. killed is false if it ended by itself, before its step.
func kill(t *testing.T, o order) (killed bool, done *reported) {
	t.Helper()
	out, killed := rig.Child(t, o)
	if !killed {
		return false, nil
	}
	done = new(reported)
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		var hex, mailbox string
		if n, _ := fmt.Sscanf(lines.Text(), "recorded %s %q", &hex, &mailbox); n == 2 {
			d, err := mail.ParseDigest(hex)
			if err != nil {
				t.Fatal(err)
			}
			done.note(mailbox, d)
		}
	}
	return true, done
}

// killEach kills runs at step 1, 2, ... until one ends before.
func killEach(t *testing.T, st start, fresh func(*testing.T) place, every int, at func(n int, p place) order) (tried int) {
	for n := 1; ; n += every {
		if n > stepLimit {
			t.Fatalf("no end after %d steps", n)
		}
		p := fresh(t)
		o := at(n, p)
		killed, done := kill(t, o)
		when := fmt.Sprintf("killed at operation %d, ledger step %d", o.FSStep, o.LedgerStep)
		if killed {
			tried++
			if got, err := p.held(); done.missing(got) > 0 {
				t.Errorf("%s: %d messages were reported and are not held (%v)", when, done.missing(got), err)
			}
		}
		p.complete(t, o.server(), when, st.more...)
		if !killed || t.Failed() {
			return tried
		}
	}
}

// The process is killed (SIGKILL) before each operation of the file system.
func TestKilledAtEveryOperation(t *testing.T) {
	everyStart(t, func(t *testing.T, st start, fresh func(*testing.T) place) {
		tried := killEach(t, st, fresh, rig.Stride(53), func(n int, p place) order {
			return order{Root: p.root, Format: p.format, FSStep: n}
		})
		t.Logf("%d kills", tried)
	})
}

// The process is killed before and after each durable step of the ledger.
func TestKilledAtEveryLedgerStep(t *testing.T) {
	everyStart(t, func(t *testing.T, st start, fresh func(*testing.T) place) {
		tried := killEach(t, st, fresh, rig.Stride(5), func(n int, p place) order {
			return order{Root: p.root, Format: p.format, LedgerStep: n}
		})
		t.Logf("%d kills", tried)
	})
}

// A server that gives no usable UIDs: only octets tell what the archive has.
func TestKilledWithoutUIDs(t *testing.T) {
	for _, format := range rig.Formats {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := place{root: rig.MemoryDir(t), format: format}
			fresh := func(t *testing.T) place {
				if err := os.RemoveAll(p.root); err != nil {
					t.Fatal(err)
				}
				return p
			}
			tried := killEach(t, starts[0], fresh, rig.Stride(71), func(n int, p place) order {
				return order{Root: p.root, Format: p.format, Server: "nameless", FSStep: n}
			})
			t.Logf("%d kills", tried)
		})
	}
}
