// Package demo holds a small, made-up account and the servers that serve it on
// this machine, so that the program can be tried without an account of one's own.
package demo

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"mime"
	"mime/quotedprintable"
	"strings"
	"time"

	"mailhaul/mail"
)

// User and Password log in to both servers.
const (
	User     = "ada@example.org"
	Password = "difference-engine"
)

// Mailbox is one mailbox of the made-up account.
type Mailbox struct {
	Name     string // archive form: UTF-8, "/" between levels
	Messages []Message
}

// Message is one message as a server holds it.
type Message struct {
	Octets       []byte // wire form, CRLF
	InternalDate time.Time
	Flags        mail.Flags
}

type person struct{ name, address string }

var (
	ada    = person{"Ada Lovelace", User}
	people = []person{
		{"Charles Babbage", "charles@engine.example"},
		{"Mary Somerville", "mary@stars.example"},
		{"Jürgen Groß", "juergen@bruecke.example"},
		{"Zoë Étienne", "zoe@atelier.example"},
		{"山田花子", "hanako@tabi.example"},
		{"Ελένη Παππά", "eleni@vivlio.example"},
		{"Łukasz Żółć", "lukasz@warsztat.example"},
	}
)

// plan is what lies in each mailbox.
var plan = []struct {
	name     string
	count    int
	from     time.Time
	subjects []string
	bodies   []string
	sent     bool
	flags    []string
}{
	{"INBOX", 96, day(2025, 9, 1), []string{"Lunch on %s?", "Minutes of %s", "The %s proofs are in", "Invoice for %s", "Fotos vom %s", "Question about note G"}, english, false, nil},
	{"Sent", 48, day(2025, 9, 2), []string{"Re: Lunch on %s?", "Table of operations, %s", "Re: Minutes of %s", "My notes"}, english, true, []string{mail.Seen}},
	{"Archive/2023", 40, day(2023, 2, 3), []string{"Engine drawings, %s", "Royal Society on %s", "Receipt %s"}, english, false, []string{mail.Seen}},
	{"Archive/2024", 44, day(2024, 1, 9), []string{"Engine drawings, %s", "Subscription renewed %s", "Re: punched cards"}, english, false, []string{mail.Seen}},
	{"Lists/analytical-engine", 60, day(2025, 3, 1), []string{"[engine] carry mechanism, %s", "[engine] Re: carry mechanism", "[engine] release of %s"}, english, false, []string{"$list"}},
	{"Projekte/Brücke", 28, day(2025, 5, 5), []string{"Statik der Brücke, %s", "Angebot für Geländer (%s)", "Größe der Pfeiler"}, german, false, nil},
	{"Entwürfe", 5, day(2025, 10, 1), []string{"Über Maschinen, die rechnen"}, german, true, []string{mail.Seen, mail.Draft}},
	{"旅行", 16, day(2025, 6, 10), []string{"京都の宿について %s", "写真を送ります"}, japanese, false, nil},
}

var (
	english = []string{
		"I have read your notes twice now, and the third reading will not be the last.",
		"Could you send the table of operations before the meeting?",
		"The barrels arrived; two teeth are missing, as usual, and the bill is not.",
		"From what I can see the carriage holds, and the mill does not.",
		"Let us leave it as it is until the new drawings are here.",
		"> The engine can only do what we know how to order it to perform.",
		"That is true of most things that are worth having.",
	}
	german = []string{
		"die Zeichnungen liegen bei; bitte prüfen Sie die Maße der Pfeiler.",
		"Größer als vierzig Meter darf die Öffnung nicht werden.",
		"Können wir uns am Donnerstag an der Brücke treffen?",
		"Das Geländer ist überflüssig schön geworden.",
	}
	japanese = []string{
		"宿の予約ができました。駅から歩いて五分です。",
		"写真を三枚送ります。どれが好きですか。",
		"来週の金曜日に京都で会いましょう。",
	}
)

func day(y, m, d int) time.Time { return time.Date(y, time.Month(m), d, 9, 0, 0, 0, time.UTC) }

// Account returns the mailboxes of the made-up account, the same ones each time.
func Account() []Mailbox {
	rng := rand.New(rand.NewPCG(1815, 1852))
	var all []Mailbox
	for _, p := range plan {
		mb := Mailbox{Name: p.name}
		at := p.from
		for i := range p.count {
			at = at.Add(time.Duration(2+rng.IntN(30)) * time.Hour).Add(time.Duration(rng.IntN(3600)) * time.Second)
			from, to := people[rng.IntN(len(people))], ada
			if p.sent {
				from, to = to, from
			}
			subject := p.subjects[rng.IntN(len(p.subjects))]
			if strings.Contains(subject, "%s") {
				subject = fmt.Sprintf(subject, at.Format("2 January"))
			}
			flags := p.flags
			if len(flags) == 0 && rng.IntN(3) > 0 {
				flags = []string{mail.Seen}
			}
			if rng.IntN(12) == 0 {
				flags = append(flags[:len(flags):len(flags)], mail.Flagged)
			}
			mb.Messages = append(mb.Messages, Message{
				Octets:       write(rng, i, p.name, from, to, subject, at, p.bodies),
				InternalDate: at.Add(time.Duration(1+rng.IntN(40)) * time.Second),
				Flags:        mail.NewFlags(flags...),
			})
		}
		all = append(all, mb)
	}
	return all
}

// write makes the wire form of one message: plain ASCII, UTF-8, quoted-printable
// or with an attachment, as it comes.
func write(rng *rand.Rand, n int, mailbox string, from, to person, subject string, at time.Time, sentences []string) []byte {
	var h strings.Builder
	id := fmt.Sprintf("%x.%d@mail.example.org", rng.Uint64(), n)
	fmt.Fprintf(&h, "Received: from relay.example.net (relay.example.net [192.0.2.%d])\n\tby mx.example.org with ESMTPS id %08x;\n\t%s\n",
		1+rng.IntN(250), rng.Uint32(), at.Format(time.RFC1123Z))
	fmt.Fprintf(&h, "From: %s\nTo: %s\nSubject: %s\nDate: %s\nMessage-ID: <%s>\nMIME-Version: 1.0\n",
		address(from), address(to), mime.QEncoding.Encode("utf-8", subject), at.Format(time.RFC1123Z), id)
	text := paragraphs(rng, sentences) + "\n-- \n" + from.name + "\n"
	switch {
	case strings.HasPrefix(mailbox, "Lists/"):
		fmt.Fprintf(&h, "List-Id: <%s.example.org>\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n%s", mailbox[len("Lists/"):], text)
	case n%9 == 4:
		boundary := fmt.Sprintf("=_%016x", rng.Uint64())
		fmt.Fprintf(&h, "Content-Type: multipart/mixed; boundary=\"%s\"\n\n--%s\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n%s\n--%s\n%s--%s--\n",
			boundary, boundary, text, boundary, attachment(rng, n), boundary)
	case n%3 == 1:
		fmt.Fprint(&h, "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n")
		w := quotedprintable.NewWriter(&h)
		_, _ = w.Write([]byte(text)) // into memory
		_ = w.Close()
	default:
		fmt.Fprintf(&h, "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n%s", text)
	}
	return []byte(strings.ReplaceAll(strings.ReplaceAll(h.String(), "\r\n", "\n"), "\n", "\r\n"))
}

func address(p person) string {
	return mime.QEncoding.Encode("utf-8", p.name) + " <" + p.address + ">"
}

func paragraphs(rng *rand.Rand, sentences []string) string {
	var b strings.Builder
	for range 2 + rng.IntN(8) {
		for range 1 + rng.IntN(4) {
			b.WriteString(sentences[rng.IntN(len(sentences))])
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// attachment is a part with 10 to 190 kB of octets that do not compress.
func attachment(rng *rand.Rand, n int) string {
	raw := make([]byte, 10_000+rng.IntN(180_000))
	for i := range raw {
		raw[i] = byte(rng.Uint32())
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Content-Type: application/octet-stream; name=\"drawing-%d.bin\"\nContent-Disposition: attachment; filename=\"drawing-%d.bin\"\nContent-Transfer-Encoding: base64\n\n", n, n)
	text := base64.StdEncoding.EncodeToString(raw)
	for len(text) > 76 {
		b.WriteString(text[:76] + "\n")
		text = text[76:]
	}
	b.WriteString(text + "\n")
	return b.String()
}
