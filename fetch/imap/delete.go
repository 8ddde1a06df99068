package imap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// Why a message stays, in the words of this driver.
const (
	whyReadOnly = "the mailbox is read-only"
	whyRenewed  = "the mailbox has new UIDs (UIDVALIDITY changed)"
	whyNotGone  = "the server did not remove it"
)

// CanDelete tells how messages are deleted here: for good where the server has UID
// EXPUNGE, to the \Trash mailbox where it has MOVE. At Gmail EXPUNGE only takes a
// label off, so there it is the trash whatever is asked for.
func (s *Source) CanDelete(ctx context.Context, mode string) (string, error) {
	err := s.retry(ctx, func() error {
		c, err := s.pool.get(ctx, "")
		if err != nil {
			return err
		}
		defer s.pool.put(c)
		if c.Has("X-GM-EXT-1") || isGmail(s.cfg.Server.Host) {
			mode = mail.ModeTrash
		}
		if mode == mail.ModeTrash {
			_, err = s.trash(ctx, c)
			return err
		}
		if c.CanExpunge() {
			return nil
		}
		hint := "nothing was marked; clean the account over POP3 if the server has it"
		if c.CanMove() {
			hint = "nothing was marked; use --trash: this server can move messages to its trash"
		}
		return s.lacking("the server cannot remove single messages (no UIDPLUS), only all that anybody marked as deleted", hint)
	})
	return mode, err
}

func isGmail(host string) bool {
	host = strings.ToLower(host)
	return host == "imap.gmail.com" || host == "imap.googlemail.com"
}

func (s *Source) lacking(why, hint string) error {
	return &mail.Error{Kind: mail.KindLacking, Ref: mail.Ref{Account: s.account}, Op: "delete messages", Err: errors.New(why), Hint: hint}
}

// trash finds the \Trash mailbox (RFC 6154), which takes part in nothing but MOVE.
func (s *Source) trash(ctx context.Context, c *imapconn.Conn) (mail.Mailbox, error) {
	if !c.CanMove() {
		return mail.Mailbox{}, s.lacking("the server cannot move messages (no MOVE)", "leave out --trash if the server has UIDPLUS")
	}
	all, err := c.Mailboxes(ctx)
	if err != nil {
		return mail.Mailbox{}, err
	}
	for _, mb := range all {
		if mb.SpecialUse == `\Trash` {
			return mb, nil
		}
	}
	return mail.Mailbox{}, s.lacking(`the server names no \Trash mailbox`, "create one that the server knows as its trash, or leave out --trash")
}

// doomed is a message of an order.
type doomed struct {
	at  int // in the order
	uid uint32
	rc  mail.Receipt
	now shown
}

// shown is what the server shows of a message now.
type shown struct {
	imapconn.Fetch
	header mail.Digest
	asked  bool // the header came
}

// deletion is one order. Its round trips: SELECT with FETCH, STORE, EXPUNGE, and
// the FETCH that tells what is left; or MOVE for STORE and EXPUNGE.
type deletion struct {
	s      *Source
	mb     mail.Mailbox
	o      mail.DeleteOrder
	c      *imapconn.Conn
	trash  mail.Mailbox
	doomed []doomed // ascending by UID
	box    imapconn.Box
	modSeq uint64 // the mailbox's when it was selected, 0 where it has none

	moved map[uint32]mail.Ref // where messages went, by their old UIDs

	pending header // of the response being read
	refused bool   // a FETCH was refused, so what did not come may be there
}

// Delete deletes what the order proves. Connections lost before the intent are made
// again; one lost after it leaves unsettled what is not known.
func (s *Source) Delete(ctx context.Context, mb mail.Mailbox, o mail.DeleteOrder) error {
	d := &deletion{s: s, mb: mb, o: o}
	if err := d.read(); err != nil {
		return err
	}
	err := s.retry(ctx, func() error { return d.look(ctx) })
	if d.c != nil {
		defer s.pool.put(d.c)
	}
	if err == nil {
		err = d.decide(ctx)
	}
	return s.at(err, mb, "delete messages")
}

// read takes the messages out of the proofs.
func (d *deletion) read() error {
	for i, p := range d.o.Proofs {
		rc, ok := p.Receipt()
		if !ok {
			return errors.New("delete: a message without proof")
		}
		uid, err := strconv.ParseUint(rc.Info.Ref.UID, 10, 32)
		if err != nil || uid == 0 {
			return fmt.Errorf("delete: %q is no UID", rc.Info.Ref.UID)
		}
		d.doomed = append(d.doomed, doomed{at: i, uid: uint32(uid), rc: rc})
	}
	slices.SortFunc(d.doomed, func(a, b doomed) int { return cmp.Compare(a.uid, b.uid) })
	for i := 1; i < len(d.doomed); i++ {
		if d.doomed[i].uid == d.doomed[i-1].uid {
			return fmt.Errorf("delete: UID %d is named twice", d.doomed[i].uid)
		}
	}
	return nil
}

// look selects the mailbox for writing and asks what the server shows of exactly
// these messages.
func (d *deletion) look(ctx context.Context) error {
	if d.c != nil {
		d.s.pool.put(d.c)
		d.c = nil
	}
	c, err := d.s.pool.get(ctx, d.mb.Raw)
	if err != nil {
		return err
	}
	d.c = c
	if d.o.Mode == mail.ModeTrash {
		if d.trash, err = d.s.trash(ctx, c); err != nil {
			return err
		}
	}
	for i := range d.doomed {
		d.doomed[i].now = shown{}
	}
	d.refused = false
	const items = "UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER]"
	more := ""
	if c.Has("CONDSTORE") || c.Has("QRESYNC") {
		more = " MODSEQ"
	}
	sets := imapconn.Sets(d.uids(func(*doomed) bool { return true }))
	var then []string
	for _, set := range sets {
		then = append(then, "UID FETCH "+imapconn.SetOf(set)+" ("+items+more+")")
	}
	box, tags, err := c.Select(ctx, d.mb.Raw, then...)
	if err != nil {
		return err
	}
	defer c.Bind(ctx)()
	d.box, d.modSeq = box, c.Selected().HighestModSeq
	for i := range tags {
		_, res, err := c.Next(&imapconn.Handler{Fetch: d})
		if err != nil {
			return err
		}
		if res.Condition == "BAD" && more != "" && d.modSeq == 0 { // NOMODSEQ (RFC 7162 section 3.1.2.2)
			then[i] = "UID FETCH " + imapconn.SetOf(sets[i]) + " (" + items + ")"
			continue
		}
		d.refused = d.refused || !res.OK()
		then[i] = ""
	}
	for _, cmd := range then {
		if cmd == "" {
			continue
		}
		res, err := c.Exec(ctx, &imapconn.Handler{Fetch: d}, cmd)
		if err != nil {
			return err
		}
		d.refused = d.refused || !res.OK()
	}
	return nil
}

func (d *deletion) uids(want func(*doomed) bool) []uint32 {
	var uids []uint32
	for i := range d.doomed {
		if want(&d.doomed[i]) {
			uids = append(uids, d.doomed[i].uid)
		}
	}
	return uids
}

func (d *deletion) find(uid uint32) *doomed {
	i, ok := slices.BinarySearchFunc(d.doomed, uid, func(m doomed, uid uint32) int { return cmp.Compare(m.uid, uid) })
	if !ok {
		return nil
	}
	return &d.doomed[i]
}

// header is a digest whose UID may stand behind the octets.
type header struct {
	seq    uint32
	digest mail.Digest
}

// Body takes the header of a message.
func (d *deletion) Body(f *imapconn.Fetch, b *imapconn.Body) error {
	if b.Section != "HEADER" || b.Partial || b.Nil() {
		return nil
	}
	digest, err := mail.HeaderDigest(b)
	d.pending = header{f.Seq, digest}
	return err
}

// End takes what one response says. What comes later about the same message counts
// as well: another client may be changing its flags just now.
func (d *deletion) End(f *imapconn.Fetch) error {
	p := d.pending
	d.pending = header{}
	m := d.whose(f)
	if m == nil {
		return nil
	}
	n := &m.now
	if f.Has&imapconn.ItemUID == 0 { // the number may be another message's by now
		n.Flags = mail.NewFlags(slices.Concat(n.Flags.List(), f.Flags.List())...)
		return nil
	}
	if f.Has&imapconn.ItemFlags != 0 {
		n.Flags = f.Flags
	}
	if f.Has&imapconn.ItemModSeq != 0 {
		n.ModSeq = f.ModSeq
	}
	if f.Has&imapconn.ItemDate != 0 {
		n.InternalDate = f.InternalDate
	}
	if f.Has&imapconn.ItemSize != 0 {
		n.Size = f.Size
	}
	if p.seq == f.Seq && p.seq != 0 {
		n.header, n.asked = p.digest, true
	}
	n.Has |= f.Has
	n.Seq, n.UID = f.Seq, f.UID
	return nil
}

func (d *deletion) whose(f *imapconn.Fetch) *doomed {
	if f.Has&imapconn.ItemUID != 0 {
		return d.find(f.UID)
	}
	i := slices.IndexFunc(d.doomed, func(m doomed) bool { return m.now.Seq == f.Seq && f.Seq != 0 })
	if i < 0 {
		return nil
	}
	return &d.doomed[i]
}

// decide settles what stays and deletes the rest.
func (d *deletion) decide(ctx context.Context) error {
	why := ""
	switch {
	case d.box.ReadOnly:
		why = whyReadOnly
	case d.box.UIDValidity == 0 || d.c.Selected().NoUIDs || d.mb.UIDValidity != 0 && d.box.UIDValidity != d.mb.UIDValidity:
		why = whyRenewed
	}
	var passed []*doomed
	var indexes []int
	for i := range d.doomed {
		m := &d.doomed[i]
		stays := why
		if stays == "" {
			stays = d.differs(m)
		}
		if stays == "" {
			ref := m.rc.Info.Ref
			ref.UIDValidity = d.box.UIDValidity
			stays = d.o.Allow(m.at, info(&m.now.Fetch, ref))
		}
		if stays != "" {
			d.o.Settle(m.at, false, stays)
			continue
		}
		passed = append(passed, m)
		indexes = append(indexes, m.at)
	}
	if len(passed) == 0 {
		return nil
	}
	if err := d.o.Intend(indexes); err != nil {
		return err
	}
	if d.o.Mode == mail.ModeTrash {
		return d.move(ctx, passed)
	}
	return d.expunge(ctx, passed)
}

// differs tells why a message is not, or not certainly, the one that was proven.
func (d *deletion) differs(m *doomed) string {
	n, in := &m.now, m.rc.Info
	switch {
	case in.Ref.UIDValidity != d.box.UIDValidity:
		return whyRenewed
	case n.Has&imapconn.ItemUID == 0 && !d.refused:
		return mail.WhyVanished
	case n.Has&imapconn.ItemsMeta != imapconn.ItemsMeta || !n.asked:
		return "the server does not show it again"
	case in.Size >= 0 && n.Size != in.Size, n.header != m.rc.Header,
		!n.InternalDate.IsZero() && !n.InternalDate.Equal(in.InternalDate):
		return mail.WhyChanged
	}
	return ""
}
