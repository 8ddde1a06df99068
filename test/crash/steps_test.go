package crash

import (
	"os"
	"path/filepath"
	"testing"

	"mailhaul/internal/vault"
	"mailhaul/test/rig"
)

// stepLimit is far above the operations of one run: reaching it means that a run
// never ends.
const stepLimit = 20_000

// start is a state that the runs under test begin with.
type start struct {
	name string
	make func(t *testing.T, p place)
	more []message // what the archive has and the server has not
}

var starts = []start{
	{name: "empty", make: func(*testing.T, place) {}},
	{name: "extended", more: []message{expunged()}, make: func(t *testing.T, p place) {
		if _, err := p.backup(earlier(true), run{}); err != nil {
			t.Fatal(err)
		}
	}},
	{name: "ledger-lost", more: []message{expunged()}, make: func(t *testing.T, p place) {
		if _, err := p.backup(earlier(false), run{}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(p.archive(), vault.Dir, "ledger.sqlite")); err != nil {
			t.Fatal(err)
		}
	}},
}

// everyStart calls f for each format and start, with a function that makes a fresh
// copy of the start.
func everyStart(t *testing.T, f func(t *testing.T, st start, fresh func(t *testing.T) place)) {
	for _, format := range rig.Formats {
		for _, st := range starts {
			t.Run(format+"-"+st.name, func(t *testing.T) {
				t.Parallel()
				dir := rig.MemoryDir(t)
				first := place{root: filepath.Join(dir, "start"), format: format}
				st.make(t, first)
				if err := os.MkdirAll(first.root, 0o700); err != nil {
					t.Fatal(err)
				}
				again := place{root: filepath.Join(dir, "run"), format: format}
				f(t, st, func(t *testing.T) place {
					if err := os.RemoveAll(again.root); err != nil {
						t.Fatal(err)
					}
					if err := copyTree(again.root, first.root); err != nil {
						t.Fatal(err)
					}
					return again
				})
			})
		}
	}
}
