package fetch

import (
	"context"

	"mailhaul/mail"
)

// contentUID is the prefix under which messages that the server gives no usable
// UID are claimed: by digest and number of the copy. No UID or UIDL begins so:
// RFC 1939 section 7 allows no octet below 0x21 in a UIDL.
const contentUID = "\x01content:"

// mailbox brings one mailbox of the source into the archive. The counts it
// returns are those known before anything is fetched; the pipeline counts the
// rest.
//
// Where messages are left for when the other mailboxes are archived, it returns the
// take that has them.
func (r *run) mailbox(ctx context.Context, mb mail.Mailbox) (res MailboxResult, later *take, err error) {
	account := r.Source.Account()
	var state string // in which everything was archived
	if mb.State != "" && r.Selection.All() {
		if state, err = r.Ledger.Cursor(ctx, account, mb.Name); err != nil {
			return res, nil, err
		}
		if state == mb.State {
			n := max(0, mb.Messages)
			res.Listed, res.Skipped = n, n
			return res, nil, nil
		}
	}
	swept, whole, err := r.sweep(ctx, mb)
	res.Listed = swept
	if whole || err != nil {
		return res, nil, err
	}
	l, err := r.list(ctx, mb, state)
	if err != nil {
		return res, nil, err
	}
	l.less(swept)
	if l.unidentified == 0 { // else the same ones would come first every time
		l.cut(r.allow(len(l.wants)))
	}
	res.Counts.add(l.counts)
	res.More = l.more
	if err := r.recordListing(ctx, mb, l); err != nil {
		return res, nil, err
	}
	left := int64(0) // told already
	if swept > 0 {
		left = mb.Messages - swept
	}
	r.Notify(mail.Event{Kind: mail.EventMailbox, Ref: mail.Ref{Account: account, Mailbox: mb.Name}, N: int64(len(l.wants)) - left, Octets: l.octets})
	if len(l.wants) == 0 && l.unidentified == 0 {
		return res, nil, l.incomplete
	}
	t := &take{run: r, mb: mb, claims: l.claims, deleted: l.deleted}
	counts, err := t.all(ctx, l)
	res.Counts.add(counts)
	if err == nil {
		err = l.incomplete
	}
	if len(t.later) > 0 {
		later = t
	}
	return res, later, err
}
