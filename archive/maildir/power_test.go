package maildir

import (
	"errors"
	"io"
	"os"
	"testing"

	"mailhaul/archive"
	"mailhaul/internal/faultfs"
	"mailhaul/mail"
)

// Flags that were set are durable after Commit and after Close, with no new message
// beside them, too.
func TestFlagsOutliveAPowerLoss(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, a *Archive) error{
		"Commit": func(t *testing.T, a *Archive) error { _, err := a.Commit(t.Context()); return err },
		"Close":  func(_ *testing.T, a *Archive) error { return a.Close() },
	} {
		disk := faultfs.NewMem()
		a := openFS(t, disk, Options{Host: "host"})
		rc := add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: a\r\n\r\na\r\n"}).Receipts[0]
		if _, err := a.SetFlags(t.Context(), rc, "", mail.Seen); err != nil {
			t.Fatal(err)
		}
		if err := end(t, a); err != nil {
			t.Fatal(err)
		}
		list, err := disk.Crash(faultfs.LoseAll, 1).ReadDir("INBOX/cur")
		if err != nil || len(list) != 1 {
			t.Fatalf("%s: %v, %v", name, list, err)
		}
		if _, letters, _ := splitInfo(list[0].Name()); letters != "S" {
			t.Errorf("%s: the flags are %q", name, letters)
		}
	}
}

// What Recover takes into the ledger is durable, also what another program had put
// there without a sync.
func TestRecoveredIsDurable(t *testing.T) {
	for _, sub := range []string{"cur", "new"} {
		disk := faultfs.NewMem()
		a := openFS(t, disk, Options{Host: "host"})
		add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: a\r\n\r\na\r\n"})
		f, err := disk.OpenFile("INBOX/"+sub+"/foreign", os.O_WRONLY|os.O_CREATE|os.O_EXCL)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.WriteString(f, "Subject: b\n\nb\n")
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		found, err := a.Recover(t.Context(), "INBOX", archive.Anchor{Open: true}, func(string) bool { return false })
		if err != nil || len(found.Receipts) != 2 {
			t.Fatalf("%+v %v", found, err)
		}
		after := openFS(t, disk.Crash(faultfs.LoseAll, 1), Options{Host: "host"})
		for _, rc := range found.Receipts {
			r, err := after.Open(t.Context(), rc)
			if err != nil {
				t.Errorf("%s: %v", sub, err)
				continue
			}
			sums, err := mail.SumCanonical(r)
			if err := errors.Join(err, r.Close()); err != nil || sums.Digest != rc.Digest {
				t.Errorf("%s: other octets, %v", sub, err)
			}
		}
	}
}

// Strays are the files that Append named and the ledger lacks, no others.
func TestStrays(t *testing.T) {
	a, _, dir := openDir(t, Options{Host: "host"})
	g := add(t, a, testMessage{Mailbox: "INBOX", Wire: "Subject: a\r\n\r\na\r\n"}, testMessage{Mailbox: "INBOX", Wire: "Subject: b\r\n\r\nb\r\n"})
	for _, name := range []string{"foreign", "1700000000.M1P2.other,S=3:2,S", "1700000000.ABCDEFGHIJKLMNOPQRST.host:2,"} {
		if err := os.WriteFile(dir+"/INBOX/cur/"+name, []byte("x: y\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	known := func(place string) bool { return place == g.Receipts[0].Place }
	list, err := a.Strays(t.Context(), "INBOX", g.Receipts[0].Info.InternalDate, known)
	if err != nil || len(list) != 1 || list[0].Place != g.Receipts[1].Place || list[0].Digest != g.Receipts[1].Digest {
		t.Errorf("%+v %v", list, err)
	}
}
