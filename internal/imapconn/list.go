package imapconn

import (
	"bytes"
	"strings"
)

// ListEntry is one LIST response.
type ListEntry struct {
	Attributes []string // as the server writes them
	Delim      byte     // 0 for NIL, and for what cannot be a delimiter
	Raw        string   // the server's name, octet for octet
}

// Has tells whether the mailbox has an attribute, without regard to case.
func (e ListEntry) Has(attr string) bool {
	for _, a := range e.Attributes {
		if strings.EqualFold(a, attr) {
			return true
		}
	}
	return false
}

// StatusEntry is one STATUS response. Numbers that are missing or cannot be read
// are -1.
type StatusEntry struct {
	Raw           string
	Messages      int64
	UIDNext       int64
	UIDValidity   int64
	HighestModSeq int64
	AppendLimit   int64 // octets of one message (RFC 7889)
	Size          int64
	MailboxID     string
}

// maxAttributes of one mailbox.
const maxAttributes = 100

// list reads what follows "* LIST".
func (s *scanner) list() (e ListEntry, err error) {
	s.spaces()
	if !s.isNil() {
		if !s.accept('(') {
			return e, errSyntax
		}
		for {
			s.spaces()
			if s.accept(')') {
				break
			}
			a := s.atom()
			if len(a) == 0 || len(e.Attributes) >= maxAttributes {
				return e, errSyntax
			}
			e.Attributes = append(e.Attributes, string(a))
		}
	}
	s.spaces()
	delim, null, err := s.text()
	if err != nil {
		return e, err
	}
	if !null && len(delim) == 1 && direct(delim[0]) && delim[0] != ' ' {
		e.Delim = delim[0]
	}
	s.spaces()
	e.Raw, err = s.mailboxName()
	return e, err
}

// mailboxName reads a name; one without quotes may hold spaces, parentheses at its
// end begin extended data (RFC 5258).
func (s *scanner) mailboxName() (string, error) {
	switch s.peek() {
	case '"', '{', '~', 0:
		b, _, err := s.text()
		return string(b), err
	}
	b := s.rest()
	if i := bytes.Index(b, []byte(" (")); i >= 0 {
		b = b[:i]
	}
	s.pos += len(b)
	return string(bytes.TrimRight(b, " ")), nil
}

// status reads what follows "* STATUS".
func (s *scanner) status() (e StatusEntry, err error) {
	e = StatusEntry{Messages: -1, UIDNext: -1, UIDValidity: -1, HighestModSeq: -1, Size: -1, AppendLimit: -1}
	s.spaces()
	if e.Raw, err = s.mailboxName(); err != nil {
		return e, err
	}
	s.spaces()
	if !s.accept('(') {
		return e, errSyntax
	}
	for {
		s.spaces()
		if s.accept(')') {
			return e, nil
		}
		name := upper(s.atom())
		s.spaces()
		if name == "" {
			return e, errSyntax
		}
		if err := s.statusItem(&e, name); err != nil {
			return e, err
		}
	}
}

func (s *scanner) statusItem(e *StatusEntry, name string) error {
	to := map[string]*int64{
		"MESSAGES": &e.Messages, "UIDNEXT": &e.UIDNext, "UIDVALIDITY": &e.UIDValidity,
		"HIGHESTMODSEQ": &e.HighestModSeq, "SIZE": &e.Size, "APPENDLIMIT": &e.AppendLimit,
	}[name]
	switch {
	case to != nil:
		from := s.pos
		if n, ok := s.number(); ok && (s.atEnd() || s.peek() == ' ' || s.peek() == ')') {
			*to = n
			return nil
		}
		s.pos = from
	case name == "MAILBOXID": // RFC 8474 section 4.3
		if s.accept('(') {
			b, _, err := s.text()
			if err != nil {
				return err
			}
			e.MailboxID = string(b)
			if !s.accept(')') {
				return errSyntax
			}
			return nil
		}
	}
	return s.skip()
}

// namespaces reads what follows "* NAMESPACE" (RFC 2342): the first personal
// namespace's prefix and delimiter, and the prefixes of all others.
func (s *scanner) namespaces() (n Names, err error) {
	for group := range 3 {
		s.spaces()
		if s.isNil() {
			continue
		}
		if !s.accept('(') {
			return n, errSyntax
		}
		for first := true; ; first = false {
			s.spaces()
			if s.accept(')') {
				break
			}
			prefix, delim, err := s.namespace()
			if err != nil {
				return n, err
			}
			if group == 0 && first {
				n.Prefix, n.Delim = prefix, delim
			} else if len(n.Others) < maxAttributes {
				n.Others = append(n.Others, prefix)
			}
		}
	}
	return n, nil
}

func (s *scanner) namespace() (prefix string, delim byte, err error) {
	if !s.accept('(') {
		return "", 0, errSyntax
	}
	b, _, err := s.text()
	if err != nil {
		return "", 0, err
	}
	prefix = string(b)
	s.spaces()
	d, null, err := s.text()
	if err != nil {
		return "", 0, err
	}
	if !null && len(d) == 1 && direct(d[0]) && d[0] != ' ' {
		delim = d[0]
	}
	for {
		s.spaces()
		if s.accept(')') {
			return prefix, delim, nil
		}
		if err := s.skip(); err != nil {
			return "", 0, err
		}
	}
}

// commandString writes a string for a command: quoted, or a literal that needs no
// continuation. ok is false if the server takes neither.
func commandString(s string, literalPlus bool) (string, bool) {
	if strings.ContainsAny(s, "\r\n\x00") {
		if !literalPlus || len(s) > 4096 || strings.Contains(s, "\x00") { // RFC 7888 section 5
			return "", false
		}
		return "{" + itoa(len(s)) + "+}\r\n" + s, true
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('"')
	return b.String(), true
}
