// Package report writes a page that a person can hand over: one file of HTML that
// asks for nothing from anywhere, with bars as inline SVG, readable on a phone and
// on paper. All text is escaped, and control characters are shown, not obeyed.
package report

import (
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"mailhaul/internal/ui"
)

// Page is one report.
type Page struct {
	Title    string
	Subtitle string
	Made     time.Time // shown in its own time zone
	Program  string    // and version
	// Verdict is the one sentence that counts; "" for none. Good colours it.
	Verdict  string
	Good     bool
	Facts    []Fact
	Sections []Section
}

// Fact is one number of importance.
type Fact struct {
	Name, Value string
	Bad         bool
}

// Section is a part with a heading: bars, a table, or both.
type Section struct {
	Title, Note string
	Legend      []Part // what the colours of Bars mean; Share is not looked at
	Bars        []Bar
	Table       *Table
}

// Bar is one line of a chart.
type Bar struct {
	Label, Text string // Text says the value
	Parts       []Part // from left to right
}

// Part is a coloured part of a bar.
type Part struct {
	Share float64 // of the width, from 0 to 1
	Color Color
	Name  string
}

// Color is what a part means.
type Color string

const (
	Plain Color = "a"
	Good  Color = "g"
	Known Color = "y"
	Bad   Color = "r"
	Other Color = "o"
)

// Table is a table. On a phone it scrolls within itself.
type Table struct {
	Head []Column
	Rows []Row
	More string // what was left out
}

// Column is a column of a table.
type Column struct {
	Name   string
	Number bool // set right
}

// Row is a row of a table.
type Row struct {
	Cells []string
	Bad   bool
}

// barWidth is the width of a chart in its own units.
const barWidth = 1000

// rect is a part of a bar as it is drawn.
type rect struct {
	X, W  float64
	Color Color
	Name  string
}

// rects lays parts side by side within the width. What there is at all is seen.
func rects(parts []Part) (list []rect) {
	x := 0.0
	for _, p := range parts {
		w := max(0, min(p.Share, 1)) * barWidth
		if p.Share > 0 {
			w = max(w, 4)
		}
		w = min(w, barWidth-x)
		if w > 0 {
			list = append(list, rect{x, w, p.Color, p.Name})
		}
		x += w
	}
	return list
}

// cell is the class of a cell: n for numbers, w for text with a word that may be broken
// to keep the table narrow.
func cell(t *Table, i int, text string) string {
	const longest = 20 // characters of a word that stays whole
	switch {
	case i < len(t.Head) && t.Head[i].Number:
		return "n"
	case slices.ContainsFunc(strings.Fields(text), func(w string) bool { return utf8.RuneCountInString(w) > longest }):
		return "w"
	}
	return ""
}

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"text":  ui.Escape,
	"rects": rects,
	"when":  func(t time.Time) string { return t.Format("2006-01-02 15:04 MST") },
	"cell":  cell,
}).Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{{text .Title}}</title>
<style>
:root{--ink:#1c2430;--dim:#5b6674;--line:#dde2e8;--paper:#fff;--card:#f5f7f9;--a:#3b6ea5;--g:#2e8b57;--y:#d9a514;--r:#c0392b;--o:#8a94a0}
@media (prefers-color-scheme:dark){:root{--ink:#e6eaef;--dim:#9aa5b1;--line:#333c47;--paper:#14181d;--card:#1d232a;--a:#6fa3dc;--g:#4fb880;--y:#e2b93b;--r:#e06c5f;--o:#76808c}}
@media print{:root{--ink:#000;--dim:#444;--line:#bbb;--paper:#fff;--card:#fff}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1.5rem 1rem 3rem;background:var(--paper);color:var(--ink);font:16px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:2.2rem 0 .3rem}
p{margin:.3rem 0}
.dim{color:var(--dim);font-size:.9rem;overflow-wrap:anywhere}
.verdict{margin:1.2rem 0;padding:.8rem 1rem;border-left:.4rem solid var(--r);background:var(--card);font-weight:600}
.verdict.good{border-color:var(--g)}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:.6rem;margin:1rem 0;padding:0}
.facts div{background:var(--card);border-radius:.4rem;padding:.5rem .7rem}
.facts dt{color:var(--dim);font-size:.8rem}
.facts dd{margin:0;font-size:1.15rem;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.facts .bad dd{color:var(--r);font-weight:700}
.bar{display:grid;grid-template-columns:minmax(6rem,14rem) minmax(6rem,1fr) 14rem;gap:.2rem .8rem;align-items:center;padding:.15rem 0}
.bar span{overflow-wrap:anywhere}
.bar span:last-child{text-align:right;font-variant-numeric:tabular-nums;color:var(--dim);font-size:.9rem}
.bar svg{width:100%;height:.9rem;display:block;background:var(--card);border-radius:.2rem}
.a{fill:var(--a);color:var(--a)}.g{fill:var(--g);color:var(--g)}.y{fill:var(--y);color:var(--y)}.r{fill:var(--r);color:var(--r)}.o{fill:var(--o);color:var(--o)}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;margin:.3rem 0 .6rem}
.legend svg{width:.8rem;height:.8rem;margin-right:.35rem;vertical-align:-.05rem}
.scroll{overflow-x:auto;margin:.5rem 0}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{padding:.3rem .6rem .3rem 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600;white-space:nowrap}
td{min-width:5.6rem}td.w{overflow-wrap:anywhere}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.n+td:not(.n),.n+th:not(.n){padding-left:1.2rem}
tr.bad td{color:var(--r)}
@media (max-width:34rem){.bar{grid-template-columns:1fr auto}.bar svg{grid-column:1/3;grid-row:2}}
</style>
</head>
<body>
<header>
<h1>{{text .Title}}</h1>
{{with .Subtitle}}<p class="dim">{{text .}}</p>
{{end}}<p class="dim">Made {{when .Made}} by {{text .Program}}</p>
</header>
{{with .Verdict}}<p class="verdict{{if $.Good}} good{{end}}">{{text .}}</p>
{{end}}{{if .Facts}}<dl class="facts">
{{range .Facts}}<div{{if .Bad}} class="bad"{{end}}><dt>{{text .Name}}</dt><dd>{{text .Value}}</dd></div>
{{end}}</dl>
{{end}}{{range .Sections}}<section>
<h2>{{text .Title}}</h2>
{{with .Note}}<p class="dim">{{text .}}</p>
{{end}}{{if .Legend}}<p class="legend">{{range .Legend}}<span><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="{{.Color}}" width="10" height="10"/></svg>{{text .Name}}</span>{{end}}</p>
{{end}}{{range .Bars}}<div class="bar"><span>{{text .Label}}</span><svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img"><title>{{text .Label}}: {{text .Text}}</title>{{range rects .Parts}}<rect class="{{.Color}}" x="{{printf "%.1f" .X}}" width="{{printf "%.1f" .W}}" height="10"/>{{end}}</svg><span>{{text .Text}}</span></div>
{{end}}{{with .Table}}{{$t := .}}<div class="scroll"><table>
<thead><tr>{{range .Head}}<th{{if .Number}} class="n"{{end}}>{{text .Name}}</th>{{end}}</tr></thead>
<tbody>
{{range .Rows}}<tr{{if .Bad}} class="bad"{{end}}>{{range $i, $c := .Cells}}<td{{with cell $t $i $c}} class="{{.}}"{{end}}>{{text $c}}</td>{{end}}</tr>
{{end}}</tbody></table></div>
{{with .More}}<p class="dim">{{text .}}</p>
{{end}}{{end}}</section>
{{end}}</body>
</html>
`))

// WriteHTML writes the page.
func (p Page) WriteHTML(w io.Writer) error { return page.Execute(w, p) }
