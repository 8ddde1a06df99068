package compare

import (
	"bytes"
	"crypto/sha256"
	"hash"
	"slices"
	"strings"

	"mailhaul/mail"
)

// form is what makes a message known again after a server altered it.
type form struct {
	loose mail.Digest // of the octets without what servers are known to alter
	body  mail.Digest // of what follows the header
	marks marks
}

// marks are what of a message servers are known to alter.
type marks uint8

const (
	markNUL    marks = 1 << iota
	markCR           // a CR that no LF follows
	markFields       // fields that mail storage writes and takes away
	markTail         // more than one LF at the end
)

// storageFields are header fields in which mailbox formats keep their own state:
// Dovecot's and UW's mbox take them away, and put others there.
var storageFields = []string{"status", "x-status", "x-keywords", "x-uid", "x-imap", "x-imapbase", "content-length"}

// maxField is the longest header line looked at for its name.
const maxField = 64

// former takes canonical octets and finds their form.
type former struct {
	loose, body hash.Hash
	marks       marks
	line        []byte // beginning of the header line that is being read
	held        bool   // the line is not decided upon yet
	drop        bool   // the field is left out
	inBody      bool
	bol         bool
	pending     int // LFs not yet written to loose: those at the end count once
	out         []byte
}

func newFormer() *former {
	return &former{loose: sha256.New(), body: sha256.New(), bol: true}
}

// Write implements io.Writer.
func (f *former) Write(b []byte) (int, error) {
	n := len(b)
	for !f.inBody && len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		part := b
		if end >= 0 {
			part = b[:end+1]
		}
		f.header(part)
		b = b[len(part):]
	}
	if len(b) > 0 {
		f.body.Write(b)
		f.normal(b)
	}
	return n, nil
}

// header takes a header line or a part of one.
func (f *former) header(part []byte) {
	if f.bol {
		if part[0] == '\n' {
			f.inBody = true
			f.normal(part)
			return
		}
		if part[0] != ' ' && part[0] != '\t' { // a continuation shares its field's fate
			f.held, f.drop, f.line = true, false, f.line[:0]
		}
	}
	f.bol = part[len(part)-1] == '\n'
	if f.held {
		f.line = append(f.line, part...)
		name, _, named := strings.Cut(string(f.line[:min(len(f.line), maxField)]), ":")
		if !named && !f.bol && len(f.line) < maxField {
			return
		}
		f.held = false
		if named && slices.Contains(storageFields, strings.ToLower(strings.TrimSpace(name))) {
			f.drop = true
			f.marks |= markFields
		}
		part = f.line
	}
	if !f.drop {
		f.normal(part)
	}
}

// normal writes octets to loose: without CR, NUL as 0x80 (Dovecot stores it so),
// LFs held back until something follows.
func (f *former) normal(b []byte) {
	f.out = f.out[:0]
	for _, c := range b {
		switch c {
		case '\r':
			f.marks |= markCR
		case '\n':
			f.pending++
		case 0:
			f.marks |= markNUL
			f.flush()
			f.out = append(f.out, 0x80)
		default:
			f.flush()
			f.out = append(f.out, c)
		}
	}
	f.loose.Write(f.out)
}

func (f *former) flush() {
	for ; f.pending > 0; f.pending-- {
		f.out = append(f.out, '\n')
	}
}

// form ends the message.
func (f *former) form() form {
	if f.held && !f.drop { // a header without an end
		f.normal(f.line)
	}
	if f.pending > 1 {
		f.marks |= markTail
	}
	var out form
	f.loose.Sum(out.loose[:0])
	f.body.Sum(out.body[:0])
	out.marks = f.marks
	return out
}

// words says what of a message was altered as servers are known to.
func (m marks) words() string {
	var all []string
	for _, w := range []struct {
		mark marks
		text string
	}{
		{markNUL, "NUL octets"}, {markCR, "CRs without LF"}, {markFields, "header fields of mail storage"}, {markTail, "empty lines at the end"},
	} {
		if m&w.mark != 0 {
			all = append(all, w.text)
		}
	}
	return strings.Join(all, ", ")
}
