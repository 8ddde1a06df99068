// Package ui is the only place that prints.
//
// The terminal's rules: results go to standard output, everything else to
// standard error. A live line is drawn on standard error only if that is a
// terminal and neither quiet nor JSON was asked for; it is cleared before any
// other line and when a run ends. With JSON, standard output holds one object
// per line and nothing else. Every line is escaped as a whole (see Escape), so
// nothing a server, a message or a file name holds can move the cursor, colour
// the screen or begin a line of its own. No colour is ever used.
package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"mailhaul/mail"
)

// Options say where and how to print.
type Options struct {
	Out, Err io.Writer
	Terminal bool       // Err is a terminal that can draw a live line
	Width    func() int // columns of that terminal, 0 if unknown; nil for 80
	Height   func() int // its rows, 0 if unknown; nil for 24
	OutWidth func() int // columns of Out; 0, or nil, where it is no terminal
	Quiet    bool       // nothing but results and what went wrong
	Verbose  bool       // more than needed
	JSON     bool       // results as JSON lines
	Program  string     // stands before errors; "" for mailhaul
	Plain    bool       // the terminal shows no dots of its own: what is cut ends in ~
	Journal  bool       // Err leads to the journal of systemd, which knows priorities
}

// UI prints. Its methods may be called from several goroutines at once.
type UI struct {
	opt     Options
	account string // the one it speaks for, where there are several; else ""
	told    *told
	*screen
}

// told keeps what was said about a run, quiet or not, for a report.
type told struct {
	mu    sync.Mutex
	lines []string
	more  int
}

const mostTold = 100 // lines kept of a run

func (t *told) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == mostTold {
		t.more++
		return
	}
	t.lines = append(t.lines, line)
}

// Told returns the errors and warnings told so far, with their hints, and the
// closing line, as they were printed or would have been; at most 100 lines.
func (u *UI) Told() []string {
	u.told.mu.Lock()
	defer u.told.mu.Unlock()
	lines := slices.Clone(u.told.lines)
	if u.told.more > 0 {
		lines = append(lines, fmt.Sprintf("… and %s", Plural(int64(u.told.more), "more line")))
	}
	return lines
}

// Priorities of syslog(3), as sd-daemon(3) writes them in front of a line.
const (
	priorityError   = 3
	priorityWarning = 4
	priorityNotice  = 5
	priorityInfo    = 6
	priorityDebug   = 7
)

// screen is what all that print have in common.
type screen struct {
	mu    sync.Mutex
	board board
	err   error // the first error of writing a result
	ended bool  // a summary was printed
}

// New makes a UI. It prints nothing yet.
func New(o Options) *UI {
	if o.Program == "" {
		o.Program = "mailhaul"
	}
	if o.Width == nil {
		o.Width = func() int { return 0 }
	}
	if o.Height == nil {
		o.Height = func() int { return 0 }
	}
	return &UI{opt: o, told: &told{}, screen: &screen{board: board{w: o.Err}}}
}

// For returns a UI that prints at the same place and speaks for one of several
// accounts: its name stands in front of what a person reads and in every object.
func (u *UI) For(account string) *UI {
	return &UI{opt: u.opt, account: account, told: &told{}, screen: u.screen}
}

// named puts the account in front of a text that does not begin with it.
func (u *UI) named(text string) string {
	if u.account == "" || strings.HasPrefix(text, u.account+":") {
		return text
	}
	return u.account + ": " + text
}

// last is the type of the object that ends a run: with several accounts each has
// one of its own.
func (u *UI) last() string {
	if u.account != "" {
		return "account"
	}
	return "summary"
}

// Terminal tells whether a person sees what is printed.
func (u *UI) Terminal() bool { return u.opt.Terminal }

// Columns is how wide the terminal is that results go to; 0 for anything else.
func (u *UI) Columns() int {
	if u.opt.OutWidth == nil {
		return 0
	}
	return u.opt.OutWidth()
}

// Result prints one line of results, unless JSON was asked for. A terminal that is
// too narrow for it gets it broken between words.
func (u *UI) Result(format string, args ...any) { u.result(2, fmt.Sprintf(format, args...)) }

// Field prints a line of results that begins with a name, in a column so wide; what
// has no room in the line goes on below the text.
func (u *UI) Field(width int, name, format string, args ...any) {
	u.result(width+1, Pad(name, width)+" "+fmt.Sprintf(format, args...))
}

func (u *UI) result(indent int, line string) {
	if u.opt.JSON {
		return
	}
	text := Escape(line)
	columns := u.Columns()
	if columns > 0 {
		text = u.dots(text)
	}
	u.out([]byte(wrap(text, columns, indent) + "\n"))
}

// Done prints one line of what a verb did, unless quiet: Result is for verbs that are
// run for what they print.
func (u *UI) Done(format string, args ...any) {
	if !u.opt.Quiet {
		u.Result(format, args...)
	}
}

// Object prints one JSON object, if JSON was asked for.
func (u *UI) Object(v any) {
	if !u.opt.JSON {
		return
	}
	b, err := marshal(v)
	if err != nil {
		u.fail(err)
		return
	}
	if u.account != "" && len(b) > 2 {
		name, err := marshal(u.account)
		if err != nil {
			u.fail(err)
			return
		}
		b = slices.Concat([]byte(`{"account":`), name, []byte(","), b[1:])
	}
	u.out(append(b, '\n'))
	if bytes.Contains(b, []byte(`"type":"summary"`)) { // never inside a string, where quotes are escaped
		u.mu.Lock()
		defer u.mu.Unlock()
		u.ended = true
	}
}

// End prints a short summary of a verb that has printed none of its own: with JSON
// the last object always is one.
func (u *UI) End(command string, took time.Duration, exit int) {
	u.mu.Lock()
	ended := u.ended
	u.mu.Unlock()
	if ended {
		return
	}
	u.Object(struct {
		Type    string  `json:"type"`
		Command string  `json:"command"`
		Seconds float64 `json:"seconds"`
		Exit    int     `json:"exit"`
	}{"summary", command, took.Seconds(), exit})
}

// Raw writes octets to standard output as they are: for message octets that
// were asked for.
func (u *UI) Raw(r io.Reader) error {
	u.mu.Lock()
	u.clear()
	u.mu.Unlock()
	_, err := io.Copy(u.opt.Out, r)
	return err
}

// Note prints one line for a person to standard error, unless quiet.
func (u *UI) Note(format string, args ...any) {
	if !u.opt.Quiet {
		u.say(priorityInfo, "", u.named(fmt.Sprintf(format, args...)))
	}
}

// Detail prints one line if verbose was asked for.
func (u *UI) Detail(format string, args ...any) {
	if u.opt.Verbose {
		u.say(priorityDebug, "", u.named(fmt.Sprintf(format, args...)))
	}
}

// Warn prints a warning and its hint.
func (u *UI) Warn(err error) { u.tell(priorityWarning, "warning: ", err) }

// Error prints an error and its hint; of joined errors each with its own.
func (u *UI) Error(err error) {
	for _, e := range split(err) {
		u.tell(priorityError, "error: ", e)
	}
}

func (u *UI) tell(priority int, word string, err error) {
	text := u.named(err.Error())
	u.say(priority, u.opt.Program+": "+word, text)
	u.told.add(word + Escape(text))
	if hint := mail.HintOf(err); hint != "" {
		u.say(min(priority+1, priorityNotice), u.opt.Program+": hint: ", hint)
		u.told.add("hint: " + Escape(hint))
	}
}

// split takes apart what errors.Join put together.
func split(err error) []error {
	many, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	var texts []string
	for _, e := range many.Unwrap() {
		all = append(all, split(e)...)
		texts = append(texts, e.Error())
	}
	if err.Error() != strings.Join(texts, "\n") {
		return []error{err} // several %w in one sentence
	}
	return all
}

func (u *UI) say(priority int, prefix, text string) {
	if u.opt.Journal {
		prefix = fmt.Sprintf("<%d>%s", priority, prefix)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	line := prefix + Escape(text)
	if u.opt.Terminal {
		line = wrap(u.dots(line), u.opt.Width(), 2)
	}
	_, _ = io.WriteString(u.opt.Err, line+"\n") // nowhere left to complain
}

// dots writes … so that a terminal without UTF-8 shows it: ~ where a word was cut,
// which takes no more room, else three dots.
func (u *UI) dots(text string) string {
	if !u.opt.Plain {
		return text
	}
	return strings.ReplaceAll(strings.ReplaceAll(text, " …", " ..."), "…", "~")
}

func (u *UI) out(b []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	if _, err := u.opt.Out.Write(b); err != nil && u.err == nil {
		u.err = err
	}
}

func (u *UI) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = err
	}
}

// clear takes the live lines away; the caller holds u.mu.
func (u *UI) clear() { u.board.clear() }

// Err returns the first error met when writing results, such as a full disk
// behind a redirection.
func (u *UI) Err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// Prompt writes a question to standard error without ending the line.
func (u *UI) Prompt(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	_, _ = io.WriteString(u.opt.Err, Escape(text))
}

// Break ends the line that Prompt began.
func (u *UI) Break() {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, _ = io.WriteString(u.opt.Err, "\n")
}

// Logger returns a logger that writes lines to standard error beside the live
// line. Values with control characters are quoted by slog and escaped here.
func (u *UI) Logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{u}, &slog.HandlerOptions{Level: level}))
}

type logWriter struct{ u *UI }

func (w logWriter) Write(b []byte) (int, error) {
	for text := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n"), "\n") {
		w.u.say(priorityOf(text), "", text)
	}
	return len(b), nil
}

// priorityOf reads the level that slog's text handler writes.
func priorityOf(line string) int {
	_, rest, _ := strings.Cut(line, "level=")
	switch level, _, _ := strings.Cut(rest, " "); level {
	case "ERROR":
		return priorityError
	case "WARN":
		return priorityWarning
	case "DEBUG":
		return priorityDebug
	}
	return priorityInfo
}

// Marshal writes one line of JSON in which every unsafe rune is escaped.
func Marshal(v any) ([]byte, error) { return marshal(v) }

// marshal writes one line of JSON in which every unsafe rune is escaped, DEL, C1
// and bidirectional controls too, which encoding/json leaves as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
	if isPlain(string(raw)) {
		return raw, nil
	}
	out := make([]byte, 0, len(raw)+16)
	for len(raw) > 0 {
		r, size := utf8.DecodeRune(raw)
		switch {
		case isSafe(r):
			out = append(out, raw[:size]...)
		case r >= 0x10000:
			r -= 0x10000
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		raw = raw[size:]
	}
	return out, nil
}

// ErrUnbalanced says that the counters of a run do not add up.
var ErrUnbalanced = errors.New("the counters of this run do not add up")
