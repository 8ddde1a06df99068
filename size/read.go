package size

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"strconv"
	"sync"
	"time"

	"mailhaul/internal/headline"
	"mailhaul/mail"
)

// Options says what is counted.
type Options struct {
	Selection mail.Selection
	Senders   bool // look at every header for who sent the message
	Now       time.Time
	Notify    mail.Notify // may be nil
}

func (o *Options) notify(e mail.Event) {
	if o.Notify != nil {
		o.Notify(e)
	}
}

// Source is what is needed of a server.
type Source interface {
	Account() string
	Mailboxes(ctx context.Context) ([]mail.Mailbox, error)
	List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error]
}

// FromSource is a Source that gives single header fields.
type FromSource interface {
	// From gives, as Headers would, the From field alone.
	From(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
}

// HeaderSource is a Source that gives headers without bodies.
type HeaderSource interface {
	Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error
}

// Server counts the messages of an account. It changes nothing there.
func Server(ctx context.Context, src Source, o Options) (*Sizes, error) {
	boxes, err := src.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.Selection.CheckNames(src.Account(), boxes); err != nil {
		return nil, err
	}
	c := newCounter(o.Now)
	for _, mb := range boxes {
		if !o.Selection.MatchMailbox(mb.Name) {
			continue
		}
		if err := c.mailbox(ctx, src, mb, o); err != nil {
			return nil, err
		}
	}
	return c.sizes(o.Senders), nil
}

// listed is one message until its header is known.
type listed struct {
	want    mail.Want
	date    time.Time
	flags   mail.Flags
	counted bool
}

func (c *counter) mailbox(ctx context.Context, src Source, mb mail.Mailbox, o Options) error {
	var list []listed
	undated := false
	for in, err := range src.List(ctx, mb) {
		if err != nil {
			return err
		}
		if in.InternalDate.IsZero() {
			undated = true
		} else if !selected(o.Selection, in) {
			continue
		}
		list = append(list, listed{want: mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size}, date: in.InternalDate, flags: in.Flags})
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if o.Senders || undated {
		if err := c.headers(ctx, src, mb, list, undated, o); err != nil {
			return err
		}
	}
	for i := range list {
		if l := &list[i]; !l.counted { // without a header
			c.listed(mb.Name, l, o.Selection)
			if o.Senders {
				c.addSender("", l.want.Size)
			}
		}
	}
	return nil
}

// listed counts a message, if it is selected.
func (c *counter) listed(mailbox string, l *listed, sel mail.Selection) bool {
	l.counted = true
	if !selected(sel, mail.Info{Size: l.want.Size, InternalDate: l.date, Flags: l.flags}) {
		return false
	}
	c.add(message{mailbox: mailbox, size: l.want.Size, date: l.date, flagged: l.flags.Has(mail.Flagged)})
	return true
}

// headers reads what only headers tell: the sender, and over POP3 the date.
func (c *counter) headers(ctx context.Context, src Source, mb mail.Mailbox, list []listed, dates bool, o Options) error {
	wants := make([]mail.Want, len(list))
	at := make(map[string]int, len(list))
	for i, l := range list {
		wants[i] = l.want
		at[key(l.want.UID, l.want.Seq)] = i
	}
	o.notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Account: src.Account(), Mailbox: mb.Name}, N: int64(len(wants)), Octets: int64(len(wants)) * aHeader})
	var mu sync.Mutex
	deliver := func(in mail.Info, r io.Reader, err error) error {
		var top []byte
		if err == nil {
			if top, err = io.ReadAll(io.LimitReader(r, maxHeader)); err != nil {
				return nil // it comes again
			}
		}
		mu.Lock()
		defer mu.Unlock()
		i, asked := at[key(in.Ref.UID, in.Seq)]
		if !asked || list[i].counted {
			return nil
		}
		o.notify(mail.Event{Kind: mail.EventProgress, Ref: mail.Ref{Account: src.Account(), Mailbox: mb.Name}, N: 1, Octets: aHeader})
		l := &list[i]
		if errors.Is(err, mail.ErrVanished) {
			l.counted = true
			return nil
		}
		if err == nil && l.date.IsZero() {
			l.date, _ = mail.HeaderDate(top)
		}
		if c.listed(mb.Name, l, o.Selection) && o.Senders {
			c.addSender(headline.Read(bytes.NewReader(top)).Address, l.want.Size)
		}
		return nil
	}
	if f, ok := src.(FromSource); ok && !dates {
		return f.From(ctx, mb, wants, deliver)
	}
	if h, ok := src.(HeaderSource); ok {
		return h.Headers(ctx, mb, wants, deliver)
	}
	return nil
}

const (
	maxHeader = 256 << 10
	aHeader   = 1 << 10 // what a header is taken to be, for progress
)

func key(uid string, seq uint32) string {
	if uid != "" {
		return uid
	}
	return "#" + strconv.FormatUint(uint64(seq), 10)
}

// Ledger is what is needed of an archive's records.
type Ledger interface {
	Mailboxes(ctx context.Context) ([]string, error)
	Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error
}

// Archive counts the messages of an archive. open opens their octets; it is not
// called without Senders.
func Archive(ctx context.Context, l Ledger, open func(context.Context, mail.Receipt) (io.ReadCloser, error), o Options) (*Sizes, error) {
	names, err := l.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	boxes := make([]mail.Mailbox, len(names))
	for i, name := range names {
		boxes[i].Name = name
	}
	if err := o.Selection.CheckNames("", boxes); err != nil {
		return nil, err
	}
	c := newCounter(o.Now)
	for _, name := range names {
		if !o.Selection.MatchMailbox(name) {
			continue
		}
		if o.Senders {
			if err := o.announce(ctx, l, name); err != nil {
				return nil, err
			}
		}
		err := l.Messages(ctx, name, func(h mail.Held) error {
			if h.Receipt.Place == "" { // missing
				return nil
			}
			m := listed{want: mail.Want{Size: h.Receipt.Wire}, date: h.Receipt.Info.InternalDate, flags: h.Receipt.Info.Flags}
			if c.listed(name, &m, o.Selection) && o.Senders {
				c.addSender(sender(ctx, h.Receipt, open), h.Receipt.Wire)
				o.notify(mail.Event{Kind: mail.EventProgress, Ref: mail.Ref{Mailbox: name}, N: 1, Octets: aHeader})
			}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	return c.sizes(o.Senders), nil
}

// announce tells how many messages of an archive's mailbox will be looked at.
func (o *Options) announce(ctx context.Context, l Ledger, mailbox string) error {
	n := int64(0)
	err := l.Messages(ctx, mailbox, func(mail.Held) error { n++; return nil })
	o.notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Mailbox: mailbox}, N: n, Octets: n * aHeader})
	return err
}

// sender reads who wrote a message; "" where that cannot be read.
func sender(ctx context.Context, rc mail.Receipt, open func(context.Context, mail.Receipt) (io.ReadCloser, error)) string {
	r, err := open(ctx, rc)
	if err != nil {
		return ""
	}
	defer r.Close()
	return headline.Read(r).Address
}
