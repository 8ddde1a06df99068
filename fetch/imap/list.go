package imap

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"mailhaul/fetch"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// maxUnlisted is how many messages a server may count and not list.
const maxUnlisted = 1000

// List yields the messages of a mailbox from one FETCH of UIDs, flags, dates and
// sizes.
//
// Where that brings fewer messages than the server counts (limits, broken
// messages), it asks once more by sequence number. What is still missing is yielded
// with neither UID nor size: the message counts, and nothing is concluded from its
// absence. More than a thousand of those are fetch.ErrIncomplete. Messages without a lasting
// UID (no UIDVALIDITY, UIDNOTSTICKY) are yielded without UID, too.
func (s *Source) List(ctx context.Context, mb mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		l := &listing{s: s, mb: mb, yield: yield, labels: s.labelsIn(mb)}
		err := s.retry(ctx, func() error { return l.run(ctx) })
		if err != nil && !errors.Is(err, errStopped) {
			yield(mail.Info{}, s.at(err, mb, "list messages"))
		}
	}
}

var errStopped = errors.New("listing was stopped")

// listing is one List. It is an imapconn.FetchHandler.
type listing struct {
	s     *Source
	mb    mail.Mailbox
	yield func(mail.Info, error) bool

	uidValidity uint32
	noUIDs      bool
	uids        uidSet
	seqs        []bool // by sequence number, second pass only
	bySeq       bool
	doubted     bool   // listed a second time, since it was shorter than the server had said
	labels      labels // a message with one of these is not shown
}

// more are the items of a listing besides those of every one.
func (l *listing) more() string {
	if l.labels != nil {
		return " X-GM-LABELS"
	}
	return ""
}

const metaItems = "UID FLAGS INTERNALDATE RFC822.SIZE"

// items adds what the server knows of a message's identity (RFC 8474, Gmail).
func items(c *imapconn.Conn, more string) string {
	all := metaItems
	switch {
	case c.Has("OBJECTID"):
		all += " EMAILID"
	case c.Has("X-GM-EXT-1"):
		all += " X-GM-MSGID"
	}
	return "(" + all + more + ")"
}

func (l *listing) run(ctx context.Context) error {
	c, err := l.s.pool.get(ctx, l.mb.Raw)
	if err != nil {
		return err
	}
	defer l.s.pool.put(c)
	defer c.Bind(ctx)()
	return l.list(ctx, c)
}

func (l *listing) list(ctx context.Context, c *imapconn.Conn) error {
	// Selected anew even where it is selected already: the listing is to be of now.
	sel, _, err := c.Examine(ctx, l.mb.Raw, "UID FETCH 1:* "+items(c, l.more()))
	if err != nil {
		return err
	}
	if err := l.check(sel); err != nil {
		_ = c.Close() // the listing in flight is of no use
		return err
	}
	l.bySeq = false
	_, res, err := c.Next(&imapconn.Handler{Fetch: l})
	if err != nil {
		return err
	}
	if sel.Exists < 0 && !res.OK() { // nobody knows how many there are
		return res.Err()
	}
	if l.missing(c, sel) <= 0 {
		return l.doubt(ctx, c, sel)
	}
	if _, limited := res.Limit(); limited {
		return res.Err()
	}
	return l.again(ctx, c, sel, res)
}

// doubt lists once more what has fewer messages than the list of mailboxes said:
// they were removed since, or a busy server shows an older state for a moment.
func (l *listing) doubt(ctx context.Context, c *imapconn.Conn, sel imapconn.Selected) error {
	if l.doubted || l.mb.Messages <= sel.Exists {
		return nil
	}
	l.doubted = true
	return l.list(ctx, c)
}

// check compares UIDVALIDITY with what the caller knows.
func (l *listing) check(sel imapconn.Selected) error {
	for _, known := range []uint32{l.mb.UIDValidity, l.uidValidity} {
		if known != 0 && sel.UIDValidity != known {
			return &mail.Error{
				Kind: mail.KindTemporary, Op: "list messages",
				Err:  givenUp{fmt.Errorf("UIDVALIDITY changed from %d to %d during the run", known, sel.UIDValidity)},
				Hint: "run the same command again",
			}
		}
	}
	l.uidValidity = sel.UIDValidity
	l.noUIDs = sel.UIDValidity == 0 || sel.NoUIDs
	return nil
}

// missing is how many of the messages counted at first, less those that went
// since, were not listed.
func (l *listing) missing(c *imapconn.Conn, sel imapconn.Selected) int64 {
	return sel.Exists - (c.Selected().Expunged - sel.Expunged) - int64(l.uids.len())
}

// again lists by sequence number what the first pass did not bring.
func (l *listing) again(ctx context.Context, c *imapconn.Conn, sel imapconn.Selected, first imapconn.Result) error {
	l.bySeq, l.seqs = true, nil
	res, err := c.Exec(ctx, &imapconn.Handler{Fetch: l}, "FETCH 1:* "+items(c, l.more()))
	if err != nil {
		return err
	}
	n := l.missing(c, sel)
	if n <= 0 {
		return nil
	}
	if _, limited := res.Limit(); limited {
		return res.Err()
	}
	if n > maxUnlisted {
		e := &mail.Error{
			Kind: mail.KindTemporary, Op: "list messages",
			Err:  givenUp{fmt.Errorf("server counts %d messages and lists %d: %w", sel.Exists, l.uids.len(), fetch.ErrIncomplete)},
			Hint: "some providers limit how many messages IMAP shows: see their settings",
		}
		for _, r := range []imapconn.Result{first, res} {
			if !r.OK() {
				e.Server = r.Condition + " " + r.Text
			}
		}
		return e
	}
	for seq := uint32(1); n > 0 && int64(seq) <= sel.Exists; seq++ {
		if int(seq) < len(l.seqs) && l.seqs[seq] {
			continue
		}
		n--
		in := l.info(&imapconn.Fetch{Seq: seq, Size: -1})
		in.Ref.UID = ""
		if !l.yield(in, nil) {
			return errStopped
		}
	}
	return nil
}

// Body is not asked for.
func (l *listing) Body(*imapconn.Fetch, *imapconn.Body) error { return nil }

// End yields one message.
func (l *listing) End(f *imapconn.Fetch) error {
	// Without UID and size it is news about flags, not an answer (RFC 9051
	// section 7.5.2).
	if f.Has&imapconn.ItemUID == 0 || f.Has&(imapconn.ItemSize|imapconn.ItemDate) == 0 {
		return nil
	}
	if l.bySeq && f.Seq > 0 && f.Seq < 10_000_000 {
		if int(f.Seq) >= len(l.seqs) {
			l.seqs = append(l.seqs, make([]bool, int(f.Seq)+1-len(l.seqs)+1024)...)
		}
		l.seqs[f.Seq] = true
	}
	if !l.uids.add(f.UID) {
		return nil // listed already
	}
	if l.labels.elsewhere(f) {
		return nil
	}
	if !l.yield(l.info(f), nil) {
		return errStopped
	}
	return nil
}

func (l *listing) info(f *imapconn.Fetch) mail.Info {
	uid := ""
	if !l.noUIDs {
		uid = strconv.FormatUint(uint64(f.UID), 10)
	}
	return info(f, mail.Ref{Account: l.s.account, Mailbox: l.mb.Name, UIDValidity: l.uidValidity, UID: uid})
}

func info(f *imapconn.Fetch, ref mail.Ref) mail.Info {
	in := mail.Info{Ref: ref, Seq: f.Seq, Size: f.Size, InternalDate: f.InternalDate, Flags: f.Flags, ObjectID: f.ObjectID}
	if !in.InternalDate.IsZero() {
		in.DateFrom = mail.DateInternal
	}
	return in
}

// uidSet remembers UIDs, four octets each where they come in ascending order, as
// they do.
type uidSet struct {
	ascending []uint32
	late      map[uint32]bool
}

// add returns false if the UID was there.
func (u *uidSet) add(uid uint32) bool {
	if n := len(u.ascending); n == 0 || uid > u.ascending[n-1] {
		u.ascending = append(u.ascending, uid)
		return true
	}
	if _, found := slices.BinarySearch(u.ascending, uid); found || u.late[uid] {
		return false
	}
	if u.late == nil {
		u.late = make(map[uint32]bool)
	}
	u.late[uid] = true
	return true
}

func (u *uidSet) len() int { return len(u.ascending) + len(u.late) }
