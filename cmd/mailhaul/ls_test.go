package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"mailhaul/mail"
)

// A listing keeps within the terminal, and is whole where there is none.
func TestMessageRow(t *testing.T) {
	rc := mail.Receipt{Info: mail.Info{InternalDate: time.Date(2024, 2, 29, 12, 0, 0, 0, time.Local)}}
	rc.Octets = 123456
	for i := range rc.Digest {
		rc.Digest[i] = 0xab
	}
	from, subject := strings.Repeat("f", 50), strings.Repeat("s", 90)
	for columns := 40; columns < 150; columns++ {
		line := messageRow(columns)(123456, rc, from, subject)
		if utf8.RuneCountInString(line) > columns || !strings.Contains(line, "123456  2024-02-29") || !strings.Contains(line, "ssss") {
			t.Errorf("%d columns: %q", columns, line)
		}
	}
	whole := messageRow(0)(1, rc, from, subject)
	want := "     1  2024-02-29 12:00   123.5 kB        " + from[:21] + "…  " + subject[:39] + "…  abababababab"
	if whole != want || messageRow(200)(1, rc, from, subject) != want {
		t.Errorf("%q", whole)
	}
	if line := messageRow(80)(1, rc, "Ada", "Hello"); line != "     1  2024-02-29 12:00   123.5 kB        Ada            Hello" {
		t.Errorf("%q", line)
	}
}
