package mbox

import (
	"os"
	"strings"
	"testing"

	"mailhaul/archive"
	"mailhaul/internal/durable"
	"mailhaul/internal/faultfs"
	"mailhaul/mail"
)

// onDisk is an archive on a disk that forgets what was not synced.
func onDisk(t *testing.T, fsys durable.FS) *Archive {
	t.Helper()
	a, err := New(fsys, &marks{}, Options{LockWait: -1})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A tail that was cut off stays off after a power loss: with the mark gone it would
// be taken for mail.
func TestCutIsDurable(t *testing.T) {
	ctx := t.Context()
	disk := faultfs.NewMem()
	a := onDisk(t, disk)
	add(t, a, info("INBOX"), "Subject: one\r\n\r\nkept\r\n")
	anchor := commit(t, a).Anchors["INBOX"]
	add(t, a, info("INBOX"), "Subject: two\r\n\r\n"+strings.Repeat("dropped\r\n", bufferSize/8))
	f, err := disk.OpenFile("INBOX.mbox", os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() <= anchor.Length {
		t.Fatalf("nothing of the second message is in the file: %v", err)
	}
	if err := f.Sync(); err != nil { // as the kernel may do by itself
		t.Fatal(err)
	}
	length := func(when string, disk *faultfs.Mem) {
		t.Helper()
		for _, loss := range faultfs.Losses {
			st, err := disk.Crash(loss, 1).Lstat("INBOX.mbox")
			if err != nil || st.Size() != anchor.Length {
				t.Errorf("%s, lost %v: %d octets, want %d (%v)", when, loss, st.Size(), anchor.Length, err)
			}
		}
	}
	killed := disk.Crash(faultfs.LoseAll, 1)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	length("closed", disk)
	b := onDisk(t, killed)
	if _, err := b.Recover(ctx, "INBOX", archive.Anchor{Open: true, Length: anchor.Length, ModTime: anchor.ModTime}, nil); err != nil {
		t.Fatal(err)
	}
	length("recovered", killed)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// What another program saves between the look at the file and the first message is not
// written behind, since its messages are not on record.
func TestSavedBeforeTheFirstAppend(t *testing.T) {
	dir, at := committed(t)
	a, _ := newArchive(t, dir)
	at.Open = false
	if _, err := a.Recover(t.Context(), "INBOX", at, nil); err != nil {
		t.Fatal(err)
	}
	appendTo(t, dir, "From ada Tue Jan  2 03:04:05 2024\nSubject: saved\n\nby hand\n\n")
	err := a.Append(t.Context(), info("INBOX"), mail.NewCanonical(strings.NewReader("Subject: b\r\n\r\nb\r\n"), nil))
	if err == nil {
		t.Error("appended behind what is not on record")
	}
}
