package mail

import (
	"testing"
	"time"
)

func TestMatchGlob(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"INBOX", "INBOX", true}, {"inbox", "INBOX", true}, {"INBOX/*", "INBOX/a", true},
		{"inbox/A", "INBOX/a", false}, {"inbox/a", "INBOX/a", true},
		{"Sent", "sent", false},
		{"*", "a", true}, {"*", "a/b", false}, {"**", "a/b", true}, {"a/*", "a/b/c", false}, {"a/**", "a/b/c", true},
		{"**/Trash", "x/y/Trash", true}, {"a?c", "abc", true}, {"a?c", "a/c", false}, {"a?c", "aüc", true},
		{"a.c", "abc", false}, {"[x]", "[x]", true}, {"[x]", "x", false}, {"a\nb*", "a\nbc", true}, {"", "", true}, {"", "a", false},
	}
	for _, tt := range tests {
		if got := MatchGlob(tt.pattern, tt.name); got != tt.want {
			t.Errorf("MatchGlob(%q, %q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func TestSelectionMatch(t *testing.T) {
	day := time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)
	yes, no := true, false
	tests := []struct {
		name         string
		sel          Selection
		in           Info
		match, known bool
	}{
		{"all", Selection{}, Info{Size: -1}, true, true},
		{"since is inclusive", Selection{Since: day}, Info{InternalDate: day}, true, true},
		{"before is exclusive", Selection{Before: day}, Info{InternalDate: day}, false, true},
		{"instants are compared", Selection{Before: day}, Info{InternalDate: day.In(time.FixedZone("", 7200)).Add(-time.Second)}, true, true},
		{"no date", Selection{Since: day}, Info{}, true, false},
		{"no date but too large", Selection{Since: day, Smaller: 10}, Info{Size: 10}, false, true},
		{"no size", Selection{Larger: 10}, Info{Size: -1}, true, false},
		{"larger", Selection{Larger: 10}, Info{Size: 11}, true, true},
		{"flagged", Selection{Flagged: &yes}, Info{}, false, true},
		{"not seen", Selection{Seen: &no}, Info{Flags: `\Seen`}, false, true},
	}
	for _, tt := range tests {
		if m, k := tt.sel.Match(tt.in); m != tt.match || k != tt.known {
			t.Errorf("%s: match %v known %v", tt.name, m, k)
		}
	}
	s := Selection{Mailboxes: []string{"Archive/**", "INBOX"}, Exclude: []string{"Archive/2001"}}
	for name, want := range map[string]bool{"INBOX": true, "Archive/2002": true, "Archive/2001": false, "Sent": false} {
		if s.MatchMailbox(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
