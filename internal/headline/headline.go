// Package headline reads the few header fields by which a person knows a message.
// It is no verification: what cannot be read is left empty.
package headline

import (
	"bufio"
	"io"
	"mime"
	"net/mail"
	"strings"

	"github.com/emersion/go-message/charset"
)

// most is how many octets of a header are looked at.
const most = 256 << 10

// Headline is what a person knows a message by. Texts are decoded (RFC 2047) and
// may hold anything a sender wrote, control characters too.
type Headline struct {
	Name      string // of the first author, "" if only an address is given
	Address   string // of the first author, in lower case; "" if there is none that can be read
	Subject   string
	MessageID string // with its angle brackets
	Date      string // the Date field as it stands
}

// From is the author as a listing shows him: the name, else the address.
func (h Headline) From() string {
	if h.Name != "" {
		return h.Name
	}
	return h.Address
}

// Read reads a header, in wire or canonical form; a body may follow.
func Read(r io.Reader) Headline {
	f := Fields(r, "From", "Subject", "Message-ID", "Date")
	h := Headline{Subject: Decode(f["Subject"]), MessageID: f["Message-ID"], Date: f["Date"]}
	parser := mail.AddressParser{WordDecoder: &words}
	if list, err := parser.ParseList(f["From"]); err == nil && len(list) > 0 {
		h.Name, h.Address = list[0].Name, strings.ToLower(list[0].Address)
		return h
	}
	h.Name, h.Address = Decode(f["From"]), loose(f["From"])
	return h
}

// loose finds the address in a From field that is not written by the rules.
func loose(from string) string {
	if _, rest, ok := strings.Cut(from, "<"); ok {
		from, _, _ = strings.Cut(rest, ">")
	}
	for _, w := range strings.Fields(from) {
		if i := strings.IndexByte(w, '@'); i > 0 && i < len(w)-1 {
			return strings.ToLower(strings.Trim(w, `"'(),;`))
		}
	}
	return ""
}

// words decodes RFC 2047 in any charset go-message knows.
var words = mime.WordDecoder{CharsetReader: charset.Reader}

// Decode decodes the encoded words of a field; what cannot be decoded stays.
func Decode(s string) string {
	if d, err := words.DecodeHeader(s); err == nil {
		return d
	}
	return s
}

// Fields returns the first occurrence of some fields, unfolded. It takes what is
// there: a line that is no field is passed over.
func Fields(r io.Reader, names ...string) map[string]string {
	fields := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(r, most))
	lines.Buffer(make([]byte, 0, 4096), most)
	current := ""
	for lines.Scan() && lines.Text() != "" {
		line := lines.Text()
		if line[0] == ' ' || line[0] == '\t' {
			if current != "" {
				fields[current] += " " + strings.TrimSpace(line)
			}
			continue
		}
		current = ""
		name, value, _ := strings.Cut(line, ":")
		for _, want := range names {
			if _, seen := fields[want]; !seen && strings.EqualFold(strings.TrimSpace(name), want) {
				fields[want], current = strings.TrimSpace(value), want
			}
		}
	}
	return fields
}
