package report

import (
	"encoding/xml"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

const evil = "\"><script>alert(1)</script>\x1b[2J\u202e&'=\x00"

func evilPage() Page {
	return Page{
		Title: evil, Subtitle: evil, Made: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Program: evil, Verdict: evil,
		Facts: []Fact{{evil, evil, true}},
		Sections: []Section{{
			Title: evil, Note: evil, Legend: []Part{{0, Bad, evil}},
			Bars: []Bar{{evil, evil, []Part{{0.5, Good, evil}, {0.7, Bad, evil}, {1e-9, Known, evil}}}},
			Table: &Table{Head: []Column{{evil, false}, {"n", true}}, Rows: []Row{{[]string{evil, "1", evil}, true}},
				More: evil},
		}},
	}
}

func TestPageEscapesAndAsksForNothing(t *testing.T) {
	var b strings.Builder
	if err := evilPage().WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	html := b.String()
	for _, bad := range []string{"<script", "\x1b", "\u202e", "\x00", "ZgotmplZ", "<no value>"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	if m := regexp.MustCompile(`(?i)(https?:|src=|href=|url\(|@import|\son\w+=)`).FindString(html); m != "" {
		t.Errorf("the page may ask for something: %q", m)
	}
	if !strings.Contains(html, "default-src 'none'") || strings.Count(html, "&lt;script&gt;") < 10 {
		t.Error("no policy, or text is missing")
	}
	// Every element is closed: what a parser of XML takes, but for the void ones.
	d := xml.NewDecoder(strings.NewReader(regexp.MustCompile(`<!DOCTYPE html>|<meta[^>]*>`).ReplaceAllString(html, "")))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBarsStayInside(t *testing.T) {
	end := 0.0
	for _, r := range rects([]Part{{0.5, Good, ""}, {0, Bad, ""}, {2, Bad, ""}, {-1, Bad, ""}, {0.1, Known, ""}}) {
		if r.X < end || r.W <= 0 {
			t.Errorf("%+v begins before %v", r, end)
		}
		end = r.X + r.W
	}
	if end != barWidth {
		t.Errorf("the bar ends at %v", end)
	}
	if r := rects([]Part{{1e-9, Bad, ""}}); len(r) != 1 || r[0].W < 1 {
		t.Errorf("a little is not seen: %+v", r)
	}
}

func TestCSV(t *testing.T) {
	var b strings.Builder
	c := NewCSV(&b)
	if err := c.Write("=cmd()", "-1", "a,b\n\"c\"", "plain", ""); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), `'=cmd(),'-1,"a,b\n""c""",plain,`+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Words of a common length are not broken in a table; what is longer may be.
func TestCellsOfTables(t *testing.T) {
	p := Page{Sections: []Section{{Table: &Table{
		Head: []Column{{"mailbox", false}, {"n", true}},
		Rows: []Row{{[]string{"Archive/2022", "12"}, false}, {[]string{strings.Repeat("é", 21), "1"}, false}},
	}}}}
	var b strings.Builder
	if err := p.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`<td>Archive/2022</td><td class="n">12</td>`, `<td class="w">ééé`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
