package imapconn

import (
	"bytes"
	"time"
)

var months = [12]string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}

// parseDate reads "dd-Mon-yyyy hh:mm:ss +zzzz" (RFC 9051 section 2.3.3) and forms
// that servers are known to send instead; the zero time if it cannot be a date.
func parseDate(b []byte) time.Time {
	if t, ok := properDate(b); ok {
		return t
	}
	for _, layout := range []string{
		"2-Jan-2006 15:04:05 -0700", "2-Jan-06 15:04:05 -0700", "2-Jan-2006 15:04:05 MST", "2-Jan-2006 15:04:05",
		time.RFC1123Z, time.RFC1123, "Mon, 2 Jan 2006 15:04:05 -0700", "Mon, 2-Jan-2006 15:04:05 -0700",
		"2 Jan 2006 15:04:05 -0700", time.RFC3339,
	} {
		if t, err := time.Parse(layout, string(bytes.TrimSpace(b))); err == nil {
			return plausible(t)
		}
	}
	return time.Time{}
}

func properDate(b []byte) (time.Time, bool) {
	if len(b) != 26 || b[2] != '-' || b[6] != '-' || b[11] != ' ' || b[14] != ':' || b[17] != ':' || b[20] != ' ' {
		return time.Time{}, false
	}
	bad := false
	num := func(from, to int) int {
		n := 0
		for _, c := range b[from:to] {
			if c == ' ' && n == 0 {
				continue
			}
			if c < '0' || c > '9' {
				bad = true
			}
			n = n*10 + int(c-'0')
		}
		return n
	}
	day, year, hour, minute, sec := num(0, 2), num(7, 11), num(12, 14), num(15, 17), num(18, 20)
	zone := num(22, 24)*3600 + num(24, 26)*60
	month := 0
	for i, m := range months {
		if m[0] == b[3]|0x20 && m[1] == b[4]|0x20 && m[2] == b[5]|0x20 {
			month = i + 1
		}
	}
	if bad || month == 0 || day < 1 || day > 31 || hour > 23 || minute > 59 || sec > 60 || b[21] != '+' && b[21] != '-' {
		return time.Time{}, false
	}
	if b[21] == '-' {
		zone = -zone
	}
	t := time.Date(year, time.Month(month), day, hour, minute, sec, 0, time.UTC)
	if t.Day() != day && sec < 60 {
		return time.Time{}, false
	}
	return plausible(t.Add(-time.Duration(zone) * time.Second)), true
}

// plausible refuses years in which there was no mail to be delivered; what
// remains is the date of Received or Date lines.
func plausible(t time.Time) time.Time {
	t = t.UTC()
	if y := t.Year(); y < 1969 || y > 2200 {
		return time.Time{}
	}
	return t
}
