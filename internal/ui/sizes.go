package ui

import (
	"fmt"
	"math"
	"strings"
)

// Bars is a chart of rows with a bar each.
type Bars struct {
	Title string
	Rows  []BarRow
	More  string // what was left out
}

// BarRow is one row of Bars.
type BarRow struct {
	Name             string
	Messages, Octets int64
}

const (
	narrowestBar = 8  // columns below which no bar is drawn
	widestBar    = 40 // columns
)

// Bars prints a chart within so many columns. With plain, bars are made of "#" for
// terminals that show no other characters.
func (u *UI) Bars(b Bars, columns int, plain bool) {
	if u.opt.JSON || len(b.Rows) == 0 {
		return
	}
	if columns <= 0 {
		columns = 80
	}
	largest, name, messages := int64(1), 0, 0
	for _, r := range b.Rows {
		largest = max(largest, r.Octets)
		name = max(name, columnsOf(Escape(r.Name)))
		messages = max(messages, len(Count(r.Messages)))
	}
	const size = 8
	fixed := 2 + 2 + messages + 2 + size + 2 // margins and the columns of numbers
	name = min(name, max(columns-fixed, 8), max(12, columns*2/5))
	bar := min(columns-fixed-name, widestBar)
	u.Result("%s", b.Title)
	for _, r := range b.Rows {
		line := fmt.Sprintf("  %s  %*s  %*s", Pad(Escape(r.Name), name), messages, Count(r.Messages), size, Octets(r.Octets))
		if bar >= narrowestBar {
			line += "  " + drawBar(float64(r.Octets)/float64(largest), bar, plain)
		}
		u.Result("%s", strings.TrimRight(line, " "))
	}
	if b.More != "" {
		u.Result("  %s", b.More)
	}
	u.Result("")
}

// eighths are the parts of a column.
var eighths = []rune("▏▎▍▌▋▊▉█")

// drawBar draws a share of so many columns; what there is at all is seen.
func drawBar(share float64, columns int, plain bool) string {
	n := int(math.Round(max(0, min(share, 1)) * float64(columns) * 8))
	if share > 0 {
		n = max(n, 1)
	}
	if plain {
		return strings.Repeat("#", (n+7)/8)
	}
	bar := strings.Repeat(string(eighths[7]), n/8)
	if n%8 > 0 {
		bar += string(eighths[n%8-1])
	}
	return bar
}
