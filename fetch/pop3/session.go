package pop3

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	gopop3 "github.com/knadh/go-pop3"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// answerBudget bounds what the library may read for one command, in octets.
const answerBudget = 64 << 10

// session is one logged-in connection. go-pop3 holds the conversation, reader
// moves the octets; they take turns on the same connection.
type session struct {
	conn        *dial.Conn
	credentials auth.Credentials // with a token that is good now
	wire        *wire
	lib         *gopop3.Conn
	rd          *reader
	caps        capabilities
	offered     []string // login methods
	method      string   // that was used
	list        *listing
	gen         int       // counts the sessions of a Source
	began       time.Time // of the login
	scratch     []byte
	read        map[uint32]bool // messages whose octets were delivered to the end

	noUIDLFence, noLISTFence bool // what probe found
}

// capabilities is what CAPA says (RFC 2449).
type capabilities struct {
	known      bool // there was an answer to CAPA
	lines      []string
	user       bool
	sasl       []string
	pipelining bool
	expire0    bool // RETR may delete (RFC 2449 section 6.7)
	perUser    bool // EXPIRE or LOGIN-DELAY may differ after login
	loginDelay time.Duration
}

func parseCapabilities(text string) capabilities {
	c := capabilities{known: true}
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			continue
		}
		c.lines = append(c.lines, strings.Join(words, " "))
		switch words[0] {
		case "USER":
			c.user = true
		case "SASL":
			c.sasl = words[1:]
		case "PIPELINING":
			c.pipelining = true
		case "EXPIRE":
			c.expire0 = len(words) > 1 && words[1] == "0"
			c.perUser = c.perUser || slices.Contains(words, "USER")
		case "LOGIN-DELAY":
			if len(words) > 1 {
				if n, err := strconv.Atoi(words[1]); err == nil && n > 0 && n < 1_000_000 {
					c.loginDelay = time.Duration(n) * time.Second
				}
			}
			c.perUser = c.perUser || slices.Contains(words, "USER")
		}
	}
	return c
}

// wire is the connection as go-pop3 sees it. It holds the library to a stricter
// reading of status lines than its own, for which an empty line is success.
type wire struct {
	*dial.Conn
	redact func(string) string
	status bool   // a status line comes next
	held   []byte // its beginning, rewritten
	last   reply
	more   bool   // the last status was a continuation ("+ ...")
	behind []byte // commands of ours that go out with the library's next one
	err    error
}

// Write marks that an answer is to come; go-pop3 sends a command in one Write.
func (w *wire) Write(p []byte) (int, error) {
	w.status = true
	if len(w.behind) == 0 {
		return w.Conn.Write(p)
	}
	n, err := w.Conn.Write(append(p[:len(p):len(p)], w.behind...))
	w.behind = nil
	return min(n, len(p)), err
}

// Read hands a status line on in the spelling that the library knows.
func (w *wire) Read(p []byte) (int, error) {
	if w.status {
		if err := w.readStatus(); err != nil {
			return 0, err
		}
	}
	if len(w.held) > 0 {
		n := copy(p, w.held)
		w.held = w.held[n:]
		return n, nil
	}
	return w.Conn.Read(p)
}

func (w *wire) readStatus() error {
	var line []byte
	piece := make([]byte, 512)
	for {
		n, err := w.Conn.Read(piece)
		line = append(line, piece[:n]...)
		if n > 0 && piece[n-1] == '\n' {
			break
		}
		if err != nil {
			return dial.UnexpectedEOF(err)
		}
	}
	w.status = false
	text := strings.TrimRight(string(line), "\r\n")
	if w.more = text == "+" || strings.HasPrefix(text, "+ "); w.more {
		w.last = reply{text: strings.TrimSpace(text[1:])}
		w.held = []byte("+OK\r\n")
		return nil
	}
	r, err := parseReply([]byte(text), w.redact)
	if err != nil {
		w.err = err
		return err
	}
	w.last = r
	word := "-ERR"
	if r.ok {
		word = "+OK"
	}
	w.held = []byte(strings.TrimRight(word+" "+r.text, " ") + "\r\n")
	return nil
}

// dialer hands the connection to go-pop3.
type dialer struct{ w *wire }

func (d dialer) Dial(string, string) (net.Conn, error) { return d.w, nil }

// command has the library send one command. An -ERR is in the reply, an error
// means that the session is of no more use.
func (ss *session) command(multi bool, cmd string, args ...any) (reply, string, error) {
	if err := ss.lend(); err != nil {
		return reply{}, "", err
	}
	defer ss.takeBack()
	buf, err := ss.lib.Cmd(cmd, multi, args...)
	return ss.result(buf, err)
}

func (ss *session) result(buf fmt.Stringer, err error) (reply, string, error) {
	if ss.wire.err != nil {
		return reply{}, "", ss.wire.err
	}
	if err != nil && (ss.wire.status || ss.wire.last.ok) {
		return reply{}, "", err // no whole answer: the connection failed
	}
	if err != nil {
		return ss.wire.last, "", nil
	}
	return ss.wire.last, buf.String(), nil
}

// lend gives the connection to the library: nothing may be left in our buffer.
func (ss *session) lend() error {
	if len(ss.rd.buffered()) > 0 || ss.conn.Buffered() > 0 {
		return errOutOfStep
	}
	ss.conn.Lines(true)
	ss.conn.Budget(answerBudget)
	return nil
}

func (ss *session) takeBack() {
	ss.conn.Budget(-1)
	ss.conn.Lines(false)
}

// open connects and logs in. A token that is refused is replaced once. The error is
// final for this attempt.
func (s *Source) open(ctx context.Context) (*session, error) {
	c, _, err := s.cfg.Credentials.Fresh(ctx, false)
	if err != nil {
		return nil, s.name(err)
	}
	ss, err := s.connect(ctx, c)
	if !refusedLogin(err) {
		return ss, err
	}
	fresh, ok, ferr := c.Fresh(ctx, true)
	switch {
	case ferr != nil:
		return nil, s.name(ferr)
	case !ok:
		return nil, err
	}
	return s.connect(ctx, fresh)
}

// stat asks for STAT and, where the server pipelines, for UIDL in the same round
// trip: every session needs both. One that will fetch everything needs LIST, too.
func (s *Source) stat(ss *session) error {
	if ss.caps.pipelining {
		ss.wire.behind = []byte("UIDL\r\n")
		if s.expectAll.Load() {
			ss.wire.behind = []byte("UIDL\r\nLIST\r\n")
		}
	}
	r, text, err := ss.command(false, "STAT")
	if err != nil {
		return err
	}
	if !r.ok {
		return s.refused("STAT", r, mail.KindOther)
	}
	f := strings.Fields(text)
	l := &listing{octets: -1}
	if len(f) > 0 {
		l.count, err = strconv.Atoi(f[0])
	}
	if len(f) == 0 || err != nil || l.count < 0 || l.count > maxMessages {
		return &mail.Error{Kind: mail.KindOther, Op: "STAT", Server: s.cfg.Credentials.Redact(text), Err: errors.New("no count of messages that can be believed")}
	}
	if len(f) > 1 {
		if n, err := strconv.ParseInt(f[1], 10, 64); err == nil && n >= 0 {
			l.octets = n
		}
	}
	ss.list = l
	return nil
}

// ask gets those of UIDL and LIST that are wanted and not there yet, in one round
// trip where the server pipelines.
func (s *Source) ask(ss *session, uidl, sizes bool) error {
	var cmds []listingCommand
	if l := ss.list; l.count > 0 {
		if uidl && l.ends == nil {
			cmds = append(cmds, uidlCommand(l))
		}
		if sizes && l.sizes == nil {
			cmds = append(cmds, sizeCommand(l))
		}
	} else {
		l.hasUIDL = true
	}
	if ss.caps.pipelining {
		return s.askAll(ss, cmds)
	}
	for _, c := range cmds {
		if err := s.askAll(ss, []listingCommand{c}); err != nil {
			return err
		}
	}
	return nil
}

// listingCommand is a command whose answer is a list, and who takes it.
type listingCommand struct {
	name   string
	line   func([]byte) error
	finish func()
	lacks  func() // the server does not know the command
}

func uidlCommand(l *listing) listingCommand {
	p := newUIDLParser(l)
	return listingCommand{"UIDL", p.line, p.finish, func() { l.ends = make([]uint32, l.count) }}
}

func sizeCommand(l *listing) listingCommand {
	p := newListParser(l)
	return listingCommand{"LIST", p.line, p.finish, func() {}}
}

func (s *Source) askAll(ss *session, cmds []listingCommand) error {
	var out []byte
	for _, c := range cmds {
		out = append(out, c.name+"\r\n"...)
	}
	if len(out) == 0 {
		return nil
	}
	if _, err := ss.conn.Write(out); err != nil {
		return err
	}
	for _, c := range cmds {
		if err := s.answer(ss, c); err != nil {
			return err
		}
	}
	return nil
}

// answer takes the answer to a command that was sent.
func (s *Source) answer(ss *session, c listingCommand) error {
	r, err := ss.status()
	if err != nil {
		return err
	}
	if !r.ok {
		if kind, _ := r.classify(mail.KindOther); kind == mail.KindTemporary {
			return s.refused(c.name, r, mail.KindTemporary)
		}
		c.lacks()
		return nil
	}
	if err := ss.lines(c.line); err != nil {
		return err
	}
	c.finish()
	return nil
}

// status reads one status line.
func (ss *session) status() (reply, error) {
	line, err := ss.rd.line()
	if err != nil {
		return reply{}, err
	}
	return parseReply(line, ss.wire.redact)
}

// lines reads a list to its end.
func (ss *session) lines(f func([]byte) error) error {
	for {
		b, err := ss.rd.line()
		if err != nil {
			return err
		}
		if len(b) > 0 && b[0] == '.' {
			if len(b) == 1 {
				return nil
			}
			b = b[1:]
		}
		if err := f(b); err != nil {
			return err
		}
	}
}

// isLost tells an error of the connection, after which another may do, from an
// answer of the server.
func isLost(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	_, said := errors.AsType[*mail.Error](err)
	return !said
}
