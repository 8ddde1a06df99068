package ui

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds what a server may put on one line, in runes.
const maxText = 1000

// Escape makes text that came from a server, a message or a file name safe for a
// terminal, a log and one line: control characters (C0, C1, DEL), line ends,
// invisible and bidirectional format characters and octets that are no UTF-8 are
// written as \n, \t, \x1b, \u202e and the like. Backslashes stay as they are.
// Text of more than 1000 runes is cut.
func Escape(s string) string {
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	n := 0
	for i := 0; i < len(s); n++ {
		if n == maxText {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case isSafe(r):
			b.WriteRune(r)
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	return b.String()
}

// isSafe leaves letters, marks, numbers, punctuation, symbols and spaces. Format
// characters (Cf: bidi controls, zero width, tags), line and paragraph
// separators, surrogates, private use and unassigned runes are not graphic.
func isSafe(r rune) bool { return unicode.IsGraphic(r) }

func isPlain(s string) bool {
	if len(s) > maxText {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
