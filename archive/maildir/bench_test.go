package maildir

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"mailhaul/archive/archivetest"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// BenchmarkAppend archives messages of 5 KB in groups, as a run does.
func BenchmarkAppend(b *testing.B) {
	for _, group := range []int{1, 100, 500, 2000} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			fsys, err := durable.OpenRoot(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer fsys.Close()
			a, err := New(fsys, archivetest.NewLedger(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer a.Close()
			wire := bytes.Repeat([]byte("0123456789012345678901234567890123456789012345678901234567890\r\n"), 80)
			in := mail.Info{Ref: mail.Ref{Mailbox: "INBOX"}, InternalDate: time.Unix(1e9, 0), Flags: mail.Seen}
			ctx, buf := context.Background(), make([]byte, 32<<10)
			b.SetBytes(int64(len(wire)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if err := a.Append(ctx, in, mail.NewCanonical(bytes.NewReader(wire), buf)); err != nil {
					b.Fatal(err)
				}
				if n++; n%group == 0 {
					if _, err := a.Commit(ctx); err != nil {
						b.Fatal(err)
					}
				}
			}
			if _, err := a.Commit(ctx); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkOpen opens messages whose flags a reader has changed.
func BenchmarkOpen(b *testing.B) {
	fsys, err := durable.OpenRoot(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer fsys.Close()
	a, err := New(fsys, archivetest.NewLedger(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	ctx := context.Background()
	for i := range 2000 {
		m := archivetest.Message{Mailbox: "INBOX", Wire: fmt.Sprintf("Subject: %d\r\n\r\n", i)}
		if err := a.Append(ctx, m.Info(), m.Octets()); err != nil {
			b.Fatal(err)
		}
	}
	g, err := a.Commit(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		rc := g.Receipts[i%len(g.Receipts)]
		rc.Info.Flags = mail.Flagged // not what the file has
		r, err := a.Open(ctx, rc)
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}
