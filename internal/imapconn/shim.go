package imapconn

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// libraryConn is the connection as the library sees it: well-formed responses
// that are meant for it, tags of its own, no deadlines but ours.
type libraryConn struct{ c *Conn }

var _ net.Conn = libraryConn{}

// saslState follows an AUTHENTICATE exchange of the library.
type saslState struct {
	on      bool
	initial bool // an initial response is still to be sent
	rounds  int
}

// maxRounds of challenge and response: no mechanism needs as many.
const maxRounds = 10

// Read gives the library one response at a time, and only while it waits for one:
// in between, the connection belongs to raw commands.
func (l libraryConn) Read(p []byte) (int, error) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.toLib) == 0 {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case c.readErr != nil:
			return 0, c.readErr
		case !c.greet && (!c.turn || len(c.library) == 0):
			c.cond.Wait()
			continue
		}
		c.mu.Unlock()
		b, err := c.step()
		c.mu.Lock()
		if err != nil && c.readErr == nil {
			c.readErr = err
		}
		c.toLib = append(c.toLib, b...)
	}
	n := copy(p, c.toLib)
	c.toLib = c.toLib[n:]
	return n, nil
}

// letLibrary has the library's goroutine read while wait waits for its commands.
func (c *Conn) letLibrary(wait func() error) error {
	set := func(on bool) {
		c.mu.Lock()
		c.turn = on
		c.cond.Broadcast()
		c.mu.Unlock()
	}
	set(true)
	defer set(false)
	return wait()
}

// Write takes the library's commands, gives them unguessable tags and keeps count
// of what it then waits for.
func (l libraryConn) Write(p []byte) (int, error) {
	c := l.c
	c.wmu.Lock()
	defer c.wmu.Unlock()
	var out []byte
	for rest := p; len(rest) > 0; {
		if c.wlit > 0 {
			n := min(int64(len(rest)), c.wlit)
			out = append(out, rest[:n]...)
			c.wlit -= n
			rest = rest[n:]
			continue
		}
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			if len(c.wline)+len(rest) > maxLine {
				return 0, errors.New("command of more than 64 KiB")
			}
			c.wline = append(c.wline, rest...)
			break
		}
		line := string(append(c.wline, rest[:i+1]...))
		c.wline = c.wline[:0]
		rest = rest[i+1:]
		line, err := c.outgoing(line)
		if err != nil {
			return 0, err
		}
		out = append(out, line...)
	}
	if _, err := c.nc.Write(out); err != nil {
		c.setReadErr(err)
		return 0, err
	}
	return len(p), nil
}

// outgoing looks at one line of the library.
func (c *Conn) outgoing(line string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sasl.on {
		c.sasl.initial = false
		if c.sasl.rounds++; c.sasl.rounds > maxRounds {
			return "", errors.New("login exchange without end")
		}
		c.conts++
		if line == "=\r\n" {
			line = "\r\n" // RFC 9051 section 6.2.2: an empty response is an empty line
		}
		c.nc.TraceLine(true, "***")
		return line, nil
	}
	if !c.midCmd {
		tag, cmd, _ := strings.Cut(line, " ")
		if err := guard(cmd); err != nil {
			return "", err
		}
		tag = c.prefix + tag
		c.library[tag] = true
		c.cond.Broadcast()
		c.nc.Owed(true)
		line = tag + " " + cmd
		if verb, args, _ := strings.Cut(strings.TrimRight(cmd, "\r\n"), " "); verb == "AUTHENTICATE" {
			_, _, withResponse := strings.Cut(args, " ")
			c.sasl = saslState{on: true, initial: !withResponse && !noInitial(args)}
			c.conts++
		}
		c.nc.TraceLine(true, strings.TrimRight(line, "\r\n"))
	}
	c.midCmd = false
	if n, sync, ok := announced(line); ok {
		c.wlit, c.midCmd = n, true
		if sync {
			c.conts++
		}
	}
	return line, nil
}

// noInitial tells of mechanisms in which the server speaks first.
func noInitial(mech string) bool {
	switch strings.ToUpper(mech) {
	case "LOGIN", "CRAM-MD5", "DIGEST-MD5":
		return true
	}
	return false
}

// announced reads the announcement of a literal at the end of a command line.
func announced(line string) (n int64, sync, ok bool) {
	line = strings.TrimRight(line, "\r\n")
	i := strings.LastIndexByte(line, '{')
	if i < 0 || !strings.HasSuffix(line, "}") {
		return 0, false, false
	}
	var plus string
	if _, err := fmt.Sscanf(line[i:], "{%d%s", &n, &plus); err != nil {
		return 0, false, false
	}
	return n, plus == "}", true
}

func (l libraryConn) Close() error                     { return l.c.nc.Close() }
func (l libraryConn) LocalAddr() net.Addr              { return l.c.nc.LocalAddr() }
func (l libraryConn) RemoteAddr() net.Addr             { return l.c.nc.RemoteAddr() }
func (l libraryConn) SetDeadline(time.Time) error      { return nil }
func (l libraryConn) SetReadDeadline(time.Time) error  { return nil }
func (l libraryConn) SetWriteDeadline(time.Time) error { return nil }
