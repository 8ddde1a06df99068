package ui

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Planned is what a deletion would do in one mailbox, or in all of them.
type Planned struct {
	Type       string           `json:"type"` // always "plan"
	Mailbox    string           `json:"mailbox"`
	Messages   int64            `json:"messages"` // at the server
	Go         int64            `json:"go"`
	GoOctets   int64            `json:"go_octets"`
	Stay       int64            `json:"stay"`
	StayOctets int64            `json:"stay_octets"`
	Why        map[string]int64 `json:"why,omitempty"` // of Stay: what the rule selects
	Oldest     time.Time        `json:"oldest,omitzero"`
	Newest     time.Time        `json:"newest,omitzero"`
}

// Plan prints a plan: an object per mailbox with JSON, else a table with a line
// per mailbox that is not empty.
func (u *UI) Plan(head string, list []Planned) {
	for _, p := range list {
		p.Type = "plan"
		u.Object(p)
	}
	if u.opt.JSON {
		return
	}
	shown := slices.DeleteFunc(slices.Clone(list), func(p Planned) bool { return p.Messages == 0 })
	if len(shown) > 1 {
		total := Planned{Mailbox: "together"}
		for _, p := range shown {
			total.add(p)
		}
		shown = append(shown, total)
	}
	u.Result("%s", head)
	for _, line := range planLines(shown, u.Columns()) {
		u.result(6, "  "+line)
	}
}

// planLines are the lines of a plan: a table, where the terminal has room for one.
func planLines(list []Planned, columns int) []string {
	fits := func(lines []string) bool {
		return columns <= 0 || !slices.ContainsFunc(lines, func(l string) bool { return columnsOf(l)+2 > columns })
	}
	messages := func(n int64) string { return Plural(n, "message") }
	for _, count := range []func(int64) string{messages, Count} {
		rows := [][]string{{"mailbox", "to go", "", "oldest", "newest", "to stay", ""}}
		for _, p := range list {
			rows = append(rows, p.row(count))
		}
		if lines := inColumns(rows); fits(lines) {
			return lines
		}
	}
	var lines []string
	for _, p := range list {
		c := p.row(messages)
		span := ""
		if !p.Oldest.IsZero() {
			span = ", of " + c[3] + " to " + c[4]
		}
		lines = append(lines, c[0], "  to go: "+c[1]+", "+c[2]+span, "  to stay: "+c[5]+", "+c[6])
	}
	return lines
}

// inColumns lays rows out in columns, two spaces apart.
func inColumns(rows [][]string) []string {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], columnsOf(cell))
		}
	}
	lines := make([]string, len(rows))
	for i, row := range rows {
		var b strings.Builder
		for k, cell := range row {
			b.WriteString(Pad(cell, widths[k]) + "  ")
		}
		lines[i] = strings.TrimRight(b.String(), " ")
	}
	return lines
}

func (p *Planned) add(q Planned) {
	p.Go += q.Go
	p.GoOctets += q.GoOctets
	p.Stay += q.Stay
	p.StayOctets += q.StayOctets
	if !q.Oldest.IsZero() && (p.Oldest.IsZero() || q.Oldest.Before(p.Oldest)) {
		p.Oldest = q.Oldest
	}
	if q.Newest.After(p.Newest) {
		p.Newest = q.Newest
	}
}

// row is a line of the table; count writes numbers of messages.
func (p *Planned) row(count func(int64) string) []string {
	date := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.Local().Format(time.DateOnly)
	}
	stay := Octets(p.StayOctets)
	if len(p.Why) > 0 {
		stay += "; " + Reasons(p.Why)
	}
	return []string{Escape(p.Mailbox), count(p.Go), Octets(p.GoOctets), date(p.Oldest), date(p.Newest), count(p.Stay), stay}
}

// Reasons writes why messages stay, the most frequent reason first.
func Reasons(why map[string]int64) string {
	keys := slices.SortedFunc(maps.Keys(why), func(a, b string) int {
		return cmp.Or(cmp.Compare(why[b], why[a]), strings.Compare(a, b))
	})
	for i, k := range keys {
		keys[i] = Count(why[k]) + " " + k
	}
	return strings.Join(keys, ", ")
}

// Cleaned is how a deletion ended: Listed = Deleted + Skipped + Failed.
type Cleaned struct {
	Type    string           `json:"type"` // "summary", or "account" of several
	Command string           `json:"command"`
	Source  string           `json:"source,omitempty"`
	Archive string           `json:"archive,omitempty"`
	DryRun  bool             `json:"dry_run,omitempty"`
	Mode    string           `json:"mode,omitempty"` // "expunge" or "trash"
	Listed  int64            `json:"listed"`         // selected by the rule; with a dry run what would go is among them
	Deleted int64            `json:"deleted"`        // with a dry run: to be deleted
	Skipped int64            `json:"skipped"`        // selected, and stayed: see Stayed
	Failed  int64            `json:"failed"`         // damaged in the archive, refused by the server, or not known
	Octets  int64            `json:"octets"`         // freed, as the server counts
	Stayed  map[string]int64 `json:"stayed,omitempty"`
	Seconds float64          `json:"seconds"`
	Exit    int              `json:"exit"`
}

// Cleaned prints the end of a deletion: an object with JSON, else a line of what is
// freed and one of what stayed; quiet leaves them out if all went well.
func (u *UI) Cleaned(label string, c Cleaned) {
	c.Type = u.last()
	if u.opt.JSON {
		u.Object(c)
		return
	}
	if u.opt.Quiet && c.Exit == 0 {
		return
	}
	done := "deleted at the server"
	if c.Mode == "trash" {
		done = "moved to the trash"
	}
	if c.DryRun {
		done = "would be " + done
	}
	u.Result("%s: %s (%s) %s, %s stayed, %s failed, in %s", label, Plural(c.Deleted, "message"), Octets(c.Octets), done,
		Count(c.Skipped), Count(c.Failed), Duration(time.Duration(c.Seconds*float64(time.Second))))
	if len(c.Stayed) > 0 {
		u.Result("%s: stayed: %s", label, Reasons(c.Stayed))
	}
	if c.Mode == "trash" && c.Deleted > 0 {
		u.Note("the space comes back when the trash is emptied")
	}
}

// Freed is what backup --delete did at the server.
type Freed struct {
	Type    string           `json:"type"` // always "freed"
	Mode    string           `json:"mode,omitempty"`
	DryRun  bool             `json:"dry_run,omitempty"`
	Deleted int64            `json:"deleted"`
	Octets  int64            `json:"octets"`
	Stayed  map[string]int64 `json:"stayed,omitempty"` // of what the rule selects, and why
}

// Freed prints it: an object with JSON, else a line unless quiet.
func (u *UI) Freed(label string, f Freed) {
	f.Type = "freed"
	if u.opt.JSON {
		u.Object(f)
		return
	}
	word := "freed at the server"
	switch {
	case f.DryRun:
		word = "can be freed at the server"
	case f.Mode == "trash":
		word = "moved to the server's trash"
	}
	line := fmt.Sprintf("%s: %s %s", label, Octets(f.Octets), word)
	if len(f.Stayed) > 0 {
		line += "; stayed: " + Reasons(f.Stayed)
	}
	u.Note("%s", line)
}
