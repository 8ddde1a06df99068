package imapconn

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"mailhaul/mail"
)

// Names maps a server's mailbox names to names in archive form and back. The
// mapping is injective: no two names of a server become one.
//
//   - INBOX, in any case, is "INBOX" (RFC 9051 section 5.1).
//   - The personal namespace's prefix goes: "INBOX.Sent" is "Sent".
//   - Delim, the one hierarchy delimiter of the server's personal namespace, becomes
//     "/"; a "/" inside a level becomes "%2F".
//   - Levels in modified UTF-7 become UTF-8. In a level that is not valid modified
//     UTF-7, each "&", control character and octet beyond ASCII is written as %XX.
//   - A "%" that two hexadecimal digits follow becomes "%25".
//   - Where there is a prefix, names of other namespaces keep theirs, a personal name
//     that would then be mistaken for one keeps the prefix too, and names outside of
//     all namespaces go below a level "%2E".
type Names struct {
	Delim  byte     // 0 for a flat server
	Prefix string   // of the personal namespace, ending in Delim; "" for none
	Others []string // prefixes of the other namespaces
}

const outside = "%2E/"

// Archive turns a server's name into archive form.
func (n Names) Archive(raw string) string {
	if strings.EqualFold(raw, "INBOX") {
		return "INBOX"
	}
	if n.Prefix == "" {
		return n.levels(raw)
	}
	if rest, ok := strings.CutPrefix(raw, n.Prefix); ok {
		if n.reserved(n.first(rest)) {
			return n.levels(raw)
		}
		return n.levels(rest)
	}
	if n.others(n.first(raw)) {
		return n.levels(raw)
	}
	return outside + n.levels(raw)
}

// Raw is the inverse of Archive; for names that are no result of it, the name to
// create. ok is false where the server cannot have such a mailbox: a level with
// the delimiter in it, a second level on a flat server, text that is no UTF-8.
func (n Names) Raw(name string) (raw string, ok bool) {
	if strings.EqualFold(name, "INBOX") {
		return "INBOX", true
	}
	if n.Prefix == "" {
		return n.unlevels(name)
	}
	if rest, found := strings.CutPrefix(name, outside); found {
		return n.unlevels(rest)
	}
	raw, ok = n.unlevels(name)
	if ok && !n.reserved(n.first(raw)) {
		raw = n.Prefix + raw
	}
	return raw, ok
}

// first returns the first level of a raw name.
func (n Names) first(raw string) string {
	if n.Delim != 0 {
		if i := strings.IndexByte(raw, n.Delim); i >= 0 {
			return raw[:i]
		}
	}
	return raw
}

// reserved tells whether names that begin with this level are not shortened.
func (n Names) reserved(level string) bool {
	return level == "" || strings.EqualFold(level, "INBOX") || level == n.first(n.Prefix) || n.others(level)
}

// others tells whether names that begin with this level belong to another
// namespace. A prefix without delimiter ("~") covers all levels it begins.
func (n Names) others(level string) bool {
	return slices.ContainsFunc(n.Others, func(p string) bool {
		if first := n.first(p); first != p {
			return level == first
		}
		return p != "" && strings.HasPrefix(level, p)
	})
}

func (n Names) split(raw string) []string {
	if n.Delim == 0 {
		return []string{raw}
	}
	return strings.Split(raw, string(rune(n.Delim)))
}

func (n Names) levels(raw string) string {
	parts := n.split(raw)
	for i, p := range parts {
		parts[i] = escapeLevel(p)
	}
	return strings.Join(parts, "/")
}

func (n Names) unlevels(name string) (string, bool) {
	parts := strings.Split(name, "/")
	if n.Delim == 0 && len(parts) > 1 {
		return "", false
	}
	for i, p := range parts {
		raw, ok := unescapeLevel(p)
		if !ok || n.Delim != 0 && strings.IndexByte(raw, n.Delim) >= 0 {
			return "", false
		}
		parts[i] = raw
	}
	if n.Delim == 0 {
		return parts[0], true
	}
	return strings.Join(parts, string(rune(n.Delim))), true
}

func escapeLevel(raw string) string {
	text, valid := decodeUTF7(raw)
	if !valid {
		text = raw
	}
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		if c == '/' || c == '%' && hexPair(text[i+1:]) || !valid && (c == '&' || !direct(c)) {
			const digits = "0123456789ABCDEF"
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

func unescapeLevel(s string) (raw string, ok bool) {
	var b strings.Builder
	invalid := false // the level was not modified UTF-7
	for i := 0; i < len(s); i++ {
		if s[i] != '%' || !hexPair(s[i+1:]) {
			b.WriteByte(s[i])
			continue
		}
		c := unhex(s[i+1])<<4 | unhex(s[i+2])
		b.WriteByte(c)
		invalid = invalid || c == '&' || !direct(c)
		i += 2
	}
	if invalid {
		return b.String(), true
	}
	if !utf8.ValidString(b.String()) {
		return "", false
	}
	return encodeUTF7(b.String()), true
}

func hexPair(s string) bool { return len(s) >= 2 && unhex(s[0]) < 16 && unhex(s[1]) < 16 }

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// unsendable is the error for a mailbox whose name no command can hold (NUL): it is
// this mailbox alone that cannot be had.
func unsendable(raw string) error {
	return &mail.Error{Kind: mail.KindPartial, Op: "name mailbox", Err: fmt.Errorf("mailbox name %q cannot be sent to this server", raw)}
}
