package testserver

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"sync"
	"time"
)

// scriptPatience is how long a scripted server waits for its client.
const scriptPatience = 20 * time.Second

// Step is one thing a scripted server does on a connection.
type Step func(*Peer) error

// Peer is the server's side of one scripted connection.
type Peer struct {
	conn net.Conn
	br   *bufio.Reader
	// Last is the line that Expect matched last.
	Last string
}

// Send sends octets as they are.
func Send(octets string) Step {
	return func(p *Peer) error {
		_, err := p.conn.Write([]byte(octets))
		return err
	}
}

// SendAfter waits, then sends.
func SendAfter(d time.Duration, octets string) Step {
	return func(p *Peer) error {
		time.Sleep(d)
		return Send(octets)(p)
	}
}

// Flood sends octets again and again until the client is gone, at most n times.
func Flood(octets string, n int) Step {
	return func(p *Peer) error {
		piece := bytes.Repeat([]byte(octets), max(1, 32<<10/len(octets)))
		for sent := 0; sent < n; sent += len(piece) / len(octets) {
			if _, err := p.conn.Write(piece); err != nil {
				return errGone
			}
		}
		return nil
	}
}

// Expect reads one line, which must match the regular expression.
func Expect(pattern string) Step {
	re := regexp.MustCompile(pattern)
	return func(p *Peer) error {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return fmt.Errorf("client ended instead of sending %s: %w", pattern, err)
		}
		p.Last = string(bytes.TrimRight([]byte(line), "\r\n"))
		if !re.MatchString(p.Last) {
			return fmt.Errorf("client sent %q, expected %s", p.Last, pattern)
		}
		return nil
	}
}

// Answer expects a line and sends octets.
func Answer(pattern, octets string) Step {
	return func(p *Peer) error {
		if err := Expect(pattern)(p); err != nil {
			return err
		}
		return Send(octets)(p)
	}
}

// Again repeats a step until the client is gone.
func Again(step Step) Step {
	return func(p *Peer) error {
		for {
			if step(p) != nil {
				return errGone
			}
		}
	}
}

// StartTLS does the server's handshake.
func StartTLS(cfg *tls.Config) Step {
	return func(p *Peer) error {
		tc := tls.Server(p.conn, cfg)
		if err := tc.Handshake(); err != nil {
			return errGone // the client may refuse, that is its right
		}
		p.conn, p.br = tc, bufio.NewReader(tc)
		return nil
	}
}

// Cut closes the connection.
func Cut() Step {
	return func(p *Peer) error { return errGone }
}

// Reset closes it with RST.
func Reset() Step {
	return func(p *Peer) error {
		if tc, ok := p.conn.(*net.TCPConn); ok {
			_ = tc.SetLinger(0)
		}
		return errGone
	}
}

// Hold says nothing until the client goes away.
func Hold() Step {
	return func(p *Peer) error {
		for {
			if _, err := p.br.ReadByte(); err != nil {
				return errGone
			}
		}
	}
}

// errGone ends a script that is over.
var errGone = fmt.Errorf("script is over")

// Script is a scripted server.
type Script struct {
	*listener
	mu   sync.Mutex
	errs []error
	next int
}

// NewScript serves the first connection by the first script, and so on; further
// connections get the last one.
func NewScript(scripts ...[]Step) (*Script, error) {
	s := &Script{}
	l, err := listen("", func(c net.Conn) {
		s.mu.Lock()
		script := scripts[min(s.next, len(scripts)-1)]
		s.next++
		s.mu.Unlock()
		s.play(c, script)
	})
	s.listener = l
	return s, err
}

func (s *Script) play(c net.Conn, script []Step) {
	_ = c.SetDeadline(time.Now().Add(scriptPatience))
	p := &Peer{conn: c, br: bufio.NewReader(c)}
	for i, step := range script {
		err := step(p)
		if err == errGone {
			return
		}
		if err != nil {
			s.mu.Lock()
			s.errs = append(s.errs, fmt.Errorf("step %d: %w", i+1, err))
			s.mu.Unlock()
			return
		}
	}
}

// Errs returns what clients did against their scripts.
func (s *Script) Errs() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.errs
}
