// Package corpus is mail for tests and benchmarks: messages that programs have
// been seen to damage, and a generator of ordinary ones. All of it is
// deterministic and in wire form: what a server sends, before dot stuffing.
package corpus

import (
	"bytes"
	"fmt"
	"strings"
)

// Hazard is a message that is easily damaged.
type Hazard struct {
	Name   string
	Octets []byte // wire form
}

const header = "From: Ada <ada@example.org>\r\nTo: grace@example.net\r\nDate: Mon, 01 Jan 2024 10:00:00 +0000\r\n"

func plain(name, body string) Hazard {
	return Hazard{name, []byte(fmt.Sprintf("%sMessage-ID: <%s@example.org>\r\nSubject: %s\r\n\r\n%s", header, name, name, body))}
}

func raw(name, octets string) Hazard { return Hazard{name, []byte(octets)} }

// Hazards returns the whole corpus but the messages of Huge, always in the same
// order. Names are unique; octets are not: two messages are equal on purpose.
func Hazards() []Hazard {
	identical := plain("identical", "the same twice\r\n").Octets
	doubled := func(body string) []byte {
		return []byte(header + "Message-ID: <doubled@example.org>\r\nSubject: doubled\r\n\r\n" + body)
	}
	return []Hazard{
		plain("plain", "nothing special\r\n"),
		plain("dots-at-line-starts", ".one\r\n..two\r\n...three\r\n. \r\n.\tx\r\n"),
		plain("lone-dot-lines", ".\r\n.\r\n\r\n.\r\nafter\r\n.\r\n"),
		plain("from-lines", "From here on\r\nFrom ada@example.org Mon Jan  1 10:00:00 2024\r\n\r\nFrom bob\r\n"),
		plain("quoted-from-lines", ">From a\r\n>>From b\r\n>>>From c\r\n> From d\r\n>from e\r\nFROM f\r\nFrom\tg\r\n"),
		plain("from-behind-blank-line", "\r\n\r\nFrom ada@example.org Mon Jan  1 10:00:00 2024\r\nSubject: not a message\r\n\r\nnot a body\r\n"),
		plain("line-of-1-MB", strings.Repeat("x", 1<<20)+"\r\n"),
		plain("line-of-64-KB-around-from", strings.Repeat("y", 65535)+"\r\nFrom z\r\n"+strings.Repeat("y", 65536)+"\r\n>From z\r\n"),
		plain("no-final-newline", "the last line has no end"),
		plain("final-cr", "the last octet is a CR\r"),
		plain("nul", "before\x00after\r\n\x00\r\n"),
		plain("bare-cr", "before\rafter\r\n\r\r\n\rx\r\n"),
		plain("bare-lf", "before\nafter\r\n\n\r\n"),
		plain("lf-dot-lf", "before\n.\nafter\r\n"),
		plain("cr-cr-lf", "before\r\r\nafter\r\r\r\n"),
		plain("control-octets", "\x01\x02\x1b[31m\x7f\x08\x1a\r\n"),
		plain("empty-body", ""),
		raw("header-only-without-blank-line", header+"Subject: header only\r\n"),
		raw("header-cut", header+"Subject: cut"),
		raw("empty", ""),
		raw("one-newline", "\r\n"),
		raw("only-blank-lines", "\r\n\r\n\r\n\r\n"),
		raw("no-headers", "\r\nA body without any header.\r\n"),
		raw("not-a-header", "This is no header line at all\r\nnor is this\r\n"),
		raw("starts-with-from", "From ada@example.org Mon Jan  1 10:00:00 2024\r\n"+header+"Subject: starts with From\r\n\r\nbody\r\n"),
		raw("starts-with-quoted-from", ">From ada@example.org Mon Jan  1 10:00:00 2024\r\n"+header+"Subject: starts with >From\r\n\r\nbody\r\n"),
		raw("starts-with-folding", " folded first line\r\n"+header+"\r\nbody\r\n"),
		plain("trailing-blank-lines", "body\r\n\r\n\r\n\r\n"),
		{"doubled-message-id-1", doubled("one body\r\n")},
		{"doubled-message-id-2", doubled("another body\r\n")},
		{"doubled-message-id-3", doubled("other body!\r\n")},
		{"identical-1", identical},
		{"identical-2", identical},
		raw("five-thousand-headers", manyHeaders(5000)+"\r\nbody\r\n"),
		raw("header-line-of-200-KB", header+"X-Long: "+strings.Repeat("h", 200<<10)+"\r\nSubject: long line\r\n\r\nbody\r\n"),
		raw("folded-header-of-200-KB", header+"References:"+strings.Repeat("\r\n <0123456789@example.org>", 7500)+"\r\n\r\nbody\r\n"),
		raw("eight-bit-header", header+"Subject: Gr\xfc\xdfe aus K\xf6ln\r\n\r\nbody\r\n"),
		raw("utf-8-header", header+"Subject: Grüße 日本 😀\r\n\r\nbody\r\n"),
		plain("eight-bit-body", "Gr\xfc\xdfe\r\n\x80\x81\xfe\xff\r\n"),
		plain("invalid-utf-8", "\xc0\xaf \xed\xa0\x80 \xf8\x88\x80\x80\x80 \xff\xfe\r\n"),
		plain("byte-order-mark", "\xef\xbb\xbfbody\r\n"),
		raw("starts-with-byte-order-mark", "\xef\xbb\xbf"+header+"\r\nbody\r\n"),
		raw("date-nonsense", "From: a@example.org\r\nDate: yesterday, at noon\r\nSubject: date\r\n\r\nbody\r\n"),
		raw("received-1969", "Received: from a by b; Wed, 31 Dec 1969 23:59:59 +0000\r\n"+header+"\r\nbody\r\n"),
		raw("received-2040", "Received: from a by b; Sun, 01 Jan 2040 00:00:00 +0000\r\n"+header+"\r\nbody\r\n"),
		raw("received-nonsense", "Received: from a by b; 99 Foo 99999 99:99:99 +9999\r\n"+header+"\r\nbody\r\n"),
		raw("status-headers", "Status: RO\r\nX-Status: AF\r\nX-Keywords: a b\r\nX-UID: 7\r\nContent-Length: 3\r\n"+header+"\r\nbody longer than that\r\n"),
		raw("status-headers-behind", header+"Status: O\r\nX-Status: D\r\nLines: 1\r\nX-IMAP: 1 2\r\n\r\nbody\r\n"),
		raw("internal-data", "From: MAILER-DAEMON\r\nSubject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\r\nX-IMAP: 1 1\r\n\r\nnot really\r\n"),
		plain("looks-like-pop3", "+OK 120 octets\r\n-ERR no\r\n.\r\n+OK bye\r\n"),
		plain("looks-like-imap", ")\r\na1 OK FETCH done\r\n* BYE\r\n{100}\r\n* 1 FETCH (UID 1 BODY[] {5}\r\n"),
		raw("multipart-without-boundary", header+"MIME-Version: 1.0\r\nContent-Type: multipart/mixed\r\n\r\nbody\r\n"),
		raw("unknown-encodings", header+"Content-Type: text/plain; charset=no-such\r\nContent-Transfer-Encoding: no-such\r\n\r\nbody\r\n"),
		raw("nested-200-deep", nested(200)),
		plain("tabs-and-spaces-at-line-ends", "a \t\r\n \r\n\t\r\nb  \r\n"),
	}
}

// Huge returns one message of a little over 30 MB: text with a base64 attachment.
func Huge() Hazard {
	var b bytes.Buffer
	b.WriteString(header + "Subject: huge\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=edge\r\n\r\n--edge\r\n\r\nsee there\r\n--edge\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	g := newGenerator(30)
	for b.Len() < 30_000_000 {
		g.base64Line(&b)
	}
	b.WriteString("--edge--\r\n")
	return Hazard{"attachment-of-30-MB", b.Bytes()}
}

func manyHeaders(n int) string {
	var b strings.Builder
	b.WriteString(header)
	for i := range n {
		fmt.Fprintf(&b, "X-Number-%d: %d\r\n", i, i*i)
	}
	return b.String()
}

func nested(depth int) string {
	var b strings.Builder
	b.WriteString(header + "MIME-Version: 1.0\r\n")
	for i := range depth {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	b.WriteString("\r\nin the middle\r\n")
	for i := depth - 1; i >= 0; i-- {
		fmt.Fprintf(&b, "--b%d--\r\n", i)
	}
	return b.String()
}
