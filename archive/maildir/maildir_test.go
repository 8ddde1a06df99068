package maildir

import (
	"testing"

	"mailhaul/archive"
	"mailhaul/archive/archivetest"
	"mailhaul/internal/durable"
)

func TestContract(t *testing.T) {
	archivetest.Run(t, func(t *testing.T, fsys durable.FS, anchors archive.Anchors) archive.Archive {
		a, err := New(fsys, anchors, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
}
