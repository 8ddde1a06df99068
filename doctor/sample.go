package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"mailhaul/mail"
)

// sample takes a look at some messages of one mailbox.
func (d *doctor) sample(ctx context.Context) error {
	mb, ok := pick(d.r.Mailboxes)
	if !ok {
		d.say("messages", Notice, "there are no messages to look at")
		return nil
	}
	d.mb = mb
	sum, n, unsized := int64(0), int64(0), 0
	for in, err := range d.src.List(ctx, mb) {
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			d.say("list", Warning, "%s could not be listed: %v", mb.Name, err)
			return nil
		}
		n++
		sum += max(in.Size, 0)
		if in.Size < 0 {
			unsized++
		}
		if len(d.first) < looked {
			d.first = append(d.first, in)
		}
	}
	if mb.Messages >= 0 && n != mb.Messages {
		d.say("count", Warning, "%s lists %d messages and says it has %d", mb.Name, n, mb.Messages)
	}
	for i := range d.r.Mailboxes {
		if m := &d.r.Mailboxes[i]; m.Name == mb.Name && m.Octets < 0 && unsized == 0 {
			m.Octets = sum
		}
	}
	d.identifiers()
	if s, ok := d.src.(Searcher); ok {
		switch wrong, err := s.CheckSearch(ctx, mb, d.first); {
		case err != nil:
			d.say("search", Notice, "SEARCH could not be tried: %v", err)
		case wrong != "":
			d.say("search", Warning, "%s; mailhaul never relies on SEARCH", wrong)
		default:
			d.say("search", OK, "SEARCH finds what it should")
		}
	}
	return d.sizes(ctx)
}

// weigh lists the mailboxes whose size the server does not tell by itself.
func (d *doctor) weigh(ctx context.Context) error {
	for i := range d.r.Mailboxes {
		mb := &d.r.Mailboxes[i]
		if mb.Octets >= 0 {
			continue
		}
		sum := int64(0)
		for in, err := range d.src.List(ctx, *mb) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil || in.Size < 0 {
				sum = -1
				break
			}
			sum += in.Size
		}
		mb.Octets = sum
	}
	return nil
}

// pick takes INBOX if there is something in it, else the mailbox with the fewest
// messages.
func pick(all []mail.Mailbox) (best mail.Mailbox, ok bool) {
	for _, mb := range all {
		switch {
		case mb.Messages == 0:
		case mb.Name == "INBOX":
			return mb, true
		case !ok || mb.Messages < best.Messages:
			best, ok = mb, true
		}
	}
	return best, ok
}

// identifiers looks for messages without a usable or with a repeated identifier.
func (d *doctor) identifiers() {
	word := map[string]string{"imap": "UID", "pop3": "UIDL"}[d.Protocol]
	seen := make(map[string]bool, len(d.first))
	bad := 0
	for _, in := range d.first {
		if in.Ref.UID == "" || seen[in.Ref.UID] {
			bad++
		}
		seen[in.Ref.UID] = true
	}
	if bad > 0 {
		d.say("identifiers", Warning, "%d of %d messages have no %s of their own: they are recognised by content, and never deleted", bad, len(d.first), word)
	}
}

// sizes reads a few small messages and compares their length with what is listed.
// Where reading may use messages up, it does not.
func (d *doctor) sizes(ctx context.Context) error {
	if d.r.Facts.Expire {
		d.say("size", Notice, "sizes are not checked: reading may use messages up here")
		return nil
	}
	var wants []mail.Want
	for _, in := range d.first {
		if in.Size >= 0 && in.Size <= readOctets && len(wants) < readBack {
			wants = append(wants, mail.Want{UID: in.Ref.UID, Seq: in.Seq, Size: in.Size})
		}
	}
	if len(wants) == 0 {
		return nil
	}
	listed := make(map[string]int64)
	for _, w := range wants {
		listed[key(w.UID, w.Seq)] = w.Size
	}
	var mu sync.Mutex
	wrong, refused, got := 0, 0, 0
	fetch := d.src.Fetch
	p, peeks := d.src.(Peeker)
	if peeks {
		fetch = p.Peek
	}
	err := fetch(ctx, d.mb, wants, func(in mail.Info, r io.Reader, err error) error {
		n := int64(0)
		if err == nil {
			if n, err = io.Copy(io.Discard, r); err != nil {
				return nil // it comes again
			}
		}
		mu.Lock()
		defer mu.Unlock()
		switch size, asked := listed[key(in.Ref.UID, in.Seq)]; {
		case err != nil:
			refused++
		case asked && n != size:
			wrong++
		default:
			got++
		}
		return nil
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		d.say("size", Warning, "messages could not be read: %v", err)
	case wrong > 0:
		d.say("size", Warning, "%d of %d messages have another size than the server states: a second look is taken at each such message before it may be deleted", wrong, len(wants))
	case refused > 0 && peeks:
		d.say("size", Notice, "sizes are not checked: the server has no TOP, and reading would mark messages as read")
	case refused > 0:
		d.say("size", Warning, "%d of %d messages could not be read", refused, len(wants))
	default:
		d.say("size", OK, "stated sizes are right (%d messages were read)", got)
	}
	return nil
}

func key(uid string, seq uint32) string {
	if uid != "" {
		return uid
	}
	return fmt.Sprintf("#%d", seq)
}

// again logs in a second time and looks whether the identifiers are the same.
func (d *doctor) again(ctx context.Context) {
	if len(d.first) == 0 || ctx.Err() != nil {
		return
	}
	word := map[string]string{"imap": "UIDs", "pop3": "UIDLs"}[d.Protocol]
	if d.r.Facts.LoginDelay > 0 {
		d.say("stable", Notice, "%s were not compared over two logins: the server wants %s between them", word, d.r.Facts.LoginDelay)
		return
	}
	before := make(map[string]int64, len(d.first))
	for _, in := range d.first {
		before[in.Ref.UID] = in.Size
	}
	same, err := d.listAgain(ctx, before)
	switch {
	case err != nil:
		d.say("stable", Notice, "%s could not be compared over two logins: %v", word, err)
	case same == 0 && len(before) > 1:
		d.say("stable", Warning, "%s change with every login: messages are recognised by content, which takes longer, and never deleted", word)
	case same < len(before)-len(before)/10-1:
		d.say("stable", Warning, "%d of %d %s changed between two logins", len(before)-same, len(before), word)
	default:
		d.say("stable", OK, "%s are the same in two logins", word)
	}
}

func (d *doctor) listAgain(ctx context.Context, before map[string]int64) (same int, err error) {
	src, err := d.Open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	boxes, err := src.Mailboxes(ctx)
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(boxes, func(mb mail.Mailbox) bool { return mb.Name == d.mb.Name })
	if i < 0 {
		return 0, errors.New(d.mb.Name + " is gone")
	}
	if boxes[i].UIDValidity != d.mb.UIDValidity {
		return 0, nil
	}
	n := 0
	for in, err := range src.List(ctx, boxes[i]) {
		if err != nil {
			return same, err
		}
		if size, ok := before[in.Ref.UID]; ok && size == in.Size {
			same++
		}
		if n++; n > 4*looked {
			break
		}
	}
	return same, nil
}
