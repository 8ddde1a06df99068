package imapconn

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mailhaul/mail"
)

// literalMinus is the longest literal that LITERAL- lets go without waiting
// (RFC 7888 section 5).
const literalMinus = 4096

// Message is one message to be appended.
type Message struct {
	Flags mail.Flags
	Date  time.Time // INTERNALDATE; zero lets the server choose
	Size  int64     // octets on the wire
	NUL   bool      // there are NULs in it: literal8 where the server has BINARY (RFC 3516)
	// WriteTo writes exactly Size octets, in wire form.
	WriteTo func(w io.Writer) error
}

// Appended is what came of an append.
type Appended struct {
	Result
	UIDValidity uint32   // 0 where the server does not say
	UIDs        []uint32 // of the messages, in order; nil where the server does not say
}

// CanGroup tells whether several messages can go in one command: all of them or
// none is stored then (RFC 3502).
func (c *Conn) CanGroup() bool { return c.Has("MULTIAPPEND") }

// Append appends messages to a mailbox, named as the server does, in one command.
// Without CanGroup there must be one message only. A NO or BAD is no error; it
// leaves the connection usable, also where it came before the literal was sent.
//
// After an error it is not known whether the messages were stored, unless
// errors.Is(err, ErrNotSent) holds: then the last one was not sent in full, so
// none of them was.
func (c *Conn) Append(ctx context.Context, raw string, msgs []Message) (Appended, error) {
	defer c.Bind(ctx)()
	if len(msgs) == 0 || len(msgs) > 1 && !c.CanGroup() {
		return Appended{}, fmt.Errorf("%d messages cannot be appended in one command here", len(msgs))
	}
	name, ok := commandString(raw, c.literalPlus())
	if !ok {
		return Appended{}, unsendable(raw)
	}
	if err := c.settle(); err != nil {
		return Appended{}, err
	}
	c.handler, c.junk, c.fetched = nil, 0, 0
	a := &appending{c: c, head: " APPEND " + name, msgs: msgs, w: bufio.NewWriterSize(c.nc, 32<<10)}
	a.begin()
	var err error
	if a.streams() {
		err = a.stream()
	} else {
		err = a.lockstep()
	}
	if err != nil {
		return Appended{}, c.fail("append", err)
	}
	return a.result(), nil
}

// Flows tells whether a message of so many octets is sent without waiting for the
// server to ask for it.
func (c *Conn) Flows(octets int64) bool { return c.flows(octets) }

// AppendEach appends messages with a command for each, without waiting for an
// answer before the next is sent; all of them must flow. It returns what came of
// each, in order. After an error those without a condition are in doubt.
func (c *Conn) AppendEach(ctx context.Context, raw string, msgs []Message) ([]Appended, error) {
	defer c.Bind(ctx)()
	name, ok := commandString(raw, c.literalPlus())
	if !ok {
		return nil, fmt.Errorf("mailbox name %q cannot be sent to this server", raw)
	}
	if err := c.settle(); err != nil {
		return nil, err
	}
	c.handler, c.junk, c.fetched = nil, 0, 0
	w := bufio.NewWriterSize(c.nc, 32<<10)
	each := make([]*appending, len(msgs))
	byTag := make(map[string]int, len(msgs))
	for i := range msgs {
		if !c.flows(msgs[i].Size) {
			return nil, fmt.Errorf("a message of %d octets does not flow", msgs[i].Size)
		}
		each[i] = &appending{c: c, head: " APPEND " + name, msgs: msgs[i : i+1], w: w}
		each[i].begin()
		byTag[each[i].tag] = i
	}
	out := make([]Appended, len(msgs))
	err := c.streaming(func() error {
		for _, a := range each {
			if err := a.write(); err != nil {
				return err
			}
		}
		return w.Flush()
	}, func() error {
		for range each {
			d, err := c.answer()
			i, known := byTag[d.tag]
			if err == nil && !known {
				err = broken("answer to another command")
			}
			if err != nil {
				return err
			}
			each[i].done = d.res
			out[i] = each[i].result()
		}
		return nil
	})
	if err != nil {
		return out, c.fail("append", err)
	}
	return out, nil
}

// ErrNotSent says that a message could not be read to its end, so that the command
// it was to go with was never complete. The connection is of no use any more.
var ErrNotSent = errors.New("message could not be read")

type appending struct {
	c    *Conn
	tag  string
	head string
	msgs []Message
	w    *bufio.Writer
	done Result
}

func (a *appending) begin() {
	c := a.c
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.commands++
	a.tag = c.prefix + strconv.Itoa(c.commands)
	c.raw = append(c.raw, a.tag)
}

// streams tells whether no literal has to wait for the server's "+".
func (a *appending) streams() bool {
	for i := range a.msgs {
		if !a.c.flows(a.msgs[i].Size) {
			return false
		}
	}
	return true
}

func (c *Conn) flows(size int64) bool {
	return c.Has("LITERAL+") || c.Has("LITERAL-") && size <= literalMinus
}

// announce writes what stands in front of a message.
func (a *appending) announce(i int) {
	m := &a.msgs[i]
	var b strings.Builder
	if i == 0 {
		b.WriteString(a.tag + a.head)
	}
	if flags := m.Flags.Without(mail.Deleted); flags != "" {
		b.WriteString(" (" + string(flags) + ")")
	}
	if y := m.Date.UTC().Year(); !m.Date.IsZero() && y >= 1 && y <= 9999 {
		// RFC 9051 section 9, date-time: the day has two characters.
		b.WriteString(m.Date.UTC().Format(` "_2-Jan-2006 15:04:05 -0700"`))
	}
	b.WriteByte(' ')
	if m.NUL && a.c.Has("BINARY") {
		b.WriteByte('~') // RFC 3516 section 4.4
	}
	b.WriteString("{" + strconv.FormatInt(m.Size, 10))
	if a.c.flows(m.Size) {
		b.WriteByte('+')
	}
	b.WriteString("}")
	a.c.nc.TraceLine(true, b.String())
	_, _ = a.w.WriteString(b.String() + "\r\n") // the writer keeps its error
}

// literal writes a message's octets, all of them.
func (a *appending) literal(i int) error {
	exact := &exactly{w: a.w, left: a.msgs[i].Size}
	err := a.msgs[i].WriteTo(exact)
	switch {
	case exact.err != nil:
		return exact.err
	case err == nil && exact.left != 0:
		err = fmt.Errorf("it has not the %d octets that were announced", a.msgs[i].Size)
	}
	if err != nil {
		return &handlerError{fmt.Errorf("%w: %w", ErrNotSent, err)}
	}
	return nil
}

// exactly passes on so many octets and no more.
type exactly struct {
	w    io.Writer
	left int64
	err  error // of the connection
}

func (e *exactly) Write(p []byte) (int, error) {
	if int64(len(p)) > e.left {
		return 0, errors.New("it has more octets than were announced")
	}
	n, err := e.w.Write(p)
	e.left -= int64(n)
	e.err = err
	return n, err
}

// stream sends the command.
func (a *appending) stream() error {
	return a.c.streaming(func() error {
		if err := a.write(); err != nil {
			return err
		}
		return a.w.Flush()
	}, func() error { return a.await(nil) })
}

// streaming writes while the answers are already waited for, so that a server that
// talks meanwhile never waits for us.
func (c *Conn) streaming(write, read func() error) error {
	c.nc.Owed(false) // the deadline of writing watches over a server that is silent
	wrote := make(chan error, 1)
	go func() {
		err := write()
		if err != nil && !hungUp(err) {
			// What was begun cannot be taken back. The reader learns of it.
			c.setReadErr(err)
			_ = c.nc.Close()
		} else {
			c.nc.Owed(true) // also what was answered before the server hung up
		}
		wrote <- err
	}()
	err := read()
	if err != nil {
		_ = c.nc.Close() // the writer gives up
	}
	if werr := <-wrote; werr != nil {
		return werr
	}
	c.notOwed()
	return err
}

// hungUp tells whether writing failed because the server has closed the connection.
// A message that could not be read from where it is kept is none of that.
func hungUp(err error) bool {
	if errors.Is(err, ErrNotSent) {
		return false
	}
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// write writes the whole command.
func (a *appending) write() error {
	for i := range a.msgs {
		a.announce(i)
		if err := a.literal(i); err != nil {
			return err
		}
	}
	_, err := a.w.WriteString("\r\n")
	return err
}

// lockstep waits for "+" before each literal that needs one. A server that refuses
// before has the rest never sent.
func (a *appending) lockstep() error {
	c := a.c
	for i := range a.msgs {
		a.announce(i)
		if !c.flows(a.msgs[i].Size) {
			if err := a.w.Flush(); err != nil {
				return a.lost(err)
			}
			asked := false
			if err := a.await(&asked); err != nil {
				return a.lost(err)
			}
			if !asked {
				return nil // refused
			}
		}
		if err := a.literal(i); err != nil {
			return a.lost(err)
		}
	}
	_, _ = a.w.WriteString("\r\n") // the writer keeps its error
	if err := a.w.Flush(); err != nil {
		return a.lost(err)
	}
	return a.lost(a.await(nil))
}

func (a *appending) lost(err error) error {
	if err != nil {
		a.c.setReadErr(err)
		_ = a.c.nc.Close()
	}
	return err
}

// await reads up to the answer to the command or, if plus is not nil, up to the
// server's "+", and then sets *plus.
func (a *appending) await(plus *bool) error {
	c := a.c
	if plus != nil {
		c.nc.Owed(true)
		c.mu.Lock()
		c.conts = 1
		c.mu.Unlock()
		defer func() {
			c.mu.Lock()
			c.conts = 0
			c.mu.Unlock()
		}()
	}
	d, err := c.answerOr(plus)
	if err != nil || plus != nil && *plus {
		return err
	}
	if d.tag != a.tag {
		return broken("answer to another command")
	}
	a.done = d.res
	return nil
}

// answer reads up to the next answer to a raw command.
func (c *Conn) answer() (tagged, error) { return c.answerOr(nil) }

// answerOr reads up to the next answer or, if plus is not nil, up to a "+", and
// then sets *plus.
func (c *Conn) answerOr(plus *bool) (tagged, error) {
	for len(c.done) == 0 {
		if err := c.readError(); err != nil {
			return tagged{}, err
		}
		b, err := c.step()
		if err != nil {
			if cause := c.readError(); cause != nil {
				err = cause
			}
			c.setReadErr(err)
			return tagged{}, err
		}
		if plus != nil && len(b) > 0 && b[0] == '+' {
			*plus = true
			return tagged{}, nil
		}
	}
	d := c.done[0]
	c.done = c.done[1:]
	return d, nil
}

// result reads APPENDUID (RFC 4315 section 3).
func (a *appending) result() Appended {
	out := Appended{Result: a.done}
	if !out.OK() || out.Code != "APPENDUID" {
		return out
	}
	validity, set, _ := strings.Cut(strings.TrimSpace(out.Arg), " ")
	v, err := strconv.ParseUint(validity, 10, 32)
	uids := parseSet(strings.TrimSpace(set), len(a.msgs))
	if err != nil || v == 0 || len(uids) != len(a.msgs) {
		return out
	}
	out.UIDValidity, out.UIDs = uint32(v), uids
	return out
}

// parseSet expands a set of at most so many UIDs, in its order; nil if it is none.
func parseSet(set string, most int) []uint32 {
	var uids []uint32
	for part := range strings.SplitSeq(set, ",") {
		from, to, isRange := strings.Cut(part, ":")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 32)
		b, err2 := strconv.ParseUint(to, 10, 32)
		if err1 != nil || err2 != nil || a == 0 || b == 0 {
			return nil
		}
		if a > b { // RFC 9051 section 9, seq-range: the order does not matter
			a, b = b, a
		}
		if b-a >= uint64(most-len(uids)) {
			return nil
		}
		for u := a; u <= b; u++ {
			uids = append(uids, uint32(u))
		}
	}
	return uids
}

// MailboxArgument spells a mailbox name, as the server writes it, for a raw
// command; ok is false where this server cannot be told such a name.
func (c *Conn) MailboxArgument(raw string) (arg string, ok bool) {
	return commandString(raw, c.literalPlus())
}

// Refusal turns a NO or BAD into an error for a person.
func (c *Conn) Refusal(op string, res Result) error { return c.refused(op, res, res.Kind(), "") }

// AppendLimit returns the most octets the server takes in one message (RFC 7889),
// 0 where it does not say.
func (c *Conn) AppendLimit() int64 {
	for name := range c.caps {
		if v, ok := strings.CutPrefix(name, "APPENDLIMIT="); ok {
			if n, err := strconv.ParseInt(v, 10, 64); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}
