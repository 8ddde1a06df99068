package imapconn

import (
	"bytes"
	"errors"

	"mailhaul/mail"
)

// fetchParser reads FETCH responses, one at a time.
type fetchParser struct {
	s        *scanner
	f        Fetch
	body     Body
	h        FetchHandler
	done     bool // the response was read to its end
	quiet    bool // no handler for further sections
	err      error
	flags    map[string]mail.Flags
	sections map[string]section
}

type section struct {
	name    string
	partial bool
}

func newFetchParser(s *scanner) *fetchParser {
	return &fetchParser{s: s, flags: make(map[string]mail.Flags), sections: make(map[string]section)}
}

// response reads what follows "* seq FETCH".
func (p *fetchParser) response(seq uint32, h FetchHandler) error {
	p.f, p.h = Fetch{Seq: seq, Size: -1}, h
	p.done, p.quiet, p.err, p.body = false, false, nil, Body{}
	s := p.s
	s.spaces()
	if !s.accept('(') {
		return errSyntax
	}
	if err := p.items(); err != nil {
		if errors.Is(err, errSyntax) && p.body.size > 0 && p.f.Has&ItemBody != 0 {
			return noProperEnd(p.body.size)
		}
		return err
	}
	return h.End(&p.f)
}

// items reads up to the closing parenthesis, which must end the line.
func (p *fetchParser) items() error {
	for !p.done {
		if p.err != nil {
			return p.err
		}
		p.s.spaces()
		if p.s.accept(')') {
			p.s.spaces()
			p.done = true
			if !p.s.atEnd() {
				return errSyntax
			}
			return nil
		}
		if err := p.item(); err != nil {
			return err
		}
	}
	return nil
}

// itemName reads the name of a data item, with what stands in brackets.
func (p *fetchParser) itemName() []byte {
	s := p.s
	from := s.pos
	for s.pos < len(s.line) {
		switch s.line[s.pos] {
		case ' ', '(', ')', '"', '{':
			return s.line[from:s.pos]
		case '[':
			if i := bytes.IndexByte(s.line[s.pos:], ']'); i >= 0 {
				s.pos += i
			}
		}
		s.pos++
	}
	return s.line[from:s.pos]
}

func (p *fetchParser) item() error {
	name := p.itemName()
	if len(name) == 0 {
		return errSyntax
	}
	p.s.spaces()
	is := func(want string) bool {
		return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
	}
	switch {
	case is("UID"):
		return p.uid()
	case is("FLAGS"):
		return p.flagList()
	case is("INTERNALDATE"):
		return p.date()
	case is("RFC822.SIZE"):
		return p.size()
	case is("MODSEQ"):
		return p.modSeq()
	case is("EMAILID"), is("X-GM-MSGID"):
		return p.objectID(name[0] == 'E' || name[0] == 'e')
	case is("X-GM-LABELS"):
		return p.labels()
	}
	if sec, ok := p.section(name); ok {
		return p.bodyItem(sec)
	}
	return p.s.skip()
}

func (p *fetchParser) uid() error {
	n, ok := p.s.number32()
	if !ok {
		return errSyntax
	}
	if n != 0 { // RFC 9051 section 2.3.1.1: a UID is not 0
		p.f.UID, p.f.Has = n, p.f.Has|ItemUID
	}
	return nil
}

func (p *fetchParser) size() error {
	n, ok := p.s.number()
	if !ok { // NIL, negative or too large: a hint only
		return p.s.skip()
	}
	p.f.Size, p.f.Has = n, p.f.Has|ItemSize
	return nil
}

func (p *fetchParser) modSeq() error {
	s := p.s
	open := s.accept('(')
	n, ok := s.number()
	if !ok || open && !s.accept(')') {
		return errSyntax
	}
	p.f.ModSeq, p.f.Has = uint64(n), p.f.Has|ItemModSeq
	return nil
}

func (p *fetchParser) objectID(preferred bool) error {
	s := p.s
	open := s.accept('(')
	b, null, err := s.text()
	if err != nil {
		return err
	}
	if open && !s.accept(')') {
		return errSyntax
	}
	if !null && (preferred || p.f.ObjectID == "") {
		p.f.ObjectID = string(b)
	}
	return nil
}

// maxLabels of one message are remembered.
const maxLabels = 1000

// labels reads X-GM-LABELS: a list of strings. One that is spelt in another way (Gmail
// has been seen to leave out quotes) is as good as none.
func (p *fetchParser) labels() error {
	s := p.s
	p.f.Labels = nil
	if !s.accept('(') {
		return s.skip()
	}
	for s.spaces(); !s.accept(')'); s.spaces() {
		if s.atEnd() {
			return errSyntax
		}
		if s.peek() == '(' {
			p.f.Labels = nil
			if err := s.skip(); err != nil {
				return err
			}
			continue
		}
		b, null, err := s.text()
		if err != nil {
			return err
		}
		if !null && len(p.f.Labels) < maxLabels {
			p.f.Labels = append(p.f.Labels, string(b))
		}
	}
	return nil
}

// flagList reads FLAGS. Equal lists are parsed once.
func (p *fetchParser) flagList() error {
	s := p.s
	if s.isNil() {
		p.f.Flags, p.f.Has = "", p.f.Has|ItemFlags
		return nil
	}
	if s.peek() != '(' {
		return errSyntax
	}
	b := s.rest()
	end := bytes.IndexByte(b, ')')
	if end < 0 || bytes.ContainsAny(b[:end], `"{`) {
		return p.oddFlags()
	}
	s.pos += end + 1
	list := b[1:end]
	flags, ok := p.flags[string(list)]
	if !ok {
		var words []string
		for _, w := range bytes.Fields(list) {
			words = append(words, string(w))
		}
		flags = mail.NewFlags(words...)
		p.remember(list, flags)
	}
	p.f.Flags, p.f.Has = flags, p.f.Has|ItemFlags
	return nil
}

// remember keeps a bounded number of flag lists.
func (p *fetchParser) remember(list []byte, flags mail.Flags) {
	const most, longest = 1000, 1000
	if len(p.flags) >= most {
		clear(p.flags)
	}
	if len(list) <= longest {
		p.flags[string(list)] = flags
	}
}

// oddFlags reads flags written as strings, which no server should do.
func (p *fetchParser) oddFlags() error {
	s := p.s
	s.accept('(')
	var words []string
	for {
		s.spaces()
		if s.accept(')') {
			p.f.Flags, p.f.Has = mail.NewFlags(words...), p.f.Has|ItemFlags
			return nil
		}
		b, _, err := s.text()
		if err != nil {
			return err
		}
		if len(words) < maxString {
			words = append(words, string(b))
		}
	}
}

func (p *fetchParser) date() error {
	b, _, err := p.s.text()
	if err != nil {
		return err
	}
	p.f.InternalDate, p.f.Has = parseDate(b), p.f.Has|ItemDate
	return nil
}

// section recognises BODY[...] and its like; plain BODY is a structure.
func (p *fetchParser) section(name []byte) (section, bool) {
	if sec, ok := p.sections[string(name)]; ok {
		return sec, true
	}
	var sec section
	switch n := upper(name); {
	case n == "RFC822":
	case n == "RFC822.HEADER":
		sec.name = "HEADER"
	case n == "RFC822.TEXT":
		sec.name = "TEXT"
	case bytes.HasPrefix([]byte(n), []byte("BODY[")), bytes.HasPrefix([]byte(n), []byte("BINARY[")):
		_, inner, _ := bytes.Cut([]byte(n), []byte("["))
		inner, origin, ok := bytes.Cut(inner, []byte("]"))
		if !ok {
			return sec, false
		}
		// "BODY[]<0>" for the whole: the literal still is what counts.
		sec = section{name: string(inner), partial: len(origin) > 0 && string(origin) != "<0>"}
		if n[1] == 'I' {
			sec.name = "BINARY " + sec.name
		}
	default:
		return sec, false
	}
	if len(p.sections) < 100 {
		p.sections[string(name)] = sec
	}
	return sec, true
}

func (p *fetchParser) bodyItem(sec section) error {
	s := p.s
	b := &p.body
	if p.quiet {
		return s.skip()
	}
	*b = Body{Section: sec.name, Partial: sec.partial, size: -1, p: p}
	switch {
	case s.isNil():
	case s.peek() == '"':
		q, err := s.quoted()
		if err != nil {
			return err
		}
		b.quoted, b.size, b.left = append([]byte{}, q...), int64(len(q)), int64(len(q))
	default:
		n, ok, err := s.literal(s.maxBody)
		if err != nil {
			return err
		}
		if !ok {
			return errSyntax
		}
		b.size, b.left = n, n
	}
	p.f.Has |= ItemBody
	if err := p.h.Body(&p.f, b); err != nil {
		if p.err == nil {
			p.err = err
		}
		return err
	}
	return p.leave(b)
}

// leave passes over what is left of a section.
func (p *fetchParser) leave(b *Body) error {
	if p.err != nil || p.done || p.s.lit < 0 {
		return p.err
	}
	if err := p.s.discard(b.left); err != nil {
		p.err = err
		return err
	}
	b.left = 0
	return p.s.next()
}

// finish reads the rest of the response while a handler still has the body.
func (p *fetchParser) finish(b *Body) error {
	if p.err != nil || p.done {
		return p.err
	}
	p.quiet = true
	err := p.leave(b)
	if err == nil {
		err = p.items()
	}
	if errors.Is(err, errSyntax) {
		err = noProperEnd(b.size)
	}
	p.err = err
	return err
}

// noProperEnd: what follows the octets is no end of a response, so the announced
// size was wrong, and nobody can say what else was.
func noProperEnd(size int64) error {
	return broken("no proper end of the answer behind %d octets of a message", size)
}
