package pop3

import (
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"mailhaul/mail"
)

// CanDelete tells whether DELE can be trusted here.
func (s *Source) CanDelete(ctx context.Context, mode string) (string, error) {
	lacking := func(why, hint string) error {
		return s.name(&mail.Error{Kind: mail.KindLacking, Op: "delete messages", Err: errors.New(why), Hint: hint})
	}
	if isGmail(s.cfg.Server.Host) {
		return "", lacking("Gmail ignores DELE or obeys a setting of the account",
			"clean this account over IMAP: imaps://USER@imap.gmail.com --trash")
	}
	if mode == mail.ModeTrash {
		return "", lacking("POP3 has no trash", "leave out --trash, or clean the account over IMAP")
	}
	l, err := s.listing(ctx, false)
	if err != nil {
		return "", err
	}
	if l.odd || !l.hasUIDL {
		return "", lacking("the server gives messages no UIDL, or several the same, so they cannot be told apart with certainty",
			"nothing is deleted; clean the account over IMAP if the server has it")
	}
	return mail.ModeExpunge, nil
}

// deletion is one order, carried out in one session: DELE counts only once QUIT
// is answered (RFC 1939 section 6).
type deletion struct {
	s    *Source
	o    mail.DeleteOrder
	seq  []uint32 // of each proof in this session, 0 if it is settled
	uids []string
	done []bool // settled, in whatever session
	sent bool   // the intent is on record: from now on nothing is tried again
}

// Delete deletes what the order proves. Messages that were not read in this very
// session are compared by TOP, or by RETR where there is no TOP. The session ends
// with the order; the next call makes another one.
func (s *Source) Delete(ctx context.Context, _ mail.Mailbox, o mail.DeleteOrder) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	d := &deletion{s: s, o: o, done: make([]bool, len(o.Proofs))}
	ss, err := d.session(ctx)
	if err != nil && isLost(err) && !d.sent && ctx.Err() == nil { // it was idle for too long
		ss, err = d.session(ctx)
	}
	switch {
	case ss == nil:
		return err
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errDoubtfulQuit):
		return d.lookAgain(ctx, err)
	case isLost(err):
		return s.name(ss.conn.Fail("delete messages", err))
	}
	return s.name(err)
}

// session carries the order out in one session and ends it.
func (d *deletion) session(ctx context.Context) (*session, error) {
	failed := 0
	ss, err := d.s.session(ctx, &failed)
	if err != nil {
		return nil, err
	}
	err = d.s.under(ctx, ss, d.run)
	d.s.drop()
	return ss, err
}

func (d *deletion) run(ss *session) error {
	if err := d.s.ask(ss, true, true); err != nil {
		return err
	}
	if err := d.find(ss); err != nil {
		return err
	}
	headers, err := d.compare(ss)
	if err != nil {
		return err
	}
	var passed []int
	for i, seq := range d.seq {
		if seq == 0 {
			continue
		}
		in := d.s.info(ss.list, seq)
		if h, ok := headers[i]; ok {
			in.InternalDate, in.DateFrom = h.InternalDate, h.DateFrom
		}
		if why := d.o.Allow(i, in); why != "" {
			d.settle(i, false, why)
			continue
		}
		passed = append(passed, i)
	}
	if len(passed) == 0 {
		return d.s.leave(ss)
	}
	d.sent = true
	if err := d.o.Intend(passed); err != nil {
		return err
	}
	return d.dele(ss, passed)
}

// settle tells the engine what became of a message, once.
func (d *deletion) settle(i int, gone bool, why string) {
	d.seq[i] = 0
	if !d.done[i] {
		d.done[i] = true
		d.o.Settle(i, gone, why)
	}
}

// find looks the messages up by UIDL and compares their sizes.
func (d *deletion) find(ss *session) error {
	d.seq = make([]uint32, len(d.o.Proofs))
	d.uids = make([]string, len(d.o.Proofs))
	for i, p := range d.o.Proofs {
		rc, ok := p.Receipt()
		if !ok {
			return errors.New("delete: a message without proof")
		}
		in := rc.Info
		d.uids[i] = in.Ref.UID
		seq := ss.list.find(in.Ref.UID, in.Seq)
		switch {
		case d.done[i]:
		case seq == 0:
			d.settle(i, false, mail.WhyVanished)
		case in.Size >= 0 && ss.list.size(seq) != in.Size:
			d.settle(i, false, mail.WhyChanged)
		default:
			d.seq[i] = seq
		}
	}
	return nil
}

// compare asks for the headers of messages not read in this session, in one
// pipeline, and settles those whose header is another. It returns the Info of
// what it asked for.
func (d *deletion) compare(ss *session) (map[int]mail.Info, error) {
	var ask []int
	for i, seq := range d.seq {
		if seq != 0 && !ss.read[seq] {
			ask = append(ask, i)
		}
	}
	seen := make(map[int]mail.Info, len(ask))
	refused, err := d.ask(ss, ask, true, seen)
	if err != nil {
		return nil, err
	}
	refused, err = d.ask(ss, refused, false, seen) // no TOP: the whole message tells
	for _, i := range refused {
		d.settle(i, false, "the server does not show it again")
	}
	return seen, err
}

// ask gets headers (top) or whole messages within this session, compares their
// digests, and returns what the server refused.
func (d *deletion) ask(ss *session, which []int, top bool, seen map[int]mail.Info) (refused []int, err error) {
	if len(which) == 0 {
		return nil, nil
	}
	wants := make([]mail.Want, len(which))
	for n, i := range which {
		wants[n] = mail.Want{UID: d.uids[i], Seq: d.seq[i], Size: ss.list.size(d.seq[i])}
	}
	next := 0
	r := &retrieval{s: d.s, wants: wants, top: top, listed: ss.gen, head: make([]byte, headSize), suspect: -1}
	r.deliver = func(in mail.Info, rd io.Reader, err error) error { // in the order of wants
		i := which[next]
		next++
		if err != nil {
			refused = append(refused, i)
			return nil
		}
		c := mail.NewCanonical(rd, nil)
		if _, err := io.Copy(io.Discard, c); err != nil {
			return err
		}
		seen[i] = in
		rc, _ := d.o.Proofs[i].Receipt()
		if same := c.Sums().Header == rc.Header && (top || c.Sums().Digest == rc.Digest); !same {
			d.settle(i, false, mail.WhyChanged)
		}
		return nil
	}
	return refused, r.run(ss)
}

// errDoubtfulQuit says that QUIT was not answered, or with -ERR: what was marked
// may be gone, all of it, some or nothing.
var errDoubtfulQuit = errors.New("QUIT was not answered with +OK and the end of the connection")

// quitWait is how long a server may take to close the connection behind its answer
// to QUIT before that answer is doubted.
const quitWait = 5 * time.Second

// dele sends the orders and ends the session.
func (d *deletion) dele(ss *session, passed []int) error {
	marked := passed[:0:0]
	step := len(passed)
	if !ss.caps.pipelining {
		step = 1
	}
	for at := 0; at < len(passed); at += step {
		part := passed[at:min(at+step, len(passed))]
		var out []byte
		for _, i := range part {
			out = append(strconv.AppendUint(append(out, "DELE "...), uint64(d.seq[i]), 10), '\r', '\n')
		}
		if _, err := ss.conn.Write(out); err != nil {
			return err
		}
		for _, i := range part {
			rep, err := ss.status()
			if err != nil {
				return err // no QUIT: the server must not remove anything
			}
			if !rep.ok {
				d.settle(i, false, "the server refused: "+d.s.cfg.Credentials.Redact(rep.text))
				continue
			}
			marked = append(marked, i)
		}
	}
	if err := d.s.leave(ss); err != nil {
		return errors.Join(errDoubtfulQuit, err)
	}
	if !ss.closed() {
		return errDoubtfulQuit
	}
	for _, i := range marked {
		d.settle(i, true, "")
	}
	return nil
}

// leave ends a session in step with QUIT; anything but +OK is an error.
func (s *Source) leave(ss *session) error {
	r, _, err := ss.command(false, "QUIT")
	if err != nil {
		return err
	}
	if !r.ok {
		return s.refused("QUIT", r, mail.KindPartial)
	}
	return nil
}

// closed waits for the server to close the connection, as it does after QUIT (RFC
// 1939 section 3). If more comes instead, one line too many came before, and what
// was read as the answer to QUIT was that to a DELE.
func (ss *session) closed() bool {
	if len(ss.rd.buffered()) > 0 {
		return false
	}
	late := time.AfterFunc(quitWait, func() { ss.conn.Close() })
	_, err := ss.conn.Read(make([]byte, 1))
	return late.Stop() && err != nil
}

// lookAgain finds out in a new session what a doubtful QUIT has removed.
func (d *deletion) lookAgain(ctx context.Context, why error) error {
	s := d.s
	err := s.retry(ctx, "see what was deleted", func(ss *session) error { return s.ask(ss, true, false) })
	if err != nil {
		return errors.Join(s.name(&mail.Error{Kind: mail.KindTemporary, Op: "delete messages", Err: why}), err)
	}
	if l := s.cur.list; l.odd || !l.hasUIDL {
		return s.name(&mail.Error{Kind: mail.KindTemporary, Op: "delete messages", Err: why})
	}
	for i, seq := range d.seq {
		if seq == 0 {
			continue
		}
		if s.cur.list.find(d.uids[i], seq) == 0 {
			d.settle(i, true, "")
		} else {
			d.settle(i, false, "the server did not remove it at QUIT")
		}
	}
	return nil
}
