package dovecot

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// MessagesPOP3 drains the maildrop over POP3S, one message per round trip: UIDL
// and wire octets, in the order of the server.
func (s *Server) MessagesPOP3(user string) (uidls []string, octets [][]byte, err error) {
	conf, err := s.TLSConfig()
	if err != nil {
		return nil, nil, err
	}
	conn, err := tls.Dial("tcp", s.Addr(s.POP3S), conf)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(conn, 256<<10)
	ask := func(format string, args ...any) error {
		if format != "" {
			if _, err := fmt.Fprintf(conn, format+"\r\n", args...); err != nil {
				return err
			}
		}
		l, err := r.ReadString('\n')
		if err == nil && !strings.HasPrefix(l, "+OK") {
			err = errors.New(strings.TrimSpace(l))
		}
		return err
	}
	for _, step := range []string{"", "USER " + user, "PASS " + Password, "UIDL"} {
		if err := ask(step); err != nil {
			return nil, nil, err
		}
	}
	list, err := dotted(r)
	if err != nil {
		return nil, nil, err
	}
	for l := range strings.Lines(string(list)) {
		_, uidl, _ := strings.Cut(strings.TrimSpace(l), " ")
		uidls = append(uidls, uidl)
	}
	for i := range uidls {
		if err := ask("RETR %d", i+1); err != nil {
			return nil, nil, err
		}
		body, err := dotted(r)
		if err != nil {
			return nil, nil, err
		}
		octets = append(octets, body)
	}
	return uidls, octets, ask("QUIT")
}

// dotted reads a multi-line answer and undoes the stuffing (RFC 1939 section 3).
// Only CRLF ends a line.
func dotted(r *bufio.Reader) ([]byte, error) {
	var all []byte
	for {
		var l []byte
		for !bytes.HasSuffix(l, []byte("\r\n")) {
			part, err := r.ReadBytes('\n')
			l = append(l, part...)
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return nil, err
			}
		}
		if string(l) == ".\r\n" {
			return all, nil
		}
		all = append(all, bytes.TrimPrefix(l, []byte("."))...)
	}
}
