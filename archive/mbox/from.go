package mbox

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"mailhaul/mail"
)

const (
	// nobody is the envelope sender where there is none: the null sender of
	// bounces (RFC 5321 section 4.5.5), or no usable Return-Path.
	nobody = "MAILER-DAEMON"
	// maxSender bounds the envelope sender (RFC 5321 section 4.5.3.1.3).
	maxSender = 256
	// maxKeywords bounds the X-Keywords line; keywords beyond are left out.
	maxKeywords = 8 << 10
)

// fromLine is what a From_ line tells.
type fromLine struct{ date time.Time } // UTC

// sender finds the envelope sender in the Return-Path of a header (RFC 5321
// section 4.4). head may be cut anywhere and hold more than the header.
func sender(head []byte) string {
	for len(head) > 0 && head[0] != '\n' {
		line, rest, whole := bytes.Cut(head, []byte("\n"))
		if !whole {
			break
		}
		if name, value, ok := bytes.Cut(line, []byte(":")); ok && bytes.EqualFold(name, []byte("Return-Path")) {
			return cleanSender(value)
		}
		head = rest
	}
	return nobody
}

// cleanSender makes sure that the sender is one word of printable ASCII: nothing
// in it can end the From_ line or be taken for its date.
func cleanSender(value []byte) string {
	s := strings.TrimSpace(string(value))
	if a, b := strings.IndexByte(s, '<'), strings.LastIndexByte(s, '>'); a >= 0 && b > a {
		s = s[a+1 : b]
	}
	if s == "" || len(s) > maxSender {
		return nobody
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return nobody
		}
	}
	return s
}

// fromDate brings a date into the range that a From_ line can hold.
func fromDate(t time.Time) time.Time {
	t = t.UTC()
	switch {
	case t.IsZero() || t.Year() < 1:
		return time.Unix(0, 0).UTC() // go-mbox would take the zero time for "now"
	case t.Year() > 9999:
		return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	return t
}

// parseFrom tells whether a line is a From_ line: "From ", a sender or none, and
// a date in the form of asctime, with or without seconds and with a time zone or
// more in front of or behind the year. A date without zone is taken as UTC.
func parseFrom(line []byte) (fromLine, bool) {
	rest, ok := bytes.CutPrefix(line, fromWord)
	if !ok {
		return fromLine{}, false
	}
	f := strings.Fields(string(rest))
	for i := 0; i+4 < len(f); i++ {
		if !isWeekday(f[i]) {
			continue
		}
		if t, ok := parseDate(f[i+1:i+4], f[i+4:]); ok {
			return fromLine{date: t}, true
		}
	}
	return fromLine{}, false
}

func isWeekday(s string) bool {
	return len(s) == 3 && strings.Contains("Sun Mon Tue Wed Thu Fri Sat", s)
}

func parseDate(monthDayTime, yearAndZone []string) (time.Time, bool) {
	clock := monthDayTime[2]
	if strings.Count(clock, ":") == 1 {
		clock += ":00"
	}
	zone, year := "+0000", ""
	for _, w := range yearAndZone {
		switch {
		case len(w) == 5 && (w[0] == '+' || w[0] == '-'):
			zone = w
		case year == "" && len(w) == 4 && strings.Trim(w, "0123456789") == "":
			year = w
		}
	}
	t, err := time.Parse("Jan 2 15:04:05 2006 -0700",
		monthDayTime[0]+" "+monthDayTime[1]+" "+clock+" "+year+" "+zone)
	return t.UTC(), err == nil
}

// The flags as mutt and Dovecot read them: R in Status is \Seen (O, old, says
// nothing of IMAP); in X-Status A, F and T are \Answered, \Flagged and \Draft.
// D, \Deleted, is never written, since mutt would purge the message, nor read.

// appendOwnLines appends the three lines that stand behind every From_ line.
func appendOwnLines(b []byte, flags mail.Flags) []byte {
	b = append(b, "Status:"...)
	if flags.Has(mail.Seen) {
		b = append(b, " RO"...)
	}
	b = append(b, "\nX-Status:"...)
	blank := true
	for _, x := range xStatus {
		if flags.Has(x.flag) {
			if blank {
				b, blank = append(b, ' '), false
			}
			b = append(b, x.letter)
		}
	}
	b = append(b, "\nX-Keywords:"...)
	room := maxKeywords
	for _, k := range flags.Keywords() {
		if room -= 1 + len(k); room < 0 {
			break
		}
		b = append(append(b, ' '), k...)
	}
	return append(b, '\n')
}

var xStatus = []struct {
	letter byte
	flag   string
}{{'A', mail.Answered}, {'F', mail.Flagged}, {'T', mail.Draft}}

// cutOwnLines finds the three lines at the start of b; n is their length, 0 if
// they are not there.
func cutOwnLines(b []byte) (status, xstatus, keywords []byte, n int) {
	rest := b
	var v [3][]byte
	for i, name := range []string{"Status:", "X-Status:", "X-Keywords:"} {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		value, ok := bytes.CutPrefix(line, []byte(name))
		if !whole || !ok {
			return nil, nil, nil, 0
		}
		v[i], rest = value, after
	}
	return v[0], v[1], v[2], len(b) - len(rest)
}

// isForeignHeader tells whether b begins with a header line, and none that is the
// first of the three.
func isForeignHeader(b []byte) bool {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || bytes.EqualFold(name, []byte("Status")) {
		return false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f { // RFC 5322 section 2.2
			return false
		}
	}
	return true
}

func parseFlags(status, xstatus, keywords []byte) mail.Flags {
	var list []string
	if bytes.IndexByte(status, 'R') >= 0 {
		list = append(list, mail.Seen)
	}
	for _, x := range xStatus {
		if bytes.IndexByte(xstatus, x.letter) >= 0 {
			list = append(list, x.flag)
		}
	}
	for k := range bytes.FieldsSeq(keywords) {
		if k[0] != '\\' {
			list = append(list, string(k))
		}
	}
	return mail.NewFlags(list...)
}

// place names a message: the file and where in it. length counts from the From_
// line to the end of the last line, without the separator.
func place(file string, offset, length int64) string {
	return file + "#" + strconv.FormatInt(offset, 10) + "+" + strconv.FormatInt(length, 10)
}

func parsePlace(s string) (file string, offset, length int64, ok bool) {
	i := strings.LastIndexByte(s, '#')
	if i < 0 {
		return "", 0, 0, false
	}
	o, l, ok := strings.Cut(s[i+1:], "+")
	if !ok {
		return "", 0, 0, false
	}
	offset, err1 := strconv.ParseInt(o, 10, 64)
	length, err2 := strconv.ParseInt(l, 10, 64)
	if err1 != nil || err2 != nil || offset < 0 || length < int64(len(fromWord)) || offset+length < 0 {
		return "", 0, 0, false
	}
	return s[:i], offset, length, true
}
