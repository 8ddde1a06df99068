package mail

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestHeaderDate(t *testing.T) {
	tests := []struct {
		name, header string
		want         string // RFC 3339, "" for none
		from         DateSource
	}{
		{"received", "Received: from a\r\n by b; Mon, 1 Jan 2024 10:00:00 +0100\r\nDate: Sun, 31 Dec 2023 10:00:00 +0000\r\n\r\n", "2024-01-01T09:00:00Z", DateReceived},
		{"topmost", "Received: x; 2 Jan 2024 10:00:00 +0000\nReceived: x; 1 Jan 2024 10:00:00 +0000\n\n", "2024-01-02T10:00:00Z", DateReceived},
		{"unreadable received", "Received: x; yesterday\r\nReceived: x; 1 Jan 2024 10:00:00 +0000\r\n\r\n", "2024-01-01T10:00:00Z", DateReceived},
		{"received without date", "Received: by me\r\nDATE : 1 Jan 2024 10:00:00 GMT\r\n\r\n", "2024-01-01T10:00:00Z", DateHeader},
		{"semicolon in a comment", "Received: from x (a; b) by y; Thu, 29 Feb 2024 23:59:60 -0500 (EST)\r\n\r\n", "2024-03-01T04:59:59Z", DateReceived},
		{"date folded", "Date:\r\n\tMon, 1 Jan 2024\r\n 10:00:00 +0000\r\n\r\n", "2024-01-01T10:00:00Z", DateHeader},
		{"in the body", "Subject: x\r\n\r\nDate: 1 Jan 2024 10:00:00 +0000\r\n", "", DateUnknown},
		{"no header end", "Date: 1 Jan 2024 10:00:00 +0000", "2024-01-01T10:00:00Z", DateHeader},
		{"line without colon", ">From x\r\ngarbage\r\nDate: 1 Jan 2024 10:00 +0000\r\n\r\n", "2024-01-01T10:00:00Z", DateHeader},
		{"two dates", "Date: nonsense\r\nDate: 1 Jan 2024 10:00:00 +0000\r\n\r\n", "2024-01-01T10:00:00Z", DateHeader},
		{"empty", "", "", DateUnknown},
		{"NULs", "Date: \x00\x00\r\n\r\n", "", DateUnknown},
	}
	for _, tt := range tests {
		got, from := HeaderDate([]byte(tt.header))
		text := ""
		if !got.IsZero() {
			text = got.Format(time.RFC3339)
		}
		if text != tt.want || from != tt.from {
			t.Errorf("%s: %s from %q, want %s from %q", tt.name, text, from, tt.want, tt.from)
		}
	}
}

func TestParseDate(t *testing.T) {
	tests := []struct{ in, want string }{
		{"Mon, 1 Jan 2024 10:00:00 +0100", "2024-01-01T09:00:00Z"},
		{"1 Jan 2024 10:00:00", "2024-01-01T10:00:00Z"},
		{"01 January 2024 10:00 EST", "2024-01-01T15:00:00Z"},
		{"Mon Jan  1 10:00:00 2024", "2024-01-01T10:00:00Z"},
		{"Mon Jan  1 10:00:00 CET 2024", "2024-01-01T09:00:00Z"},
		{"Mon, 1-Jan-24 10:00:00 GMT", "2024-01-01T10:00:00Z"},
		{"1 Jan 24 10:00:00 PST", "2024-01-01T18:00:00Z"},
		{"1 Jan 99 10:00:00 +0000", "1999-01-01T10:00:00Z"},
		{"1 Jan 101 10:00:00 +0000", "2001-01-01T10:00:00Z"},
		{"Lun, 1 Jan 2024 10:00:00 +0000", "2024-01-01T10:00:00Z"},
		{"Mon, 1 Jan 2024 10:00:00 +0100 (CET)", "2024-01-01T09:00:00Z"},
		{"Mon, 1 Jan 2024 10:00:00+02:00", "2024-01-01T08:00:00Z"},
		{"2024-01-01T10:00:00Z", "2024-01-01T10:00:00Z"},
		{"2024-01-01T10:00:00.5-05:00", "2024-01-01T15:00:00Z"},
		{"2024-01-01 10:00:00 -0330", "2024-01-01T13:30:00Z"},
		{"Mon, 1 Jan 2024 10:00:00 +9999", "2024-01-01T10:00:00Z"},
		{"1 Jan 2024", "2024-01-01T00:00:00Z"},
		{"Mon, 1 Jan 2024 10:00:00 XYZ", "2024-01-01T10:00:00Z"},
		{"31 Feb 2024 10:00:00 +0000", ""},
		{"0 Jan 2024 10:00:00 +0000", ""},
		{"32 Jan 2024 10:00:00 +0000", ""},
		{"1 Jan 2024 25:00:00 +0000", ""},
		{"1 Jan 2024 10:60:00 +0000", ""},
		{"1 Jan 1899 10:00:00 +0000", ""},
		{"1 Jan 9999 10:00:00 +0000", ""},
		{"1 Foo 2024 10:00:00 +0000", ""},
		{"99999999999999999999 Jan 2024", ""},
		{"", ""},
		{"((((", ""},
	}
	for _, tt := range tests {
		got, ok := parseDate([]byte(tt.in))
		text := ""
		if ok {
			text = got.Format(time.RFC3339)
		}
		if text != tt.want {
			t.Errorf("%q: %s, want %s", tt.in, text, tt.want)
		}
	}
}

func FuzzHeaderDate(f *testing.F) {
	f.Add([]byte("Received: from a\r\n by b; Mon, 1 Jan 2024 10:00:00 +0100\r\nDate: Sun, 31 Dec 2023 10:00:00 +0000\r\n\r\n"))
	f.Add([]byte("Date: 2024-01-01T10:00:00Z\n"))
	f.Add([]byte("Received: ;;;(\r\n\tx; 1-1-1 1:1:1:1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		at, from := HeaderDate(b)
		if at.IsZero() != (from == DateUnknown) {
			t.Fatalf("%v from %q", at, from)
		}
		if !at.IsZero() && (at.Unix() <= 0 || at.Year() > 2101 || at.Location() != time.UTC) {
			t.Fatalf("%v", at)
		}
	})
}

func BenchmarkHeaderDate(b *testing.B) {
	header := []byte("Return-Path: <a@example.org>\r\nReceived: from a by b; Mon, 1 Jan 2024 10:00:00 +0100\r\n" + strings.Repeat("X-Filler: some text that stands in headers\r\n", 20) + "\r\n")
	header = append(header, bytes.Repeat([]byte("body\r\n"), 1000)...)
	b.ReportAllocs()
	for b.Loop() {
		HeaderDate(header)
	}
}
