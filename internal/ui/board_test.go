package ui

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailhaul/mail"
)

// terminal understands as much of a terminal as the board uses. It has as many
// columns as it likes: what is too long is an error.
type terminal struct {
	t       *testing.T
	columns int
	rows    []string
	row     int
	column  int
}

func (s *terminal) Write(b []byte) (int, error) {
	text := string(b)
	for text != "" {
		if len(s.rows) <= s.row {
			s.rows = append(s.rows, make([]string, s.row-len(s.rows)+1)...)
		}
		switch {
		case text[0] == '\r':
			s.column, text = 0, text[1:]
		case text[0] == '\n':
			s.row, s.column, text = s.row+1, 0, text[1:] // as a terminal in cooked mode
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AJK")
			n, _ := strconv.Atoi(text[2:end])
			switch text[end] {
			case 'A':
				if s.row -= n; s.row < 0 {
					s.t.Error("above the first row")
				}
			case 'J':
				s.rows = s.rows[:s.row+1]
				fallthrough
			case 'K':
				s.rows[s.row] = prefix(s.rows[s.row], s.column)
			}
			text = text[end+1:]
		default:
			end := strings.IndexAny(text, "\r\n\x1b")
			if end < 0 {
				end = len(text)
			}
			old := []rune(s.rows[s.row])
			rest := ""
			if n := s.column + len([]rune(text[:end])); n < len(old) {
				rest = string(old[n:])
			}
			s.rows[s.row] = prefix(s.rows[s.row], s.column) + text[:end] + rest
			s.column += len([]rune(text[:end]))
			text = text[end:]
			if n := columnsOf(s.rows[s.row]); s.columns > 0 && n > s.columns {
				s.t.Errorf("%d columns of %d: %q", n, s.columns, s.rows[s.row])
			}
		}
	}
	return len(b), nil
}

func prefix(s string, n int) string {
	r := []rune(s)
	return string(r[:min(n, len(r))])
}

func (s *terminal) text() string {
	var all []string
	for _, r := range s.rows {
		all = append(all, strings.TrimRight(r, " "))
	}
	return strings.TrimRight(strings.Join(all, "\n"), "\n")
}

// Several runs have a line each; what is printed in between stands above them, and
// nothing of them is left.
func TestBoard(t *testing.T) {
	screen := &terminal{t: t}
	u := New(Options{Out: screen, Err: screen, Terminal: true})
	at := time.Now()
	lines := []*line{newLine("home"), newLine("work"), newLine("büro-日本")}
	states := []state{
		{label: "home", mailbox: "INBOX", messages: 500, planned: 1000, octets: 5e6, plannedOctets: 1e7, at: at},
		{label: "work", at: at},
		{label: "büro-日本", waiting: "server asks for 30 s", at: at},
	}
	show := func() {
		for i, l := range lines {
			l.update(states[i])
		}
		u.board.draw(u.board.lines[0], 80, 24)
	}
	for _, l := range lines {
		u.board.add(l)
	}
	show()
	want := `home      INBOX 500/1,000, 5.0 MB/10.0 MB                   49% [====>      ]
work      asking the server what is there                    0% [           ]
büro-日本 waiting: server asks for 30 s                      0% [           ]`
	if diff := cmp.Diff(want, screen.text()); diff != "" {
		t.Error(diff)
	}
	u.For("home").Error(errors.New("one message failed"))
	u.For("home").Result("home: done")
	if got := screen.text(); got != "mailhaul: error: home: one message failed\nhome: done" {
		t.Errorf("got %q", got)
	}
	u.board.remove(lines[0])
	lines, states = lines[1:], states[1:]
	states[0] = state{label: "work", mailbox: "Sent", messages: 1, planned: 1, octets: 10, plannedOctets: 10, at: at}
	show()
	show()
	want = `mailhaul: error: home: one message failed
home: done
work      Sent 1/1, 10 B/10 B                               90% [========>  ]
büro-日本 waiting: server asks for 30 s                      0% [           ]`
	if diff := cmp.Diff(want, screen.text()); diff != "" {
		t.Error(diff)
	}
	u.board.remove(lines[0])
	u.board.remove(lines[1])
	if got := screen.text(); got != "mailhaul: error: home: one message failed\nhome: done" {
		t.Errorf("left: %q", got)
	}
}

// Whatever the size of the terminal, nothing is wider or higher than it.
func TestBoardFits(t *testing.T) {
	for columns := 1; columns < 100; columns++ {
		for _, rows := range []int{0, 1, 2, 3, 5, 24} {
			screen := &terminal{t: t, columns: columns}
			b := board{w: screen}
			for i := range 8 {
				b.add(newLine(fmt.Sprintf("account-日本語-%d", i)))
			}
			for range 2 {
				for _, l := range b.lines {
					l.update(state{label: l.state.label, mailbox: "日本語/" + strings.Repeat("x", columns), messages: 12, planned: 61020, octets: 1e6, plannedOctets: 88e9})
				}
				b.draw(b.lines[0], columns, rows)
			}
			most := rows - 1
			switch rows {
			case 0:
				most = defaultRows - 1
			case 1:
				most = 1
			}
			if len(screen.rows) > most {
				t.Errorf("%d rows of %d:\n%s", len(screen.rows), rows, screen.text())
			}
			if columns >= 40 && rows == 5 && !strings.Contains(screen.text(), "and 5 more") {
				t.Errorf("%d columns:\n%s", columns, screen.text())
			}
			safeLine(t, []byte(strings.ReplaceAll(screen.text(), "\n", "")))
			b.clear()
			if screen.text() != "" {
				t.Errorf("left: %q", screen.text())
			}
		}
	}
}

func TestForAccount(t *testing.T) {
	var out, errs bytes.Buffer
	u := New(Options{Out: &out, Err: &errs, JSON: true}).For("home")
	u.Object(map[string]any{"type": "x"})
	u.Summary("home", Summary{Command: "backup"})
	want := `{"account":"home","type":"x"}
{"account":"home","type":"account","command":"backup","octets":0,"seconds":0,"exit":0}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	u = New(Options{Out: &out, Err: &errs, Verbose: true}).For("home")
	u.Warn(&mail.Error{Err: errors.New("no TLS"), Hint: "use TLS"})
	u.Note("home: 5 kB freed")
	u.Detail("INBOX: 5 messages to do")
	want = "mailhaul: warning: home: no TLS\nmailhaul: hint: use TLS\nhome: 5 kB freed\nhome: INBOX: 5 messages to do\n"
	if diff := cmp.Diff(want, errs.String()); diff != "" {
		t.Error(diff)
	}
}
