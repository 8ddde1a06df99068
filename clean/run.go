package clean

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"mailhaul/mail"
)

// batch is how many messages one order names: a lost line costs at most so many
// orders, 25 KB of them over POP3, and a night's mail goes in one session.
const batch = 2500

// Run plans, asks, and deletes. It returns what was done even with an error. It
// does not close anything.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Notify == nil {
		o.Notify = func(mail.Event) {}
	}
	res := Result{Stayed: make(map[string]int64)}
	mode, err := o.Source.CanDelete(ctx, o.Mode)
	if err != nil {
		return res, err
	}
	if res.Plan, err = makePlan(ctx, o, mode); err != nil {
		return res, err
	}
	res.count()
	if o.Confirm != nil {
		if err := o.Confirm(res.Plan); err != nil {
			return res, err
		}
	}
	unread := errors.Join(res.Plan.unread...)
	if o.DryRun || res.Plan.Go.Messages == 0 {
		return res, unread
	}
	if err := o.Ledger.Backup(ctx); err != nil {
		return res, err
	}
	r := &run{Options: o, mode: mode, res: &res}
	for i := range res.Plan.Mailboxes {
		if err := r.mailbox(ctx, &res.Plan.Mailboxes[i]); err != nil {
			return res, err
		}
	}
	return res, errors.Join(unread, r.damaged)
}

// count enters what stays by plan; what is to go is counted when it is known.
func (r *Result) count() {
	for _, m := range r.Plan.Mailboxes {
		r.Listed += m.Go.Messages
		for why, n := range m.Why {
			r.Listed += n
			r.Skipped += n
			r.Stayed[why] += n
		}
	}
}

type run struct {
	Options
	mode string

	mu      sync.Mutex
	res     *Result
	damaged error // the archive lacks octets it should have: exit 65 at the end
}

func (r *run) mailbox(ctx context.Context, m *MailboxPlan) error {
	r.Notify(mail.Event{Kind: mail.EventMailbox, Ref: r.ref(m, ""), N: m.Go.Messages, Octets: m.Go.Octets})
	doom := m.doom
	for len(doom) > 0 {
		n := min(batch, len(doom))
		if err := r.batch(ctx, m, doom[:n]); err != nil {
			return err
		}
		doom = doom[n:]
	}
	m.doom = nil
	return nil
}

func (r *run) ref(m *MailboxPlan, uid string) mail.Ref {
	return mail.Ref{Account: r.Source.Account(), Mailbox: m.Name, UIDValidity: m.mb.UIDValidity, UID: uid}
}

// batch takes one batch from proof to result.
func (r *run) batch(ctx context.Context, m *MailboxPlan, doom []candidate) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	doom, err := r.fetchAgain(ctx, m, doom)
	if err != nil {
		return err
	}
	doomed, sizes, err := r.prove(ctx, m, doom)
	if err != nil || len(doomed) == 0 {
		return err
	}
	return r.order(ctx, m, doomed, sizes)
}

var errNotGiven = errors.New("the server lists the message and did not give it again")

// fetchAgain fetches the octets of messages that were recognised by their header
// only, or whose length is in doubt, and lets those go on whose octets are the
// archived ones.
func (r *run) fetchAgain(ctx context.Context, m *MailboxPlan, doom []candidate) ([]candidate, error) {
	var wants []mail.Want
	byUID := make(map[string]int)
	for i, c := range doom {
		if c.refetch {
			wants = append(wants, mail.Want{UID: c.uid, Seq: c.seq, Size: c.size})
			byUID[c.uid] = i
		}
	}
	if len(wants) == 0 {
		return doom, nil
	}
	var mu sync.Mutex
	same := make(map[string]bool)
	refused := make(map[string]error) // of messages that the server did not give
	for uid := range byUID {
		refused[uid] = errNotGiven
	}
	err := r.Source.Fetch(ctx, m.mb, wants, func(in mail.Info, rd io.Reader, err error) error {
		i, asked := byUID[in.Ref.UID]
		if !asked {
			return nil
		}
		if err != nil {
			mu.Lock()
			refused[in.Ref.UID] = err
			mu.Unlock()
			return nil
		}
		octets := mail.NewCanonical(rd, nil)
		if _, err := io.Copy(io.Discard, octets); err != nil {
			return nil // the driver asks again
		}
		held, err := r.Ledger.Message(ctx, doom[i].message)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		delete(refused, in.Ref.UID)
		same[in.Ref.UID] = held.Receipt.Digest == octets.Sums().Digest
		return nil
	})
	if err != nil {
		return nil, err
	}
	var change mail.Change
	kept := doom[:0:0]
	for _, c := range doom {
		switch {
		case !c.refetch:
		case errors.Is(refused[c.uid], mail.ErrVanished):
			r.stay(mail.WhyVanished)
			continue
		case refused[c.uid] != nil:
			r.failed(m, c, refused[c.uid])
			continue
		case !same[c.uid] && c.doubt:
			r.Notify(mail.Event{Kind: mail.EventSuspicious, Ref: r.ref(m, c.uid), Reason: "its length is not what the server lists, and a second fetch did not give the same octets"})
			r.stay(WhySuspicious)
			continue
		case !same[c.uid]:
			change.Wrong = append(change.Wrong, c.claim)
			r.stay(WhyChanged)
			continue
		default:
			change.Fetched = append(change.Fetched, c.claim)
			if c.doubt {
				change.Cleared = append(change.Cleared, c.message)
			}
		}
		kept = append(kept, c)
	}
	if len(change.Fetched)+len(change.Wrong) == 0 {
		return kept, nil
	}
	return kept, r.Ledger.Record(ctx, change)
}

// readers is how many archived messages are read back at once.
const readers = 4

// prove reads the archived octets back. What is missing or altered stays at the
// server, is told, and makes the run fail in the end.
func (r *run) prove(ctx context.Context, m *MailboxPlan, doom []candidate) ([]mail.Doomed, []candidate, error) {
	proofs := make([]mail.Proof, len(doom))
	var g errgroup.Group
	g.SetLimit(readers)
	for i, c := range doom {
		g.Go(func() (err error) {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			proofs[i], err = r.proveOne(ctx, m, c)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	var doomed []mail.Doomed
	var kept []candidate
	for i, p := range proofs {
		if _, ok := p.Receipt(); ok {
			doomed = append(doomed, mail.Doomed{Claim: doom[i].claim, Proof: p})
			kept = append(kept, doom[i])
		}
	}
	return doomed, kept, nil
}

func (r *run) proveOne(ctx context.Context, m *MailboxPlan, c candidate) (mail.Proof, error) {
	held, err := r.Ledger.Message(ctx, c.message)
	if err != nil {
		return mail.Proof{}, err
	}
	f, err := r.Archive.Open(ctx, held.Receipt)
	if err == nil {
		defer f.Close()
		rc := held.Receipt
		rc.Info.Ref = r.ref(m, c.uid)
		rc.Info.Size, rc.Info.Seq, rc.Info.Flags = c.size, c.seq, c.flags
		rc.Info.InternalDate = time.Unix(c.date, 0)
		var proof mail.Proof
		if proof, err = mail.Prove(rc, f); err == nil {
			return proof, nil
		}
	}
	if !errors.Is(err, mail.ErrAltered) && !errors.Is(err, fs.ErrNotExist) {
		return mail.Proof{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Failed++
	r.damaged = &mail.Error{
		Kind: mail.KindIntegrity, Ref: r.ref(m, c.uid), Op: "read back " + held.Receipt.Place, Err: err,
		Hint: "it stays at the server; run mailhaul verify to see what else the archive lacks",
	}
	r.Notify(mail.Event{Kind: mail.EventFailed, Ref: r.ref(m, c.uid), Err: r.damaged})
	return mail.Proof{}, nil
}

// order records the intent, has the source delete, and records what came of it.
func (r *run) order(ctx context.Context, m *MailboxPlan, doomed []mail.Doomed, facts []candidate) error {
	proofs := make([]mail.Proof, len(doomed))
	for i := range doomed {
		proofs[i] = doomed[i].Proof
	}
	ids := make(map[int]int64) // intents by index
	var results []mail.DeletionResult
	settled := make(map[int]bool)
	moved := make(map[int]mail.Info)
	var wrong []int64            // claims
	wanted := make(map[int]bool) // those that stay by our own rule
	err := r.Source.Delete(ctx, m.mb, mail.DeleteOrder{
		Proofs: proofs, Mode: r.mode,
		Allow: func(i int, in mail.Info) string {
			why := r.allow(in, facts[i])
			wanted[i] = why != ""
			return why
		},
		Intend: func(passed []int) error {
			list := make([]mail.Doomed, len(passed))
			for n, i := range passed {
				list[n] = doomed[i]
			}
			got, err := r.Ledger.IntendDeletions(ctx, list, r.Rule, r.mode)
			if err != nil {
				return err
			}
			for n, id := range got {
				ids[passed[n]] = id
			}
			return r.supersede(ctx, m, list)
		},
		Moved: func(i int, to mail.Info) { moved[i] = to },
		Settle: func(i int, gone bool, why string) {
			settled[i] = true
			if id, ok := ids[i]; ok {
				results = append(results, mail.DeletionResult{ID: id, Gone: gone, Moved: moved[i]})
			}
			if gone {
				r.res.Deleted++
				r.res.Octets += max(0, facts[i].size)
				return
			}
			if !wanted[i] && why == mail.WhyChanged && m.mb.UIDValidity == 0 {
				wrong = append(wrong, facts[i].claim) // a UIDL used again
			}
			if wanted[i] || why == mail.WhyVanished || why == mail.WhyChanged {
				r.stay(why)
				return
			}
			r.refused(why)
		},
	})
	if rerr := r.Ledger.Record(ctx, mail.Change{Wrong: wrong}); rerr != nil {
		return errors.Join(rerr, err)
	}
	if len(results) > 0 {
		if rerr := r.Ledger.SettleDeletions(ctx, results); rerr != nil {
			return errors.Join(rerr, err)
		}
		r.Notify(mail.Event{Kind: mail.EventDone, Ref: r.ref(m, ""), N: int64(len(results))})
	}
	if err == nil && len(settled) < len(doomed) {
		err = &mail.Error{Kind: mail.KindTemporary, Ref: r.ref(m, ""), Op: "delete",
			Err:  fmt.Errorf("it is not known whether %d messages went", len(doomed)-len(settled)),
			Hint: "nothing is lost; the next run sees what went"}
	}
	return err
}

// supersede closes intents of earlier runs on the same messages: the new ones say
// what becomes of them.
func (r *run) supersede(ctx context.Context, m *MailboxPlan, list []mail.Doomed) error {
	var old []mail.DeletionResult
	for _, d := range list {
		for _, id := range m.open[d.Claim] {
			old = append(old, mail.DeletionResult{ID: id})
		}
	}
	if len(old) == 0 {
		return nil
	}
	return r.Ledger.SettleDeletions(ctx, old)
}

// failed counts a message that the server would not give again; it stays.
func (r *run) failed(m *MailboxPlan, c candidate, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Failed++
	r.Notify(mail.Event{Kind: mail.EventFailed, Ref: r.ref(m, c.uid), Err: err})
}

// refused counts a message that should have gone and that the server keeps; it is
// told once for all that have the same reason.
func (r *run) refused(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Failed++
	r.res.Stayed[why]++
}

func (r *run) stay(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Skipped++
	r.res.Stayed[why]++
}

// allow applies the rule to what the server says now.
func (r *run) allow(in mail.Info, c candidate) string {
	if in.InternalDate.IsZero() {
		in.InternalDate = time.Unix(c.date, 0)
	}
	match, sure := r.Selection.Match(in)
	switch {
	case in.Flags.Has(mail.Flagged) && !r.IncludeFlagged:
		return WhyFlagged
	case in.Flags.Has(mail.Deleted) && !c.ours:
		return WhyMarked
	case !match || !sure || c.size >= 0 && in.Size >= 0 && in.Size != c.size:
		return WhyChanged
	}
	return ""
}
