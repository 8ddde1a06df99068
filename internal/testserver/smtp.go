package testserver

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// SMTP is a submission server (RFC 6409) that takes one user's mail. Change its
// fields before the first connection.
type SMTP struct {
	*listener
	TLS      *tls.Config
	Implicit bool // TLS from the first octet, else STARTTLS
	NoTLS    bool // offers no STARTTLS
	User     string
	Password string
	Takes    func(token string) bool // OAuth 2 tokens in place of the password; nil for none
	Refuse   string                  // the answer to the end of DATA, instead of 250

	mu       sync.Mutex
	messages []Submitted
	lines    []string
}

// Submitted is one message that was handed in.
type Submitted struct {
	From string
	To   []string
	Data string // with CRLF, dots unstuffed
}

// StartSMTP starts a server on a free port. The caller closes it.
func StartSMTP(s *SMTP) (*SMTP, error) {
	l, err := listen("127.0.0.1:0", s.serve)
	s.listener = l
	return s, err
}

// Messages returns what was handed in so far.
func (s *SMTP) Messages() []Submitted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Clear returns every line that came without TLS.
func (s *SMTP) Clear() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

type smtpSession struct {
	s        *SMTP
	c        net.Conn
	r        *bufio.Reader
	secure   bool
	loggedIn bool
	mail     Submitted
}

func (s *SMTP) serve(c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if s.Implicit {
		c = tls.Server(c, s.TLS)
	}
	x := &smtpSession{s: s, c: c, r: bufio.NewReader(c), secure: s.Implicit}
	x.say("220 test ESMTP")
	for {
		line, err := x.r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		if !x.secure {
			s.mu.Lock()
			s.lines = append(s.lines, line)
			s.mu.Unlock()
		}
		if !x.command(line) {
			return
		}
	}
}

func (x *smtpSession) say(lines ...string) {
	_, _ = io.WriteString(x.c, strings.Join(lines, "\r\n")+"\r\n")
}

// command answers one; false ends the session.
func (x *smtpSession) command(line string) bool {
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		lines := []string{"250-test"}
		if !x.secure && !x.s.NoTLS {
			lines = append(lines, "250-STARTTLS")
		}
		mechanisms := "250-AUTH LOGIN PLAIN"
		if x.s.Takes != nil {
			mechanisms += " XOAUTH2 OAUTHBEARER"
		}
		x.say(append(lines, mechanisms, "250 8BITMIME")...)
	case "STARTTLS":
		x.say("220 go ahead")
		x.c = tls.Server(x.c, x.s.TLS)
		x.r, x.secure = bufio.NewReader(x.c), true
	case "AUTH":
		x.auth(rest)
	case "MAIL", "RCPT":
		_, address, _ := strings.Cut(rest, "<")
		address, _, _ = strings.Cut(address, ">")
		switch {
		case !x.loggedIn:
			x.say("530 5.7.0 log in first")
		case strings.EqualFold(verb, "MAIL"):
			x.mail = Submitted{From: address}
			x.say("250 ok")
		default:
			x.mail.To = append(x.mail.To, address)
			x.say("250 ok")
		}
	case "DATA":
		x.say("354 go on")
		return x.data()
	case "QUIT":
		x.say("221 bye")
		return false
	case "RSET", "NOOP":
		x.say("250 ok")
	default:
		x.say("500 what")
	}
	return true
}

func (x *smtpSession) auth(rest string) {
	mechanism, initial, _ := strings.Cut(rest, " ")
	want := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "\x00%s\x00%s", x.s.User, x.s.Password))
	if strings.EqualFold(mechanism, "PLAIN") && initial == want && x.secure {
		x.loggedIn = true
		x.say("235 2.7.0 welcome")
		return
	}
	if x.s.Takes != nil && x.secure && slices.Contains([]string{"XOAUTH2", "OAUTHBEARER"}, strings.ToUpper(mechanism)) {
		first, _ := base64.StdEncoding.DecodeString(initial)
		_, token, _ := strings.Cut(strings.TrimRight(string(first), "\x01"), "auth=Bearer ")
		if x.s.Takes(token) {
			x.loggedIn = true
			x.say("235 2.7.0 welcome")
			return
		}
		x.say("334 " + base64.StdEncoding.EncodeToString([]byte(`{"status":"401"}`)))
		_, _ = x.r.ReadString('\n') // RFC 7628 section 3.2.3: an answer, then the refusal
	}
	x.say("535 5.7.8 wrong password")
}

func (x *smtpSession) data() bool {
	var b strings.Builder
	for {
		line, err := x.r.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	if x.s.Refuse != "" {
		x.say(x.s.Refuse)
		return true
	}
	x.mail.Data = b.String()
	x.s.mu.Lock()
	x.s.messages = append(x.s.messages, x.mail)
	x.s.mu.Unlock()
	x.say("250 2.0.0 taken")
	return true
}
