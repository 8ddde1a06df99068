package ui

import (
	"bytes"
	"strings"
	"testing"
)

func TestBarsFit(t *testing.T) {
	b := Bars{Title: "By mailbox", More: "and more", Rows: []BarRow{
		{"INBOX", 12345, 9e9}, {"Archive/a very long name of a mailbox indeed, and longer", 1, 1}, {"旅行", 0, 0}, {"evil\x1b[2J", 3, 4.5e9},
	}}
	for _, columns := range []int{0, 20, 34, 60, 80, 200} {
		for _, plain := range []bool{true, false} {
			var out bytes.Buffer
			New(Options{Out: &out, Err: &out}).Bars(b, columns, plain)
			for line := range strings.Lines(out.String()) {
				if n := columnsOf(strings.TrimSuffix(line, "\n")); columns >= 34 && n > columns {
					t.Errorf("%d columns: a line of %d: %q", columns, n, line)
				}
			}
			if plain && strings.ContainsAny(out.String(), "█▏") || strings.Contains(out.String(), "\x1b") {
				t.Errorf("%q", out.String())
			}
			if columns >= 60 && !strings.ContainsAny(out.String(), "#█") {
				t.Errorf("no bars in %d columns", columns)
			}
		}
	}
	var out bytes.Buffer
	New(Options{Out: &out, JSON: true}).Bars(b, 80, false)
	if out.Len() > 0 {
		t.Errorf("with JSON: %q", out.String())
	}
}
