package corpus

import (
	"bytes"
	"crypto/sha256"
	"testing"
)

func TestHazards(t *testing.T) {
	names := map[string]bool{}
	digests := map[[32]byte]string{}
	for _, h := range Hazards() {
		if names[h.Name] {
			t.Errorf("two hazards are called %s", h.Name)
		}
		names[h.Name] = true
		d := sha256.Sum256(h.Octets)
		if other, ok := digests[d]; ok && !(h.Name == "identical-2" && other == "identical-1") {
			t.Errorf("%s and %s are equal", h.Name, other)
		}
		digests[d] = h.Name
	}
	if len(names) < 24 || !names["identical-2"] {
		t.Errorf("%d hazards", len(names))
	}
	if n := len(Huge().Octets); n < 30_000_000 || n > 31_000_000 {
		t.Errorf("the huge message has %d octets", n)
	}
}

func TestGenerate(t *testing.T) {
	seen := map[[32]byte]bool{}
	largest := 0
	for i := range 600 {
		for _, mix := range []Mix{Small, Real} {
			m := Generate(mix, i)
			if mix == Small && (len(m.Octets) < 2048 || len(m.Octets) > 8400) {
				t.Fatalf("small message %d has %d octets", i, len(m.Octets))
			}
			largest = max(largest, len(m.Octets))
			if len(m.Octets) > 12<<20+200 {
				t.Fatalf("message %d has %d octets", i, len(m.Octets))
			}
			if bytes.Count(m.Octets, []byte("\n")) != bytes.Count(m.Octets, []byte("\r\n")) || !bytes.HasSuffix(m.Octets, []byte("\r\n")) {
				t.Fatalf("message %d has odd line ends", i)
			}
			d := sha256.Sum256(m.Octets)
			if seen[d] {
				t.Fatalf("message %d came before", i)
			}
			seen[d] = true
		}
	}
	if largest < 1<<20 {
		t.Errorf("the largest has %d octets", largest)
	}
	if a, b := Generate(Real, 199), Generate(Real, 199); !bytes.Equal(a.Octets, b.Octets) || !a.Date.Equal(b.Date) {
		t.Error("the same message differs")
	}
}
