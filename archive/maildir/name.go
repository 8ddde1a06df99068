package maildir

import (
	"slices"
	"strings"
	"unicode"

	"mailhaul/mail"
)

// flagLetters are the letters of system flags, in the order of the alphabet. T is
// read and never set: mutt removes such messages when it leaves the mailbox.
var flagLetters = []struct {
	letter byte
	flag   string
}{
	{'D', mail.Draft}, {'F', mail.Flagged}, {'R', mail.Answered}, {'S', mail.Seen}, {'T', mail.Deleted},
}

// splitInfo divides a file name into the part that identifies the message and the
// letters behind ":2,"; sep is what introduced them, 0 if nothing did.
func splitInfo(name string) (stem, letters string, sep byte) {
	i := max(strings.LastIndex(name, ":2,"), strings.LastIndex(name, ";2,"))
	if i < 0 {
		return name, "", 0
	}
	return name[:i], name[i+3:], name[i]
}

// isOwn tells whether a name in tmp is one that Append gives: TIME.RANDOM.HOST.
func isOwn(name string) bool {
	t, rest, ok := strings.Cut(name, ".")
	random, host, ok2 := strings.Cut(rest, ".")
	return ok && ok2 && t != "" && strings.Trim(t, "0123456789") == "" && host != "" &&
		len(random) == randomLen && strings.Trim(random, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}

// safeHost makes a host name fit for the third part of a file name.
func safeHost(host string) string {
	safe := strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '.') {
			return r
		}
		return '_'
	}, host)
	if safe = strings.Trim(safe[:min(len(safe), 64)], "."); safe == "" {
		return "localhost"
	}
	return safe
}

// flags turns the letters of a file name into flags.
func (k *keywords) flags(letters string) mail.Flags {
	var list []string
	for _, l := range []byte(letters) {
		for _, f := range flagLetters {
			if f.letter == l {
				list = append(list, f.flag)
			}
		}
		if i := int(l) - 'a'; i >= 0 && i < len(k.names) && k.names[i] != "" {
			list = append(list, k.names[i])
		}
	}
	return mail.NewFlags(list...)
}

// letters turns flags into the letters of a new file name; those without a letter
// are left to the ledger.
func (k *keywords) letters(f mail.Flags) string { return k.replaceLetters("", f) }

// replaceLetters is letters for a file that has some: T stays if it is there and
// flags hold \Deleted, as do letters of which nothing is known.
func (k *keywords) replaceLetters(old string, f mail.Flags) string {
	var out []byte
	for _, fl := range flagLetters {
		if f.Has(fl.flag) && (fl.letter != 'T' || strings.Contains(old, "T")) {
			out = append(out, fl.letter)
		}
	}
	for i, name := range k.names {
		if name != "" && f.Has(name) {
			out = append(out, byte('a'+i))
		}
	}
	for _, l := range []byte(old) {
		if !k.understands(l) {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return string(slices.Compact(out))
}

func (k *keywords) understands(letter byte) bool {
	for _, f := range flagLetters {
		if f.letter == letter {
			return true
		}
	}
	i := int(letter) - 'a'
	return i >= 0 && i < len(k.names) && k.names[i] != ""
}
