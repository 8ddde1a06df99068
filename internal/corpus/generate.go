package corpus

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"
)

// Mix says how large generated messages are.
type Mix int

const (
	// Small is text of 2 to 8 KB, evenly spread.
	Small Mix = iota
	// Real is what mailboxes hold: most messages some KB of text, one in eight with
	// an attachment of up to 1 MB, one in two hundred up to 12 MB.
	Real
)

// Message is one generated message.
type Message struct {
	Octets []byte    // wire form
	Date   time.Time // INTERNALDATE; whole seconds, UTC
}

// Generate makes message number i of a mix; the same arguments always give the
// same octets, and no two messages are equal.
func Generate(mix Mix, i int) Message {
	g := newGenerator(uint64(mix)<<32 | uint64(i))
	size := 2048 + g.rand.IntN(6144)
	if mix == Real {
		switch {
		case i%200 == 199:
			size = 1<<20 + g.rand.IntN(11<<20)
		case i%8 == 7:
			size = 16<<10 + g.rand.IntN(1<<20)
		}
	}
	date := time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 1237 * time.Second)
	var b bytes.Buffer
	b.Grow(size + 1024)
	fmt.Fprintf(&b, "Return-Path: <sender%d@example.org>\r\n", i%97)
	fmt.Fprintf(&b, "Received: from mx%d.example.org by mail.example.net with ESMTPS id %08x;\r\n\t%s\r\n", i%7, g.rand.Uint32(), date.Format(time.RFC1123Z))
	fmt.Fprintf(&b, "From: Sender %d <sender%d@example.org>\r\nTo: ada@example.net\r\nDate: %s\r\n", i%97, i%97, date.Add(-time.Minute).Format(time.RFC1123Z))
	fmt.Fprintf(&b, "Message-ID: <%d.%d.%08x@example.org>\r\nSubject: ", mix, i, g.rand.Uint32())
	g.words(&b, 5)
	if size <= 16<<10 {
		b.WriteString("\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n")
		for b.Len() < size {
			g.words(&b, 9)
			b.WriteString("\r\n")
		}
		return Message{b.Bytes(), date}
	}
	b.WriteString("\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"edge\"\r\n\r\n--edge\r\nContent-Type: text/plain\r\n\r\n")
	g.words(&b, 9)
	b.WriteString("\r\n--edge\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	for b.Len() < size {
		g.base64Line(&b)
	}
	b.WriteString("--edge--\r\n")
	return Message{b.Bytes(), date}
}

type generator struct{ rand *rand.Rand }

func newGenerator(seed uint64) generator {
	return generator{rand.New(rand.NewPCG(seed, 0x6d61696c6861756c))}
}

var vocabulary = []string{"mail", "server", "the", "a", "of", "archive", "meeting", "tomorrow", "please", "find", "attached", "regards", "invoice", "number", "Grüße", "and", "to", "we", "will", "order", "From", "yes"}

// words never begins a line with From, which would make one corpus slower to
// archive than another.
func (g generator) words(b *bytes.Buffer, n int) {
	b.WriteString("- ")
	for range n {
		b.WriteString(vocabulary[g.rand.IntN(len(vocabulary))])
		b.WriteByte(' ')
	}
	fmt.Fprintf(b, "%x", g.rand.Uint32())
}

const base64Alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

func (g generator) base64Line(b *bytes.Buffer) {
	var line [78]byte
	for i := 0; i < 76; {
		for bits := g.rand.Uint64(); i < 76 && bits != 0; bits >>= 6 {
			line[i] = base64Alphabet[bits&63]
			i++
		}
	}
	line[76], line[77] = '\r', '\n'
	b.Write(line[:])
}
