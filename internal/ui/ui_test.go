package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestEscape(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain text, \\Seen", "plain text, \\Seen"},
		{"Entwürfe/日本", "Entwürfe/日本"},
		{"a\nb\r\tc", `a\nb\r\tc`},
		{"\x1b[31mred\x07", `\x1b[31mred\x07`},
		{"del\x7f", `del\x7f`},
		{"c1 \u009b31m", `c1 \u009b31m`},
		{"bidi \u202egnp.exe", `bidi \u202egnp.exe`},
		{"\u2066isolate\u2069 \u2028", `\u2066isolate\u2069 \u2028`},
		{"tag \U000e0041", `tag \U000e0041`},
		{"bad \xff\xc3", `bad \xff\xc3`},
		{strings.Repeat("x", 1000), strings.Repeat("x", 1000)},
		{strings.Repeat("x", 1001), strings.Repeat("x", 1000) + "…"},
	}
	for _, tt := range tests {
		if got := Escape(tt.in); got != tt.want {
			t.Errorf("Escape(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// safeLine fails the test if b could do anything but print text.
func safeLine(t *testing.T, b []byte) {
	t.Helper()
	if !utf8.Valid(b) {
		t.Fatalf("not UTF-8: %q", b)
	}
	for _, r := range string(b) {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			t.Fatalf("%U in %q", r, b)
		}
	}
}

var seeds = []string{"", "plain", "a\nb", "\x1b]0;title\x07", "\u009b2J", "\u202e", "\xff\xfe", "\U000e0041", `back\slash "quoted"`, strings.Repeat("é", 1200)}

// Nothing that is printed holds a control rune, whatever a server sends.
func FuzzOutputIsSafe(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		safeLine(t, []byte(Escape(s)))
		for _, jsonLines := range []bool{false, true} {
			var out, errs bytes.Buffer
			u := New(Options{Out: &out, Err: &errs, JSON: jsonLines, Verbose: true})
			u.Error(&mail.Error{Op: "fetch", Server: s, Hint: s, Ref: mail.Ref{Account: "imap:" + s, Mailbox: s, UID: s}})
			u.Logger(slog.LevelInfo).Info(s, "mailbox", s)
			u.Result("%s", s)
			run := u.Start(s)
			run.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Mailbox: s}, N: 1, Octets: 5})
			run.Notify(mail.Event{Kind: mail.EventFailed, Ref: mail.Ref{Mailbox: s}, Err: errors.New(s)})
			run.Notify(mail.Event{Kind: mail.EventSuspicious, Ref: mail.Ref{Mailbox: s}, Reason: s})
			run.Notify(mail.Event{Kind: mail.EventWaiting, Waiting: s})
			run.Status()
			run.End()
			u.Summary(s, Summary{Command: "backup", Source: s, Exit: 3})
			for _, b := range [][]byte{out.Bytes(), errs.Bytes()} {
				for line := range bytes.SplitSeq(b, []byte{'\n'}) {
					safeLine(t, line)
				}
			}
			if jsonLines {
				for line := range strings.Lines(out.String()) {
					if !json.Valid([]byte(line)) {
						t.Fatalf("no JSON: %q", line)
					}
				}
			}
		}
	})
}

// JSON says the same after its runes were escaped.
func TestJSONKeepsValues(t *testing.T) {
	for _, s := range seeds {
		s = strings.ToValidUTF8(s, "\ufffd")
		b, err := marshal(map[string]string{"s": s})
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal(b, &got); err != nil || got["s"] != s {
			t.Errorf("%q -> %s -> %q, %v", s, b, got["s"], err)
		}
	}
}

func TestFormats(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 61020: "61,020", 1234567: "1,234,567", -1204: "-1,204"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 88_100_000: "88.1 MB", 999_960: "1.0 MB", 1 << 62: "4.6 EB", -5: "0 B"} {
		if got := Octets(n); got != want {
			t.Errorf("Octets(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-1: "0 s", 31 * time.Millisecond: "0.03 s", 400 * time.Millisecond: "0.4 s", 9960 * time.Millisecond: "10 s", 14 * time.Second: "14 s",
		59700 * time.Millisecond: "1 min", 200 * time.Second: "3 min 20 s", 125 * time.Minute: "2 h 5 min", 76 * time.Hour: "3 d 4 h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	for s, want := range map[string]string{"abc": "abc   ", "abcdefgh": "abcde…", "日本語": "日本語", "日本語日": "日本… ", "e\u0301": "e\u0301     "} {
		if got := Pad(s, 6); got != want || columnsOf(got) != 6 {
			t.Errorf("Pad(%q, 6) = %q (%d columns), want %q", s, got, columnsOf(got), want)
		}
	}
}

func TestErrorsAndHints(t *testing.T) {
	var out, errs bytes.Buffer
	u := New(Options{Out: &out, Err: &errs})
	u.Error(&mail.Error{Ref: mail.Ref{Account: "imap:ada@example.org@h", Mailbox: "INBOX", UID: "4711"}, Op: "write INBOX/tmp/x",
		Err: errors.New("no space left on device"), Hint: "free space and run the same command again"})
	u.Error(errors.Join(errors.New("one"), &mail.Error{Err: errors.New("two"), Hint: "second hint"}))
	u.Error(fmt.Errorf("%w and %w", errors.New("three"), errors.New("four")))
	u.Warn(errors.New("careful"))
	want := `mailhaul: error: ada@example.org INBOX UID 4711: write INBOX/tmp/x: no space left on device
mailhaul: hint: free space and run the same command again
mailhaul: error: one
mailhaul: error: two
mailhaul: hint: second hint
mailhaul: error: three and four
mailhaul: warning: careful
`
	if diff := cmp.Diff(want, errs.String()); diff != "" {
		t.Error(diff)
	}
	if out.Len() > 0 {
		t.Errorf("standard output: %q", out.String())
	}
}

func summary() Summary {
	return Summary{Command: "backup", Source: "imap:ada@h", Archive: "Mail",
		Listed: new(int64(62224)), Archived: new(int64(1204)), Adopted: new(int64(0)), Skipped: new(int64(61020)), Failed: new(int64(0)), Suspicious: new(int64(0)),
		Octets: 88_100_000, Seconds: 14.2}
}

func TestSummary(t *testing.T) {
	print := func(o Options, s Summary) string {
		var out, errs bytes.Buffer
		o.Out, o.Err = &out, &errs
		New(o).Summary("home", s)
		return out.String() + errs.String()
	}
	if got, want := print(Options{}, summary()), "home: 1,204 new messages (88.1 MB) archived, 61,020 already there, 0 failed, in 14 s\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := print(Options{Quiet: true}, summary()); got != "" {
		t.Errorf("quiet: %q", got)
	}
	s := summary()
	s.Exit, s.Failed, s.Archived, s.Adopted, s.Suspicious = 3, new(int64(2)), new(int64(1)), new(int64(7)), new(int64(1))
	if got, want := print(Options{Quiet: true}, s), "home: 1 new message (88.1 MB) archived, 1 of them suspicious, 7 recognised, 61,020 already there, 2 failed, in 14 s\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := `{"type":"summary","command":"backup","source":"imap:ada@h","archive":"Mail","listed":62224,"archived":1204,"adopted":0,"skipped":61020,"failed":0,"suspicious":0,"octets":88100000,"seconds":14.2,"exit":0}` + "\n"
	if got := print(Options{JSON: true, Quiet: true}, summary()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestBalance(t *testing.T) {
	s := summary()
	if err := s.Balance(); err != nil {
		t.Error(err)
	}
	s.Failed = new(int64(1))
	if err := s.Balance(); !errors.Is(err, ErrUnbalanced) {
		t.Errorf("one too many: %v", err)
	}
	s = summary()
	s.Suspicious = new(int64(1205))
	if err := s.Balance(); !errors.Is(err, ErrUnbalanced) {
		t.Errorf("more suspicious than archived: %v", err)
	}
	if err := (Summary{}).Balance(); err != nil {
		t.Errorf("a verb without listing: %v", err)
	}
}

func TestRunJSON(t *testing.T) {
	var out, errs bytes.Buffer
	u := New(Options{Out: &out, Err: &errs, JSON: true})
	run := u.Start("home")
	ref := mail.Ref{Account: "imap:ada@h", Mailbox: "INBOX", UIDValidity: 7, UID: "12"}
	run.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Mailbox: "INBOX"}, N: 2, Octets: 50})
	run.Notify(mail.Event{Kind: mail.EventProgress, Ref: ref, N: 1, Octets: 25})
	run.Notify(mail.Event{Kind: mail.EventDone, Ref: mail.Ref{Mailbox: "INBOX"}, N: 1, Octets: 25})
	run.Notify(mail.Event{Kind: mail.EventFailed, Ref: ref, Err: &mail.Error{Ref: ref, Server: "no", Hint: "ask"}})
	run.End()
	u.Mailbox(Mailbox{Mailbox: "INBOX", Listed: 2, Archived: 1, Failed: 1, Octets: 25})
	want := `{"hint":"ask","reason":"ada@h INBOX UID 12: server said: no","ref":{"account":"imap:ada@h","mailbox":"INBOX","uid":"12","uidvalidity":7},"status":"failed","type":"message"}
{"type":"mailbox","mailbox":"INBOX","listed":2,"archived":1,"adopted":0,"skipped":0,"failed":1,"suspicious":0,"octets":25}
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestStatus(t *testing.T) {
	var errs bytes.Buffer
	run := New(Options{Out: &errs, Err: &errs, Quiet: true}).Start("home")
	run.now = func() time.Time { return run.started.Add(14 * time.Second) }
	run.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Mailbox: "INBOX"}, N: 2000, Octets: 5000})
	run.Notify(mail.Event{Kind: mail.EventProgress, Ref: mail.Ref{Mailbox: "INBOX"}, N: 1000, Octets: 2500})
	run.Notify(mail.Event{Kind: mail.EventWaiting, Waiting: "server asks for 30 s"})
	run.Status()
	run.End()
	want := "home: 1,000 of 2,000 messages, 2.5 kB of 5.0 kB, 0 durable, 0 failed, after 14 s, in INBOX, waiting: server asks for 30 s\n"
	if got := errs.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The live line fits every terminal, is cleared before any other line, and a
// pipe gets none.
func TestLiveLine(t *testing.T) {
	at := time.Now()
	for columns := range 200 {
		var out bytes.Buffer
		l := newLine("home")
		b := board{w: &out, lines: []*line{l}}
		s := state{label: "home", mailbox: "Archive/\u202e日本語" + strings.Repeat("x", columns%90), planned: 61020, plannedOctets: 88e9, failed: 3}
		for i := range 3 {
			s.messages, s.octets, s.at = int64(i)*20000, int64(i)*30e9, at.Add(time.Duration(i)*time.Second)
			l.update(s)
			b.draw(l, columns, 24)
		}
		width := columns
		if columns == 0 {
			width = 80
		}
		for part := range strings.SplitSeq(out.String(), "\r") {
			text := strings.NewReplacer("\x1b[0K", "", "\x1b[2K", "").Replace(part)
			if n := columnsOf(text); n > width {
				t.Fatalf("%d columns of %d: %q", n, columns, text)
			}
			safeLine(t, []byte(text))
		}
		if columns >= narrowest && !strings.Contains(out.String(), "/61,0") && columns > 40 {
			t.Errorf("%d columns: no count in %q", columns, out.String())
		}
		if columns > 0 && columns < narrowest && out.Len() > 0 {
			t.Errorf("%d columns: %q", columns, out.String())
		}
	}
}

func TestLiveLineText(t *testing.T) {
	at := time.Now()
	l := newLine("home")
	s := state{label: "home", mailbox: "INBOX", messages: 1204, planned: 61020, octets: 10_000_000, plannedOctets: 88_100_000, at: at}
	l.sample(state{at: at.Add(-2 * time.Second)})
	l.sample(s)
	if got, want := l.text(s, 100), "INBOX 1,204/61,020, 10.0 MB/88.1 MB, 5.0 MB/s, 16 s left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := l.text(s, 40), "INBOX 1,204/61,020, 10.0 MB/88.1 MB"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.waiting = "server asks for 30 s"
	if got, want := l.text(s, 100), "home: waiting: server asks for 30 s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := l.text(state{label: "home"}, 100), "home: asking the server what is there"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNoLiveLineInAPipe(t *testing.T) {
	for _, o := range []Options{{}, {Terminal: true, Quiet: true}, {Terminal: true, JSON: true}} {
		var out, errs bytes.Buffer
		o.Out, o.Err = &out, &errs
		u := New(o)
		run := u.Start("home")
		run.Notify(mail.Event{Kind: mail.EventProgress, N: 1, Octets: 1})
		if len(u.board.lines) > 0 {
			t.Errorf("%+v has a live line", o)
		}
		run.End()
		if errs.Len() > 0 {
			t.Errorf("%+v: %q", o, errs.String())
		}
	}
}

// On a terminal no line of an error is broken within a word, and nothing is lost; into
// a file it stays one line.
func TestWrap(t *testing.T) {
	const hint = "312 messages of this run are safe, nothing was deleted; free space and run 日本語日本語 again with --tls-fingerprint 0123456789012345678901234567890123456789012345678901234567890123"
	err := &mail.Error{Err: errors.New("write INBOX/tmp/1: no space left on device"), Hint: hint}
	const whole = "mailhaul: error: write INBOX/tmp/1: no space left on device\nmailhaul: hint: " + hint + "\n"
	for columns := range 120 {
		var out bytes.Buffer
		New(Options{Out: &out, Err: &out, Terminal: true, Width: func() int { return columns }}).Error(err)
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSuffix(line, "\n"); columns >= narrowest && columnsOf(line) > columns && strings.Contains(strings.TrimPrefix(line, "  "), " ") {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
		if got := strings.ReplaceAll(out.String(), "\n  ", " "); got != whole {
			t.Errorf("%d columns: %q", columns, got)
		}
	}
	var out bytes.Buffer
	New(Options{Out: &out, Err: &out, Width: func() int { return 40 }}).Error(err)
	if out.String() != whole {
		t.Errorf("no terminal: %q", out.String())
	}
}

// Results keep within a terminal: sentences are broken between words, fields go on
// below their text, and a plan is a table only where there is room for one.
func TestNarrowResults(t *testing.T) {
	day := time.Date(2024, 2, 29, 12, 0, 0, 0, time.Local)
	plan := []Planned{
		{Mailbox: "INBOX", Messages: 1072, Go: 1032, GoOctets: 467_400, Stay: 40, StayOctets: 535_600, Why: map[string]int64{"flagged": 13}, Oldest: day, Newest: day},
		{Mailbox: "旅行/京都", Messages: 5, Stay: 5, StayOctets: 300},
		{Mailbox: "Empty"},
	}
	for columns := range 130 {
		var out bytes.Buffer
		u := New(Options{Out: &out, Err: &out, OutWidth: func() int { return columns }})
		u.Result("IMAP is used: it sees all mailboxes, and what was read or flagged.")
		u.Field(8, "good", "5 connections at a time work; more were not tried")
		u.Plan("ada: to be deleted:", plan)
		text := out.String()
		for line := range strings.Lines(text) {
			if columns >= 45 && columnsOf(strings.TrimSuffix(line, "\n")) > columns {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
		for _, want := range []string{"INBOX", "2024-02-29", "467.4 kB", "13 flagged", "旅行/京都", "together"} {
			if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
				t.Errorf("%d columns: no %s in\n%s", columns, want, text)
			}
		}
		if strings.Contains(text, "Empty") || columns > 110 && !strings.Contains(text, "\n  INBOX      1,032 messages  467.4 kB  2024-02-29  2024-02-29  40 messages  535.6 kB; 13 flagged\n") {
			t.Errorf("%d columns:\n%s", columns, text)
		}
		if columns == 50 && !strings.Contains(text, "good     5 connections at a time work; more were\n         not tried\n") {
			t.Error(text)
		}
	}
}

// What is fetched before its sizes are known is not said to be nearly done.
func TestUnsized(t *testing.T) {
	var out bytes.Buffer
	u := New(Options{Out: &out, Err: &out})
	r := u.Start("home")
	defer r.End()
	r.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Mailbox: "INBOX"}, N: 400})
	r.Notify(mail.Event{Kind: mail.EventProgress, Octets: 100_000})
	if s := r.state(); s.plannedOctets != 40_000_000 {
		t.Errorf("before the first message: %+v", s)
	}
	r.Notify(mail.Event{Kind: mail.EventProgress, N: 40, Octets: 900_000})
	r.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Mailbox: "Sent"}, N: 1, Octets: 500_000})
	s := r.state()
	l := newLine("home")
	at := time.Now()
	l.update(state{at: at})
	s.at = at.Add(time.Second)
	l.update(s)
	if got := l.render(100, false); s.plannedOctets != 10_500_000 || !strings.Contains(got, "40/401, 1.0 MB, 1.0 MB/s, 10 s left") || !strings.Contains(got, "  9% [") {
		t.Errorf("%+v\n%s", s, got)
	}
	if got := r.Standing(); !strings.Contains(got, "40 of 401 messages, 1.0 MB of about 10.5 MB,") {
		t.Error(got)
	}
	if got := r.progress()["planned_octets"]; got != int64(500_000) {
		t.Errorf("planned_octets %v", got)
	}
}

// A terminal without UTF-8 gets no dots of UTF-8; a pipe gets what it always got.
func TestPlainDots(t *testing.T) {
	for columns, want := range map[int]string{0: "Looking for a …\nnoreply@s…\n", 80: "Looking for a ...\nnoreply@s~\n"} {
		var out, errs bytes.Buffer
		u := New(Options{Out: &out, Err: &errs, Plain: true, Terminal: columns > 0, OutWidth: func() int { return columns }})
		u.Result("Looking for a …")
		u.Result("%s", Pad("noreply@shop.example", 10))
		u.Note("Looking for a …")
		u.Note("%s", Pad("noreply@shop.example", 10))
		if out.String() != want || errs.String() != want {
			t.Errorf("%d columns: %q, %q", columns, out.String(), errs.String())
		}
	}
}
