package testserver

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// IMAP is an IMAP server that answers as it is told. What it is not told it answers
// like a plain, correct server that keeps what is stored, appended and expunged.
//
// It listens on 127.0.0.1, gives up on a client after a while, and keeps what
// clients sent.
type IMAP struct {
	Greeting     string                   // without CRLF; "" greets with Capabilities
	Capabilities string                   // "" means IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+
	UIDValidity  string                   // "" means 1
	Messages     []IMAPMessage            // of INBOX
	Boxes        map[string][]IMAPMessage // other mailboxes, by their names as sent; where it is nil, any name can be selected, and literals are read as lines
	TLS          *tls.Config              // TLS from the first octet; nil for none

	// Attributes are what LIST says of mailboxes, by their names as sent; "" stands for
	// \HasNoChildren.
	Attributes map[string]string

	// Counts changes how many messages SELECT and STATUS say that a mailbox has.
	Counts func(mailbox string, n int) int

	// Answer may answer a command itself and then returns true. Of a command with
	// literals it sees the first line and may leave the rest to the server.
	Answer func(c *IMAPConn, cmd string) bool
	// Appended may settle an APPEND whose octets have come, and then returns true;
	// Store keeps them.
	Appended func(c *IMAPConn, mailbox string, messages []string) bool

	ln    net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[net.Conn]bool
	sent  []string
	count int
	next  map[string]uint32 // UIDNEXT where it is beyond the last UID
}

// IMAPMessage is a message of the server's INBOX.
type IMAPMessage struct {
	UID    uint32
	Octets string
	Flags  string // as they stand in the parentheses
	Date   string // "" means a day in 2023
	More   string // further items of every FETCH response, as they stand there
	Size   int    // RFC822.SIZE, where that is not how many octets there are
}

// Meta writes what describes the message, as it stands in a FETCH response.
func (m IMAPMessage) Meta() string {
	date := m.Date
	if date == "" {
		date = "14-Nov-2023 22:13:20 +0000"
	}
	size := m.Size
	if size == 0 {
		size = len(m.Octets)
	}
	meta := fmt.Sprintf(`UID %d FLAGS (%s) INTERNALDATE "%s" RFC822.SIZE %d`, m.UID, m.Flags, date, size)
	if m.More != "" {
		meta += " " + m.More
	}
	return meta
}

// Literal writes a literal.
func Literal(s string) string { return fmt.Sprintf("{%d}\r\n%s", len(s), s) }

// IMAPConn is one client's connection.
type IMAPConn struct {
	net.Conn
	R   *bufio.Reader
	Tag string // of the command being answered
	No  int    // connections before this one
	s   *IMAP
	box string // selected
}

// patience is how long a client may be silent.
const patience = 20 * time.Second

// Start listens; Close must be called.
func (s *IMAP) Start() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.ln = ln
	s.conns = make(map[net.Conn]bool)
	if s.Capabilities == "" {
		s.Capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+"
	}
	if s.UIDValidity == "" {
		s.UIDValidity = "1"
	}
	s.wg.Go(s.accept)
	return nil
}

// Port returns the port it listens on.
func (s *IMAP) Port() int { return s.ln.Addr().(*net.TCPAddr).Port }

// Sent returns the command lines clients sent, without tags.
func (s *IMAP) Sent() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.sent...)
}

// Connections returns how many clients came.
func (s *IMAP) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Close ends all connections and waits for what serves them.
func (s *IMAP) Close() error {
	err := s.ln.Close()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

func (s *IMAP) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		open := s.conns != nil
		no := s.count
		s.count++
		if open {
			s.conns[nc] = true
		}
		s.mu.Unlock()
		if !open {
			_ = nc.Close()
			return
		}
		if s.TLS != nil {
			nc = tls.Server(nc, s.TLS)
		}
		c := &IMAPConn{Conn: nc, R: bufio.NewReader(nc), No: no, s: s}
		s.wg.Go(func() {
			defer nc.Close()
			s.serve(c)
		})
	}
}

func (s *IMAP) serve(c *IMAPConn) {
	switch greeting := s.Greeting; greeting {
	case "":
		c.Send("* OK [CAPABILITY " + s.Capabilities + "] ready\r\n")
	default:
		c.Send(greeting + "\r\n")
	}
	for {
		line, err := c.Line()
		if err != nil {
			return
		}
		tag, cmd, _ := strings.Cut(line, " ")
		c.Tag = tag
		if s.strict() && !strings.HasPrefix(strings.ToUpper(cmd), "APPEND ") {
			if cmd, err = c.strings(cmd); err != nil {
				return
			}
		}
		s.mu.Lock()
		s.sent = append(s.sent, cmd)
		s.mu.Unlock()
		if s.Answer != nil && s.Answer(c, cmd) {
			continue
		}
		if !s.answer(c, cmd) {
			return
		}
	}
}

// strings reads the literals of a command and writes quoted strings for them.
func (c *IMAPConn) strings(cmd string) (string, error) {
	for {
		m := literals.FindStringSubmatchIndex(cmd)
		if m == nil {
			return cmd, nil
		}
		n, err := strconv.Atoi(cmd[m[2]:m[3]])
		if err != nil || n > 1<<20 {
			return "", fmt.Errorf("literal of %s octets", cmd[m[2]:m[3]])
		}
		if m[4] == m[5] {
			c.Send("+ go\r\n")
		}
		octets := make([]byte, n)
		if _, err := io.ReadFull(c.R, octets); err != nil {
			return "", err
		}
		rest, err := c.Line()
		if err != nil {
			return "", err
		}
		cmd = cmd[:m[0]] + quoted(string(octets)) + rest
	}
}

// Line reads one line of the client.
func (c *IMAPConn) Line() (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	line, err := c.R.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// Send writes text as it is. A client that is gone shows at the next Line.
func (c *IMAPConn) Send(text string) {
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, text)
}

// StartTLS does the server's handshake; the client may refuse it.
func (c *IMAPConn) StartTLS(cfg *tls.Config) {
	_ = c.SetDeadline(time.Now().Add(patience))
	tc := tls.Server(c.Conn, cfg)
	if tc.Handshake() == nil {
		c.Conn, c.R = tc, bufio.NewReader(tc)
	}
}

// OK completes the command.
func (c *IMAPConn) OK(text string) { c.Send(c.Tag + " OK " + text + "\r\n") }

// NO refuses the command.
func (c *IMAPConn) NO(text string) { c.Send(c.Tag + " NO " + text + "\r\n") }

// InSet tells whether a number is in an IMAP set.
func InSet(set string, n uint32) bool {
	for part := range strings.SplitSeq(set, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		if number(from) <= n && n <= number(to) {
			return true
		}
	}
	return false
}

func number(s string) uint32 {
	if s == "*" {
		return 1<<32 - 1
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}
