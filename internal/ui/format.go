package ui

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Count writes a number with commas between the thousands: 61,020.
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	var b strings.Builder
	for i, c := range s {
		if i > 0 && (len(s)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return sign + b.String()
}

// Octets writes a size in powers of 1000 with one decimal: 88.1 MB.
func Octets(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", max(n, 0))
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.95 && unit < len(units)-1 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[unit])
}

// Duration writes a span for a person: 0.03 s, 0.4 s, 14 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 95*time.Millisecond:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 59500*time.Millisecond:
		return fmt.Sprintf("%d s", int64(d.Seconds()+0.5))
	}
	d = d.Round(time.Second)
	if d < time.Hour {
		return two(int64(d/time.Minute), "min", int64(d%time.Minute/time.Second), "s")
	}
	d = d.Round(time.Minute)
	if d < 24*time.Hour {
		return two(int64(d/time.Hour), "h", int64(d%time.Hour/time.Minute), "min")
	}
	return two(int64(d/(24*time.Hour)), "d", int64(d%(24*time.Hour)/time.Hour), "h")
}

func two(a int64, unitA string, b int64, unitB string) string {
	if b == 0 {
		return fmt.Sprintf("%d %s", a, unitA)
	}
	return fmt.Sprintf("%d %s %d %s", a, unitA, b, unitB)
}

// wrap breaks a line between words so that a terminal does not break it within one,
// and indents what follows; a word that is wider than the terminal is left whole, to
// be copied.
func wrap(line string, columns, indent int) string {
	if columns < narrowest || columnsOf(line) <= columns {
		return line
	}
	if indent > columns/2 {
		indent = 2
	}
	var b strings.Builder
	at := 0
	for i, word := range strings.Split(line, " ") {
		width := columnsOf(word)
		switch {
		case i == 0:
		case at+1+width > columns:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += width
	}
	return b.String()
}

// Plural joins a count and its noun: 1 message, 1,204 messages, 2 mailboxes.
func Plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "x") {
		noun += "e"
	}
	return Count(n) + " " + noun + "s"
}
