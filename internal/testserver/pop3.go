package testserver

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// POP3Message is one message in a POP3 server.
type POP3Message struct {
	Octets []byte // wire form, not stuffed
	UIDL   string // "" for one made of the octets and the place
}

// POP3Options says what server is wanted. The zero value is a good server without
// TLS that lets nobody in.
type POP3Options struct {
	Addr           string // "" for a free port of 127.0.0.1
	User, Password string
	TLS            *tls.Config
	Implicit       bool // TLS from the first octet; else STLS is offered if TLS is there
	Messages       []POP3Message
	Faults         POP3Faults
}

// POP3Faults are ways to be a bad server.
type POP3Faults struct {
	NoCAPA       bool // -ERR
	DropCAPA     bool // closes the connection
	NoPipelining bool // throws away what comes in before the answer is out
	NoTOP        bool
	NoUIDL       bool
	NoSASL       bool
	NoStuffing   bool              // dots at the start of lines are sent as they are
	Expire0      bool              // RETR and QUIT remove a message (RFC 2449 section 6.7)
	Gmail        bool              // RETR and QUIT hide a message, unannounced; DELE does nothing
	Window       int               // so many messages are shown in a session, the oldest; 0 for all
	Greeting     string            // instead of +OK; without CRLF
	Login        string            // answer to a right password; "" for +OK
	UIDL         func(int) string  // lines of UIDL instead of the right ones; "" leaves one out
	List         func(int) string  // the same for LIST
	Refuse       map[int]string    // answers to RETR n
	DropAt       map[int]bool      // closes the connection at RETR n
	Rewrite      map[int]string    // what RETR n sends behind +OK, as it is
	CutDown      int64             // closes the connection after so many octets sent; 0 for never
	CutTimes     int               // how many connections that happens to; 0 for all
	Capabilities map[string]string // more lines of CAPA

	// Answer may answer a command itself, on the connection, and then returns true;
	// sessions count from 0.
	Answer func(c net.Conn, session int, cmd string) bool
}

// POP3 is a small, correct POP3 server (RFC 1939, 2449, 2595, 5034) for one
// account. Messages live in memory.
type POP3 struct {
	*listener
	o POP3Options

	mu       sync.Mutex
	messages []POP3Message
	commands []string
	cuts     int
	sessions int
}

// NewPOP3 starts a server. The caller closes it.
func NewPOP3(o POP3Options) (*POP3, error) {
	s := &POP3{o: o, messages: append([]POP3Message(nil), o.Messages...)}
	for i := range s.messages {
		s.name(&s.messages[i], i)
	}
	l, err := listen(o.Addr, s.serve)
	if err != nil {
		return nil, err
	}
	s.listener = l
	return s, nil
}

func (s *POP3) name(m *POP3Message, i int) {
	if m.UIDL == "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", i, m.Octets))
		m.UIDL = hex.EncodeToString(sum[:8])
	}
}

// Add puts messages into the mailbox; sessions see them from the next login on.
func (s *POP3) Add(msgs ...POP3Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range msgs {
		s.name(&m, len(s.messages))
		s.messages = append(s.messages, m)
	}
}

// Messages returns what the mailbox holds.
func (s *POP3) Messages() []POP3Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]POP3Message(nil), s.messages...)
}

// Commands returns what clients sent, without arguments of logins.
func (s *POP3) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.commands...)
}

// pop3Session is one connection.
type pop3Session struct {
	s      *POP3
	conn   net.Conn
	br     *bufio.Reader
	bw     *bufio.Writer
	secure bool
	user   string
	in     bool // logged in
	list   []POP3Message
	dele   map[int]bool
	read   map[int]bool
	sent   int64
	cut    bool
	no     int // sessions before this one
}

func (s *POP3) serve(c net.Conn) {
	ss := &pop3Session{s: s, dele: make(map[int]bool), read: make(map[int]bool)}
	s.mu.Lock()
	ss.cut = s.o.Faults.CutDown > 0 && (s.o.Faults.CutTimes == 0 || s.cuts < s.o.Faults.CutTimes)
	if ss.cut {
		s.cuts++
	}
	ss.no = s.sessions
	s.sessions++
	s.mu.Unlock()
	if s.o.Implicit && s.o.TLS != nil {
		tc := tls.Server(c, s.o.TLS)
		if tc.Handshake() != nil {
			return
		}
		ss.secure = true
		c = tc
	}
	ss.attach(c)
	greeting := s.o.Faults.Greeting
	if greeting == "" {
		greeting = "+OK POP3 server ready"
	}
	ss.say(greeting)
	for ss.flush() == nil {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Minute)) // RFC 1939 section 3
		line, err := ss.br.ReadString('\n')
		if err != nil || len(line) > 4096 {
			return
		}
		if s.o.Faults.NoPipelining {
			_, _ = ss.br.Discard(ss.br.Buffered())
		}
		if !ss.command(strings.TrimRight(line, "\r\n")) {
			_ = ss.bw.Flush()
			return
		}
	}
}

func (ss *pop3Session) attach(c net.Conn) {
	ss.conn, ss.br, ss.bw = c, bufio.NewReader(c), bufio.NewWriterSize(cutter{ss, c}, 32<<10)
}

// cutter closes the connection at the limit.
type cutter struct {
	ss *pop3Session
	c  net.Conn
}

func (w cutter) Write(p []byte) (int, error) {
	ss := w.ss
	_ = w.c.SetWriteDeadline(time.Now().Add(10 * time.Minute))
	if limit := ss.s.o.Faults.CutDown; ss.cut && ss.sent+int64(len(p)) > limit {
		_, _ = w.c.Write(p[:limit-ss.sent])
		ss.sent = limit
		w.c.Close()
		return 0, net.ErrClosed
	}
	ss.sent += int64(len(p))
	return w.c.Write(p)
}

// flush sends what is due once no further command is waiting.
func (ss *pop3Session) flush() error {
	if ss.br.Buffered() > 0 && ss.bw.Buffered() < 16<<10 {
		return nil
	}
	return ss.bw.Flush()
}

func (ss *pop3Session) say(line string) {
	ss.bw.WriteString(line)
	ss.bw.WriteString("\r\n")
}

func (ss *pop3Session) note(what string) {
	ss.s.mu.Lock()
	ss.s.commands = append(ss.s.commands, what)
	ss.s.mu.Unlock()
}

// command carries one out; false ends the connection.
func (ss *pop3Session) command(line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	f := ss.s.o.Faults
	switch verb {
	case "PASS", "AUTH", "USER":
		ss.note(verb)
	default:
		ss.note(strings.TrimSpace(verb + " " + arg))
	}
	if f.Answer != nil {
		if ss.bw.Flush() != nil {
			return false
		}
		if f.Answer(ss.conn, ss.no, strings.TrimSpace(verb+" "+arg)) {
			return true
		}
	}
	switch verb {
	case "QUIT":
		ss.quit()
		return false
	case "CAPA":
		if f.DropCAPA {
			return false
		}
		ss.capa()
		return true
	case "NOOP":
		ss.say("+OK")
		return true
	}
	if ss.in {
		return ss.transaction(verb, arg)
	}
	return ss.authorization(verb, arg)
}

func (ss *pop3Session) capa() {
	f := ss.s.o.Faults
	if f.NoCAPA {
		ss.say("-ERR unknown command")
		return
	}
	ss.say("+OK")
	ss.say("USER")
	ss.say("RESP-CODES")
	if !f.NoSASL {
		ss.say("SASL PLAIN")
	}
	if !f.NoPipelining {
		ss.say("PIPELINING")
	}
	if !f.NoTOP {
		ss.say("TOP")
	}
	if !f.NoUIDL {
		ss.say("UIDL")
	}
	if ss.s.o.TLS != nil && !ss.secure {
		ss.say("STLS")
	}
	if f.Expire0 {
		ss.say("EXPIRE 0")
	}
	for k, v := range f.Capabilities {
		ss.say(strings.TrimSpace(k + " " + v))
	}
	ss.say(".")
}

func (ss *pop3Session) authorization(verb, arg string) bool {
	switch verb {
	case "STLS":
		if ss.s.o.TLS == nil || ss.secure {
			ss.say("-ERR no TLS")
			return true
		}
		ss.say("+OK begin TLS")
		if ss.bw.Flush() != nil {
			return false
		}
		tc := tls.Server(ss.conn, ss.s.o.TLS)
		if tc.Handshake() != nil {
			return false
		}
		ss.secure = true
		ss.attach(tc)
	case "USER":
		ss.user = arg
		ss.say("+OK")
	case "PASS":
		ss.login(ss.user, arg)
	case "AUTH":
		mech, first, _ := strings.Cut(arg, " ")
		if !strings.EqualFold(mech, "PLAIN") || ss.s.o.Faults.NoSASL {
			ss.say("-ERR no such mechanism")
			return true
		}
		if first == "" {
			ss.say("+ ")
			if ss.bw.Flush() != nil {
				return false
			}
			line, err := ss.br.ReadString('\n')
			if err != nil {
				return false
			}
			first = strings.TrimRight(line, "\r\n")
		}
		raw, _ := base64.StdEncoding.DecodeString(first)
		parts := strings.Split(string(raw), "\x00")
		if len(parts) != 3 {
			ss.say("-ERR cannot read that")
			return true
		}
		ss.login(parts[1], parts[2])
	default:
		ss.say("-ERR log in first")
	}
	return true
}

func (ss *pop3Session) login(user, password string) {
	o := ss.s.o
	if o.Password == "" || user != o.User || password != o.Password {
		ss.say("-ERR [AUTH] wrong user or password")
		return
	}
	if a := o.Faults.Login; a != "" {
		ss.say(a)
		if !strings.HasPrefix(a, "+OK") {
			return
		}
	} else {
		ss.say("+OK logged in")
	}
	ss.in = true
	ss.list = ss.s.Messages()
	if w := o.Faults.Window; w > 0 {
		ss.list = ss.list[:min(w, len(ss.list))]
	}
}

// number reads a message number; 0 if there is no such message.
func (ss *pop3Session) number(arg string) int {
	n, err := strconv.Atoi(strings.TrimSpace(arg))
	if err != nil || n < 1 || n > len(ss.list) || ss.dele[n] {
		return 0
	}
	return n
}

func (ss *pop3Session) transaction(verb, arg string) bool {
	f := ss.s.o.Faults
	switch verb {
	case "STAT":
		count, octets := 0, 0
		for i, m := range ss.list {
			if !ss.dele[i+1] {
				count++
				octets += len(m.Octets)
			}
		}
		ss.say(fmt.Sprintf("+OK %d %d", count, octets))
	case "LIST":
		ss.listing(arg, f.List, func(i int) string { return fmt.Sprintf("%d %d", i+1, len(ss.list[i].Octets)) })
	case "UIDL":
		if f.NoUIDL {
			ss.say("-ERR unknown command")
			return true
		}
		ss.listing(arg, f.UIDL, func(i int) string { return fmt.Sprintf("%d %s", i+1, ss.list[i].UIDL) })
	case "RETR":
		return ss.retr(arg)
	case "TOP":
		ss.top(arg)
	case "DELE":
		n := ss.number(arg)
		if n == 0 {
			ss.say("-ERR no such message")
			return true
		}
		ss.dele[n] = true
		ss.say("+OK")
	case "RSET":
		clear(ss.dele)
		ss.say("+OK")
	default:
		ss.say("-ERR unknown command")
	}
	return true
}

func (ss *pop3Session) listing(arg string, lie func(int) string, line func(int) string) {
	if lie == nil {
		lie = line
	}
	if arg != "" {
		n := ss.number(arg)
		if n == 0 {
			ss.say("-ERR no such message")
			return
		}
		ss.say("+OK " + lie(n-1))
		return
	}
	ss.say("+OK")
	for i := range ss.list {
		if ss.dele[i+1] {
			continue
		}
		if l := lie(i); l != "" {
			ss.say(l)
		}
	}
	ss.say(".")
}

func (ss *pop3Session) retr(arg string) bool {
	f := ss.s.o.Faults
	n := ss.number(arg)
	switch {
	case n == 0:
		ss.say("-ERR no such message")
	case f.DropAt[n]:
		_ = ss.bw.Flush()
		return false
	case f.Refuse[n] != "":
		ss.say(f.Refuse[n])
	case f.Rewrite[n] != "":
		ss.say("+OK")
		ss.bw.WriteString(f.Rewrite[n])
	default:
		ss.read[n] = true
		m := ss.list[n-1]
		ss.say(fmt.Sprintf("+OK %d octets", len(m.Octets)))
		ss.body(m.Octets)
	}
	return true
}

func (ss *pop3Session) top(arg string) {
	if ss.s.o.Faults.NoTOP {
		ss.say("-ERR unknown command")
		return
	}
	num, lines, _ := strings.Cut(arg, " ")
	k, err := strconv.Atoi(lines)
	n := ss.number(num)
	if n == 0 || err != nil || k < 0 {
		ss.say("-ERR no such message")
		return
	}
	octets := ss.list[n-1].Octets
	end := headerEnd(octets)
	for ; k > 0 && end < len(octets); k-- {
		if i := bytes.IndexByte(octets[end:], '\n'); i >= 0 {
			end += i + 1
		} else {
			end = len(octets)
		}
	}
	ss.say("+OK")
	ss.body(octets[:end])
}

// headerEnd is behind the empty line.
func headerEnd(b []byte) int {
	for at := 0; at < len(b); {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			break
		}
		line := b[at : at+i]
		at += i + 1
		if len(bytes.TrimRight(line, "\r")) == 0 {
			return at
		}
	}
	return len(b)
}

// body sends a message, stuffed, and the terminator. A message that does not end
// in CRLF gets one, as the protocol cannot do without (RFC 1939 section 3).
func (ss *pop3Session) body(b []byte) {
	for len(b) > 0 {
		if b[0] == '.' && !ss.s.o.Faults.NoStuffing {
			ss.bw.WriteByte('.')
		}
		i := bytes.Index(b, []byte("\r\n"))
		if i < 0 {
			ss.bw.Write(b)
			ss.bw.WriteString("\r\n")
			break
		}
		ss.bw.Write(b[:i+2])
		b = b[i+2:]
	}
	ss.bw.WriteString(".\r\n")
}

// quit removes what was marked; only a proper QUIT does (RFC 1939 section 6).
func (ss *pop3Session) quit() {
	gone := make(map[string]bool)
	if ss.s.o.Faults.Gmail {
		clear(ss.dele)
	}
	for n := range ss.dele {
		gone[ss.list[n-1].UIDL] = true
	}
	if ss.s.o.Faults.Expire0 || ss.s.o.Faults.Gmail {
		for n := range ss.read {
			gone[ss.list[n-1].UIDL] = true
		}
	}
	ss.s.mu.Lock()
	left := ss.s.messages[:0:0]
	for _, m := range ss.s.messages {
		if !gone[m.UIDL] {
			left = append(left, m)
		}
	}
	ss.s.messages = left
	ss.s.mu.Unlock()
	ss.say("+OK bye")
}
