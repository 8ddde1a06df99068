//go:build unix

package hostile

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/testserver"
	"mailhaul/test/rig"
)

var (
	histories = flag.Int("histories", 4, "how many histories TestHistories plays")
	seed      = flag.Uint64("seed", 1, "of the first of them")
)

// TestHistories plays random histories of an account: mail comes, runs of every
// kind are made, killed and cut off, another client flags and deletes, the
// UIDVALIDITY changes, the ledger is lost, the destination is full. Whatever
// happens, what was delivered is archived or still at the server, nothing is
// archived that was not delivered, and in the end everything is where it belongs.
//
//	go test ./test/hostile -run TestHistories -histories 1000 -seed 7
func TestHistories(t *testing.T) {
	t.Parallel()
	for i := range *histories {
		t.Run(fmt.Sprint("seed ", *seed+uint64(i)), func(t *testing.T) {
			t.Parallel()
			h := newHistory(t, *seed+uint64(i))
			for range 25 {
				h.step()
				h.check()
				if t.Failed() {
					t.Fatalf("after: %s", strings.Join(h.told, ", "))
				}
			}
			h.end()
			if t.Failed() {
				t.Fatalf("after: %s", strings.Join(h.told, ", "))
			}
		})
	}
}

type history struct {
	*house
	random    *rand.Rand
	from, to  *testserver.IMAP
	delivered map[string]int  // digests of all that ever came
	forgotten map[string]bool // what another client deleted before it was archived
	cut       atomic.Int32    // commands until the connection is cut; 0 for never
	full      atomic.Bool
	n         int
	told      []string
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{house: newHouse(t), random: rand.New(rand.NewPCG(seed, 0)), delivered: map[string]int{}, forgotten: map[string]bool{}}
	h.from = &testserver.IMAP{Capabilities: capable, Boxes: map[string][]testserver.IMAPMessage{}}
	h.from.Answer = func(c *testserver.IMAPConn, _ string) bool {
		if h.cut.Load() > 0 && h.cut.Add(-1) == 0 {
			c.Close()
			return true
		}
		return false
	}
	h.to = &testserver.IMAP{Capabilities: capable, Boxes: map[string][]testserver.IMAPMessage{}}
	h.to.Appended = func(c *testserver.IMAPConn, _ string, _ []string) bool {
		if h.full.Load() {
			c.NO("[OVERQUOTA] full")
		}
		return h.full.Load()
	}
	for _, s := range []*testserver.IMAP{h.from, h.to} {
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
	}
	return h
}

func (h *history) tell(format string, args ...any) {
	h.told = append(h.told, fmt.Sprintf(format, args...))
}

// step does one thing.
func (h *history) step() {
	switch h.random.IntN(12) {
	case 0, 1, 2:
		for range 1 + h.random.IntN(6) {
			h.n++
			octets := letter(h.n)
			if h.random.IntN(5) == 0 {
				octets = letter(1 + h.random.IntN(h.n)) // once more
			}
			h.from.Store("INBOX", testserver.IMAPMessage{Octets: octets})
			h.delivered[rig.Digest(rig.Canonical([]byte(octets)))]++
		}
		h.tell("mail to %d", h.n)
	case 3:
		held := h.archived()
		h.from.Change("INBOX", func(m *testserver.IMAPMessage) bool {
			switch h.random.IntN(6) {
			case 0:
				if d := rig.Digest(rig.Canonical([]byte(m.Octets))); held[d] == 0 {
					h.forgotten[d] = true
				}
				return false
			case 1:
				m.Flags = `\Flagged`
			case 2:
				m.Flags = `\Seen \Deleted`
			}
			return true
		})
		h.tell("another client")
	case 4:
		h.from.Renew(fmt.Sprint(1000 + h.random.IntN(1_000_000)))
		h.tell("UIDVALIDITY")
	case 5:
		for _, name := range []string{"ledger.sqlite", "ledger.sqlite-wal", "ledger.bak"} {
			_ = os.Remove(filepath.Join(h.archive(), ".mailhaul", name)) // it may not be there
		}
		h.tell("ledger lost")
	case 6:
		h.full.Store(h.random.IntN(2) == 0)
		h.tell("full: %v", h.full.Load())
		fallthrough
	case 7:
		h.verb("upload", h.archive(), h.dest())
	case 8:
		h.verb("clean", imapPlace("imap+insecure", h.from), h.archive(), "--larger", "1", "--yes", "--max-delete", "100%")
	case 9:
		h.verb("backup", imapPlace("imap+insecure", h.from), h.archive(), "--delete")
	default:
		h.verb("backup", imapPlace("imap+insecure", h.from), h.archive())
	}
}

func (h *history) dest() string {
	return strings.Replace(imapPlace("imap+insecure", h.to), user+"@", "grace@", 1)
}

// verb runs a verb to its end, cut off once, or killed.
func (h *history) verb(args ...string) {
	how := "well"
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	cmd := h.user.Command(ctx, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	dice := h.random.IntN(4)
	if dice == 0 {
		how = "cut"
		h.cut.Store(1 + h.random.Int32N(12))
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	if dice == 1 {
		how = "killed"
		after := time.Duration(h.random.ExpFloat64() * float64(40*time.Millisecond))
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended
		defer timer.Stop()
	}
	_ = cmd.Wait() // the exit code tells
	h.cut.Store(0)
	code := cmd.ProcessState.ExitCode()
	h.tell("%s %s: %d", args[0], how, code)
	switch {
	case code == 0, code == 3, code == 75, code == -1 && how == "killed", code == 64 && len(h.archived()) == 0:
	default:
		h.t.Errorf("%s %s: exit %d: %s", args[0], how, code, out.Bytes())
	}
}

func (h *history) archived() map[string]int {
	m, _ := rig.Held("maildir", h.archive()) // a killed run leaves halves in tmp
	all := make(map[string]int)
	for k, n := range m.Plain() {
		all[k.Digest] += n
	}
	return all
}

func (h *history) check() {
	held, left := h.archived(), digests(octetsOf(h.from.Held("INBOX")))
	for d := range h.delivered {
		if held[d]+left[d] == 0 && !h.forgotten[d] {
			h.t.Errorf("LOST: %s is neither archived nor at the server", d)
		}
	}
	for d, n := range held {
		if n > h.delivered[d] {
			h.t.Errorf("%s is archived %d times, delivered %d times", d, n, h.delivered[d])
		}
	}
}

// end brings everything to rest.
func (h *history) end() {
	h.full.Store(false)
	if r := h.run("backup", imapPlace("imap+insecure", h.from), h.archive()); r.code != 0 {
		h.t.Errorf("the last backup: %v", r)
	}
	h.check()
	held := h.archived()
	for d, n := range digests(octetsOf(h.from.Held("INBOX"))) {
		if held[d] < n {
			h.t.Errorf("%s is at the server %d times and archived %d times", d, n, held[d])
		}
	}
	if r := h.run("upload", h.archive(), h.dest()); r.code != 0 {
		h.t.Errorf("the last upload: %v", r)
	}
	there := digests(octetsOf(h.to.Held("INBOX")))
	for d, n := range held {
		if there[d] != n {
			h.t.Errorf("%s is archived %d times and arrived %d times", d, n, there[d])
		}
	}
	if r := h.run("verify", h.archive()); r.code != 0 {
		h.t.Errorf("verify: %v", r)
	}
}
