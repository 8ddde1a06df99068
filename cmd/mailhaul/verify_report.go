package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	sheet "mailhaul/internal/report"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
)

// report writes the file of --report. Findings go to it as they come, so that it
// takes no memory; a page of HTML names the first of them only. The methods of a nil
// report do nothing.
type report struct {
	file        *pageFile
	kind        string
	w           *bufio.Writer
	csv         *sheet.CSV
	made        time.Time
	title       string
	left, right string // places
	heads       [2]string
	boxes       []ui.ComparedMailbox
	tallies     []vault.BoxTally
	rows        []sheet.Row // of a page
	findings    int
	err         error
}

// maxRows is how many findings a page names.
const maxRows = 2000

// openReport begins a report; nil if none was asked for. Its file appears, whole,
// when the report is finished.
func (a *app) openReport(path string) (*report, error) {
	if path == "" {
		return nil, nil
	}
	r := &report{kind: strings.ToLower(filepath.Ext(path)), made: time.Now()}
	if !slices.Contains([]string{".html", ".json", ".csv"}, r.kind) {
		return nil, usage("write --report FILE.html, FILE.json or FILE.csv", "--report %s: the ending says what kind of report it is", path)
	}
	var err error
	if r.file, err = newPageFile(path); err != nil {
		return nil, err
	}
	r.w = bufio.NewWriter(r.file.temp)
	return r, nil
}

// drop takes away what was not finished.
func (r *report) drop() {
	if r != nil {
		r.file.drop()
	}
}

func (r *report) keep(err error) {
	if r.err == nil {
		r.err = err
	}
}

// begin says what is compared.
func (r *report) begin(title, left, right string) {
	if r == nil {
		return
	}
	r.title, r.left, r.right = title, left, right
	switch r.kind {
	case ".json":
		r.json("{\n\"report\":", title, ",\"left\":", left, ",\"right\":", right, ",\"made\":", r.made.UTC().Format(time.RFC3339),
			",\"program\":", "mailhaul "+versionText(), ",\n\"findings\":[")
	case ".csv":
		r.csv = sheet.NewCSV(r.w)
		r.keep(r.csv.Write("kind", "mailbox", "other mailbox", "account", "uid", "date", "octets", "from", "subject", "sha256", "reason",
			"listed", "dest_listed", "dest_octets", "same"))
	}
}

// json writes alternately text as it is and values.
func (r *report) json(parts ...any) {
	for i, p := range parts {
		if i%2 == 0 {
			_, err := fmt.Fprint(r.w, p)
			r.keep(err)
			continue
		}
		r.keep(r.value(p))
	}
}

func (r *report) value(v any) error {
	b, err := ui.Marshal(v)
	if err != nil {
		return err
	}
	_, err = r.w.Write(b)
	return err
}

// difference takes a finding of a comparison.
func (r *report) difference(d ui.Difference) {
	if r == nil {
		return
	}
	r.findings++
	d.Type = "finding"
	switch r.kind {
	case ".json":
		r.json(r.comma(), d)
	case ".csv":
		r.keep(r.csv.Write(d.Kind, d.Mailbox, d.Other, d.Account, d.UID, utc(d.Date), fmt.Sprint(d.Octets), d.From, d.Subject, d.Digest, d.Reason))
	default:
		if len(r.rows) < maxRows {
			r.rows = append(r.rows, sheet.Row{Bad: d.Wrong, Cells: []string{
				d.Kind, d.Mailbox, minute(d.Date), d.From, d.Subject, ui.Octets(d.Octets), d.Reason, short(d.Digest),
			}})
		}
	}
}

func (r *report) comma() string {
	if r.findings == 1 {
		return "\n"
	}
	return ",\n"
}

// archiveFinding takes a finding in the archive itself.
func (r *report) archiveFinding(f vault.Finding) {
	if r == nil {
		return
	}
	d := ui.Difference{Kind: "archive: " + f.Kind.String(), Mailbox: f.Mailbox, Wrong: f.Kind != vault.Extra, Reason: f.Place}
	if f.Kind != vault.Extra {
		rc := f.Held.Receipt
		d.Date, d.Octets, d.Digest = rc.Info.InternalDate, rc.Wire, rc.Digest.String()
	}
	if f.Kind == vault.Unreadable && f.Err != nil {
		d.Reason = f.Err.Error()
	}
	r.difference(d)
}

func (r *report) mailboxes(left, right string, boxes []ui.ComparedMailbox) {
	if r != nil {
		r.heads, r.boxes = [2]string{left, right}, boxes
	}
}

func utc(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func minute(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}

func short(digest string) string { return digest[:min(12, len(digest))] }

// finish ends the report of a comparison.
func (r *report) finish(s ui.Compared) error {
	if r == nil || r.title == "" {
		return nil
	}
	s.Type = "summary"
	switch r.kind {
	case ".json":
		r.json("\n],\n\"mailboxes\":", r.boxes, ",\n\"summary\":", s, "\n}\n")
	case ".csv":
		for _, m := range r.boxes {
			r.keep(r.csv.Write("mailbox", m.Name(), m.Mailbox, "", "", "", fmt.Sprint(m.Octets), "", "", "", m.Note(),
				fmt.Sprint(m.Listed), fmt.Sprint(m.DestListed), fmt.Sprint(m.DestOctets), fmt.Sprint(m.Same)))
		}
		r.keep(r.csv.Write("summary", "", "", "", "", "", fmt.Sprint(s.ListedOctets), "", "", "", s.Line(),
			fmt.Sprint(s.Listed), fmt.Sprint(s.DestListed), fmt.Sprint(s.DestOctets), fmt.Sprint(s.Same)))
	default:
		r.keep(r.comparison(s).WriteHTML(r.w))
	}
	return r.close()
}

// finishArchive ends the report of an archive alone.
func (r *report) finishArchive(sum vault.Summary, m *mender) error {
	if r == nil {
		return nil
	}
	text, good := sentence(sum, m)
	r.tallies = sum.Boxes
	switch r.kind {
	case ".json":
		r.json("\n],\n\"mailboxes\":", tallies(sum.Boxes), ",\n\"summary\":", map[string]any{
			"type": "summary", "mailboxes": sum.Mailboxes, "messages": sum.Messages, "verified": sum.Verified, "octets": sum.Octets, "missing": sum.Missing,
			"altered": sum.Altered, "unreadable": sum.Unreadable, "extra": sum.Extra, "skipped": sum.Skipped, "accepted": m.accepted, "complete": good,
		}, "\n}\n")
	case ".csv":
		for _, b := range sum.Boxes {
			r.keep(r.csv.Write("mailbox", b.Mailbox, "", "", "", "", fmt.Sprint(b.Recorded), "", "", "", damageOf(b.Tally), fmt.Sprint(b.Messages), "", "", fmt.Sprint(b.Verified)))
		}
		r.keep(r.csv.Write("summary", "", "", "", "", "", fmt.Sprint(sum.Recorded), "", "", "", text, fmt.Sprint(sum.Messages), "", "", fmt.Sprint(sum.Verified)))
	default:
		r.keep(r.archivePage(sum, text, good).WriteHTML(r.w))
	}
	return r.close()
}

func tallies(boxes []vault.BoxTally) []map[string]any {
	list := make([]map[string]any, len(boxes))
	for i, b := range boxes {
		list[i] = map[string]any{
			"mailbox": b.Mailbox, "messages": b.Messages, "octets": b.Recorded, "verified": b.Verified,
			"missing": b.Missing, "altered": b.Altered, "unreadable": b.Unreadable, "skipped": b.Skipped,
		}
	}
	return list
}

// close puts the file in its place.
func (r *report) close() error {
	if r.csv != nil {
		r.keep(r.csv.Flush())
	}
	return r.file.finish(func(io.Writer) error { return errors.Join(r.err, r.w.Flush()) })
}

// comparison is the page of a comparison.
func (r *report) comparison(s ui.Compared) sheet.Page {
	p := sheet.Page{
		Title: r.title, Subtitle: r.left + " and " + r.right, Made: r.made, Program: "mailhaul " + versionText(),
		Verdict: strings.ToUpper(s.Line()[:1]) + s.Line()[1:] + ".", Good: s.Complete,
		Facts: []sheet.Fact{
			{Name: r.heads[0], Value: ui.Plural(s.Listed, "message")}, {Name: r.heads[1], Value: ui.Plural(s.DestListed, "message")},
			{Name: "the same, by SHA-256", Value: ui.Count(s.Same)}, {Name: "missing", Value: ui.Count(s.Missing), Bad: s.Missing > 0},
			{Name: "altered", Value: ui.Count(s.Altered), Bad: s.Altered > 0}, {Name: "extra", Value: ui.Count(s.Extra)},
		},
	}
	if s.Unarchived > 0 {
		p.Facts = append(p.Facts, sheet.Fact{Name: "not archived", Value: ui.Count(s.Unarchived), Bad: true})
	}
	if s.Damaged != nil {
		p.Facts = append(p.Facts, sheet.Fact{Name: "damaged in the archive", Value: ui.Count(*s.Damaged), Bad: *s.Damaged > 0})
	}
	bars := sheet.Section{Title: "Mailboxes", Note: "Each bar is the messages of one mailbox, as long as the mailbox is large.", Legend: []sheet.Part{
		{Color: sheet.Good, Name: "the same"}, {Color: sheet.Known, Name: "altered as servers are known to, or in another mailbox"},
		{Color: sheet.Bad, Name: "missing, altered or not archived"}, {Color: sheet.Other, Name: "need not be there, extra, or not looked at"},
	}, Table: &sheet.Table{Head: []sheet.Column{
		{Name: "mailbox"}, {Name: r.heads[0], Number: true}, {Name: "size", Number: true}, {Name: r.heads[1], Number: true}, {Name: "size", Number: true}, {Name: "result"},
	}}}
	largest := int64(1)
	for _, m := range r.boxes {
		largest = max(largest, m.Listed+m.Extra+m.Unarchived)
	}
	for _, m := range r.boxes {
		share := func(n int64) float64 { return float64(n) / float64(largest) }
		bad := m.Missing + m.Altered + m.Unarchived + m.Unreadable
		known := m.Known + m.Moved
		bars.Bars = append(bars.Bars, sheet.Bar{Label: m.Name(), Text: m.Note(), Parts: []sheet.Part{
			{Share: share(m.Same), Color: sheet.Good}, {Share: share(known), Color: sheet.Known}, {Share: share(bad), Color: sheet.Bad},
			{Share: share(max(0, m.Listed-m.Same-known-m.Missing-m.Altered) + m.Extra), Color: sheet.Other},
		}})
		bars.Table.Rows = append(bars.Table.Rows, sheet.Row{Bad: bad > 0, Cells: []string{
			m.Name(), ui.Count(m.Listed), ui.Octets(m.Octets), ui.Count(m.DestListed), ui.Octets(m.DestOctets), m.Note(),
		}})
	}
	p.Sections = append(p.Sections, bars, r.findingsSection(), sheet.Section{Title: "What was done", Note: how(s)})
	return p
}

func how(s ui.Compared) string {
	text := "Both sides were listed. The octets of every message were read on both sides and compared by SHA-256 (line ends aside); "
	if s.Unsampled > 0 {
		text = fmt.Sprintf("Both sides were listed. The octets of %s, chosen at random, were read on both sides and compared by SHA-256 (line ends aside); ", ui.Plural(s.Compared, "message"))
	}
	if s.Archive != "" {
		text = "The archive was read back to the last octet first. " + text
	}
	return text + "each message counts once, so that of two equal ones both must be there. Nothing was changed."
}

func (r *report) findingsSection() sheet.Section {
	if r.findings == 0 {
		return sheet.Section{Title: "Findings", Note: "None."}
	}
	t := &sheet.Table{Rows: r.rows, Head: []sheet.Column{
		{Name: "what"}, {Name: "mailbox"}, {Name: "date (UTC)"}, {Name: "from"}, {Name: "subject"}, {Name: "size", Number: true}, {Name: "why"}, {Name: "SHA-256"},
	}}
	if more := r.findings - len(r.rows); more > 0 {
		t.More = fmt.Sprintf("And %s more: --report with .csv or .json names them all.", ui.Count(int64(more)))
	}
	return sheet.Section{Title: "Findings", Table: t}
}

// archivePage is the page of an archive alone.
func (r *report) archivePage(sum vault.Summary, text string, good bool) sheet.Page {
	p := sheet.Page{
		Title: r.title, Subtitle: r.left, Made: r.made, Program: "mailhaul " + versionText(), Verdict: text, Good: good,
		Facts: []sheet.Fact{
			{Name: "on record", Value: ui.Plural(sum.Messages, "message")}, {Name: "verified", Value: ui.Count(sum.Verified)}, {Name: "read", Value: ui.Octets(sum.Octets)},
			{Name: "missing", Value: ui.Count(sum.Missing), Bad: sum.Missing > 0}, {Name: "altered", Value: ui.Count(sum.Altered), Bad: sum.Altered > 0},
			{Name: "unreadable", Value: ui.Count(sum.Unreadable), Bad: sum.Unreadable > 0},
		},
	}
	s := sheet.Section{Title: "Mailboxes", Legend: []sheet.Part{
		{Color: sheet.Good, Name: "verified"}, {Color: sheet.Bad, Name: "missing, altered or unreadable"}, {Color: sheet.Other, Name: "not looked at"},
	}}
	largest := int64(1)
	for _, b := range sum.Boxes {
		largest = max(largest, b.Messages)
	}
	for _, b := range sum.Boxes {
		share := func(n int64) float64 { return float64(n) / float64(largest) }
		s.Bars = append(s.Bars, sheet.Bar{Label: b.Mailbox, Text: fmt.Sprintf("%s, %s, %s", ui.Plural(b.Messages, "message"), ui.Octets(b.Recorded), damageOf(b.Tally)), Parts: []sheet.Part{
			{Share: share(b.Verified), Color: sheet.Good}, {Share: share(b.Missing + b.Altered + b.Unreadable), Color: sheet.Bad}, {Share: share(b.Skipped), Color: sheet.Other},
		}})
	}
	p.Sections = append(p.Sections, s, r.findingsSection())
	return p
}

func damageOf(t vault.Tally) string {
	if t.Whole() {
		return "whole"
	}
	return fmt.Sprintf("%s missing, %s altered, %s unreadable", ui.Count(t.Missing), ui.Count(t.Altered), ui.Count(t.Unreadable))
}
