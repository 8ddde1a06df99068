package mail

import "testing"

func TestFlags(t *testing.T) {
	if f := NewFlags("$Forwarded", `\seen`, "", `\Recent`, `\Seen`, `\*`, "a b", "x\x00", "$forwarded", `\Answered`); f != `\Answered \Seen $Forwarded` {
		t.Errorf("got %q", f)
	}
	f := NewFlags(`\Seen`, "work")
	if !f.Has(`\seen`) || !f.Has("WORK") || f.Has(`\Flagged`) {
		t.Error("Has")
	}
	if g := f.With(Flagged).Without(Seen); g != `\Flagged work` {
		t.Errorf("got %q", g)
	}
	if k := f.Keywords(); len(k) != 1 || k[0] != "work" {
		t.Errorf("keywords %q", k)
	}
}

func TestMergeFlags(t *testing.T) {
	tests := []struct{ base, server, local, want Flags }{
		{"", "", "", ""},
		{"", `\Seen`, "", `\Seen`},
		{`\Seen`, "", `\Seen`, ""},
		{"", `\Seen`, `\Flagged`, `\Flagged \Seen`},
		{`\Seen`, `\Seen`, "", ""}, // removed locally, unchanged at the server: stays removed
		{`\Flagged`, "", `\Flagged \Seen`, `\Seen`},
		{"", "work", `\Seen`, `\Seen work`},
	}
	for _, tt := range tests {
		if got := MergeFlags(tt.base, tt.server, tt.local); got != tt.want {
			t.Errorf("base %q server %q local %q: got %q, want %q", tt.base, tt.server, tt.local, got, tt.want)
		}
	}
}
