package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"mailhaul/internal/durable"
)

// How a mailbox name becomes a path
//
// A mailbox name is UTF-8 (or any octets) with "/" between levels. Each level
// becomes one path component, by a rule that looks at that level alone. The rule
// is reversible, and two different names never give paths that a file system may
// take for one, be it case-insensitive, normalising (NFC, NFD) or Windows.
//
//  1. Most characters stand for themselves: printable ASCII, and the letters and
//     signs of the ranges in rawRanges. Every other octet is written %XX with two
//     hexadecimal digits in upper case. Written so are
//     - % \ : * ? " < > | ~ and control characters, octets that are no UTF-8;
//     - characters outside rawRanges, invisible ones and marks among them;
//     - characters whose upper and lower case are no simple pair (ß, ς, ı, İ);
//     - all that is not ASCII in a level that is not in normal form NFC;
//     - a leading dot, a leading or trailing space, a trailing dot;
//     - the dot of a trailing .mbox or .lock, in any case;
//     - the first letter of what has a meaning of its own, in any case: cur, new,
//     tmp, subscriptions, maildirfolder, maildirsize, what begins with dovecot
//     or courierimap, and DOS device names (CON, COM1, ...), also with an
//     extension behind them.
//  2. An empty level is "%_".
//  3. Of all names that differ in case only, the one where every word is
//     Capitalised stands as it is (INBOX alone is preferred in upper case).
//     The others get a suffix that says what they are: "%l" all lower case, "%u"
//     all UPPER CASE, "%s" only the first letter of the level in upper case (as in
//     a sentence), else "%c" and a bit for each letter that has case, 1 for upper
//     case, four to a digit, in lower-case hexadecimal without trailing zeros. A
//     word begins at a letter that follows neither letter, digit, mark, an
//     apostrophe inside a word, nor a character that is neither ASCII nor in
//     rawRanges. Letters written as %XX do not count.
//  4. If a component would exceed 240 octets, the path 900 octets, or the depth 64
//     levels, the whole path is the one component "%h" and the first 40
//     hexadecimal digits of the SHA-256 of the name. The name then stands, as it
//     is, in a file beside it, see NameFile.
//
// So INBOX, Sent, Archive/2023, Deleted Items, Entwürfe and [Gmail]/All Mail stay
// as they are; work becomes work%l, TODO becomes TODO%u, eBay becomes eBay%c4,
// Éléments envoyés becomes Éléments envoyés%s, a:b becomes a%3Ab%l.

const (
	maxComponent = 240 // leaves room for ".mbox.lock" in 255
	maxPath      = 900
	maxLevels    = 64
	emptyLevel   = "%_"
	longPrefix   = "%h"
	longDigits   = 40
	// maxNameFile bounds what is read as a mailbox name.
	maxNameFile = 1 << 20
)

// ErrLongName says that the path holds only a digest of the mailbox name, which
// stands in the name file.
var ErrLongName = errors.New("path of a long mailbox name")

// ErrNotOurs says that no mailbox name gives this path.
var ErrNotOurs = errors.New("not the path of a mailbox")

// Path returns the slash-separated path of a mailbox below the root of an
// archive, without any suffix of the format. long says that the name cannot be
// got back from the path: KeepName must be called before the mailbox is used.
func Path(mailbox string) (name string, long bool) {
	levels := strings.Split(mailbox, "/")
	size := len(levels) - 1
	long = len(levels) > maxLevels
	for i := 0; i < len(levels) && !long; i++ {
		levels[i] = escapeLevel(levels[i])
		size += len(levels[i])
		long = len(levels[i]) > maxComponent || size > maxPath
	}
	if long {
		sum := sha256.Sum256([]byte(mailbox))
		return longPrefix + hex.EncodeToString(sum[:])[:longDigits], true
	}
	return strings.Join(levels, "/"), false
}

// Mailbox is the reverse of Path. It returns ErrLongName for a path that is only
// a digest, and ErrNotOurs for one that Path never gives.
//
// A name that the file system gives back decomposed (HFS+) is understood.
func Mailbox(name string) (string, error) {
	name = norm.NFC.String(name)
	if isLong(name) {
		return "", ErrLongName
	}
	levels := strings.Split(name, "/")
	for i, c := range levels {
		level, ok := unescapeLevel(c)
		if !ok {
			return "", fmt.Errorf("%w: %q", ErrNotOurs, name)
		}
		levels[i] = level
	}
	mailbox := strings.Join(levels, "/")
	if again, long := Path(mailbox); long || again != name {
		return "", fmt.Errorf("%w: %q", ErrNotOurs, name)
	}
	return mailbox, nil
}

// NameFile returns where the name of a mailbox with a long name is kept: a file
// beside the mailbox whose name begins with a dot, which no mailbox has.
func NameFile(name string) string {
	return path.Join(path.Dir(name), "."+path.Base(name)+".name")
}

// KeepName makes the name of a mailbox durable in its name file if Path cannot be
// reversed for it; for others it does nothing.
func KeepName(fsys durable.FS, mailbox string) error {
	name, long := Path(mailbox)
	if !long {
		return nil
	}
	if kept, err := durable.ReadFile(fsys, NameFile(name), maxNameFile); err == nil && string(kept) == mailbox {
		return fsys.SyncDir(path.Dir(name))
	}
	return durable.WriteFileAtomic(fsys, NameFile(name), []byte(mailbox))
}

// FindMailbox is Mailbox, and reads the name file of a long name.
func FindMailbox(fsys durable.FS, name string) (string, error) {
	mailbox, err := Mailbox(name)
	if !errors.Is(err, ErrLongName) {
		return mailbox, err
	}
	kept, err := durable.ReadFile(fsys, NameFile(name), maxNameFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%w: %q has no name file", ErrNotOurs, name)
	}
	if err != nil {
		return "", err
	}
	if again, _ := Path(string(kept)); again != name {
		return "", fmt.Errorf("%w: %q does not fit its name file", ErrNotOurs, name)
	}
	return string(kept), nil
}

func isLong(name string) bool {
	if len(name) != len(longPrefix)+longDigits || !strings.HasPrefix(name, longPrefix) {
		return false
	}
	return strings.Trim(name[len(longPrefix):], "0123456789abcdef") == ""
}

// escapeLevel applies rules 1 to 3 to one level.
func escapeLevel(s string) string {
	if s == "" {
		return emptyLevel
	}
	asciiOnly := !norm.NFC.IsNormalString(s)
	var out strings.Builder
	var cs caseScan
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		raw := isRaw(r) && (r < utf8.RuneSelf || !asciiOnly) && !escapedAt(s, i)
		if raw {
			out.WriteString(s[i : i+n])
		} else {
			for _, b := range []byte(s[i : i+n]) {
				fmt.Fprintf(&out, "%%%02X", b)
			}
		}
		cs.next(r, raw)
		i += n
	}
	return out.String() + cs.suffix(strings.EqualFold(s, "INBOX"))
}

// unescapeLevel undoes escapeLevel; it is not strict, Mailbox compares.
func unescapeLevel(c string) (string, bool) {
	if c == emptyLevel {
		return "", true
	}
	if c == "" {
		return "", false
	}
	var out []byte
	for i := 0; i < len(c); i++ {
		if c[i] != '%' {
			out = append(out, c[i])
			continue
		}
		if b, err := hex.DecodeString(c[i+1 : min(i+3, len(c))]); err == nil && len(b) == 1 && c[i+1] != 'c' {
			out = append(out, b[0])
			i += 2
			continue
		}
		if i+1 < len(c) && strings.IndexByte("lusc", c[i+1]) >= 0 {
			return string(out), true // the suffix; it is checked by escaping again
		}
		return "", false
	}
	return string(out), true
}

// escapedAt tells whether the character at i is written as %XX because of where
// it stands (rule 1).
func escapedAt(s string, i int) bool {
	last := i == len(s)-1
	switch s[i] {
	case '.':
		return i == 0 || last || strings.EqualFold(s[i:], ".mbox") || strings.EqualFold(s[i:], ".lock")
	case ' ':
		return i == 0 || last
	}
	return i == 0 && isReserved(strings.ToLower(s))
}

// isReserved takes a level in lower case.
func isReserved(s string) bool {
	switch s {
	case "cur", "new", "tmp", "subscriptions", "maildirfolder", "maildirsize":
		return true
	}
	return strings.HasPrefix(s, "dovecot") || strings.HasPrefix(s, "courierimap") || isDevice(s)
}

// isDevice tells whether Windows may take the name for a device: the part before
// the first dot or colon, less trailing spaces, counts.
func isDevice(s string) bool {
	if i := strings.IndexAny(s, ".:"); i >= 0 {
		s = s[:i]
	}
	s = strings.TrimRight(s, " ")
	switch s {
	case "con", "prn", "aux", "nul", "clock$", "conin$", "conout$":
		return true
	}
	if !strings.HasPrefix(s, "com") && !strings.HasPrefix(s, "lpt") {
		return false
	}
	switch s[3:] {
	case "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "¹", "²", "³":
		return true
	}
	return false
}

// rawRanges are the characters beyond ASCII that may stand for themselves, as far
// as isRaw finds them assigned, visible and of simple case. They must never
// change: a mailbox would get another path. All were assigned before 2010.
var rawRanges = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x00a1, 0x00ac, 1}, {0x00ae, 0x024f, 1}, // Latin
		{0x0386, 0x03ff, 1}, {0x0400, 0x0482, 1}, {0x048a, 0x0523, 1}, // Greek, Cyrillic
		{0x0531, 0x0556, 1}, {0x0561, 0x0586, 1}, // Armenian
		{0x05d0, 0x05ea, 1}, {0x0621, 0x063a, 1}, {0x0641, 0x064a, 1}, {0x0660, 0x0669, 1}, {0x0671, 0x06d3, 1}, // Hebrew, Arabic
		{0x0901, 0x0d7f, 1}, {0x0e01, 0x0edd, 1}, {0x10d0, 0x10fa, 1}, // Indic, Thai, Lao, Georgian
		{0x1e00, 0x1eff, 1},                      // Latin, Vietnamese
		{0x2010, 0x2027, 1}, {0x20ac, 0x20ac, 1}, // dashes, quotation marks, bullets, the euro
		{0x2190, 0x21ff, 1}, {0x2600, 0x269c, 1}, {0x2701, 0x2704, 1}, {0x2706, 0x2709, 1}, // arrows, signs
		{0x3001, 0x3029, 1}, {0x3041, 0x3096, 1}, {0x309b, 0x30ff, 1}, {0x3105, 0x312c, 1}, // Kana, Bopomofo
		{0x3400, 0x4db5, 1}, {0x4e00, 0x9fa5, 1}, {0xac00, 0xd7a3, 1}, // Han, Hangul
		{0xff01, 0xff5e, 1}, // full width
	},
	R32:         []unicode.Range32{{0x20000, 0x2a6d6, 1}},
	LatinOffset: 2,
}

var fullFold = cases.Fold()

// isRaw tells whether a character may stand for itself.
func isRaw(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r != 0x7f && !strings.ContainsRune(`%/\:*?"<>|~`, r)
	}
	if !unicode.Is(rawRanges, r) || !unicode.IsPrint(r) ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
		return false
	}
	upper, lower := casePair(r)
	return (r == upper || r == lower) && utf8.RuneCountInString(fullFold.String(string(r))) == 1
}

func casePair(r rune) (upper, lower rune) {
	upper = unicode.ToUpper(unicode.ToLower(r))
	return upper, unicode.ToLower(upper)
}

// isCased tells whether both cases of r may stand in a path.
func isCased(r rune) bool {
	upper, lower := casePair(r)
	return upper != lower && isRaw(upper) && isRaw(lower)
}

// isWord tells whether r belongs to a word (rule 3). What is neither ASCII nor raw
// does, whatever it is: which characters are letters changes with Unicode.
func isWord(r rune) bool {
	if r >= utf8.RuneSelf && !isRaw(r) {
		return true
	}
	return unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r)
}

// caseScan notes the case of the letters of a level.
type caseScan struct {
	inWord                       bool // the character before belongs to a word
	letters                      int
	bits                         []byte // one for each letter, 1 for upper case
	notTitle, notLower, notUpper bool
	notSentence                  bool
}

func (c *caseScan) next(r rune, raw bool) {
	begins := !c.inWord
	c.inWord = isWord(r) || (c.inWord && (r == '\'' || r == '’'))
	if !raw || !isCased(r) {
		return
	}
	upper, _ := casePair(r)
	isUpper := r == upper
	c.notTitle = c.notTitle || isUpper != begins
	c.notLower = c.notLower || isUpper
	c.notUpper = c.notUpper || !isUpper
	c.notSentence = c.notSentence || isUpper != (c.letters == 0)
	bit := byte(0)
	if isUpper {
		bit = 1
	}
	c.bits = append(c.bits, bit)
	c.letters++
}

// suffix says how the case differs from the preferred one.
func (c *caseScan) suffix(inbox bool) string {
	preferred := !c.notTitle
	if inbox {
		preferred = !c.notUpper
	}
	switch {
	case preferred:
		return ""
	case !c.notLower:
		return "%l"
	case !c.notUpper:
		return "%u"
	case !c.notSentence:
		return "%s"
	}
	digits := make([]byte, (len(c.bits)+3)/4)
	for i, bit := range c.bits {
		digits[i/4] |= bit << (3 - i%4)
	}
	for i, d := range digits {
		digits[i] = "0123456789abcdef"[d]
	}
	return "%c" + strings.TrimRight(string(digits), "0")
}
