package imapconn

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// base64 of RFC 3501 section 5.1.3: "," for "/", no padding.
var utf7Base64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").
	WithPadding(base64.NoPadding).Strict()

func direct(b byte) bool { return b >= 0x20 && b <= 0x7e }

// encodeUTF7 writes text in modified UTF-7 (RFC 3501 section 5.1.3). Octets that
// are no UTF-8 become U+FFFD.
func encodeUTF7(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		c := text[i]
		if c == '&' {
			b.WriteString("&-")
			i++
			continue
		}
		if direct(c) {
			b.WriteByte(c)
			i++
			continue
		}
		end := i
		for end < len(text) && !direct(text[end]) {
			end++
		}
		var wide []byte
		for _, u := range utf16.Encode([]rune(text[i:end])) {
			wide = binary.BigEndian.AppendUint16(wide, u)
		}
		b.WriteByte('&')
		b.WriteString(utf7Base64.EncodeToString(wide))
		b.WriteByte('-')
		i = end
	}
	return b.String()
}

// decodeUTF7 reads modified UTF-7. ok is false unless raw is exactly what
// encodeUTF7 makes of the text, so that two names never decode to the same.
func decodeUTF7(raw string) (text string, ok bool) {
	if strings.IndexByte(raw, '&') < 0 {
		for i := range len(raw) {
			if !direct(raw[i]) {
				return "", false
			}
		}
		return raw, true
	}
	var b strings.Builder
	for rest := raw; rest != ""; {
		plain, shifted, found := strings.Cut(rest, "&")
		b.WriteString(plain)
		if !found {
			break
		}
		code, after, closed := strings.Cut(shifted, "-")
		if !closed {
			return "", false
		}
		rest = after
		if code == "" {
			b.WriteByte('&')
			continue
		}
		wide, err := utf7Base64.DecodeString(code)
		if err != nil || len(wide)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(wide)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(wide[2*i:])
		}
		b.WriteString(string(utf16.Decode(units)))
	}
	text = b.String()
	return text, utf8.ValidString(text) && encodeUTF7(text) == raw
}
