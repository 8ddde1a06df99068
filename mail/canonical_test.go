package mail

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestCanonical(t *testing.T) {
	tests := []struct {
		name, wire, want string
		inexact          bool
	}{
		{"nothing", "", "", false},
		{"ordinary", "A: b\r\n\r\nbody\r\n", "A: b\n\nbody\n", false},
		{"no final newline", "A: b\r\n\r\nbody", "A: b\n\nbody\n", true},
		{"bare LF", "A: b\r\nx\ny\r\n", "A: b\nx\ny\n", true},
		{"bare LF first", "\nA\r\n", "\nA\n", true},
		{"bare CR", "A\rB\r\n", "A\rB\n", false},
		{"CR CR LF", "A\r\r\nB\r\n", "A\r\nB\n", false},
		{"ends in bare CR", "A\r\nB\r", "A\nB\r\n", true},
		{"only CR", "\r", "\r\n", true},
		{"NUL", "A\x00B\r\n", "A\x00B\n", false},
		{"only CRLF", "\r\n", "\n", false},
		{"only LF", "\n", "\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"whole":    strings.NewReader(tt.wire),
				"one byte": iotest.OneByteReader(strings.NewReader(tt.wire)),
				"with EOF": iotest.DataErrReader(strings.NewReader(tt.wire)),
			} {
				c := NewCanonical(r, nil)
				got, err := io.ReadAll(iotest.OneByteReader(c))
				if err != nil {
					t.Fatal(name, err)
				}
				checkCanonical(t, name, got, c.Sums(), []byte(tt.wire), tt.want, tt.inexact)
			}
			got, sums := CanonicalInPlace([]byte(tt.wire))
			checkCanonical(t, "in place", got, sums, []byte(tt.wire), tt.want, tt.inexact)
		})
	}
}

func checkCanonical(t *testing.T, name string, got []byte, s Sums, wire []byte, want string, inexact bool) {
	t.Helper()
	if string(got) != want || s.Inexact != inexact {
		t.Errorf("%s: got %q inexact %v, want %q %v", name, got, s.Inexact, want, inexact)
	}
	back, err := SumCanonical(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	if back.Digest != s.Digest || back.Header != s.Header || back.Octets != s.Octets || s.Wire != int64(len(wire)) {
		t.Errorf("%s: sums %+v, read back %+v", name, s, back)
	}
	if !inexact && back.Wire != s.Wire {
		t.Errorf("%s: exact, yet %d octets on the wire become %d", name, s.Wire, back.Wire)
	}
}

func TestCanonicalKeepsReadErrors(t *testing.T) {
	c := NewCanonical(io.MultiReader(strings.NewReader("A: b\r\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), nil)
	if _, err := io.ReadAll(c); err != io.ErrUnexpectedEOF {
		t.Fatalf("err = %v", err)
	}
	if !c.Sums().Digest.IsZero() {
		t.Error("a message that broke off has a digest")
	}
}

func TestHeaderDigestOfHeaderAndOfWhole(t *testing.T) {
	whole, err := HeaderDigest(strings.NewReader("A: b\r\nC: d\r\n\r\nbody\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"A: b\r\nC: d\r\n\r\n", "A: b\r\nC: d\r\n", "A: b\nC: d"} {
		if d, err := HeaderDigest(strings.NewReader(h)); err != nil || d != whole {
			t.Errorf("%q: %v, %v", h, d, err)
		}
	}
	if d, _ := HeaderDigest(strings.NewReader("A: b\r\nC: e\r\n\r\n")); d == whole {
		t.Error("another header has the same digest")
	}
}

// Both forms agree, and exact messages come back octet for octet.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"", "\r", "\n", "\r\n", "a\r\n\r\nb", "\r\r\n", "a\rb\nc\r\n", "\n\n", "From x\r\n.\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		c := NewCanonical(bytes.NewReader(wire), make([]byte, 4096))
		a, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		b, sums := CanonicalInPlace(bytes.Clone(wire))
		if !bytes.Equal(a, b) || sums != c.Sums() {
			t.Fatalf("streamed %q %+v, in place %q %+v", a, c.Sums(), b, sums)
		}
		if back := bytes.ReplaceAll(a, []byte("\n"), []byte("\r\n")); bytes.Equal(back, wire) == sums.Inexact {
			t.Fatalf("wire %q, back %q, inexact %v", wire, back, sums.Inexact)
		}
	})
}

func BenchmarkCanonicalInPlace(b *testing.B) {
	wire := bytes.Repeat([]byte(strings.Repeat("x", 74)+"\r\n"), 66)
	buf := make([]byte, len(wire))
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		copy(buf, wire)
		CanonicalInPlace(buf)
	}
}
