package imap

import (
	"context"
	"fmt"

	"mailhaul/fetch"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// maxChanged is how many changes are worth telling one by one.
const maxChanged = 20_000

var _ fetch.ChangeSource = (*Source)(nil)

// Changes asks, in one round trip, for the messages from the UIDNEXT of the state
// on, and for the flags that changed since its HIGHESTMODSEQ (RFC 7162 section
// 3.1.4.1). It needs CONDSTORE.
func (s *Source) Changes(ctx context.Context, mb mail.Mailbox, since string) (changed []mail.Info, exists int64, ok bool, err error) {
	old, ok := imapconn.ParseState(since)
	// A label taken away makes a message of All Mail a new one: only a list shows it.
	if !ok || old.UIDValidity != mb.UIDValidity || s.labelsIn(mb) != nil {
		return nil, 0, false, nil
	}
	err = s.retry(ctx, func() error {
		l := &changes{s: s, mb: mb, next: old.UIDNext, at: make(map[uint32]int)}
		var err error
		ok, err = l.run(ctx, old)
		changed, exists = l.all, l.exists
		return err
	})
	if err != nil || !ok {
		return nil, 0, false, s.at(err, mb, "list changes")
	}
	return changed, exists, true, nil
}

// changes is an imapconn.FetchHandler.
type changes struct {
	s      *Source
	mb     mail.Mailbox
	next   uint32
	all    []mail.Info
	at     map[uint32]int // place in all, by UID
	exists int64
	many   bool
}

func (l *changes) run(ctx context.Context, old imapconn.State) (ok bool, err error) {
	c, err := l.s.pool.get(ctx, l.mb.Raw)
	if err != nil {
		return false, err
	}
	defer l.s.pool.put(c)
	defer c.Bind(ctx)()
	if !c.Has("CONDSTORE") && !c.Has("QRESYNC") {
		return false, nil
	}
	then := []string{fmt.Sprintf("UID FETCH %d:* %s", old.UIDNext, items(c, ""))}
	if old.UIDNext > 1 {
		then = append(then, fmt.Sprintf("UID FETCH 1:%d (UID FLAGS) (CHANGEDSINCE %d)", old.UIDNext-1, old.HighestModSeq))
	}
	sel, tags, err := c.Examine(ctx, l.mb.Raw, then...)
	if err != nil {
		return false, err
	}
	ok = sel.UIDValidity == old.UIDValidity && sel.HighestModSeq > 0 && !sel.NoUIDs
	for range tags {
		_, res, err := c.Next(&imapconn.Handler{Fetch: l})
		if err != nil {
			return false, err
		}
		if _, limited := res.Limit(); limited {
			return false, res.Err()
		}
		ok = ok && res.OK()
	}
	l.exists = c.Selected().Exists
	return ok && !l.many, nil
}

// Body is not asked for.
func (l *changes) Body(*imapconn.Fetch, *imapconn.Body) error { return nil }

// End takes what a response says of one message. The last one of the mailbox comes
// even if it is none of those asked for (RFC 9051 section 9, seq-range).
func (l *changes) End(f *imapconn.Fetch) error {
	fresh := f.UID >= l.next
	switch {
	case f.Has&imapconn.ItemUID == 0, l.many:
		return nil
	case fresh && f.Has&imapconn.ItemsMeta != imapconn.ItemsMeta, f.Has&imapconn.ItemFlags == 0:
		return nil // news about flags of a message that is listed besides, or nothing
	}
	in := info(f, mail.Ref{Account: l.s.account, Mailbox: l.mb.Name, UIDValidity: l.mb.UIDValidity, UID: fmt.Sprint(f.UID)})
	if !fresh {
		in = mail.Info{Ref: in.Ref, Flags: f.Flags, Size: -1}
	}
	if i, again := l.at[f.UID]; again {
		l.all[i].Flags = f.Flags
		return nil
	}
	if len(l.all) >= maxChanged {
		l.many = true
		return nil
	}
	l.at[f.UID] = len(l.all)
	l.all = append(l.all, in)
	return nil
}
