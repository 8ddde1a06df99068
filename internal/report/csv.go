package report

import (
	"encoding/csv"
	"io"
	"strings"

	"mailhaul/internal/ui"
)

// CSV writes records that spreadsheets take for what they are: text, escaped as on
// a page, and never a formula.
type CSV struct{ w *csv.Writer }

// NewCSV writes to w. The caller calls Flush.
func NewCSV(w io.Writer) *CSV { return &CSV{csv.NewWriter(w)} }

// Write writes one record.
func (c *CSV) Write(cells ...string) error {
	for i, cell := range cells {
		cells[i] = harmless(ui.Escape(cell))
	}
	return c.w.Write(cells)
}

// harmless keeps a spreadsheet from taking text for a formula. Numbers stay.
func harmless(s string) string {
	if s == "" || !strings.ContainsRune("=+-@", rune(s[0])) {
		return s
	}
	return "'" + s
}

// Flush writes what is held back and returns the first error.
func (c *CSV) Flush() error {
	c.w.Flush()
	return c.w.Error()
}
