package imap

import (
	"cmp"
	"context"
	"math"
	"strconv"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// expunge marks and removes. What changed since it was looked at is left alone: a
// message that another client marks meanwhile is not ours to expunge.
func (d *deletion) expunge(ctx context.Context, passed []*doomed) error {
	untouched := make(map[uint32]string)
	sent := make(map[uint32]bool)
	refusal := ""
	for _, g := range d.bySequence(passed) {
		if refusal != "" {
			break
		}
		for _, set := range imapconn.Sets(g.uids) {
			res, err := d.c.Mark(ctx, set, true, g.modSeq)
			if err != nil {
				return err
			}
			modified, err := res.Modified()
			if err != nil {
				return err
			}
			for _, uid := range set {
				sent[uid] = true
				if modified.Has(uid) {
					untouched[uid] = mail.WhyChanged
				}
			}
			if !res.OK() && res.Code != "MODIFIED" {
				refusal = d.words(res)
				break
			}
		}
	}
	marked := passed[:0:0]
	for _, m := range passed {
		if sent[m.uid] && untouched[m.uid] == "" {
			marked = append(marked, m)
		}
	}
	if refusal == "" {
		for _, set := range imapconn.Sets(uidsOf(marked)) {
			res, err := d.c.UIDExpunge(ctx, set)
			if err != nil {
				return err
			}
			if !res.OK() {
				refusal = d.words(res)
			}
		}
	}
	left, err := d.left(ctx, passed)
	if err != nil {
		return err
	}
	if err := d.unmark(ctx, marked, left); err != nil {
		return err
	}
	d.settle(passed, left, untouched, refusal)
	return nil
}

// group is messages that one STORE may mark.
type group struct {
	uids   []uint32
	modSeq uint64 // if their MODSEQ is no higher than this
}

// bySequence groups messages by the MODSEQ up to which they are as they were looked
// at: all that had not changed when the mailbox was selected, and each other alone.
func (d *deletion) bySequence(passed []*doomed) []group {
	groups := []group{{modSeq: d.modSeq}}
	for _, m := range passed {
		if m.now.ModSeq <= d.modSeq {
			groups[0].uids = append(groups[0].uids, m.uid)
		} else {
			groups = append(groups, group{uids: []uint32{m.uid}, modSeq: min(m.now.ModSeq, math.MaxInt64)})
		}
	}
	return groups
}

// move moves to the trash.
func (d *deletion) move(ctx context.Context, passed []*doomed) error {
	refusal := ""
	d.moved = make(map[uint32]mail.Ref)
	for _, set := range imapconn.Sets(uidsOf(passed)) {
		res, copied, err := d.c.Move(ctx, set, d.trash.Raw)
		if err != nil {
			return err
		}
		for old, uid := range copied.UIDs {
			d.moved[old] = mail.Ref{Account: d.s.account, Mailbox: d.trash.Name, UIDValidity: copied.UIDValidity, UID: strconv.FormatUint(uint64(uid), 10)}
		}
		if !res.OK() {
			refusal = d.words(res)
			break
		}
	}
	left, err := d.left(ctx, passed)
	if err != nil {
		return err
	}
	d.settle(passed, left, nil, refusal)
	return nil
}

func (d *deletion) words(res imapconn.Result) string {
	return "the server refused: " + d.s.cfg.Credentials.Redact(res.Condition+" "+res.Text)
}

func uidsOf(list []*doomed) []uint32 {
	uids := make([]uint32, len(list))
	for i, m := range list {
		uids[i] = m.uid
	}
	return uids
}

// remains collects which messages are still there, and their flags.
type remains map[uint32]mail.Flags

func (remains) Body(*imapconn.Fetch, *imapconn.Body) error { return nil }

func (r remains) End(f *imapconn.Fetch) error {
	if f.Has&imapconn.ItemUID != 0 && f.Has&imapconn.ItemFlags != 0 {
		r[f.UID] = f.Flags
	}
	return nil
}

// left asks which of the messages are left. Without a clear answer nothing is
// known, and that is an error.
func (d *deletion) left(ctx context.Context, passed []*doomed) (remains, error) {
	r := make(remains)
	for _, set := range imapconn.Sets(uidsOf(passed)) {
		res, err := d.c.Exec(ctx, &imapconn.Handler{Fetch: r}, "UID FETCH "+imapconn.SetOf(set)+" (UID FLAGS)")
		if err != nil {
			return nil, err
		}
		if !res.OK() {
			return nil, &mail.Error{Kind: mail.KindTemporary, Op: "see what was deleted", Server: d.s.cfg.Credentials.Redact(res.Condition + " " + res.Text),
				Err: &imapconn.Refused{Result: res}, Hint: "nothing is lost; the next run sees what went"}
		}
	}
	return r, nil
}

// unmark takes \Deleted off again where the server kept what we marked.
func (d *deletion) unmark(ctx context.Context, marked []*doomed, left remains) error {
	var uids []uint32
	for _, m := range marked {
		if flags, there := left[m.uid]; there && flags.Has(mail.Deleted) {
			uids = append(uids, m.uid)
		}
	}
	for _, set := range imapconn.Sets(uids) {
		if _, err := d.c.Mark(ctx, set, false, 0); err != nil {
			return err
		}
	}
	return nil
}

func (d *deletion) settle(passed []*doomed, left remains, untouched map[uint32]string, refusal string) {
	for _, m := range passed {
		_, there := left[m.uid]
		why := cmp.Or(untouched[m.uid], refusal, whyNotGone)
		if !there && untouched[m.uid] != "" {
			why = mail.WhyVanished // by somebody else
		}
		gone := !there && untouched[m.uid] == ""
		if gone {
			why = ""
		}
		if ref, told := d.moved[m.uid]; gone && told && d.o.Moved != nil {
			d.o.Moved(m.at, info(&m.now.Fetch, ref))
		}
		d.o.Settle(m.at, gone, why)
	}
}
