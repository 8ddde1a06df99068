package mail

import (
	"bytes"
	"strings"
	"time"
)

const (
	// maxDateLine is the longest header field looked at for a date, in octets.
	maxDateLine = 8 << 10
	// maxReceived is how many Received fields are tried.
	maxReceived = 20
)

// HeaderDate finds the date of a message in its header, in wire or canonical form:
// that of the topmost Received field that has a readable one, else that of Date.
// The header may be cut off, and a body may follow. Dates that cannot be read, or
// lie before 1970 or after 2100, do not count. The time returned is in UTC; it is
// zero, with DateUnknown, where there is none.
func HeaderDate(header []byte) (time.Time, DateSource) {
	var date time.Time
	received := 0
	for len(header) > 0 {
		field, rest := nextField(header)
		if len(field) == 0 {
			break // the empty line
		}
		header = rest
		name, value, ok := bytes.Cut(field[:min(len(field), maxDateLine)], []byte{':'})
		if !ok {
			continue
		}
		name = bytes.TrimRight(name, " \t")
		switch {
		case bytes.EqualFold(name, []byte("Received")) && received < maxReceived:
			received++
			// RFC 5322 section 3.6.7: the date stands behind the last semicolon.
			if i := bytes.LastIndexByte(value, ';'); i >= 0 {
				if t, ok := parseDate(value[i+1:]); ok {
					return t, DateReceived
				}
			}
		case date.IsZero() && bytes.EqualFold(name, []byte("Date")):
			date, _ = parseDate(value)
		}
	}
	if date.IsZero() {
		return time.Time{}, DateUnknown
	}
	return date, DateHeader
}

// nextField cuts the first field with its continuation lines; the field is empty
// at the end of the header.
func nextField(b []byte) (field, rest []byte) {
	end := 0
	for {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			return b, nil
		}
		end += i + 1
		if end >= len(b) || b[end] != ' ' && b[end] != '\t' {
			break
		}
	}
	return bytes.TrimRight(b[:end], "\r\n"), b[end:]
}

// parseDate reads what RFC 5322 section 3.3 allows, obsolete forms included, and
// what is seen besides: missing or wrong weekdays, dashes between the parts,
// years of two digits, times without seconds, asctime's order, no zone at all
// (UTC then), and any text behind.
func parseDate(b []byte) (time.Time, bool) {
	p := dateParser{year: -1, hour: -1}
	for _, w := range dateWords(b) {
		if !p.word(w) {
			break
		}
	}
	return p.time()
}

// dateWords splits into words, without comments and commas.
func dateWords(b []byte) []string {
	var out strings.Builder
	depth := 0
	for _, c := range b {
		switch {
		case c == '(':
			depth++
			out.WriteByte(' ')
		case c == ')' && depth > 0:
			depth--
		case depth > 0:
		case c == ',' || c < ' ' || c == '"':
			out.WriteByte(' ')
		default:
			out.WriteByte(c)
		}
	}
	words := strings.Fields(out.String())
	return words[:min(len(words), 12)]
}

type dateParser struct {
	day, month, year  int
	hour, minute, sec int
	zone              int // seconds east of UTC
	zoned             bool
}

// word takes one word; false ends the date.
func (p *dateParser) word(w string) bool {
	switch {
	case p.hour >= 0 && !p.zoned && p.zoneWord(w):
	case strings.Count(w, "-") >= 2 && p.day == 0:
		return p.dashed(w)
	case strings.Contains(w, ":") && p.hour < 0:
		return p.clock(w)
	case monthOf(w) > 0 && p.month == 0:
		p.month = monthOf(w)
	case isDigits(w):
		return p.number(w)
	case p.hour >= 0 && p.year >= 0:
		return false // text behind the date
	}
	return true // a weekday, or what else stands in front
}

// number takes a day or a year.
func (p *dateParser) number(w string) bool {
	n := atoi(w)
	switch {
	case p.day == 0 && len(w) <= 2:
		p.day = n
	case p.year < 0 && (len(w) == 4 || len(w) <= 3):
		p.setYear(n, len(w))
	default:
		return false
	}
	return true
}

// setYear is RFC 5322 section 4.3 for short years.
func (p *dateParser) setYear(n, digits int) {
	switch {
	case digits == 2 && n < 50:
		n += 2000
	case digits <= 3:
		n += 1900
	}
	p.year = n
}

// dashed takes 12-Jan-2006 and 2006-01-12.
func (p *dateParser) dashed(w string) bool {
	w, clock, _ := strings.Cut(w, "T") // ISO 8601
	parts := strings.Split(w, "-")
	if len(parts) != 3 {
		return false
	}
	if len(parts[0]) == 4 && isDigits(parts[0]) && isDigits(parts[1]) && isDigits(parts[2]) {
		p.year, p.month, p.day = atoi(parts[0]), atoi(parts[1]), atoi(parts[2])
		if clock != "" {
			return p.clock(clock)
		}
		return true
	}
	if !isDigits(parts[0]) || monthOf(parts[1]) == 0 || !isDigits(parts[2]) {
		return false
	}
	p.day, p.month = atoi(parts[0]), monthOf(parts[1])
	p.setYear(atoi(parts[2]), len(parts[2]))
	return true
}

// clock takes 15:04, 15:04:05 and 15:04:05.678, with a zone glued on or not.
func (p *dateParser) clock(w string) bool {
	if i := strings.IndexAny(w, "+-Z"); i > 0 {
		if !p.zoneWord(w[i:]) {
			return false
		}
		w = w[:i]
	}
	parts := strings.Split(w, ":")
	if len(parts) > 3 {
		return false
	}
	var n [3]int
	for i, s := range parts {
		if i == 2 {
			s, _, _ = strings.Cut(s, ".")
		}
		if !isDigits(s) || len(s) > 2 {
			return false
		}
		n[i] = atoi(s)
	}
	p.hour, p.minute, p.sec = n[0], n[1], n[2]
	return true
}

// zones are the obsolete names of RFC 5322 section 4.3 and some common ones.
var zones = map[string]int{
	"UT": 0, "GMT": 0, "UTC": 0, "Z": 0, "WET": 0,
	"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7,
	"CET": 1, "MET": 1, "BST": 1, "CEST": 2, "MEST": 2, "EET": 2, "EEST": 3, "MSK": 3, "JST": 9,
}

func (p *dateParser) zoneWord(w string) bool {
	if h, ok := zones[strings.ToUpper(w)]; ok {
		p.zone, p.zoned = h*3600, true
		return true
	}
	if len(w) < 2 || w[0] != '+' && w[0] != '-' {
		return false
	}
	digits := strings.ReplaceAll(w[1:], ":", "")
	if !isDigits(digits) || len(digits) > 4 {
		return false
	}
	h, m := atoi(digits), 0
	if len(digits) > 2 {
		h, m = h/100, h%100
	}
	p.zone, p.zoned = h*3600+m*60, true
	if w[0] == '-' {
		p.zone = -p.zone
	}
	if h > 15 || m > 59 { // nonsense counts as "-0000", UTC
		p.zone = 0
	}
	return true
}

func (p *dateParser) time() (time.Time, bool) {
	if p.day < 1 || p.day > 31 || p.month < 1 || p.month > 12 || p.year < 1970 || p.year > 2100 {
		return time.Time{}, false
	}
	if p.hour > 23 || p.minute > 59 || p.sec > 60 {
		return time.Time{}, false
	}
	t := time.Date(p.year, time.Month(p.month), p.day, max(p.hour, 0), p.minute, min(p.sec, 59), 0, time.UTC)
	if t.Day() != p.day { // 31 February
		return time.Time{}, false
	}
	t = t.Add(-time.Duration(p.zone) * time.Second)
	return t, t.Unix() > 0
}

const months = "janfebmaraprmayjunjulaugsepoctnovdec"

// monthOf returns 1 to 12 for an English month name or its first three letters.
func monthOf(w string) int {
	if len(w) < 3 || len(w) > 9 {
		return 0
	}
	i := strings.Index(months, strings.ToLower(w[:3]))
	if i < 0 || i%3 != 0 {
		return 0
	}
	return i/3 + 1
}

func isDigits(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// atoi reads digits; more than nine of them are no date and read as too large.
func atoi(s string) int {
	n := 0
	for i := range len(s) {
		if n = n*10 + int(s[i]-'0'); n > 1<<30 {
			return 1 << 30
		}
	}
	return n
}
