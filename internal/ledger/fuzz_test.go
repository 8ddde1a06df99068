package ledger

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"mailhaul/mail"
)

// FuzzOpen damages a ledger and its WAL: opening never panics; what cannot be used
// is set aside as it was; whatever opens can be read to the end or says that it
// is damaged, and never knows more claims than were recorded.
func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	l := mustOpen(f, dir)
	fill(f, l, "INBOX", 0, 40)
	killed := snapshot(f, dir)
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	closed := snapshot(f, dir)[fileName]
	f.Add(uint32(0), []byte{}, uint32(0), false)
	f.Add(uint32(0), []byte("not SQLite at all"), uint32(0), false)
	f.Add(uint32(16), []byte{0, 1}, uint32(0), false)                  // page size
	f.Add(uint32(28), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0), true) // page count
	f.Add(uint32(60), []byte{0, 0, 0, 9}, uint32(0), false)            // a newer version
	f.Add(uint32(68), []byte("XXXX"), uint32(0), false)                // somebody else's file
	f.Add(uint32(100), []byte{0, 0, 0, 0, 0, 0, 0, 0}, uint32(0), true)
	f.Add(uint32(4096*5), bytes.Repeat([]byte{0xa5}, 300), uint32(0), true)
	f.Add(uint32(200), []byte("x"), uint32(5000), true)
	f.Add(uint32(0), []byte{}, uint32(1), false)
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint32, wal bool) {
		file := bytes.Clone(closed)
		if wal {
			file = bytes.Clone(killed[fileName])
		}
		copy(file[int(at)%len(file):], patch)
		if cut > 0 {
			file = file[:int(cut)%len(file)]
		}
		dir := t.TempDir()
		write := func(name string, b []byte) {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write(fileName, file)
		if wal {
			write(fileName+"-wal", killed[fileName+"-wal"])
		}
		l, err := Open(dir, Options{Format: "maildir"})
		if err != nil {
			if b, rerr := os.ReadFile(filepath.Join(dir, fileName)); rerr != nil || !wal && !bytes.Equal(b, file) {
				t.Errorf("refused (%v) and touched (%v)", err, rerr)
			}
			return
		}
		defer l.Close()
		if name := l.Opened().SetAside; name != "" {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(b, file) {
				t.Errorf("not set aside as it was: %v", err)
			}
		}
		n := 0
		err = l.Claims(context.Background(), testAccount, "INBOX", func(mail.Claim) error { n++; return nil })
		if n > 40 {
			t.Errorf("%d claims, %v", n, err)
		}
		_ = l.Messages(context.Background(), "INBOX", func(mail.Held) error { return nil })
		_ = l.Record(context.Background(), mail.Change{Archived: []mail.Archived{{Receipt: testReceipt("INBOX", 1000)}}})
	})
}
