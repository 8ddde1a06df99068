package migrate_test

import (
	"testing"

	"mailhaul/internal/dovecot"
)

// A destination that was restored from a backup has its old UIDVALIDITY and lacks
// what came since. Nothing changed at the source, and all the same it is looked at.
func TestDestinationSetBack(t *testing.T) {
	t.Parallel()
	from, to := dovecot.Start(t, dovecot.Options{}), dovecot.Start(t, dovecot.Options{})
	fill(t, from, "Work", many(0, 30)...)
	admin := func(args ...string) {
		t.Helper()
		if _, err := to.Doveadm(append([]string{"mailbox"}, args...)...); err != nil {
			t.Fatal(err)
		}
	}
	empty := func() {
		t.Helper()
		admin("create", "-u", "ada", "Work")
		admin("update", "-u", "ada", "--uid-validity", "1700000000", "Work")
	}
	empty()
	l := openLedger(t)
	if res := run(t, source(t, from), to, l); res.Uploaded != 30 {
		t.Fatalf("%+v", res.Counts)
	}
	admin("delete", "-u", "ada", "Work")
	empty()
	fill(t, to, "Work", many(0, 5)...)
	if res := run(t, source(t, from), to, l); res.Uploaded != 25 || res.Adopted != 5 {
		t.Errorf("%+v", res.Counts)
	}
	same(t, from, "Work", to, "Work")
	if res := run(t, source(t, from), to, l); res.Skipped != 30 {
		t.Errorf("afterwards: %+v", res.Counts)
	}
}
