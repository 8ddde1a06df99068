package crash

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"mailhaul/internal/vault"
	"mailhaul/test/rig"
)

// An older copy of the archive is put back in part: over what is there, which leaves
// what is newer (rsync without --delete, cp -a); its ledger only; or, of an mbox,
// everything but the ledger. Nothing is archived twice, and what is lacking is fetched.
func TestRestoredInPart(t *testing.T) {
	own := func(p place) string { return filepath.Join(p.archive(), vault.Dir) }
	remove := func(t *testing.T, path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	put := func(t *testing.T, to, from string) {
		if err := copyTree(to, from); err != nil {
			t.Fatal(err)
		}
	}
	ways := map[string]func(t *testing.T, now, old place){
		"over": func(t *testing.T, now, old place) {
			put(t, now.archive(), old.archive())
			when := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
			err := filepath.WalkDir(now.archive(), func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					err = os.Chtimes(path, when, when) // back to what it was
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		},
		"ledger": func(t *testing.T, now, old place) {
			remove(t, own(now))
			put(t, own(now), own(old))
		},
		"messages": func(t *testing.T, now, old place) {
			kept := old.root + "-kept"
			put(t, kept, own(now))
			remove(t, now.archive())
			put(t, now.archive(), old.archive())
			remove(t, own(now))
			put(t, own(now), kept)
		},
	}
	for _, format := range rig.Formats {
		for name, way := range ways {
			if format == "maildir" && name == "messages" {
				continue // verify finds that
			}
			t.Run(format+"-"+name, func(t *testing.T) {
				t.Parallel()
				dir := rig.MemoryDir(t)
				now := place{root: filepath.Join(dir, "now"), format: format}
				old := place{root: filepath.Join(dir, "old"), format: format}
				if _, err := now.backup(earlier(false), run{}); err != nil {
					t.Fatal(err)
				}
				put(t, old.root, now.root)
				s := later()
				if _, err := now.backup(s, run{}); err != nil {
					t.Fatal(err)
				}
				way(t, now, old)
				now.complete(t, s, "after it", expunged())
			})
		}
	}
}
