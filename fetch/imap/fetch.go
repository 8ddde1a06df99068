package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"mailhaul/fetch"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

const (
	setMessages  = 500      // in one command
	setOctets    = 4 << 20  // in one command, as listed
	windowSets   = 6        // commands in flight on one connection
	windowOctets = 32 << 20 // likewise
	windowSingle = 32       // commands in flight when messages are asked for one by one
	unknownSize  = 16 << 10 // octets of a message whose size is not known

	perConnMessages = 4000     // work that is worth one more connection,
	perConnOctets   = 24 << 20 // or so many octets

	fruitless = 4 // connections in a row that may end without a message
)

// Fetch gets whole messages.
func (s *Source) Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.fetch(ctx, mb, wants, deliver, "")
}

// Headers gets headers only.
func (s *Source) Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.fetch(ctx, mb, wants, deliver, "HEADER")
}

// fromField is the section that holds the From field alone.
const fromField = "HEADER.FIELDS (FROM)"

// From gets the From fields only.
func (s *Source) From(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.fetch(ctx, mb, wants, deliver, fromField)
}

// isSection tells whether a server answers with the section that was asked for; it
// may write the list of fields in its own way.
func isSection(got, asked string) bool {
	if asked == fromField {
		return len(got) >= len("HEADER.FIELDS") && strings.EqualFold(got[:len("HEADER.FIELDS")], "HEADER.FIELDS")
	}
	return got == asked
}

func (s *Source) fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver, section string) error {
	if len(wants) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j := &job{s: s, mb: mb, deliver: deliver, section: section, wants: wants, uidValidity: mb.UIDValidity, cancel: cancel}
	for _, w := range wants {
		j.octets += sizeOf(w)
	}
	var wg sync.WaitGroup
	for range j.extra() {
		wg.Go(func() {
			if c := s.pool.more(ctx, mb.Raw); c != nil {
				// What such a connection leaves undone, the first one does.
				if err := j.work(ctx, c); err != nil && ctx.Err() == nil && !s.heed(err) {
					s.pool.keep()
				}
			}
		})
	}
	err := j.main(ctx)
	if err != nil {
		cancel(err)
	}
	wg.Wait()
	if err == nil {
		err = j.main(ctx) // what others left
	}
	if e := j.failure(); e != nil {
		return e
	}
	return s.at(err, mb, "fetch messages")
}

func sizeOf(w mail.Want) int64 {
	if w.Size < 0 {
		return unknownSize
	}
	return w.Size
}

// main works on one connection after the other until nothing is left.
func (j *job) main(ctx context.Context) error {
	wait := j.s.cfg.Pause
	for lost := 0; j.left(); {
		before := j.count()
		c, err := j.s.pool.get(ctx, j.mb.Raw)
		if err != nil {
			return err
		}
		err = j.work(ctx, c)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			continue
		case isGivenUp(err):
			return err
		case j.s.heed(err):
			continue
		}
		if j.count() > before {
			lost, wait = 0, j.s.cfg.Pause
		}
		if lost++; lost > fruitless || mail.KindOf(err) != mail.KindTemporary && mail.KindOf(err) != mail.KindOther {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
	return nil
}

// work fetches over one connection until nothing is left, the connection is lost, or
// the server allows no more as many.
func (j *job) work(ctx context.Context, c *imapconn.Conn) error {
	defer j.s.pool.put(c)
	defer c.Bind(ctx)()
	if err := j.open(ctx, c); err != nil {
		return err
	}
	w := newWorker(j, c)
	err := w.run(ctx)
	w.out.finish()
	if err == nil {
		err = w.ladder(ctx)
	}
	if err != nil && c.InFlight() > 0 {
		_ = c.Close() // answers are still to come: of no use to anybody
	}
	return err
}

// open selects the mailbox, unless it is, and makes sure that it is still the same.
func (j *job) open(ctx context.Context, c *imapconn.Conn) error {
	sel := c.Selected()
	if sel.Raw != j.mb.Raw || sel.UIDValidity == 0 {
		var err error
		if sel, _, err = c.Examine(ctx, j.mb.Raw); err != nil {
			return j.s.at(err, j.mb, "select mailbox")
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.uidValidity == 0 {
		j.uidValidity = sel.UIDValidity
	}
	if sel.UIDValidity != j.uidValidity {
		return &mail.Error{
			Kind: mail.KindTemporary, Op: "fetch messages",
			Err:  givenUp{fmt.Errorf("UIDVALIDITY changed from %d to %d during the run", j.uidValidity, sel.UIDValidity)},
			Hint: "run the same command again",
		}
	}
	return nil
}

func (j *job) info(x *want, f imapconn.Fetch) mail.Info {
	if f.Seq == 0 {
		f.Seq = x.Seq
	}
	return info(&f, mail.Ref{Account: j.s.account, Mailbox: j.mb.Name, UIDValidity: j.uidValidity, UID: x.UID})
}

// stream delivers a message while it comes. If deliver sees the octets end in the
// middle, the message stays wanted.
func (j *job) stream(x *want, f imapconn.Fetch, r io.Reader) error {
	watched := &watched{r: r}
	if err := j.hand(j.info(x, f), watched, nil); err != nil {
		return err
	}
	if watched.failed {
		x.cuts++
		return nil
	}
	x.done = true
	j.settled()
	return nil
}

// watched notices whether whoever read a message saw an error.
type watched struct {
	r      io.Reader
	failed bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.failed = true
	}
	return n, err
}

// hand calls deliver, unless it has failed before.
func (j *job) hand(in mail.Info, r io.Reader, failed error) error {
	if err := j.failure(); err != nil {
		return err
	}
	if err := j.deliver(in, r, failed); err != nil {
		j.fail(err)
		return err
	}
	return nil
}

// giveUp tells that a message could not be had.
func (j *job) giveUp(x *want, why error) error {
	x.done = true
	j.settled()
	in := j.info(x, x.merged(&imapconn.Fetch{Size: x.Size}))
	if errors.Is(why, mail.ErrVanished) {
		return j.hand(in, nil, why)
	}
	e := &mail.Error{Kind: mail.KindPartial, Ref: in.Ref, Op: "fetch message", Err: why}
	if x.words.Condition != "" && !x.words.OK() {
		e.Server = x.words.Condition + " " + x.words.Text
		if x.words.Busy() {
			e.Kind, e.Hint = mail.KindTemporary, "try again later"
		}
	}
	return j.hand(in, nil, e)
}

// smallMessage is the size up to which octets are held in memory.
const smallMessage = 256 << 10
