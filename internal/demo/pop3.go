package demo

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// pop3Session serves one connection by RFC 1939, with CAPA, PIPELINING and AUTH
// PLAIN. Nothing can be deleted.
type pop3Session struct {
	c        net.Conn
	r        *bufio.Reader
	w        *bufio.Writer
	inbox    []Message
	user     string
	loggedIn bool
}

func (s *pop3Session) serve() {
	defer s.c.Close()
	s.r, s.w = bufio.NewReader(s.c), bufio.NewWriterSize(s.c, 64<<10)
	s.say("+OK mailhaul demo ready")
	for {
		if s.r.Buffered() == 0 { // answers of pipelined commands go out together
			if s.w.Flush() != nil {
				return
			}
		}
		line, err := s.line()
		if err != nil {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		if !s.answer(strings.ToUpper(verb), rest) {
			_ = s.w.Flush() // the client may be gone
			return
		}
	}
}

func (s *pop3Session) line() (string, error) {
	if err := s.c.SetDeadline(time.Now().Add(idle)); err != nil {
		return "", err
	}
	b, err := s.r.ReadSlice('\n') // longer than the buffer is an error
	return strings.TrimRight(string(b), "\r\n"), err
}

func (s *pop3Session) say(format string, args ...any) {
	fmt.Fprintf(s.w, format+"\r\n", args...)
}

// answer answers one command; false ends the session.
func (s *pop3Session) answer(verb, rest string) bool {
	switch {
	case verb == "QUIT":
		s.say("+OK bye")
		return false
	case verb == "CAPA":
		s.say("+OK\r\nTOP\r\nUSER\r\nUIDL\r\nPIPELINING\r\nRESP-CODES\r\nSASL PLAIN\r\n.")
	case verb == "NOOP":
		s.say("+OK")
	case !s.loggedIn:
		s.login(verb, rest)
	default:
		s.transaction(verb, rest)
	}
	return true
}

func (s *pop3Session) login(verb, rest string) {
	switch verb {
	case "USER":
		s.user = rest
		s.say("+OK")
	case "PASS":
		s.admit(s.user, rest)
	case "AUTH":
		mech, initial, given := strings.Cut(rest, " ")
		if !strings.EqualFold(mech, "PLAIN") {
			s.say("-ERR unknown mechanism")
			return
		}
		if !given {
			s.say("+ ")
			if s.w.Flush() != nil {
				return
			}
			var err error
			if initial, err = s.line(); err != nil {
				return
			}
		}
		raw, _ := base64.StdEncoding.DecodeString(initial) // wrong input is a wrong password
		parts := bytes.SplitN(raw, []byte{0}, 3)
		if len(parts) != 3 {
			parts = make([][]byte, 3)
		}
		s.admit(string(parts[1]), string(parts[2]))
	default:
		s.say("-ERR log in first")
	}
}

func (s *pop3Session) admit(user, password string) {
	if s.loggedIn = user == User && password == Password; s.loggedIn {
		s.say("+OK %d messages", len(s.inbox))
		return
	}
	s.say("-ERR [AUTH] wrong user or password")
}

func (s *pop3Session) transaction(verb, rest string) {
	number, lines, _ := strings.Cut(rest, " ")
	n, _ := strconv.Atoi(number)
	if number != "" && (n < 1 || n > len(s.inbox)) {
		s.say("-ERR no such message")
		return
	}
	switch verb {
	case "STAT":
		total := 0
		for _, m := range s.inbox {
			total += len(m.Octets)
		}
		s.say("+OK %d %d", len(s.inbox), total)
	case "LIST":
		s.list(n, func(m Message) string { return strconv.Itoa(len(m.Octets)) })
	case "UIDL":
		s.list(n, func(m Message) string { return fmt.Sprintf("%x", sha256.Sum256(m.Octets))[:24] })
	case "RETR", "TOP":
		if n == 0 {
			s.say("-ERR which message?")
			return
		}
		octets := s.inbox[n-1].Octets
		if verb == "TOP" {
			octets = top(octets, lines)
		}
		s.say("+OK")
		// RFC 1939 section 3: byte-stuffing of lines that begin with a dot.
		if octets[0] == '.' {
			octets = append([]byte{'.'}, octets...)
		}
		_, _ = s.w.Write(bytes.ReplaceAll(octets, []byte("\r\n."), []byte("\r\n.."))) // Flush tells
		s.say(".")
	case "RSET":
		s.say("+OK")
	default:
		s.say("-ERR not here")
	}
}

func (s *pop3Session) list(n int, item func(Message) string) {
	if n > 0 {
		s.say("+OK %d %s", n, item(s.inbox[n-1]))
		return
	}
	s.say("+OK")
	for i, m := range s.inbox {
		s.say("%d %s", i+1, item(m))
	}
	s.say(".")
}

// top returns the header and some lines of the body.
func top(octets []byte, lines string) []byte {
	header, body, _ := bytes.Cut(octets, []byte("\r\n\r\n"))
	n, _ := strconv.Atoi(lines)
	end := 0
	for ; n > 0; n-- {
		i := bytes.IndexByte(body[end:], '\n')
		if i < 0 {
			end = len(body)
			break
		}
		end += i + 1
	}
	return append(append(bytes.Clone(header), "\r\n\r\n"...), body[:end]...)
}
