package ledger

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"testing"
	"time"

	"mailhaul/mail"
)

const testAccount = "imap:ada@example.org@mail.example.org"

func testReceipt(mailbox string, n int) mail.Receipt {
	d := sha256.Sum256([]byte("body " + strconv.Itoa(n)))
	return mail.Receipt{
		Info: mail.Info{
			Ref:          mail.Ref{Account: testAccount, Mailbox: mailbox, UIDValidity: 7, UID: strconv.Itoa(n + 1)},
			Size:         int64(5000 + n%100),
			InternalDate: time.Unix(1700000000+int64(n), 0).UTC(),
			DateFrom:     mail.DateInternal,
			Flags:        mail.NewFlags(mail.Seen),
		},
		Place: fmt.Sprintf("%s/cur/17000%05d.4f3a2b1c9d8e7f60.host,S=%d:2,S", mailbox, n, 5000+n%100),
		Sums:  mail.Sums{Digest: d, Header: d, Octets: int64(4900 + n%100), Wire: int64(5000 + n%100)},
	}
}

func fill(tb testing.TB, l *Ledger, mailbox string, from, to int) {
	tb.Helper()
	for from < to {
		var c mail.Change
		for ; from < to && len(c.Archived) < 500; from++ {
			c.Archived = append(c.Archived, mail.Archived{Receipt: testReceipt(mailbox, from)})
		}
		if err := l.Record(context.Background(), c); err != nil {
			tb.Fatal(err)
		}
	}
}

func mustOpen(tb testing.TB, dir string) *Ledger {
	tb.Helper()
	l, err := Open(dir, Options{Format: "maildir"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkRecord5000 records 5,000 messages in groups; MB/s is of their octets.
func BenchmarkRecord5000(b *testing.B) {
	var octets int64
	for i := range 5000 {
		octets += testReceipt("INBOX", i).Wire
	}
	b.SetBytes(octets)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		l := mustOpen(b, b.TempDir())
		b.StartTimer()
		fill(b, l, "INBOX", 0, 5000)
		b.StopTimer()
		l.Close()
		b.StartTimer()
	}
}

func BenchmarkClaims100000(b *testing.B) {
	l := mustOpen(b, b.TempDir())
	fill(b, l, "INBOX", 0, 100_000)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		err := l.Claims(context.Background(), testAccount, "INBOX", func(mail.Claim) error { n++; return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkFree100000(b *testing.B) {
	l := mustOpen(b, b.TempDir())
	fill(b, l, "INBOX", 0, 100_000)
	for b.Loop() {
		if err := l.Free(context.Background(), testAccount, "INBOX", func(mail.Held) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMessages100000(b *testing.B) {
	l := mustOpen(b, b.TempDir())
	fill(b, l, "INBOX", 0, 100_000)
	for b.Loop() {
		if err := l.Messages(context.Background(), "INBOX", func(mail.Held) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenClose(b *testing.B) {
	dir := b.TempDir()
	l := mustOpen(b, dir)
	fill(b, l, "INBOX", 0, 100_000)
	l.Close()
	for b.Loop() {
		l := mustOpen(b, dir)
		l.Close()
	}
}
