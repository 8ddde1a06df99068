package imapconn

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// step reads one response and takes it to whom it belongs; forLib is what the
// library is to see of it. It is called by the library's goroutine while a command
// of the library is in flight, and by the owner of the connection else.
func (c *Conn) step() (forLib []byte, err error) {
	s := c.scan
	if err := s.next(); err != nil {
		return nil, err
	}
	forLib, err = c.response()
	if errors.Is(err, errSyntax) {
		err = c.ignore()
	}
	return forLib, err
}

// ignore passes over a response that is of no use; there may be so many of them.
func (c *Conn) ignore() error {
	if c.junk++; c.junk > maxJunk {
		return broken("more than %d responses nobody asked for", maxJunk)
	}
	return c.scan.skipRest()
}

func (c *Conn) response() ([]byte, error) {
	s := c.scan
	c.mu.Lock()
	greeting := c.greet
	c.mu.Unlock()
	switch {
	case s.peek() == '+' && !greeting:
		return c.continuation()
	case s.accept('*') && s.accept(' '):
		if greeting {
			return c.greeting()
		}
		return c.untagged()
	case greeting:
		return nil, &wireError{fmt.Errorf("%w: it says %.80q", errNotIMAP, s.line)}
	}
	return c.tagged()
}

var errNotIMAP = errors.New("this is not an IMAP server")

func (c *Conn) greeting() ([]byte, error) {
	r, ok := c.result(c.scan.rest())
	if !ok || r.Condition == "NO" || r.Condition == "BAD" {
		return nil, &wireError{fmt.Errorf("%w: it says %.80q", errNotIMAP, c.scan.line)}
	}
	c.mu.Lock()
	c.greet = false
	c.mu.Unlock()
	c.greeted = r.Text
	if r.Condition == "BYE" {
		c.bye = "BYE " + r.Text
		return nil, broken("server does not want to talk to us")
	}
	c.observe(r)
	c.notOwed()
	// With capabilities in it the library does not ask on its own.
	return []byte("* " + r.Condition + " [CAPABILITY " + c.libraryCaps() + "] " + plain(r.Text) + "\r\n"), nil
}

// libraryCaps is what the library may know of. IMAP4rev2 and UTF8=ACCEPT would make it
// write names differently without being asked (RFC 9051 section 5.1).
func (c *Conn) libraryCaps() string {
	caps := []string{"IMAP4rev1"}
	for _, name := range []string{"SASL-IR", "LITERAL+", "LITERAL-", "ID", "NAMESPACE", "UIDPLUS", "MOVE", "UNSELECT", "ENABLE", "CONDSTORE", "SPECIAL-USE", "CREATE-SPECIAL-USE", "LOGINDISABLED"} {
		if c.caps[name] {
			caps = append(caps, name)
		}
	}
	return strings.Join(caps, " ")
}

// continuation passes "+" on only where the library waits for one.
func (c *Conn) continuation() ([]byte, error) {
	c.mu.Lock()
	wanted := c.conts > 0
	if wanted {
		c.conts--
	}
	sasl := c.sasl
	c.mu.Unlock()
	if !wanted {
		return nil, c.count()
	}
	text := strings.TrimSpace(string(c.scan.line[1:]))
	if sasl.on && text == "" && !sasl.initial {
		text = "=" // an empty challenge, which is not a call for the initial response
	}
	return []byte("+ " + plainLong(text) + "\r\n"), nil
}

func plainLong(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, text)
}

func (c *Conn) tagged() ([]byte, error) {
	s := c.scan
	tag := string(s.atom())
	s.spaces()
	r, ok := c.result(s.rest())
	if !ok || r.Condition == "BYE" || r.Condition == "PREAUTH" {
		return nil, c.count()
	}
	if c.ours(tag) {
		c.observe(r)
		c.done = append(c.done, tagged{tag, r})
		c.notOwed()
		return nil, nil
	}
	c.mu.Lock()
	own := c.library[tag]
	delete(c.library, tag)
	if own {
		c.sasl, c.conts = saslState{}, 0
	}
	c.mu.Unlock()
	if !own {
		return nil, c.count() // only tags in flight count
	}
	c.observe(r)
	c.last = r
	c.notOwed()
	return c.forLibrary(strings.TrimPrefix(tag, c.prefix), r), nil
}

// ours tells whether a raw command of this tag was in flight, which it ends.
func (c *Conn) ours(tag string) bool {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	for i, t := range c.raw {
		if t == tag {
			c.raw = append(c.raw[:i], c.raw[i+1:]...)
			return true
		}
	}
	return false
}

// notOwed takes the deadline off when nothing is in flight.
func (c *Conn) notOwed() {
	c.wmu.Lock()
	n := len(c.raw)
	c.wmu.Unlock()
	c.mu.Lock()
	n += len(c.library)
	c.mu.Unlock()
	if n == 0 {
		c.nc.Owed(false)
	}
}

// forLibrary writes a tagged answer as the library can read it. Capabilities stand
// in every OK, so that it never asks for them on its own.
func (c *Conn) forLibrary(tag string, r Result) []byte {
	code := ""
	switch {
	case r.OK():
		code = "[CAPABILITY " + c.libraryCaps() + "] "
	case isAtom(r.Code):
		code = "[" + r.Code + "] "
	}
	text := r.Text
	if _, after, ok := strings.Cut(text, "]"); ok && r.Code != "" {
		text = strings.TrimSpace(after)
	}
	if text == "" {
		text = "-"
	}
	return []byte(tag + " " + r.Condition + " " + code + plain(text) + "\r\n")
}

func isAtom(s string) bool {
	for i := range len(s) {
		if !direct(s[i]) || strings.IndexByte(` (){%*"\]`, s[i]) >= 0 {
			return false
		}
	}
	return s != ""
}

// untagged handles what stands behind "* ".
func (c *Conn) untagged() ([]byte, error) {
	s := c.scan
	s.spaces()
	if d := s.peek(); d >= '0' && d <= '9' {
		return nil, c.numbered()
	}
	from := s.pos
	word := upper(s.atom())
	switch word {
	case "OK", "NO", "BAD", "BYE":
		s.pos = from
		r, _ := c.result(s.rest())
		c.condition(r)
		return nil, c.count()
	case "CAPABILITY":
		c.setCaps(string(s.rest()))
		return []byte("* CAPABILITY " + c.libraryCaps() + "\r\n"), c.count()
	case "NAMESPACE":
		return c.namespace()
	case "LIST":
		return nil, c.list()
	case "LSUB":
		if c.handler != nil && c.handler.Lsub {
			return nil, c.list()
		}
	case "STATUS":
		return nil, c.status()
	case "QUOTA":
		return nil, c.quota()
	case "SEARCH":
		return nil, c.search()
	}
	// FLAGS, ID, VANISHED, ENABLED, LSUB and what is not known: nobody
	// here draws conclusions from them.
	return nil, c.ignore()
}

func (c *Conn) count() error {
	if c.junk++; c.junk > maxJunk {
		return broken("more than %d responses nobody asked for", maxJunk)
	}
	return nil
}

func (c *Conn) condition(r Result) {
	if r.Condition == "BYE" && c.bye == "" {
		c.bye = "BYE " + r.Text
	}
	c.observe(r)
}

// observe takes what response codes say of the connection and the mailbox.
func (c *Conn) observe(r Result) {
	n, err := strconv.ParseUint(strings.TrimSpace(r.Arg), 10, 63)
	number := err == nil
	switch r.Code {
	case "CAPABILITY":
		c.setCaps(r.Arg)
	case "ALERT":
		c.alert = r.Text
	case "UIDVALIDITY":
		if number && n < 1<<32 {
			c.sel.UIDValidity = uint32(n)
		}
	case "UIDNEXT":
		if number && n < 1<<32 {
			c.sel.UIDNext = uint32(n)
		}
	case "HIGHESTMODSEQ":
		if number {
			c.sel.HighestModSeq = n
		}
	case "COPYUID":
		if len(c.copied) < maxCopied {
			c.copied = append(c.copied, r.Arg)
		}
	case "UIDNOTSTICKY":
		c.sel.NoUIDs = true
	}
}

func (c *Conn) setCaps(list string) {
	const most = 500
	caps := make(map[string]bool)
	for name := range strings.FieldsSeq(list) {
		if len(caps) < most {
			caps[strings.ToUpper(name)] = true
		}
	}
	c.caps = caps
}

// numbered handles "* n WORD".
func (c *Conn) numbered() error {
	s := c.scan
	n, ok := s.number32()
	s.spaces()
	if !ok {
		return errSyntax
	}
	word := s.atom()
	switch {
	case bytes.EqualFold(word, []byte("FETCH")):
		return c.fetch(n)
	case bytes.EqualFold(word, []byte("EXISTS")):
		c.sel.Exists = int64(n)
	case bytes.EqualFold(word, []byte("EXPUNGE")):
		c.sel.Exists--
		c.sel.Expunged++
		if c.sel.Exists >= 0 {
			return nil // bounded by what EXISTS said
		}
	}
	return c.ignore()
}

func (c *Conn) fetch(seq uint32) error {
	if c.fetched++; c.fetched > maxMessages {
		return broken("more than %d FETCH responses to one command", maxMessages)
	}
	if c.handler == nil || c.handler.Fetch == nil {
		return c.ignore()
	}
	err := c.parser.response(seq, c.handler.Fetch)
	if errors.Is(err, errSyntax) {
		return err
	}
	return handled(err)
}

func (c *Conn) list() error {
	if c.handler == nil || c.handler.List == nil {
		return c.ignore()
	}
	e, err := c.scan.list()
	if err != nil {
		return err
	}
	if err := c.scan.skipRest(); err != nil {
		return err
	}
	return handled(c.handler.List(e))
}

func (c *Conn) status() error {
	if c.handler == nil || c.handler.Status == nil {
		return c.ignore()
	}
	e, err := c.scan.status()
	if err != nil {
		return err
	}
	if err := c.scan.skipRest(); err != nil {
		return err
	}
	return handled(c.handler.Status(e))
}

func (c *Conn) namespace() ([]byte, error) {
	n, err := c.scan.namespaces()
	if err != nil {
		return nil, err
	}
	c.names, c.hasNames = n, true
	if err := c.scan.skipRest(); err != nil {
		return nil, err
	}
	prefix := fmt.Sprintf("%q", plain(n.Prefix))
	delim := "NIL"
	if n.Delim != 0 && n.Delim != '"' && n.Delim != '\\' {
		delim = `"` + string(rune(n.Delim)) + `"`
	}
	return []byte("* NAMESPACE ((" + prefix + " " + delim + ")) NIL NIL\r\n"), c.count()
}
