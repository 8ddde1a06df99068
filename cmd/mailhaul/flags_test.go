package main

import (
	"testing"
	"time"
)

func TestParseAge(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	tests := []struct{ now, age, want string }{
		{"2026-03-31T12:00:00Z", "0d", "2026-03-31T12:00:00Z"},
		{"2026-03-31T12:00:00Z", "90d", "2025-12-31T12:00:00Z"},
		{"2026-03-31T12:00:00Z", "1m", "2026-02-28T12:00:00Z"},
		{"2026-03-31T12:00:00Z", "2m", "2026-01-31T12:00:00Z"},
		{"2026-07-31T12:00:00Z", "13m", "2025-06-30T12:00:00Z"},
		{"2024-02-29T12:00:00Z", "1y", "2023-02-28T12:00:00Z"},
		{"2024-02-29T12:00:00Z", "4y", "2020-02-29T12:00:00Z"},
	}
	for _, tt := range tests {
		if got, err := parseAge(tt.age, at(tt.now)); err != nil || !got.Equal(at(tt.want)) {
			t.Errorf("%s before %s: %v, %v; want %s", tt.age, tt.now, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "d", "90", "-1d", "1.5d", "1w", "90 d", "99999999d"} {
		if got, err := parseAge(bad, at("2026-03-31T12:00:00Z")); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"1": 1, "500": 500, "64K": 64 << 10, "10M": 10 << 20, "2g": 2 << 30} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", s, got, err, want)
		}
	}
	for _, bad := range []string{"", "0", "-1", "K", "10MB", "10KM", "1.5M", "9999999999G", "1 M"} {
		if got, err := parseSize(bad); err == nil {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

func TestParseDate(t *testing.T) {
	if got, err := parseDate("2024-12-31"); err != nil || !got.Equal(time.Date(2024, 12, 31, 0, 0, 0, 0, time.Local)) {
		t.Errorf("a day: %v, %v", got, err)
	}
	if got, err := parseDate("2024-12-31T18:00:00+02:00"); err != nil || !got.Equal(time.Date(2024, 12, 31, 16, 0, 0, 0, time.UTC)) {
		t.Errorf("an instant: %v, %v", got, err)
	}
	for _, bad := range []string{"", "yesterday", "31.12.2024", "2024-02-30", "2024-12-31 18:00"} {
		if got, err := parseDate(bad); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]float64{"64K": 64 << 10, "2M/s": 2 << 20} {
		l, err := parseRate(s)
		if err != nil || float64(l.Limit()) != want || l.Burst() < 1024 {
			t.Errorf("%q: %+v, %v", s, l, err)
		}
	}
	if _, err := parseRate("fast"); err == nil {
		t.Error("fast is no rate")
	}
}

func TestSelectionOnlyNarrows(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2026, 1, d, 0, 0, 0, 0, time.UTC) }
	s := selectionFlags{since: day(3), newerThan: day(5), before: day(20), olderThan: day(10), noSeen: true, flagged: true, larger: 5, smaller: 9}
	got, err := s.selection()
	if err != nil || !got.Since.Equal(day(5)) || !got.Before.Equal(day(10)) || got.Seen == nil || *got.Seen || got.Flagged == nil || !*got.Flagged {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []selectionFlags{
		{since: day(5), before: day(5)}, {newerThan: day(9), olderThan: day(8)}, {larger: 9, smaller: 9}, {mailboxes: []string{""}},
	} {
		if got, err := bad.selection(); exitCode(err) != exitUsage {
			t.Errorf("%+v is accepted: %+v, %v", bad, got, err)
		}
	}
}
