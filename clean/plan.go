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
	WhyMissing     = "missing from the archive's files"
	WhyFlagged     = "flagged"
	WhyNoDate      = "no readable date"
	WhyNoSize      = "no known size"
	WhySuspicious  = "suspicious: what came may not be the whole message"
	WhyMarked      = `marked \Deleted by another program`
	WhyNoUID       = "the server gives no reliable identifier"
	WhyChanged     = mail.WhyChanged
	WhyEnough      = "enough is freed without it"
)

// Plan is what would go and what would stay.
type Plan struct {
	unread []error // mailboxes that the server does not show

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

	mb   mail.Mailbox
	doom []candidate
	open map[int64][]int64 // intents of earlier runs that are open, by claim
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
	uid      string
	claim    int64
	message  int64
	size     int64
	seq      uint32
	validity uint32
	date     int64 // Unix seconds
	flags    mail.Flags
	refetch  bool // its octets are to be fetched under this UID before it may go
	doubt    bool // its length is not what was listed: refetch clears that
	ours     bool // an intent of ours is open: \Deleted on it is our own
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
	if err := checkNames(o, mailboxes); err != nil {
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
		plan.Mailboxes = append(plan.Mailboxes, *mp)
	}
	slices.SortFunc(plan.Mailboxes, func(a, b MailboxPlan) int { return strings.Compare(a.Name, b.Name) })
	if err := p.limit(ctx, plan); err != nil {
		return nil, err
	}
	plan.sum()
	return plan, nil
}

func checkNames(o Options, all []mail.Mailbox) error {
	for _, pattern := range slices.Concat(o.Selection.Mailboxes, o.Selection.Exclude) {
		exists := func(mb mail.Mailbox) bool { return mail.MatchGlob(pattern, mb.Name) }
		if !mail.IsGlob(pattern) && !slices.ContainsFunc(all, exists) {
			return &mail.Error{Kind: mail.KindUsage, Ref: mail.Ref{Account: o.Source.Account(), Mailbox: pattern}, Err: errors.New("no such mailbox")}
		}
	}
	return nil
}

// mailbox lists one mailbox and holds every message against rule and ledger.
func (p *planner) mailbox(ctx context.Context, mb mail.Mailbox) (*MailboxPlan, error) {
	k, err := p.known(ctx, mb)
	if err != nil {
		return nil, err
	}
	mp := &MailboxPlan{Name: mb.Name, Why: make(map[string]int64), mb: mb}
	for in, err := range p.Source.List(ctx, mb) {
		if err != nil {
			return nil, err
		}
		mp.Messages++
		mp.mb.UIDValidity = in.Ref.UIDValidity
		c, why, selected := p.weigh(in, k)
		switch {
		case !selected:
			mp.Stay.add(in.Size)
		case why != "":
			mp.Stay.add(in.Size)
			mp.Why[why]++
		default:
			mp.doom = append(mp.doom, c)
		}
	}
	if p.DryRun {
		return mp, nil
	}
	mp.open, err = k.settle(ctx, p.Ledger)
	return mp, err
}

// known is what the ledger has of one mailbox.
type known struct {
	claims map[string]claimFacts
	held   map[int64]heldFacts
	open   []mail.Deletion
	ours   map[string]bool       // of open, by key
	listed map[string]mail.Flags // what the server shows now of open
}

// claimFacts is the compact form of a mail.Claim.
type claimFacts struct {
	id, message, size int64
	fetched           bool
}

type heldFacts struct {
	date       int64
	dated      bool // INTERNALDATE is more than the time of fetching
	missing    bool
	suspicious string
}

func claimKey(validity uint32, uid string) string { return fmt.Sprint(validity, " ", uid) }

func (p *planner) known(ctx context.Context, mb mail.Mailbox) (*known, error) {
	k := &known{claims: make(map[string]claimFacts), held: make(map[int64]heldFacts)}
	account := p.Source.Account()
	err := p.Ledger.Claims(ctx, account, mb.Name, func(c mail.Claim) error {
		if c.Gone.IsZero() {
			k.claims[claimKey(c.UIDValidity, c.UID)] = claimFacts{c.ID, c.Message, c.Size, c.Fetched}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = p.Ledger.Messages(ctx, mb.Name, func(h mail.Held) error {
		k.hold(h)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := p.elsewhere(ctx, k); err != nil {
		return nil, err
	}
	open, err := p.Ledger.OpenDeletions(ctx, account, mb.Name)
	k.expect(open)
	return k, err
}

// elsewhere looks up messages that lie in another mailbox of the archive: what was
// moved to the trash is claimed there, and stays where it was archived.
func (p *planner) elsewhere(ctx context.Context, k *known) error {
	for _, c := range k.claims {
		if _, here := k.held[c.message]; here {
			continue
		}
		h, err := p.Ledger.Message(ctx, c.message)
		if err != nil {
			return err
		}
		k.hold(h)
	}
	return nil
}

func (k *known) hold(h mail.Held) {
	in := h.Receipt.Info
	k.held[h.Message] = heldFacts{
		date: in.InternalDate.Unix(), dated: !in.InternalDate.IsZero() && in.DateFrom != mail.DateFetched && in.DateFrom != mail.DateUnknown,
		missing: h.Receipt.Place == "", suspicious: h.Suspicious,
	}
}

// expect takes the open intents.
func (k *known) expect(open []mail.Deletion) {
	k.open = open
	k.ours = make(map[string]bool, len(open))
	k.listed = make(map[string]mail.Flags, len(open))
	for _, d := range open {
		k.ours[claimKey(d.Claim.UIDValidity, d.Claim.UID)] = true
	}
}

// note remembers what is shown of a message with an open intent.
func (k *known) note(key string, flags mail.Flags) {
	if k.ours[key] {
		k.listed[key] = flags
	}
}

// settle records what a complete listing says of intents whose outcome was not
// known: the message is there or it is not. One that is there with \Deleted stays
// open: the mark is ours, and what is to come of it is for a later order.
func (k *known) settle(ctx context.Context, ledger Ledger) (open map[int64][]int64, err error) {
	open = make(map[int64][]int64)
	var results []mail.DeletionResult
	for _, d := range k.open {
		flags, there := k.listed[claimKey(d.Claim.UIDValidity, d.Claim.UID)]
		if there && flags.Has(mail.Deleted) {
			open[d.Claim.ID] = append(open[d.Claim.ID], d.ID)
			continue
		}
		results = append(results, mail.DeletionResult{ID: d.ID, Gone: !there})
	}
	if len(results) == 0 {
		return open, nil
	}
	return open, ledger.SettleDeletions(ctx, results)
}

// weigh decides on one listed message. selected is false if the rule does not
// mean it; why says why it stays all the same.
func (p *planner) weigh(in mail.Info, k *known) (c candidate, why string, selected bool) {
	key := claimKey(in.Ref.UIDValidity, in.Ref.UID)
	k.note(key, in.Flags)
	claim, claimed := k.claims[key]
	facts := k.held[claim.message]
	if in.InternalDate.IsZero() && claimed && facts.dated {
		// POP3 gives no date. The ledger's was read from this message's header,
		// which is compared again before anything is deleted.
		in.InternalDate = time.Unix(facts.date, 0)
	}
	match, sure := p.Selection.Match(in)
	if !match || p.Only != nil && !p.Only(in) {
		return c, "", false
	}
	ours := claimed && k.ours[key]
	switch {
	case in.Ref.UID == "":
		return c, WhyNoUID, true
	case !claimed || claim.size >= 0 && in.Size >= 0 && claim.size != in.Size:
		return c, WhyNotArchived, true
	case !sure && p.Selection.NeedsDate() && in.InternalDate.IsZero(), p.oldestFirst() && in.InternalDate.IsZero():
		return c, WhyNoDate, true
	case !sure:
		return c, WhyNoSize, true
	case facts.missing:
		return c, WhyMissing, true
	case in.Flags.Has(mail.Flagged) && !p.IncludeFlagged:
		return c, WhyFlagged, true
	case in.Flags.Has(mail.Deleted) && !ours:
		return c, WhyMarked, true
	case facts.suspicious != "" && !mail.IsSizeDoubt(facts.suspicious):
		p.Notify(mail.Event{Kind: mail.EventSuspicious, Ref: in.Ref, Reason: facts.suspicious})
		return c, WhySuspicious, true
	}
	if p.Keep != nil {
		if why := p.Keep(in, claim.message); why != "" {
			return c, why, true
		}
	}
	return candidate{
		uid: in.Ref.UID, validity: in.Ref.UIDValidity, seq: in.Seq, claim: claim.id, message: claim.message, size: in.Size,
		date: in.InternalDate.Unix(), flags: p.intern(in.Flags), doubt: facts.suspicious != "", refetch: !claim.fetched || facts.suspicious != "", ours: ours,
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
	type place struct{ mailbox, i int }
	var all []place
	for m := range plan.Mailboxes {
		for i := range plan.Mailboxes[m].doom {
			all = append(all, place{m, i})
		}
	}
	at := func(a place) *candidate { return &plan.Mailboxes[a.mailbox].doom[a.i] }
	slices.SortStableFunc(all, func(a, b place) int { return cmp.Compare(at(a).date, at(b).date) })
	keep := make([][]candidate, len(plan.Mailboxes))
	freed := int64(0)
	for _, a := range all {
		c := at(a)
		if freed < want {
			freed += max(0, c.size)
			keep[a.mailbox] = append(keep[a.mailbox], *c)
			continue
		}
		plan.Mailboxes[a.mailbox].Stay.add(c.size)
		plan.Mailboxes[a.mailbox].Why[WhyEnough]++
	}
	for m := range plan.Mailboxes {
		plan.Mailboxes[m].doom = keep[m]
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
