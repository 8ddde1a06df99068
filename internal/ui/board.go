package ui

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// board is the live lines of a terminal, one per run, below everything else that
// is printed. Its methods are called with the UI's lock held.
type board struct {
	w     io.Writer
	lines []*line
	rows  int // drawn, and not cleared since
}

const defaultRows = 24

func (b *board) add(l *line) { b.lines = append(b.lines, l) }

func (b *board) remove(l *line) {
	b.clear()
	b.lines = slices.DeleteFunc(b.lines, func(x *line) bool { return x == l })
}

// names returns how many columns the longest name takes; 0 for a single run.
func (b *board) names() int {
	if len(b.lines) < 2 {
		return 0
	}
	longest := 1
	for _, l := range b.lines {
		longest = max(longest, columnsOf(Escape(l.state.label)))
	}
	return longest
}

// clear takes away what is drawn and leaves the cursor where it began.
func (b *board) clear() {
	if b.rows == 0 {
		return
	}
	b.write(b.begin() + "\x1b[J")
	b.rows = 0
}

// begin moves the cursor to the beginning of the first row.
func (b *board) begin() string {
	if b.rows > 1 {
		return fmt.Sprintf("\r\x1b[%dA", b.rows-1)
	}
	return "\r"
}

// draw draws all lines after one of them has changed. To draw as often as one line
// does, however many there are, the first of them draws for all.
func (b *board) draw(changed *line, columns, rows int) {
	if len(b.lines) == 0 || changed != b.lines[0] {
		return
	}
	texts := b.texts(columns, rows)
	if len(texts) == 0 {
		b.clear()
		return
	}
	var out strings.Builder
	out.WriteString(b.begin())
	for i, text := range texts {
		if i > 0 {
			out.WriteString("\r\n")
		}
		out.WriteString(text + "\x1b[0K")
	}
	if b.rows > len(texts) {
		out.WriteString("\x1b[J")
	}
	b.rows = len(texts)
	b.write(out.String())
}

// texts returns what fits: where there are more runs than rows, the last row
// counts those that are not shown.
func (b *board) texts(columns, rows int) []string {
	if columns == 0 {
		columns = 80
	}
	if rows == 0 {
		rows = defaultRows
	}
	if columns < narrowest {
		return nil
	}
	most := max(rows-1, 1)
	names := min(b.names(), columns/4)
	var texts []string
	for i, l := range b.lines {
		if len(texts) == most-1 && len(b.lines)-i > 1 {
			return append(texts, cut(fmt.Sprintf("and %d more", len(b.lines)-i), columns))
		}
		if names == 0 {
			texts = append(texts, l.render(columns, false))
			continue
		}
		texts = append(texts, Pad(Escape(l.state.label), names)+" "+l.render(columns-names-1, true))
	}
	return texts
}

func (b *board) write(s string) {
	_, _ = io.WriteString(b.w, s) // nowhere left to complain
}
