package durable

import (
	"errors"
	"os"
	"testing"
)

func TestLockConflictsAndEndsWithItsDescriptor(t *testing.T) {
	r, _ := open(t)
	a := create(t, r, "mbox", "")
	if err := a.Lock(); err != nil {
		t.Fatal(err)
	}
	b, err := r.OpenFile("mbox", os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Lock(); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	b.Close() // a lock of the process would be gone now
	c, err := r.OpenFile("mbox", os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Lock(); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	a.Close()
	if err := c.Lock(); err != nil {
		t.Fatal(err)
	}
}
