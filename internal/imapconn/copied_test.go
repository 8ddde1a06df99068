package imapconn

import (
	"maps"
	"strings"
	"testing"
)

func TestCopiedUIDs(t *testing.T) {
	asked := []uint32{3, 4, 5, 9}
	for _, c := range []struct {
		codes string // separated by ;
		want  map[uint32]uint32
	}{
		{"7 3:5 10:12", map[uint32]uint32{3: 10, 4: 11, 5: 12}},
		{"7 3,9 11,10", map[uint32]uint32{3: 11, 9: 10}},
		{"7 3 10;7 4,5 11:12", map[uint32]uint32{3: 10, 4: 11, 5: 12}},
		{"7 5:3 12:10", map[uint32]uint32{3: 10, 4: 11, 5: 12}}, // RFC 9051: the order of a range does not matter
		{"", nil},
		{"7 3:5", nil},
		{"7 3:5 10:11", nil}, // unlike lengths
		{"0 3 10", nil},
		{"4294967296 3 10", nil},
		{"7 3,3 10,11", nil}, // twice
		{"7 3,4 10,10", nil},
		{"7 6 10", nil}, // not asked for
		{"7 3 10;8 4 11", nil},
		{"7 1:4294967295 1:4294967295", nil},
		{"7 3:* 10:*", nil},
		{"7 3 10 x", nil},
		{"7 3 0", nil},
	} {
		got := copiedUIDs(strings.Split(c.codes, ";"), asked)
		if !maps.Equal(got.UIDs, c.want) || len(c.want) > 0 && got.UIDValidity != 7 {
			t.Errorf("%q: %+v, want %v", c.codes, got, c.want)
		}
	}
}

func FuzzCopiedUIDs(f *testing.F) {
	f.Add("7 3:5 10:12")
	f.Add("7 3,9 11,10;7 4 4294967295")
	f.Add("7 1:4294967295 1:4294967295")
	f.Fuzz(func(t *testing.T, s string) {
		asked := []uint32{3, 4, 5, 9}
		got := copiedUIDs(strings.Split(s, ";"), asked)
		taken := make(map[uint32]bool)
		for from, to := range got.UIDs {
			if from != 3 && from != 4 && from != 5 && from != 9 || to == 0 || taken[to] || got.UIDValidity == 0 {
				t.Fatalf("%q: %+v", s, got)
			}
			taken[to] = true
		}
	})
}
