package clean

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mailhaul/mail"
)

// Why a message that the rule selects stays.
const (
	WhyNotArchived = "not in the archive"
	WhyBack        = "deleted before and there again: the server ignores DELE"
	WhyMissing     = "missing from the archive's files"
	WhyFlagged     = "flagged"
	WhyNoDate      = "no readable date"
	WhyNoSize      = "no known size"
	WhySuspicious  = "suspicious: what came may not be the whole message"
	WhyMarked      = `marked \Deleted by another program`
	WhyNoUID       = "the server gives no reliable identifier"
	WhyChanged     = mail.WhyChanged
	WhyEnough      = "not needed, since the older ones are enough"
	WhyTwin        = "another that may be equal is not in the archive yet"
)

// Plan is what would go and what would stay.
type Plan struct {
	unread []error // mailboxes that the server does not show, or in a way that nothing there can go

	Account   string
	Mode      string
	Mailboxes []MailboxPlan // in the order of their names
	Go, Stay  Sum
	Already   int64 // octets the quota is over what was asked for; 0 without UntilQuota
}

// MailboxPlan is the part of one mailbox.
type MailboxPlan struct {
	Name           string
	Messages       int64 // at the server, selected or not
	Go, Stay       Sum
	Why            map[string]int64 // of Stay: only what the rule selects
	Oldest, Newest time.Time        // of Go

	mb       mail.Mailbox
	nameless bool // none of its messages has a UID
	doom     []candidate
	open     map[int64][]int64 // intents of earlier runs that are open, by claim
}

// Sum is a number of messages and their octets as the server lists them.
type Sum struct{ Messages, Octets int64 }

func (s *Sum) add(octets int64) {
	s.Messages++
	s.Octets += max(0, octets)
}

// ceilingFrom is the number of messages from which OverHalf looks at a mailbox.
const ceilingFrom = 100

// OverHalf returns the mailboxes of more than 100 messages of which more than
// half would go.
func (p *Plan) OverHalf() []string {
	var names []string
	for _, m := range p.Mailboxes {
		if m.Messages > ceilingFrom && m.Go.Messages*2 > m.Messages {
			names = append(names, m.Name)
		}
	}
	return names
}

// Exceeds tells whether more would go than a ceiling allows: so many messages in
// all, or, where percent is set, so many percent of a mailbox.
func (p *Plan) Exceeds(limit int64, percent bool) (string, bool) {
	if !percent {
		return fmt.Sprintf("%d messages would go", p.Go.Messages), p.Go.Messages > limit
	}
	for _, m := range p.Mailboxes {
		if m.Go.Messages*100 > limit*m.Messages {
			return fmt.Sprintf("%d of %d messages of %s would go", m.Go.Messages, m.Messages, m.Name), true
		}
	}
	return "", false
}

// candidate is a message at the server that the rule selects and the archive
// holds; compact, since there may be hundreds of thousands.
type candidate struct {
	uid     string
	claim   int64
	message int64
	size    int64
	date    int64 // Unix seconds
	flags   mail.Flags
	seq     uint32
	refetch bool // its octets are to be fetched under this UID before it may go
	doubt   bool // its length is not what was listed: refetch clears that
	ours    bool // an intent of ours is open: \Deleted on it is our own
}

// planner makes the plan.
type planner struct {
	Options
	flags map[mail.Flags]mail.Flags
}

func makePlan(ctx context.Context, o Options, mode string) (*Plan, error) {
	p := &planner{Options: o, flags: make(map[mail.Flags]mail.Flags)}
	plan := &Plan{Account: o.Source.Account(), Mode: mode}
	mailboxes, err := o.Source.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	if err := o.Selection.CheckNames(o.Source.Account(), mailboxes); err != nil {
		return nil, err
	}
	for _, mb := range mailboxes {
		// What is in the trash is on its way out already.
		if !o.Selection.MatchMailbox(mb.Name) || mode == mail.ModeTrash && mb.SpecialUse == `\Trash` {
			continue
		}
		mp, err := p.mailbox(ctx, mb)
		if mail.KindOf(err) == mail.KindPartial { // the server refuses this mailbox: the others can be freed
			plan.unread = append(plan.unread, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if mp.nameless {
			plan.unread = append(plan.unread, p.nameless(mp))
		}
		plan.Mailboxes = append(plan.Mailboxes, *mp)
	}
	slices.SortFunc(plan.Mailboxes, func(a, b MailboxPlan) int { return strings.Compare(a.Name, b.Name) })
	if err := p.limit(ctx, plan); err != nil {
		return nil, err
	}
	plan.sum()
	return plan, nil
}

// mailbox lists one mailbox and holds every message against rule and ledger.
func (p *planner) mailbox(ctx context.Context, mb mail.Mailbox) (*MailboxPlan, error) {
	k, err := p.known(ctx, mb)
	if err != nil {
		return nil, err
	}
	mp := &MailboxPlan{Name: mb.Name, Why: make(map[string]int64), mb: mb}
	unclaimed := make(map[string]bool) // UIDLs
	open := make(map[int64]bool)       // sizes of what is not archived
	named := false                     // some message has a UID or UIDL
	for in, err := range p.Source.List(ctx, mb) {
		if err != nil {
			return nil, err
		}
		mp.Messages++
		mp.mb.UIDValidity = in.Ref.UIDValidity
		named = named || in.Ref.UID != ""
		if !k.holds(in) {
			open[in.Size] = true
		}
		c, why, selected := p.weigh(in, k)
		switch {
		case !selected:
			mp.Stay.add(in.Size)
		case why != "":
			mp.Stay.add(in.Size)
			mp.Why[why]++
			if why == WhyNotArchived && in.Ref.UIDValidity == 0 {
				unclaimed[in.Ref.UID] = true
			}
		default:
			mp.doom = append(mp.doom, c)
		}
	}
	mp.nameless = !named && mp.Why[WhyNoUID] > 0
	if !p.Copies {
		if err := p.keepTwins(ctx, mp, k, open); err != nil {
			return nil, err
		}
	}
	if err := p.ignored(ctx, mp, unclaimed); err != nil || p.DryRun {
		return mp, err
	}
	mp.open, err = k.settle(ctx, p.Ledger)
	return mp, err
}

// nameless says that nothing can be deleted in a mailbox.
func (p *planner) nameless(m *MailboxPlan) error {
	return &mail.Error{
		Kind: mail.KindLacking, Ref: mail.Ref{Account: p.Source.Account(), Mailbox: m.Name}, Op: "delete messages",
		Err:  errors.New("the server gives the messages no UIDs that last, so they cannot be told apart with certainty"),
		Hint: "nothing was deleted there; clean the account over POP3 if the server has it",
	}
}

// ignored finds messages that were deleted over POP3 and are there again.
func (p *planner) ignored(ctx context.Context, mp *MailboxPlan, unclaimed map[string]bool) error {
	if len(unclaimed) == 0 {
		return nil
	}
	return p.Ledger.Claims(ctx, p.Source.Account(), mp.Name, func(c mail.Claim) error {
		if !c.Gone.IsZero() && c.GoneBy == "us" && unclaimed[c.UID] {
			delete(unclaimed, c.UID)
			mp.Why[WhyBack]++
			if mp.Why[WhyNotArchived]--; mp.Why[WhyNotArchived] == 0 {
				delete(mp.Why, WhyNotArchived)
			}
		}
		return nil
	})
}

// weigh decides on one listed message. selected is false if the rule does not
// mean it; why says why it stays all the same.
func (p *planner) weigh(in mail.Info, k *known) (c candidate, why string, selected bool) {
	at := place{in.Ref.UIDValidity, in.Ref.UID}
	k.note(at, in.Flags)
	claim, claimed := k.find(at)
	if in.InternalDate.IsZero() && claim.state&dated != 0 {
		// POP3 gives no date. The ledger's was read from this message's header,
		// which is compared again before anything is deleted.
		in.InternalDate = time.Unix(claim.date, 0)
	}
	match, sure := p.Selection.Match(in)
	if !match || p.Only != nil && !p.Only(in) {
		return c, "", false
	}
	ours := claimed && k.ours[at]
	suspicious := k.reasons[claim.message]
	switch {
	case in.Ref.UID == "":
		return c, WhyNoUID, true
	case !k.holds(in):
		return c, WhyNotArchived, true
	case !sure && p.Selection.NeedsDate() && in.InternalDate.IsZero(), p.oldestFirst() && in.InternalDate.IsZero():
		return c, WhyNoDate, true
	case !sure:
		return c, WhyNoSize, true
	case claim.state&missing != 0:
		return c, WhyMissing, true
	case in.Flags.Has(mail.Flagged) && !p.IncludeFlagged:
		return c, WhyFlagged, true
	case in.Flags.Has(mail.Deleted) && !ours:
		return c, WhyMarked, true
	case suspicious != "" && !mail.IsSizeDoubt(suspicious):
		p.Notify(mail.Event{Kind: mail.EventSuspicious, Ref: in.Ref, Reason: suspicious})
		return c, WhySuspicious, true
	}
	if p.Keep != nil {
		if why := p.Keep(in, claim.message); why != "" {
			return c, why, true
		}
	}
	return candidate{
		uid: in.Ref.UID, seq: in.Seq, claim: claim.claim, message: claim.message, size: in.Size, date: in.InternalDate.Unix(),
		flags: p.intern(in.Flags), doubt: suspicious != "", refetch: claim.state&fetched == 0 || suspicious != "", ours: ours,
	}, "", true
}

func (p *planner) oldestFirst() bool { return p.Free > 0 || p.UntilQuota > 0 }

func (p *planner) intern(f mail.Flags) mail.Flags {
	if have, ok := p.flags[f]; ok {
		return have
	}
	p.flags[f] = f
	return f
}

// limit keeps only as many candidates, oldest first, as free what was asked for.
func (p *planner) limit(ctx context.Context, plan *Plan) error {
	if !p.oldestFirst() {
		return nil
	}
	want := p.Free
	if p.UntilQuota > 0 {
		over, err := p.overQuota(ctx)
		if err != nil {
			return err
		}
		want, plan.Already = over, over
	}
	type spot struct{ mailbox, i int32 }
	var all []spot
	for m := range plan.Mailboxes {
		for i := range plan.Mailboxes[m].doom {
			all = append(all, spot{int32(m), int32(i)})
		}
	}
	at := func(a spot) *candidate { return &plan.Mailboxes[a.mailbox].doom[a.i] }
	slices.SortStableFunc(all, func(a, b spot) int { return cmp.Compare(at(a).date, at(b).date) })
	freed := int64(0)
	for _, a := range all {
		c := at(a)
		if freed < want {
			freed += max(0, c.size)
			continue
		}
		plan.Mailboxes[a.mailbox].Stay.add(c.size)
		plan.Mailboxes[a.mailbox].Why[WhyEnough]++
		c.claim = 0 // none has this
	}
	for m := range plan.Mailboxes {
		doom := &plan.Mailboxes[m].doom
		*doom = slices.DeleteFunc(*doom, func(c candidate) bool { return c.claim == 0 })
		slices.SortStableFunc(*doom, func(a, b candidate) int { return cmp.Compare(a.date, b.date) })
	}
	return nil
}

// overQuota returns how many octets are used beyond what was asked for.
func (p *planner) overQuota(ctx context.Context) (int64, error) {
	lacking := func(err error) error {
		return &mail.Error{Kind: mail.KindLacking, Ref: mail.Ref{Account: p.Source.Account()}, Op: "read quota", Err: err,
			Hint: "use --free SIZE or --older-than AGE instead of --until-quota"}
	}
	q, ok := p.Source.(QuotaSource)
	if !ok {
		return 0, lacking(errors.New("this protocol has no quota"))
	}
	used, limit, err := q.Quota(ctx)
	switch {
	case err != nil:
		return 0, err
	case limit <= 0:
		return 0, lacking(errors.New("the server gives no quota"))
	}
	return max(0, used-limit/100*int64(p.UntilQuota)-limit%100*int64(p.UntilQuota)/100), nil
}

// sum fills the totals.
func (p *Plan) sum() {
	for i := range p.Mailboxes {
		m := &p.Mailboxes[i]
		for _, c := range m.doom {
			m.Go.add(c.size)
			if c.date == (time.Time{}).Unix() {
				continue
			}
			when := time.Unix(c.date, 0)
			if m.Oldest.IsZero() || when.Before(m.Oldest) {
				m.Oldest = when
			}
			if when.After(m.Newest) {
				m.Newest = when
			}
		}
		p.Go.Messages += m.Go.Messages
		p.Go.Octets += m.Go.Octets
		p.Stay.Messages += m.Stay.Messages
		p.Stay.Octets += m.Stay.Octets
	}
}
