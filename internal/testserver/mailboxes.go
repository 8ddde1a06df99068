package testserver

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// answer is what a correct server does; false ends the connection.
func (s *IMAP) answer(c *IMAPConn, cmd string) bool {
	verb, rest, _ := strings.Cut(cmd, " ")
	switch strings.ToUpper(verb) {
	case "CAPABILITY":
		c.Send("* CAPABILITY " + s.Capabilities + "\r\n")
	case "LOGIN", "AUTHENTICATE":
		c.OK("[CAPABILITY " + s.Capabilities + "] logged in")
		return true
	case "LIST":
		for _, name := range s.names() {
			c.Send(fmt.Sprintf("* LIST (%s) \"/\" %s\r\n", cmp.Or(s.Attributes[argument(name)], `\HasNoChildren`), name))
		}
	case "STATUS":
		name := argument(rest)
		c.Send(fmt.Sprintf("* STATUS %s (MESSAGES %d UIDNEXT %d UIDVALIDITY %s)\r\n", quote(name), s.counted(name), s.uidNext(name), s.validity()))
	case "SELECT", "EXAMINE":
		name := argument(rest)
		if s.strict() && !slices.Contains(s.names(), quote(name)) {
			c.NO("[NONEXISTENT] no such mailbox")
			return true
		}
		c.box = name
		c.Send(fmt.Sprintf("* FLAGS (\\Seen)\r\n* %d EXISTS\r\n* OK [UIDVALIDITY %s] ok\r\n* OK [UIDNEXT %d] ok\r\n", s.counted(name), s.validity(), s.uidNext(name)))
		if strings.ToUpper(verb) == "SELECT" {
			c.Send("* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)] ok\r\n")
		}
	case "CREATE":
		s.mu.Lock()
		if s.Boxes == nil {
			s.Boxes = make(map[string][]IMAPMessage)
		}
		s.Boxes[argument(rest)] = s.Boxes[argument(rest)]
		s.mu.Unlock()
	case "FETCH":
		s.fetch(c, cmd)
	case "UID":
		return s.byUID(c, cmd)
	case "APPEND":
		return s.append(c, cmd)
	case "LOGOUT":
		c.Send("* BYE bye\r\n")
		c.OK("bye")
		return false
	}
	c.OK("done")
	return true
}

func (s *IMAP) counted(mailbox string) int {
	n := len(s.Held(mailbox))
	if s.Counts != nil {
		n = s.Counts(mailbox, n)
	}
	return n
}

// byUID answers the commands that begin with UID.
func (s *IMAP) byUID(c *IMAPConn, cmd string) bool {
	words := strings.Fields(cmd)
	if len(words) < 3 {
		c.Send(c.Tag + " BAD too few words\r\n")
		return true
	}
	set := words[2]
	switch strings.ToUpper(words[1]) {
	case "FETCH":
		s.fetch(c, cmd)
	case "STORE":
		change := flagged.FindStringSubmatch(cmd)
		if change == nil {
			c.Send(c.Tag + " BAD what flags\r\n")
			return true
		}
		s.Change(c.box, func(m *IMAPMessage) bool {
			if InSet(set, m.UID) {
				m.store(change[1], strings.Fields(change[2]))
			}
			return true
		})
	case "EXPUNGE":
		s.Change(c.box, func(m *IMAPMessage) bool {
			return !InSet(set, m.UID) || !strings.Contains(m.Flags, `\Deleted`)
		})
	case "MOVE":
		to := argument(strings.Join(words[3:], " "))
		s.Change(c.box, func(m *IMAPMessage) bool {
			if !InSet(set, m.UID) {
				return true
			}
			s.store(to, *m)
			return false
		})
	default:
		c.Send(c.Tag + " BAD unknown\r\n")
		return true
	}
	c.OK("done")
	return true
}

var flagged = regexp.MustCompile(`(?i) ([-+]?)FLAGS(?:\.SILENT)? \(([^)]*)\)`)

// store changes the flags of m as STORE does.
func (m *IMAPMessage) store(how string, flags []string) {
	now := strings.Fields(m.Flags)
	has := func(f string) bool {
		return slices.ContainsFunc(flags, func(g string) bool { return strings.EqualFold(f, g) })
	}
	switch how {
	case "":
		now = flags
	default:
		now = slices.DeleteFunc(now, has)
		if how == "+" {
			now = append(now, flags...)
		}
	}
	m.Flags = strings.Join(now, " ")
}

// names are the mailboxes as LIST writes them.
func (s *IMAP) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []string{"INBOX"}
	for name := range s.Boxes {
		all = append(all, quote(name))
	}
	slices.Sort(all[1:])
	return all
}

// strict tells whether mailboxes that do not exist are refused.
func (s *IMAP) strict() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Boxes != nil
}

// quote writes a mailbox name as an atom where that is possible, else as a quoted
// string or a literal.
func quote(name string) string {
	if name != "" && !strings.ContainsAny(name, " \\\"(){}%*\x7f\x00\r\n") {
		return name
	}
	if strings.ContainsAny(name, "\x00\r\n") {
		return Literal(name)
	}
	return quoted(name)
}

func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// argument reads an atom or a quoted string at the beginning of s.
func argument(s string) string {
	rest, quoted := strings.CutPrefix(s, `"`)
	if !quoted {
		word, _, _ := strings.Cut(s, " ")
		if strings.EqualFold(word, "INBOX") {
			return "INBOX"
		}
		return word
	}
	var name strings.Builder
	for i := 0; i < len(rest) && rest[i] != '"'; i++ {
		if rest[i] == '\\' {
			i++
		}
		if i < len(rest) {
			name.WriteByte(rest[i])
		}
	}
	return name.String()
}

// Held returns what a mailbox holds now.
func (s *IMAP) Held(mailbox string) []IMAPMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(*s.box(mailbox))
}

// box returns a mailbox to be changed, with mu held; one that does not exist is a
// new one.
func (s *IMAP) box(name string) *[]IMAPMessage {
	if name == "INBOX" || name == "" {
		return &s.Messages
	}
	msgs := s.Boxes[name]
	return &msgs
}

// Change gives each message of a mailbox to f, which may alter it; those for which
// it returns false are removed. f must not call the server's own methods but store.
func (s *IMAP) Change(mailbox string, f func(*IMAPMessage) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepNext(mailbox)
	var left []IMAPMessage
	for _, m := range *s.box(mailbox) {
		if f(&m) {
			left = append(left, m)
		}
	}
	s.put(mailbox, left)
}

func (s *IMAP) put(mailbox string, msgs []IMAPMessage) {
	if mailbox == "INBOX" || mailbox == "" {
		s.Messages = msgs
		return
	}
	if s.Boxes == nil {
		s.Boxes = make(map[string][]IMAPMessage)
	}
	s.Boxes[mailbox] = msgs
}

// Store adds messages to a mailbox and returns the UID of the first.
func (s *IMAP) Store(mailbox string, msgs ...IMAPMessage) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := uint32(0)
	for _, m := range msgs {
		if uid := s.store(mailbox, m); first == 0 {
			first = uid
		}
	}
	return first
}

// store gives m the next UID and keeps it, with mu held.
func (s *IMAP) store(mailbox string, m IMAPMessage) uint32 {
	m.UID = s.keepNext(mailbox)
	s.put(mailbox, append(*s.box(mailbox), m))
	s.keepNext(mailbox)
	return m.UID
}

// keepNext makes sure, with mu held, that no UID is given twice.
func (s *IMAP) keepNext(mailbox string) uint32 {
	if s.next == nil {
		s.next = make(map[string]uint32)
	}
	next := max(s.next[mailbox], 1)
	for _, m := range *s.box(mailbox) {
		next = max(next, m.UID+1)
	}
	s.next[mailbox] = next
	return next
}

func (s *IMAP) uidNext(mailbox string) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keepNext(mailbox)
}

// fetch answers FETCH and UID FETCH for the items mailhaul asks for.
func (s *IMAP) fetch(c *IMAPConn, cmd string) {
	rest, byUID := strings.CutPrefix(strings.ToUpper(cmd), "UID ")
	rest = strings.TrimPrefix(rest, "FETCH ")
	set, items, _ := strings.Cut(rest, " ")
	var out strings.Builder
	for i, m := range s.Held(c.box) {
		n := uint32(i + 1)
		if byUID {
			n = m.UID
		}
		if !InSet(set, n) {
			continue
		}
		line := fmt.Sprintf("* %d FETCH (%s", i+1, m.Meta())
		head, text, _ := strings.Cut(m.Octets, "\r\n\r\n")
		head += "\r\n\r\n"
		for section, octets := range map[string]string{"": m.Octets, "HEADER": head, "TEXT": text} {
			if strings.Contains(items, "BODY.PEEK["+section+"]") {
				line += " BODY[" + section + "] " + Literal(octets)
			}
		}
		out.WriteString(line + ")\r\n")
		if out.Len() > 64<<10 {
			c.Send(out.String())
			out.Reset()
		}
	}
	c.Send(out.String())
}

// literals matches what announces one at the end of a line.
var literals = regexp.MustCompile(`\{(\d+)(\+?)\}$`)

// append reads the messages of an APPEND, several of them with MULTIAPPEND (RFC
// 3502), and keeps them; false ends the connection.
func (s *IMAP) append(c *IMAPConn, cmd string) bool {
	_, rest, _ := strings.Cut(cmd, " ")
	mailbox, flags := argument(rest), ""
	var msgs []IMAPMessage
	for line := rest; ; {
		m := literals.FindStringSubmatch(line)
		if m == nil {
			break
		}
		if f := between.FindStringSubmatch(line); f != nil {
			flags = f[1]
		}
		if m[2] == "" {
			c.Send("+ go\r\n")
		}
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 1<<30 {
			return false
		}
		octets := make([]byte, n)
		if _, err := io.ReadFull(c.R, octets); err != nil {
			return false
		}
		msgs = append(msgs, IMAPMessage{Octets: string(octets), Flags: flags})
		if line, err = c.Line(); err != nil {
			return false
		}
	}
	if s.Appended != nil {
		octets := make([]string, len(msgs))
		for i, m := range msgs {
			octets[i] = m.Octets
		}
		if s.Appended(c, mailbox, octets) {
			return true
		}
	}
	if !slices.Contains(s.names(), quote(mailbox)) {
		c.NO("[TRYCREATE] no such mailbox")
		return true
	}
	first := s.Store(mailbox, msgs...)
	c.OK(s.APPENDUID(first, len(msgs)) + "stored")
	return true
}

var between = regexp.MustCompile(`\(([^()]*)\)`)

// APPENDUID is the response code for n messages from UID first on; nothing where
// the server has no UIDPLUS (RFC 4315).
func (s *IMAP) APPENDUID(first uint32, n int) string {
	switch {
	case !strings.Contains(s.Capabilities, "UIDPLUS") || n == 0:
		return ""
	case n == 1:
		return fmt.Sprintf("[APPENDUID %s %d] ", s.validity(), first)
	}
	return fmt.Sprintf("[APPENDUID %s %d:%d] ", s.validity(), first, first+uint32(n)-1)
}

// Renew gives all mailboxes another UIDVALIDITY.
func (s *IMAP) Renew(validity string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.UIDValidity = validity
}

func (s *IMAP) validity() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.UIDValidity
}
