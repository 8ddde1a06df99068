package mbox

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailhaul/mail"
)

// octets gives canonical octets whose sums are known, so that only the archive
// is measured.
type octets struct {
	*strings.Reader
	sums mail.Sums
}

func (o octets) Sums() mail.Sums { return o.sums }

func benchMessage(size int) string {
	return "From: ada@example.org\nSubject: x\n\n" + strings.Repeat(strings.Repeat("x", 75)+"\n", size/76)
}

var benchSizes = map[string]int{"5KB": 5 << 10, "100KB": 100 << 10, "10MB": 10 << 20}

// BenchmarkAppend appends and commits every 64 MiB.
func BenchmarkAppend(b *testing.B) {
	for name, size := range benchSizes {
		b.Run(name, func(b *testing.B) {
			a, _ := newArchive(b, b.TempDir())
			m := benchMessage(size)
			in := info("INBOX")
			b.SetBytes(int64(len(m)))
			b.ReportAllocs()
			unsynced := 0
			for b.Loop() {
				if err := a.Append(b.Context(), in, octets{strings.NewReader(m), mail.Sums{Octets: int64(len(m))}}); err != nil {
					b.Fatal(err)
				}
				if unsynced += len(m); unsynced >= 64<<20 {
					unsynced = 0
					commit(b, a)
				}
			}
			commit(b, a)
		})
	}
}

// BenchmarkPlain is the floor: the same octets into a file by 256 KiB, synced as
// often.
func BenchmarkPlain(b *testing.B) {
	for name, size := range benchSizes {
		b.Run(name, func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			m := benchMessage(size)
			buf := make([]byte, 0, bufferSize)
			b.SetBytes(int64(len(m)))
			unsynced := 0
			for b.Loop() {
				for rest := m; rest != ""; {
					n := min(len(rest), bufferSize-len(buf))
					buf, rest = append(buf, rest[:n]...), rest[n:]
					if len(buf) == bufferSize {
						if _, err := f.Write(buf); err != nil {
							b.Fatal(err)
						}
						buf = buf[:0]
					}
				}
				if unsynced += len(m); unsynced >= 64<<20 {
					unsynced = 0
					if err := f.Sync(); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	m := benchMessage(100 << 10)
	e := encoder{out: io.Discard}
	b.SetBytes(int64(len(m)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.encode(b.Context(), strings.NewReader(m), when, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReceipts(b *testing.B) {
	a, _ := newArchive(b, b.TempDir())
	m := benchMessage(5 << 10)
	for range 2000 {
		if err := a.Append(b.Context(), info("INBOX"), octets{strings.NewReader(m), mail.Sums{Octets: int64(len(m))}}); err != nil {
			b.Fatal(err)
		}
	}
	commit(b, a)
	b.SetBytes(2000 * int64(len(m)))
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range a.Receipts(b.Context(), "INBOX") {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkLongLine is one line of 32 MiB.
func BenchmarkLongLine(b *testing.B) {
	m := strings.Repeat("x", 32<<20) + "\n"
	e := encoder{out: io.Discard}
	b.SetBytes(int64(len(m)))
	for b.Loop() {
		if _, err := e.encode(b.Context(), strings.NewReader(m), when, ""); err != nil {
			b.Fatal(err)
		}
	}
}
