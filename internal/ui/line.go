package ui

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/text/width"
)

// state is where a run stands at one moment.
type state struct {
	label, mailbox, waiting string
	messages, planned       int64
	octets, plannedOctets   int64
	guessed                 bool // plannedOctets is made of the size of what has come
	durable, failed         int64
	elapsed                 time.Duration
	at                      time.Time
}

// line is the live line of one run. Only one goroutine renders it, holding the
// UI's lock.
type line struct {
	bar     *progressbar.ProgressBar
	out     rendered
	state   state // as it was last said
	among   bool  // others stand above or below, and names in front
	cells   int   // of the bar
	total   int64
	samples []sample
}

type sample struct {
	at     time.Time
	octets int64
}

const (
	narrowest  = 20 // columns below which nothing is drawn
	frame      = 11 // columns the bar takes besides its cells: "  12% [] " and one free
	rateWindow = 5 * time.Second
)

// rendered is what the bar drew last, without what moves the cursor.
type rendered struct{ text string }

var controls = strings.NewReplacer("\r", "", "\x1b[2K", "", "\x1b[0K", "")

// Write takes what the bar draws at one time.
func (r *rendered) Write(b []byte) (int, error) {
	if text := controls.Replace(string(b)); text != "" {
		r.text = text
	}
	return len(b), nil
}

func newLine(label string) *line { return &line{state: state{label: label, at: time.Now()}} }

// update says where the run stands.
func (l *line) update(s state) {
	l.sample(s)
	l.state = s
}

// render makes the text of the line for so many columns; among tells that others
// stand above or below, and names in front of them.
func (l *line) render(columns int, among bool) string {
	s := l.state
	l.among = among
	cells := min(max(columns/6, 2), 20)
	if columns < 50 {
		cells = 0
	}
	l.fit(cells)
	// One more than planned: at its maximum the bar would end itself. A server
	// may send more octets than it listed.
	if total := max(s.plannedOctets, s.octets) + 1; total != l.total {
		l.total = total
		l.bar.ChangeMax64(total)
	}
	text := cut(l.text(s, columns-frame-cells), columns-frame-cells)
	if among {
		text = Pad(text, columns-frame-cells)
	}
	l.bar.Describe(text)
	_ = l.bar.Set64(s.octets)
	return l.out.text
}

// fit makes a bar of so many cells.
func (l *line) fit(cells int) {
	if l.bar != nil && l.cells == cells {
		return
	}
	l.cells, l.total = cells, 1
	theme := progressbar.Theme{Saucer: "=", SaucerHead: ">", SaucerPadding: " ", BarStart: "[", BarEnd: "]"}
	if cells == 0 {
		theme.BarStart, theme.BarEnd = "", ""
	}
	l.bar = progressbar.NewOptions64(1,
		progressbar.OptionSetWriter(&l.out),
		progressbar.OptionSetWidth(cells),
		progressbar.OptionSetElapsedTime(false),
		progressbar.OptionSetPredictTime(false),
		progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetTheme(theme),
	)
}

func (l *line) sample(s state) {
	l.samples = append(l.samples, sample{s.at, s.octets})
	for len(l.samples) > 2 && s.at.Sub(l.samples[1].at) >= rateWindow {
		l.samples = l.samples[1:]
	}
}

// rate is octets per second over the last seconds.
func (l *line) rate() float64 {
	if len(l.samples) < 2 {
		return 0
	}
	first, last := l.samples[0], l.samples[len(l.samples)-1]
	if d := last.at.Sub(first.at).Seconds(); d > 0 {
		return float64(last.octets-first.octets) / d
	}
	return 0
}

// text says what fits: the more columns, the more of it.
func (l *line) text(s state, columns int) string {
	label := s.label + ": "
	if l.among {
		label = ""
	}
	if s.waiting != "" {
		return Escape(label + "waiting: " + s.waiting)
	}
	if s.planned == 0 {
		return Escape(label + "asking the server what is there")
	}
	size := Octets(s.octets) + "/" + Octets(s.plannedOctets)
	if s.guessed {
		size = Octets(s.octets)
	}
	parts := []string{Count(s.messages) + "/" + Count(s.planned), size}
	rate := l.rate()
	if rate > 0 {
		parts = append(parts, Octets(int64(rate))+"/s", left(float64(s.plannedOctets-s.octets)/rate))
	}
	if s.failed > 0 {
		parts = append(parts, Count(s.failed)+" failed")
	}
	const shortest = 8 // columns worth giving to a mailbox name
	for len(parts) > 1 && columns-len(strings.Join(parts, ", "))-1 < shortest {
		parts = parts[:len(parts)-1]
	}
	numbers := strings.Join(parts, ", ")
	if room := columns - len(numbers) - 1; s.mailbox != "" && room >= shortest {
		return cut(Escape(s.mailbox), room) + " " + numbers
	}
	return numbers
}

func left(seconds float64) string {
	const most = 99 * 24 * 3600
	if seconds <= 0 {
		return "0 s left"
	}
	if seconds > most {
		return "months left"
	}
	d := time.Duration(seconds * float64(time.Second))
	if d < 10*time.Second {
		d = d.Round(time.Second)
		return fmt.Sprintf("%d s left", d/time.Second)
	}
	return Duration(d) + " left"
}

// cut shortens text to so many columns.
func cut(s string, columns int) string {
	if columnsOf(s) <= columns {
		return s
	}
	if columns < 1 {
		return ""
	}
	n, end := 0, 0
	for i, r := range s {
		w := runeColumns(r)
		if n+w > columns-1 {
			break
		}
		n += w
		end = i + len(string(r))
	}
	return s[:end] + "…"
}

func columnsOf(s string) int {
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	switch width.LookupRune(r).Kind() {
	case width.EastAsianWide, width.EastAsianFullwidth:
		return 2
	}
	return 1
}

// Pad fills text with spaces to so many columns, and cuts it if it is longer.
func Pad(s string, columns int) string {
	s = cut(s, columns)
	return s + strings.Repeat(" ", columns-columnsOf(s))
}
