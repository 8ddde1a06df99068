package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/BurntSushi/toml"

	"mailhaul/internal/place"
	"mailhaul/mail"
)

// reader reads a file section by section and collects what is wrong with it, so
// that a person is told all of it at once.
type reader struct {
	name  string // of the file, for errors
	md    toml.MetaData
	check Check
	wrong []error
	lines []int // of wrong
}

// section is one table of the file. Every key it may have is asked for by name,
// which is how the known ones become known.
type section struct {
	r     *reader
	title string // "[account.home]"; "" for the top
	keys  map[string]toml.Primitive
	known []string
	// belongs says of a key that is unknown here where it is known.
	belongs func(key string) string
}

// fail notes an error of a line; 0 where there is none to name.
func (r *reader) fail(line int, hint, format string, args ...any) {
	op := r.name
	if line > 0 {
		op = fmt.Sprintf("%s line %d", r.name, line)
	}
	r.wrong = append(r.wrong, &mail.Error{Kind: mail.KindConfig, Op: op, Err: fmt.Errorf(format, args...), Hint: hint})
	r.lines = append(r.lines, line)
}

// err returns everything that is wrong, in the order of the file.
func (r *reader) err() error {
	order := make([]int, len(r.wrong))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return r.lines[a] - r.lines[b] })
	sorted := make([]error, len(order))
	for i, o := range order {
		sorted[i] = r.wrong[o]
	}
	return errors.Join(sorted...)
}

// nowhere fails wherever it is decoded; the library adds the line.
type nowhere struct{}

var errNowhere = errors.New("here")

func (nowhere) UnmarshalTOML(any) error { return errNowhere }

// line returns where a key stands; 0 if that is not known. A table that is there
// only because one below it is, as account of [account.home], stands where that one
// does.
func (r *reader) line(p toml.Primitive) int {
	var pe toml.ParseError
	if errors.As(r.md.PrimitiveDecode(p, &nowhere{}), &pe) && pe.Position.Line > 0 {
		return pe.Position.Line
	}
	var below map[string]toml.Primitive
	if r.md.PrimitiveDecode(p, &below) != nil {
		return 0
	}
	first := 0
	for _, sub := range below {
		if line := r.line(sub); line > 0 && (first == 0 || line < first) {
			first = line
		}
	}
	return first
}

// take returns a key of the section if it is there.
func (s *section) take(key string) (p toml.Primitive, line int, ok bool) {
	s.known = append(s.known, key)
	p, ok = s.keys[key]
	if ok {
		line = s.r.line(p)
	}
	return p, line, ok
}

// value decodes a key into the types of the library.
func (s *section) value(key string) (v any, line int, ok bool) {
	p, line, ok := s.take(key)
	if !ok {
		return nil, 0, false
	}
	if err := s.r.md.PrimitiveDecode(p, &v); err != nil {
		s.r.fail(line, "", "%s cannot be read: %w", key, err)
		return nil, line, false
	}
	return v, line, true
}

// text reads a string that is not empty.
func (s *section) text(key string) (string, int) {
	v, line, ok := s.value(key)
	if !ok {
		return "", 0
	}
	t, isText := v.(string)
	if !isText || t == "" {
		s.r.fail(line, fmt.Sprintf("write %s = \"…\"", key), "%s wants a text in quotes", key)
		return "", line
	}
	return t, line
}

func (s *section) bool(key string) (bool, int) {
	v, line, ok := s.value(key)
	if !ok {
		return false, 0
	}
	b, isBool := v.(bool)
	if !isBool {
		s.r.fail(line, fmt.Sprintf("write %s = true or %s = false", key, key), "%s wants true or false", key)
	}
	return b, line
}

func (s *section) number(key string, least, most int64) (int64, int) {
	v, line, ok := s.value(key)
	if !ok {
		return 0, 0
	}
	n, isInt := v.(int64)
	if !isInt || n < least || n > most {
		s.r.fail(line, fmt.Sprintf("write for example %s = %d", key, max(least, min(4, most))), "%s wants a number from %d to %d", key, least, most)
		return 0, line
	}
	return n, line
}

// texts reads one string or a list of them.
func (s *section) texts(key string) ([]string, int) {
	v, line, ok := s.value(key)
	if !ok {
		return nil, 0
	}
	words, ok := plain(v)
	if !ok || slices.Contains(words, "") {
		s.r.fail(line, fmt.Sprintf("write %s = \"…\" or %s = [\"…\", \"…\"]", key, key), "%s wants a text, or a list of texts", key)
		return nil, line
	}
	return words, line
}

// table opens a table below this one.
func (s *section) table(key string) (*section, int, bool) {
	p, line, ok := s.take(key)
	if !ok {
		return nil, 0, false
	}
	title := key
	if s.title != "" {
		title = s.title[1:len(s.title)-1] + "." + key
	}
	sub := &section{r: s.r, title: "[" + title + "]"}
	var v any
	err := s.r.md.PrimitiveDecode(p, &v)
	if _, isTable := v.(map[string]any); !isTable || err != nil || s.r.md.PrimitiveDecode(p, &sub.keys) != nil {
		s.r.fail(line, "write "+sub.title+" in a line of its own, and its keys below", "%s wants keys of its own", key)
		return nil, line, false
	}
	return sub, line, true
}

// end complains of keys that nobody asked for.
func (s *section) end() {
	for key, p := range s.keys {
		if slices.Contains(s.known, key) {
			continue
		}
		where, hint := "in "+s.title, ""
		if s.title == "" {
			where = "at the top of the file"
		}
		if near := place.Nearest(key, s.known); near != "" {
			hint = "did you mean " + near + "?"
		} else if s.belongs != nil {
			hint = s.belongs(key)
		}
		if hint == "" {
			slices.Sort(s.known)
			hint = "known here are " + join(s.known)
		}
		s.r.fail(s.r.line(p), hint, "unknown key %q %s", key, where)
	}
}

func join(words []string) string {
	text := ""
	for i, w := range words {
		if i > 0 {
			text += ", "
		}
		text += w
	}
	return text
}

// Setting is one flag of a verb as the file sets it.
type Setting struct {
	Flag  string // without dashes
	Value string // as it would be typed
	Line  int
}

// settings reads keys that are flags of a verb, by the same names; the flags
// check their values.
func (s *section) settings(verb string, keys []string) []Setting {
	var all []Setting
	for _, key := range keys {
		v, line, ok := s.value(key)
		if !ok {
			continue
		}
		flag := key
		words, ok := plain(v)
		if b, isBool := v.(bool); isBool {
			words, ok = []string{strconv.FormatBool(b)}, true
			if (key == "flagged" || key == "seen") && !b { // false asks for the opposite
				flag, words = "no-"+key, []string{"true"}
			}
		}
		if n, isInt := v.(int64); isInt {
			words, ok = []string{strconv.FormatInt(n, 10)}, true
		}
		if t, isTime := v.(time.Time); isTime {
			words, ok = []string{written(t)}, true
		}
		if !ok {
			s.r.fail(line, "write it as --"+key+" is typed, in quotes", "%s cannot be read", key)
			continue
		}
		for _, w := range words {
			if err := s.r.check(verb, flag, w); err != nil {
				s.r.fail(line, mail.HintOf(err), "%s = %q: %w", key, w, err)
				continue
			}
			all = append(all, Setting{Flag: flag, Value: w, Line: line})
		}
	}
	return all
}

// plain returns a string or a list of strings as a list.
func plain(v any) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return []string{v}, true
	case []any:
		words := make([]string, len(v))
		for i, e := range v {
			w, ok := e.(string)
			if !ok {
				return nil, false
			}
			words[i] = w
		}
		return words, true
	}
	return nil, false
}

// written is a date of TOML as a flag takes it: a day without a zone begins at
// local midnight.
func written(t time.Time) string {
	if t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0 && t.Location().String() == "date-local" {
		return t.Format(time.DateOnly)
	}
	return t.Format(time.RFC3339)
}
