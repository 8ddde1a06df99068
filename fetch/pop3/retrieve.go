package pop3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"mailhaul/fetch"
	"mailhaul/mail"
)

const (
	// headSize is how much of a message is read before it is delivered. A message
	// that fits is only delivered once it is complete, so that one cut off can be
	// asked for again.
	headSize = 256 << 10
	// datedOctets is how much of a header is searched for a date.
	datedOctets = 64 << 10
	// maxAhead bounds the commands in flight, whatever the sizes say.
	maxAhead = 20_000
	// overhead is what an answer is counted for besides its octets.
	overhead = 64
)

// Fetch gets messages by pipelined RETR, in the order of wants; deliver is called
// from the calling goroutine. Answers that do not fit the commands are not
// delivered: the connection is made again and they are asked for one by one.
func (s *Source) Fetch(ctx context.Context, _ mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.retrieve(ctx, wants, deliver, false, "")
}

// Headers gets headers by pipelined TOP n 0. A server without TOP refuses each.
func (s *Source) Headers(ctx context.Context, _ mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.retrieve(ctx, wants, deliver, true, "")
}

// Peek gets whole messages by TOP, which does not mark them as read where RETR does
// (Dovecot). It is for a look at a few small ones.
func (s *Source) Peek(ctx context.Context, _ mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.retrieve(ctx, wants, deliver, true, "9999999")
}

// errDoubt says that a size did not fit while more answers were under way: where
// the next begins is not certain.
var errDoubt = fmt.Errorf("%w: a message is not as long as LIST says", errOutOfStep)

// stopped is an error of deliver, which ends the retrieval.
type stopped struct{ err error }

func (e *stopped) Error() string { return e.err.Error() }

// retrieval is one call of Fetch or Headers, over as many sessions as it takes.
type retrieval struct {
	s       *Source
	wants   []mail.Want
	deliver fetch.Deliver
	top     bool
	lines   string // of the body, with top; "" for none
	listed  int    // the session in which message numbers without UIDL were listed
	next    int    // the first want not delivered
	head    []byte
	whole   bytes.Reader
	body    body
	blamed  int // messages in a row that the connection was lost over
	suspect int // the want it was lost over last
	times   int // how often
}

func (s *Source) retrieve(ctx context.Context, wants []mail.Want, deliver fetch.Deliver, top bool, lines string) error {
	if len(wants) == 0 {
		return nil
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	r := &retrieval{s: s, wants: wants, deliver: deliver, top: top, lines: lines, listed: s.listed, head: make([]byte, headSize), suspect: -1}
	for failed := 0; r.next < len(wants); {
		ss, err := s.session(ctx, &failed)
		if err != nil {
			return err
		}
		before := r.next
		err = s.under(ctx, ss, r.run)
		if err == nil {
			continue
		}
		s.drop()
		if stop, ok := errors.AsType[*stopped](err); ok {
			return stop.err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if r.next > before {
			failed, r.blamed = 0, 0
		}
		if err := r.recover(ss, err, &failed); err != nil {
			return err
		}
	}
	return nil
}

// recover decides what to do about an error that ended a session: nil means go on
// with another.
func (r *retrieval) recover(ss *session, err error, failed *int) error {
	s := r.s
	op := "fetch messages"
	switch {
	case s.closed.Load():
		return s.name(&mail.Error{Kind: mail.KindOther, Op: op, Err: err})
	case !isLost(err): // the server refused a command of ours for the whole mailbox
		return s.name(err)
	case errors.Is(err, errTooLarge):
		return r.fail(&mail.Error{Kind: mail.KindPartial, Op: "fetch message", Err: err, Hint: "the limit for one message can be raised"})
	case errors.Is(err, errDoubt) && !s.fenced:
		s.fenced = true
		return nil
	case errors.Is(err, errOutOfStep) && !s.careful:
		s.careful, s.fenced = true, true
		return nil
	case errors.Is(err, errOutOfStep):
		return r.blame(&mail.Error{
			Kind: mail.KindPartial, Op: "fetch message", Err: err,
			Hint: "the server does not mark where this message ends; fetch it over IMAP if the server has it",
		})
	}
	e := s.name(ss.failed(op, err))
	if *failed++; *failed >= attempts {
		return e
	}
	if r.suspect != r.next {
		r.suspect, r.times = r.next, 0
	}
	if r.times++; r.times < 2 {
		return nil
	}
	// The connection was lost twice over this message: the others go on.
	*failed = 0
	hint := "the others are not held up; if it is this one in every run, show it to whoever runs the server"
	if silence, is := errors.AsType[net.Error](err); is && silence.Timeout() {
		hint = mail.HintOf(e)
	}
	return r.blame(&mail.Error{
		Kind: mail.KindTemporary, Op: "fetch message", Err: fmt.Errorf("the connection was lost twice over this message: %w", err), Hint: hint,
	})
}

// blame gives one message up, and everything if that happens several times in
// a row.
func (r *retrieval) blame(err error) error {
	if r.blamed++; r.blamed > attempts {
		return r.s.name(err)
	}
	return r.fail(err)
}

// fail delivers an error in the place of the next message.
func (r *retrieval) fail(err error) error {
	w := r.wants[r.next]
	in := mail.Info{Ref: mail.Ref{Account: r.s.account, Mailbox: Inbox, UID: w.UID}, Seq: w.Seq, Size: w.Size}
	if e, ok := errors.AsType[*mail.Error](err); ok {
		c := *e
		c.Ref = in.Ref
		err = &c
	}
	r.next++
	return r.deliver(in, nil, err)
}

// planned is a want on its way.
type planned struct {
	seq   uint32 // 0 if it cannot be asked for, and err says why
	err   error
	fence fence
	cost  int64
}

// run delivers as much as it can over one session. An error that is neither
// *stopped nor of the context says why the session is of no more use.
func (r *retrieval) run(ss *session) error {
	s := r.s
	needUID := false
	for _, w := range r.wants[r.next:] {
		needUID = needUID || w.UID != ""
	}
	if err := s.ask(ss, needUID, !r.top); err != nil {
		return err
	}
	if s.careful {
		if err := r.probe(ss); err != nil {
			return err
		}
	}
	ss.conn.Quiet(true)
	defer ss.conn.Quiet(false)
	p := &plan{r: r, ss: ss, at: r.next, single: s.careful || !ss.caps.pipelining || s.Consumes() && !r.top}
	if !p.single {
		p.out = startSender(ss.conn)
		defer p.out.stop()
	}
	for r.next < len(r.wants) {
		if err := p.ahead(); err != nil {
			return p.reason(err)
		}
		if err := r.one(ss, p); err != nil {
			if _, ok := errors.AsType[*stopped](err); ok || p.inFlight() {
				ss.conn.Close() // frees the sender, too
			}
			return p.reason(err)
		}
	}
	return nil
}

// one takes the answer to the first planned want and delivers it.
func (r *retrieval) one(ss *session, p *plan) error {
	item := p.pop()
	if item.seq == 0 {
		return stop(r.fail(item.err))
	}
	rep, err := ss.status()
	if err != nil {
		return err
	}
	if !rep.ok {
		if err := ss.checkFence(item); err != nil {
			return err
		}
		op := "fetch message"
		if r.top {
			op = "fetch header"
		}
		r.trace(ss, rep, -1)
		return stop(r.fail(r.s.refused(op, rep, mail.KindPartial)))
	}
	return r.message(ss, p, item, rep)
}

func stop(err error) error {
	if err == nil {
		return nil
	}
	return &stopped{err}
}

// message delivers one body.
func (r *retrieval) message(ss *session, p *plan, item planned, rep reply) error {
	r.body.reset(ss.rd, r.s.cfg.MaxMessage)
	n, err := readHead(&r.body, r.head)
	if err != nil && err != io.EOF {
		return err
	}
	in := r.s.info(ss.list, item.seq)
	in.InternalDate, in.DateFrom = mail.HeaderDate(r.head[:min(n, datedOctets)])
	var reader io.Reader
	st := stream{r: r, ss: ss, p: p, item: item}
	if err == io.EOF {
		if err := st.check(); err != nil {
			return err
		}
		r.whole.Reset(r.head[:n])
		reader = &r.whole
	} else {
		st.head = r.head[:n]
		reader = &st
	}
	if err := r.deliver(in, reader, nil); err != nil {
		return &stopped{err}
	}
	if st.err != nil && st.err != io.EOF {
		return st.err // deliver has seen it: the message is asked for again
	}
	r.next++
	if reader == &st {
		if err := st.rest(ss.scratch); err != nil {
			return err
		}
	}
	if !r.top {
		ss.read[item.seq] = true
	}
	r.trace(ss, rep, r.body.n)
	return nil
}

func readHead(b *body, head []byte) (n int, err error) {
	for n < len(head) && err == nil {
		var k int
		k, err = b.Read(head[n:])
		n += k
	}
	return n, err
}

// stream reads a message that is larger than the head. It only says io.EOF when it
// is certain that the message was complete.
type stream struct {
	r       *retrieval
	ss      *session
	p       *plan
	item    planned
	head    []byte
	checked bool
	err     error
}

func (st *stream) Read(b []byte) (int, error) {
	if len(st.head) > 0 {
		n := copy(b, st.head)
		st.head = st.head[n:]
		return n, nil
	}
	if st.err != nil {
		return 0, st.err
	}
	n, err := st.r.body.Read(b)
	if err == io.EOF && !st.checked {
		st.checked = true
		if cerr := st.check(); cerr != nil {
			err = cerr
		}
	}
	if err != nil {
		st.err = err
	}
	return n, err
}

// rest reads what deliver left.
func (st *stream) rest(scratch []byte) error {
	st.head = nil
	for {
		if _, err := st.Read(scratch); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// check makes certain that the answer ended where the message ended.
func (st *stream) check() error {
	if st.item.fence != fenceNone {
		return st.ss.checkFence(st.item)
	}
	if st.r.body.fits(st.ss.list.size(st.item.seq)) {
		return nil
	}
	if st.p.inFlight() {
		return errDoubt
	}
	st.item.fence = st.ss.bestFence(st.item.seq)
	if _, err := st.ss.conn.Write(st.ss.appendFence(nil, st.item)); err != nil {
		return err
	}
	return st.ss.checkFence(st.item)
}

func (r *retrieval) trace(ss *session, rep reply, octets int64) {
	if !ss.conn.Tracing() {
		return
	}
	line := "-ERR " + rep.text
	if rep.ok {
		line = "+OK " + rep.text + " [" + strconv.FormatInt(octets, 10) + " octets]"
	}
	ss.conn.TraceLine(false, line)
}

// fence is a command behind RETR whose answer no message is likely to contain: it
// proves that the answer before it was read to its end.
type fence int

const (
	fenceNone fence = iota
	fenceUIDL       // answers number and UIDL
	fenceLIST       // answers number and size
	fenceNOOP       // for servers that answer neither; weak
)

func (ss *session) bestFence(seq uint32) fence {
	switch {
	case ss.list.uid(seq) != "" && !ss.noUIDLFence:
		return fenceUIDL
	case !ss.noLISTFence:
		return fenceLIST
	}
	return fenceNOOP
}

func (ss *session) appendFence(b []byte, item planned) []byte {
	switch item.fence {
	case fenceUIDL:
		b = append(b, "UIDL "...)
	case fenceLIST:
		b = append(b, "LIST "...)
	case fenceNOOP:
		return append(b, "NOOP\r\n"...)
	default:
		return b
	}
	return append(strconv.AppendUint(b, uint64(item.seq), 10), '\r', '\n')
}

func (ss *session) checkFence(item planned) error {
	if item.fence == fenceNone {
		return nil
	}
	rep, err := ss.status()
	if err != nil {
		return err
	}
	if !ss.fenceHolds(item, rep) {
		return fmt.Errorf("%w: the answer to RETR %d does not end with the message", errOutOfStep, item.seq)
	}
	return nil
}

func (ss *session) fenceHolds(item planned, rep reply) bool {
	if !rep.ok {
		return false
	}
	number, rest, _ := strings.Cut(rep.text, " ")
	rest = strings.TrimSpace(rest)
	mine := number == strconv.FormatUint(uint64(item.seq), 10)
	switch item.fence {
	case fenceUIDL:
		return mine && rest == ss.list.uid(item.seq)
	case fenceLIST:
		size, _, _ := strings.Cut(rest, " ")
		_, err := strconv.ParseUint(size, 10, 64)
		return mine && err == nil
	}
	return true
}

// probe finds out which fences the server answers as the RFC says, while it is
// certain that the answers are in step.
func (r *retrieval) probe(ss *session) error {
	for range 2 {
		item := planned{seq: 1}
		if w := r.wants[r.next]; w.UID != "" {
			item.seq = ss.list.find(w.UID, w.Seq)
		}
		if item.seq == 0 || ss.list.count == 0 {
			return nil
		}
		item.fence = ss.bestFence(item.seq)
		if item.fence == fenceNOOP {
			return nil
		}
		if _, err := ss.conn.Write(ss.appendFence(nil, item)); err != nil {
			return err
		}
		rep, err := ss.status()
		if err != nil {
			return err
		}
		if ss.fenceHolds(item, rep) {
			return nil
		}
		if item.fence == fenceUIDL {
			ss.noUIDLFence = true
		} else {
			ss.noLISTFence = true
		}
	}
	return nil
}
