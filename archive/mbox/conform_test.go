package mbox

import (
	"testing"

	"mailhaul/archive"
	"mailhaul/archive/archivetest"
	"mailhaul/internal/durable"
)

func TestConformance(t *testing.T) {
	archivetest.Run(t, func(t *testing.T, fsys durable.FS, anchors archive.Anchors) archive.Archive {
		a, err := New(fsys, anchors, Options{LockWait: -1})
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
}
