package pop3

import (
	"cmp"
	"errors"
	"strconv"

	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// plan decides what is asked for ahead of the answers. Commands go out in batches,
// refilled when half of the window is answered.
type plan struct {
	r      *retrieval
	ss     *session
	at     int // the first want not planned
	single bool
	queue  []planned // planned and not answered
	head   int       // where the queue begins
	flying int       // of those, how many have a command on the way
	octets int64     // their cost
	batch  []byte    // commands not handed to the sender yet
	held   int       // how many of those in flight are in batch
	out    *sender
}

// ahead sends commands as far as the window allows.
func (p *plan) ahead() error {
	r := p.r
	window := r.s.cfg.Window
	if len(p.batch) == 0 && !(p.flying > 0 && (p.single || p.octets > window/2)) {
		for p.at < len(r.wants) && p.flying < maxAhead && (p.flying == 0 || !p.single && p.octets < window) {
			p.add(r.wants[p.at])
			p.at++
		}
	}
	return p.send()
}

// send hands the batch over; it only waits where nothing is on the way.
func (p *plan) send() error {
	if len(p.batch) == 0 {
		return nil
	}
	if p.single {
		_, err := p.ss.conn.Write(p.batch)
		p.batch, p.held = p.batch[:0], 0
		return err
	}
	if p.flying > p.held {
		// Answers are on the way: to wait for the sender, which may wait for a
		// server that waits for us to read, would be to wait for ever.
		select {
		case p.out.ch <- p.batch:
		case <-p.out.done:
			return p.out.err
		default:
			return nil
		}
	} else {
		select {
		case p.out.ch <- p.batch:
		case <-p.out.done:
			return p.out.err
		}
	}
	p.batch, p.held = nil, 0
	return nil
}

// add plans one want.
func (p *plan) add(w mail.Want) {
	r, ss := p.r, p.ss
	item := planned{}
	item.seq, item.err = r.resolve(ss, w)
	if item.seq > 0 {
		size := ss.list.size(item.seq)
		if limit := r.s.cfg.MaxMessage; limit > 0 && size > limit && !r.top {
			item.seq, item.err = 0, &mail.Error{Kind: mail.KindPartial, Op: "fetch message", Err: errTooLarge, Hint: "the limit for one message can be raised"}
		} else {
			p.command(&item, size)
		}
	}
	p.queue = append(p.queue, item)
}

func (p *plan) command(item *planned, size int64) {
	r, ss := p.r, p.ss
	// A message that is delivered before it is complete must not turn out
	// doubtful afterwards, and the answer to TOP has no size to compare. Without
	// PIPELINING the fence has to wait until the answer is there.
	if ss.caps.pipelining && (r.top || r.s.fenced || size < 0 || size > headSize) {
		item.fence = ss.bestFence(item.seq)
	}
	start := len(p.batch)
	if r.top {
		p.batch = append(p.batch, "TOP "...)
		size = 4096
	} else {
		p.batch = append(p.batch, "RETR "...)
	}
	p.batch = strconv.AppendUint(p.batch, uint64(item.seq), 10)
	if r.top {
		p.batch = append(append(p.batch, ' '), cmp.Or(r.lines, "0")...)
	}
	if ss.conn.Tracing() {
		ss.conn.TraceLine(true, string(p.batch[start:]))
	}
	p.batch = append(p.batch, '\r', '\n')
	p.batch = ss.appendFence(p.batch, *item)
	item.cost = max(size, 0) + overhead
	p.flying++
	p.held++
	p.octets += item.cost
}

// resolve finds the number of a want in this session.
func (r *retrieval) resolve(ss *session, w mail.Want) (uint32, error) {
	if w.UID != "" {
		if seq := ss.list.find(w.UID, w.Seq); seq > 0 {
			return seq, nil
		}
		return 0, mail.ErrVanished
	}
	if ss.gen != r.listed {
		return 0, &mail.Error{
			Kind: mail.KindTemporary,
			Op:   "fetch message",
			Err:  errors.New("the server gives it no UIDL, and its number was lost with the connection"),
			Hint: "run the same command again",
		}
	}
	if w.Seq < 1 || int(w.Seq) > ss.list.count {
		return 0, mail.ErrVanished
	}
	return w.Seq, nil
}

// pop takes the next answer to come off the plan.
func (p *plan) pop() planned {
	item := p.queue[p.head]
	p.queue[p.head] = planned{}
	p.head++
	if p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
	}
	if item.seq > 0 {
		p.flying--
		p.octets -= item.cost
	}
	return item
}

// inFlight tells whether answers are owed besides the one being read.
func (p *plan) inFlight() bool { return p.flying > 0 }

// reason prefers what went wrong in sending over the reader's view of it.
func (p *plan) reason(err error) error {
	if p.out == nil {
		return err
	}
	select {
	case <-p.out.done:
		if p.out.err != nil && isLost(err) && !errors.Is(err, errOutOfStep) {
			return p.out.err
		}
	default:
	}
	return err
}

// sender writes commands while the answers are read: one goroutine doing both
// would wait for a server that waits for it.
type sender struct {
	conn *dial.Conn
	ch   chan []byte
	done chan struct{}
	err  error // valid after done
}

func startSender(conn *dial.Conn) *sender {
	s := &sender{conn: conn, ch: make(chan []byte, 1), done: make(chan struct{})}
	conn.Patient(true)
	go s.run()
	return s
}

func (s *sender) run() {
	defer close(s.done)
	for b := range s.ch {
		if _, err := s.conn.Write(b); err != nil {
			s.err = err
			s.conn.Close() // the reader need not wait for answers to what was not sent
			return
		}
	}
}

// stop waits for the sender. If something is still to be sent, the connection must
// have been closed.
func (s *sender) stop() {
	close(s.ch)
	<-s.done
	s.conn.Patient(false)
}
