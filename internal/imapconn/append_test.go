package imapconn

import (
	"slices"
	"testing"
)

func TestParseSet(t *testing.T) {
	for set, want := range map[string][]uint32{
		"7": {7}, "7:9": {7, 8, 9}, "9:7": {7, 8, 9}, "3,7:8": {3, 7, 8},
		"": nil, "0": nil, "1:*": nil, "1:4294967295": nil, "4294967296": nil, "1,": nil, "x": nil, "1:5": nil,
	} {
		if got := parseSet(set, 4); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", set, got, want)
		}
	}
}
