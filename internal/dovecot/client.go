package dovecot

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// Message is one message to load, or one that was drained.
type Message struct {
	UID    uint32
	Flags  []string // system flags and keywords, without \Recent when drained
	Date   time.Time
	Octets []byte // wire form
}

// Client is a logged-in IMAP connection. It is not for concurrent use; each
// command waits 60 s at most for the next octets.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
	tag  int
}

// Dial logs a user in over the clear-text port.
func (s *Server) Dial(user string) (*Client, error) {
	conn, err := net.DialTimeout("tcp", s.Addr(s.IMAP), 5*time.Second)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn, r: bufio.NewReaderSize(conn, 256<<10)}
	if _, err := c.line(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := c.Cmd("LOGIN %s %s", Quote(user), Quote(Password)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return c, nil
}

// TLSConfig trusts the server's own authority only.
func (s *Server) TLSConfig() (*tls.Config, error) {
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", s.CAFile)
	}
	return &tls.Config{RootCAs: pool, ServerName: s.Host, MinVersion: tls.VersionTLS12}, nil
}

// Close logs out.
func (c *Client) Close() error {
	_, err := c.Cmd("LOGOUT")
	return errors.Join(err, c.conn.Close())
}

// Cmd sends one command and returns its untagged responses, each with the
// literals it holds. NO and BAD are errors.
func (c *Client) Cmd(format string, args ...any) ([][]byte, error) {
	return c.exec([]byte(fmt.Sprintf(format, args...)))
}

func (c *Client) exec(command []byte) ([][]byte, error) {
	c.tag++
	tag := fmt.Sprintf("t%d", c.tag)
	sent := make(chan error, 1)
	go func() { // a long MULTIAPPEND must not wait for answers nobody reads
		_, err := c.conn.Write(append(append([]byte(tag+" "), command...), "\r\n"...))
		sent <- err
	}()
	var untagged [][]byte
	for {
		l, err := c.response()
		if err != nil {
			return nil, errors.Join(err, <-sent)
		}
		rest, ok := bytes.CutPrefix(l, []byte(tag+" "))
		if !ok {
			untagged = append(untagged, l)
			continue
		}
		if !bytes.HasPrefix(rest, []byte("OK")) {
			verb, _, _ := bytes.Cut(command, []byte(" "))
			return untagged, errors.Join(fmt.Errorf("%s: %s", verb, bytes.TrimSpace(rest)), <-sent)
		}
		return untagged, <-sent
	}
}

func (c *Client) line() ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
		return nil, err
	}
	return c.r.ReadBytes('\n')
}

var literal = regexp.MustCompile(`~?\{(\d+)\}\r\n$`)

func (c *Client) response() ([]byte, error) {
	var all []byte
	for {
		l, err := c.line()
		if err != nil {
			return nil, err
		}
		all = append(all, l...)
		m := literal.FindSubmatch(l)
		if m == nil {
			return all, nil
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			return nil, err
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(c.r, body); err != nil {
			return nil, err
		}
		all = append(all, body...)
	}
}

// Quote writes a quoted string (RFC 3501 section 4.3).
func Quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// EncodeName writes a mailbox name in modified UTF-7 (RFC 3501 section 5.1.3).
func EncodeName(name string) string {
	var b strings.Builder
	var wide []uint16
	flush := func() {
		if len(wide) == 0 {
			return
		}
		raw := make([]byte, 0, 2*len(wide))
		for _, u := range wide {
			raw = append(raw, byte(u>>8), byte(u))
		}
		b.WriteString("&" + strings.ReplaceAll(base64.RawStdEncoding.EncodeToString(raw), "/", ",") + "-")
		wide = nil
	}
	for _, r := range name {
		switch {
		case r == '&':
			flush()
			b.WriteString("&-")
		case r >= ' ' && r <= '~':
			flush()
			b.WriteRune(r)
		default:
			wide = utf16.AppendRune(wide, r)
		}
	}
	flush()
	return b.String()
}

// Append loads messages into a mailbox (the server's own name in UTF-8), which it
// makes if there is none: MULTIAPPEND with non-synchronising literals, a few MiB
// at a time.
func (s *Server) Append(user, mailbox string, msgs ...Message) error {
	c, err := s.Dial(user)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Append(mailbox, msgs...)
}

// Append is Server.Append over this connection.
func (c *Client) Append(mailbox string, msgs ...Message) error {
	name := Quote(EncodeName(mailbox))
	if !strings.EqualFold(mailbox, "INBOX") {
		if _, err := c.Cmd("CREATE %s", name); err != nil && !strings.Contains(err.Error(), "ALREADYEXISTS") {
			return err
		}
	}
	for len(msgs) > 0 {
		var b bytes.Buffer
		fmt.Fprintf(&b, "APPEND %s", name)
		n := 0
		for n < len(msgs) && n < 1000 && b.Len() < 4<<20 {
			m := msgs[n]
			date := m.Date
			if date.IsZero() {
				date = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
			}
			tilde := ""
			if bytes.IndexByte(m.Octets, 0) >= 0 {
				tilde = "~" // RFC 3516: NUL only in literal8
			}
			fmt.Fprintf(&b, " (%s) \"%s\" %s{%d+}\r\n", strings.Join(m.Flags, " "), date.Format("_2-Jan-2006 15:04:05 -0700"), tilde, len(m.Octets))
			b.Write(m.Octets)
			n++
		}
		if _, err := c.exec(b.Bytes()); err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

// Messages drains a mailbox: every message with its wire octets, by ascending
// UID, without setting \Seen.
func (s *Server) Messages(user, mailbox string) ([]Message, error) {
	c, err := s.Dial(user)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Cmd("EXAMINE %s", Quote(EncodeName(mailbox))); err != nil {
		return nil, err
	}
	lines, err := c.Cmd("UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])")
	if err != nil {
		return nil, err
	}
	var msgs []Message
	for _, l := range lines {
		m, ok, err := parseFetch(l)
		if err != nil {
			return nil, err
		}
		if ok {
			msgs = append(msgs, m)
		}
	}
	return msgs, nil
}

var (
	fetchUID   = regexp.MustCompile(`UID (\d+)`)
	fetchFlags = regexp.MustCompile(`FLAGS \(([^)]*)\)`)
	fetchDate  = regexp.MustCompile(`INTERNALDATE "([^"]+)"`)
	fetchBody  = regexp.MustCompile(`BODY\[\] (?:~?\{(\d+)\}\r\n|"((?:[^"\\]|\\.)*)"|(NIL))`)
)

func parseFetch(l []byte) (m Message, ok bool, err error) {
	if !bytes.HasPrefix(l, []byte("* ")) || !bytes.Contains(l[:min(len(l), 40)], []byte(" FETCH (")) {
		return m, false, nil
	}
	at := fetchBody.FindSubmatchIndex(l)
	if at == nil {
		return m, false, nil
	}
	head := l[:at[0]]
	switch {
	case at[2] >= 0:
		n, err := strconv.Atoi(string(l[at[2]:at[3]]))
		if err != nil {
			return m, false, err
		}
		m.Octets = l[at[1] : at[1]+n]
	case at[4] >= 0:
		m.Octets = []byte(strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(string(l[at[4]:at[5]])))
	}
	uid, flags, date := fetchUID.FindSubmatch(head), fetchFlags.FindSubmatch(head), fetchDate.FindSubmatch(head)
	if uid == nil || flags == nil || date == nil {
		return m, false, fmt.Errorf("unexpected order in %q", l[:min(len(l), 200)])
	}
	n, err := strconv.ParseUint(string(uid[1]), 10, 32)
	if err != nil {
		return m, false, err
	}
	m.UID = uint32(n)
	for _, f := range strings.Fields(string(flags[1])) {
		if f != `\Recent` {
			m.Flags = append(m.Flags, f)
		}
	}
	m.Date, err = time.Parse("_2-Jan-2006 15:04:05 -0700", string(date[1]))
	return m, err == nil, err
}

// Status asks for numeric STATUS items of a mailbox: MESSAGES, UIDNEXT,
// UIDVALIDITY, HIGHESTMODSEQ.
func (s *Server) Status(user, mailbox string) (map[string]uint64, error) {
	c, err := s.Dial(user)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	lines, err := c.Cmd("STATUS %s (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ UNSEEN)", Quote(EncodeName(mailbox)))
	if err != nil {
		return nil, err
	}
	items := map[string]uint64{}
	for _, l := range lines {
		if !bytes.HasPrefix(l, []byte("* STATUS ")) {
			continue
		}
		words := strings.Fields(strings.Trim(string(l[bytes.LastIndexByte(l, '('):]), "() \r\n"))
		for i := 0; i+1 < len(words); i += 2 {
			if items[words[i]], err = strconv.ParseUint(words[i+1], 10, 64); err != nil {
				return nil, err
			}
		}
	}
	return items, nil
}

// Count returns how many messages a mailbox holds.
func (s *Server) Count(user, mailbox string) (int, error) {
	st, err := s.Status(user, mailbox)
	return int(st["MESSAGES"]), err
}

// Store changes flags as another client would: item is "+FLAGS" or "-FLAGS".
func (s *Server) Store(user, mailbox, uids, item string, flags ...string) error {
	return s.in(user, mailbox, "UID STORE %s %s.SILENT (%s)", uids, item, strings.Join(flags, " "))
}

// Expunge removes messages as another client would.
func (s *Server) Expunge(user, mailbox, uids string) error {
	if err := s.Store(user, mailbox, uids, "+FLAGS", `\Deleted`); err != nil {
		return err
	}
	return s.in(user, mailbox, "UID EXPUNGE %s", uids)
}

// Move moves messages by UID set to another mailbox.
func (s *Server) Move(user, mailbox, uids, to string) error {
	return s.in(user, mailbox, "UID MOVE %s %s", uids, Quote(EncodeName(to)))
}

func (s *Server) in(user, mailbox, format string, args ...any) error {
	c, err := s.Dial(user)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Cmd("SELECT %s", Quote(EncodeName(mailbox))); err != nil {
		return err
	}
	_, err = c.Cmd(format, args...)
	return err
}

// SetUIDValidity gives a mailbox another UIDVALIDITY, as a server does that lost
// its index.
func (s *Server) SetUIDValidity(user, mailbox string, v uint32) error {
	_, err := s.Doveadm("mailbox", "update", "-u", user, "--uid-validity", strconv.FormatUint(uint64(v), 10), mailbox)
	return err
}
