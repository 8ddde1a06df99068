package fetch

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"mailhaul/mail"
)

// Bounds of the pipeline. Memory for messages is inMemory in all, shared between
// runs (Options.Share); what is written and not yet synced is atRisk at most, in octets
// and in time.
const (
	smallMessage = 1 << 20  // octets; larger ones go past memory into the archive
	inMemory     = 16 << 20 // octets of messages held in memory,
	leastMemory  = 2 << 20  // but so many of a run that shares it with many: more than a small message
	atRisk       = 64 << 20 // octets written and not yet synced
	groupOctets  = 8 << 20  // a group is committed when it has so many octets,
	groupCount   = 1000     // or so many messages,
	groupAge     = 2 * time.Second
	writers      = 4
)

// pipeline takes messages from the network's goroutines, writes them and makes
// them durable in groups, so that reading, writing and syncing overlap.
type pipeline struct {
	Options
	ctx    context.Context // of writing: not cancelled when the run is interrupted
	cancel context.CancelCauseFunc

	jobs   chan job
	done   chan struct{} // closed when the writers have ended
	memory *semaphore.Weighted
	risk   *semaphore.Weighted
	kick   chan struct{}
	ended  chan struct{} // closed when the committer has ended

	waiting  atomic.Int64 // for room in risk
	commitMu sync.Mutex   // commits do not overlap

	mu        sync.Mutex
	err       error // first fatal error
	adoptions []mail.Adoption
	flags     []mail.FlagChange
	unsettled bool            // flags were set in the archive since the last commit
	notes     map[string]note // by noteKey, of messages read to the end and not committed
	written   int64           // messages written and not committed
	unsynced  int64           // their weight in risk
	byMailbox map[string]*Counts
}

// note is what the receipt of a message cannot carry.
type note struct {
	uid        string
	suspicious string
	copied     bool
}

// job is one message in memory, in wire form, on its way to a writer.
type job struct {
	take   *take
	in     mail.Info
	buf    *[]byte
	weight int64
}

func newPipeline(ctx context.Context, o Options, cancel context.CancelCauseFunc) *pipeline {
	p := &pipeline{
		Options: o, ctx: context.WithoutCancel(ctx), cancel: cancel,
		jobs: make(chan job, 2*writers), done: make(chan struct{}),
		memory: semaphore.NewWeighted(o.memory()), risk: semaphore.NewWeighted(atRisk),
		kick: make(chan struct{}, 1), ended: make(chan struct{}),
		notes: make(map[string]note), byMailbox: make(map[string]*Counts),
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(p.write)
	}
	go func() { wg.Wait(); close(p.done) }()
	go p.commitLoop()
	return p
}

// memory is a run's share of the memory for messages. Shares are apart, so that a
// server that stalls in the middle of a message holds up nobody else.
func (o Options) memory() int64 {
	return max(inMemory/int64(max(o.Share, 1)), leastMemory)
}

// finish writes and commits what was taken, and ends all goroutines. No take may
// be running or follow.
func (p *pipeline) finish() error {
	close(p.jobs)
	<-p.done
	<-p.ended
	p.commit()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// fail stops the run: the disk or the ledger does not do what it must.
func (p *pipeline) fail(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	p.cancel(err)
}

func (p *pipeline) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// counts returns what was committed of a mailbox. It is valid after finish.
func (p *pipeline) counts(mailbox string) Counts {
	if c := p.byMailbox[mailbox]; c != nil {
		return *c
	}
	return Counts{}
}

// take reads one message from the network. Small ones are read into memory and
// handed to a writer; large ones are written as they come.
func (p *pipeline) take(ctx context.Context, t *take, in mail.Info, r io.Reader) error {
	if p.consumes() {
		return p.takeOne(ctx, t, in, r)
	}
	if in.Size > smallMessage {
		return p.stream(ctx, t, in, r)
	}
	weight := bufferSize(in.Size)
	if err := p.memory.Acquire(ctx, weight); err != nil {
		return context.Cause(ctx)
	}
	buf := getBuffer(weight)
	full, err := readFull(buf, r)
	switch {
	case err != nil: // the driver knows, and asks again
		t.again(in)
		p.release(buf, weight)
		return nil
	case full: // larger than the server said
		defer p.release(buf, weight)
		return p.stream(ctx, t, in, io.MultiReader(bytes.NewReader(*buf), r))
	}
	p.progress(in, 1, int64(len(*buf)))
	t.writing.Add(1)
	p.jobs <- job{take: t, in: in, buf: buf, weight: weight}
	return nil
}

func (p *pipeline) progress(in mail.Info, n, octets int64) {
	p.Notify(mail.Event{Kind: mail.EventProgress, Ref: in.Ref, N: n, Octets: octets})
}

// takeOne makes a message durable before it returns.
func (p *pipeline) takeOne(ctx context.Context, t *take, in mail.Info, r io.Reader) error {
	if err := p.stream(ctx, t, in, r); err != nil {
		return err
	}
	p.commit()
	return p.failed()
}

func (p *pipeline) release(buf *[]byte, weight int64) {
	putBuffer(buf)
	p.memory.Release(weight)
}

// write is one writer.
func (p *pipeline) write() {
	for j := range p.jobs {
		if p.failed() == nil {
			p.writeOne(j)
		}
		p.release(j.buf, j.weight)
		j.take.writing.Done()
	}
}

func (p *pipeline) writeOne(j job) {
	if err := j.take.refusal(); err != nil {
		j.take.refuse(j.in, err)
		return
	}
	canonical, sums := mail.CanonicalInPlace(*j.buf)
	if c := j.take.book.takeDigest(sums.Digest, j.in.Ref.UID == ""); c != nil {
		if err := j.take.adopt(p.ctx, j.in, c, true); err != nil {
			p.fail(err)
		}
		return
	}
	suspicion := suspect(j.in, sums, canonical)
	o := &octets{Reader: bytes.NewReader(canonical), sums: sums}
	if err := p.append(j.take, j.in, o, sums.Octets, suspicion); err != nil {
		p.refused(j.take, j.in, err)
	}
}

// refused stops the run, or only the mailbox if that is all the archive cannot
// write to now.
func (p *pipeline) refused(t *take, in mail.Info, err error) {
	if mail.KindOf(err) != mail.KindTemporary || p.consumes() {
		p.fail(err)
		return
	}
	t.refuse(in, err)
}

func (p *pipeline) consumes() bool {
	c, ok := p.Source.(Consumer)
	return ok && c.Consumes()
}

// octets is a message in memory whose sums are known.
type octets struct {
	io.Reader
	sums mail.Sums
}

func (o *octets) Sums() mail.Sums { return o.sums }

// append writes one message that the archive does not have. octets is how many
// there are, or may be; of a message that is large one group counts.
func (p *pipeline) append(t *take, in mail.Info, o mail.Octets, octets int64, suspicion func(mail.Sums) string) error {
	weight := riskOf(octets)
	if !p.risk.TryAcquire(weight) {
		p.waiting.Add(1)
		p.wake()
		err := p.risk.Acquire(p.ctx, weight)
		p.waiting.Add(-1)
		if err != nil {
			return err
		}
	}
	key := noteKey(in)
	_, isCopy := o.(*copied)
	noting := &noting{Octets: o, note: func(sums mail.Sums) {
		p.note(key, note{uid: t.book.newUID(in.Ref.UID, sums.Digest), suspicious: suspicion(sums), copied: isCopy})
	}}
	if err := p.Archive.Append(p.ctx, in, noting); err != nil {
		p.risk.Release(weight)
		p.forget(key)
		return err
	}
	real := min(riskOf(o.Sums().Octets), weight)
	p.risk.Release(weight - real)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.written++
	p.unsynced += real
	if p.written >= p.group() || p.unsynced >= groupOctets || p.waiting.Load() > 0 {
		p.wake()
	}
	return nil
}

// riskOf is what a message counts while it is not synced.
func riskOf(octets int64) int64 { return min(max(octets, 1<<10), groupOctets) }

// noting makes the note of a message when its last octet was read: a commit may
// take the message before Append returns.
type noting struct {
	mail.Octets
	note func(mail.Sums)
	made bool
}

func (n *noting) Read(b []byte) (int, error) {
	k, err := n.Octets.Read(b)
	if err == io.EOF && !n.made {
		n.made = true
		n.note(n.Sums())
	}
	return k, err
}

// group is how many messages are committed together.
func (p *pipeline) group() int64 {
	if p.Group > 0 {
		return int64(min(p.Group, groupCount))
	}
	return groupCount
}

func (p *pipeline) note(key string, n note) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notes[key] = n
}

func (p *pipeline) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.notes, key)
}

func noteKey(in mail.Info) string { return in.Ref.Mailbox + "\x00" + wantKey(in.Ref.UID, in.Seq) }

// adopt records a claim with the next group.
func (p *pipeline) adopt(a mail.Adoption) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.adoptions = append(p.adoptions, a)
	if len(p.adoptions) >= groupCount {
		p.wake()
	}
}

// moved notes that flags were set in the archive and are not durable there yet.
func (p *pipeline) moved() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unsettled = true
}

// flagged records changed flags with the next group.
func (p *pipeline) flagged(f mail.FlagChange) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flags = append(p.flags, f)
	if len(p.flags) >= groupCount {
		p.wake()
	}
}

func (p *pipeline) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// stream writes a message as it comes. Only at its end can be told whether the
// archive has it; then nothing of it is kept.
func (p *pipeline) stream(ctx context.Context, t *take, in mail.Info, r io.Reader) error {
	s := &streamed{Canonical: mail.NewCanonical(r, nil), book: t.book, unidentified: in.Ref.UID == ""}
	s.moved = func(n int64) { p.progress(in, 0, n) }
	// The size the server listed says nothing about how many octets will come.
	err := p.append(t, in, s, groupOctets, func(sums mail.Sums) string { return suspectSize(in, sums) })
	if s.err == nil && s.over {
		p.progress(in, 1, 0)
	}
	switch {
	case s.held != nil:
		return t.adopt(ctx, in, s.held, true)
	case s.err != nil:
		t.again(in)
		return nil
	case err != nil:
		p.refused(t, in, err)
		return err
	}
	return nil
}

// streamed is the octets of a message that is not held in memory.
type streamed struct {
	*mail.Canonical
	book         *book
	unidentified bool
	held         *copyOf // the archive has it
	err          error   // of the network
	over         bool
	moved        func(octets int64) // tells how far it is
	told         int64
}

func (s *streamed) Read(b []byte) (int, error) {
	const step = 1 << 20
	n, err := s.Canonical.Read(b)
	if wire := s.Sums().Wire; wire-s.told >= step || err == io.EOF {
		s.moved(wire - s.told)
		s.told = wire
	}
	switch err {
	case nil:
	case io.EOF:
		if !s.over {
			s.over = true
			s.held = s.book.takeDigest(s.Sums().Digest, s.unidentified)
		}
		if s.held != nil {
			return n, mail.ErrSkipped
		}
	default:
		s.err = err
	}
	return n, err
}

// commitLoop commits a group whenever one is large or old enough.
func (p *pipeline) commitLoop() {
	defer close(p.ended)
	tick := time.NewTicker(groupAge / 2)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return
		case <-p.kick:
		case <-tick.C:
		}
		p.commit()
	}
}

// commit makes durable and records what was written before it was called. Only
// what it has recorded counts as archived.
func (p *pipeline) commit() {
	p.commitMu.Lock()
	defer p.commitMu.Unlock()
	p.mu.Lock()
	if p.written == 0 && len(p.adoptions) == 0 && len(p.flags) == 0 {
		p.mu.Unlock()
		return
	}
	weight, dirty, failed := p.unsynced, p.written > 0 || p.unsettled, p.err != nil
	change := mail.Change{Adopted: p.adoptions, Flags: p.flags}
	p.adoptions, p.flags, p.unsynced, p.written, p.unsettled = nil, nil, 0, 0, false
	p.mu.Unlock()
	defer p.risk.Release(weight)

	var commitErr error
	if dirty {
		var group mail.Group
		group, commitErr = p.Archive.Commit(p.ctx)
		change.Anchors = group.Anchors
		change.Archived = p.archived(group.Receipts)
	}
	if failed || commitErr != nil { // the flags may not be durable; the next run sets them
		change.Adopted, change.Flags = nil, nil
	}
	if err := p.Ledger.Record(p.ctx, change); err != nil {
		p.fail(errors.Join(err, commitErr))
		return
	}
	p.report(change)
	if commitErr != nil {
		p.fail(commitErr)
	}
}

// archived joins receipts with what was noted when their messages were written, in
// the order of the server, not in that of the writers: it is the order in which upload
// sends them.
func (p *pipeline) archived(receipts []mail.Receipt) []mail.Archived {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]mail.Archived, 0, len(receipts))
	for _, rc := range receipts {
		key := noteKey(rc.Info)
		n := p.notes[key]
		delete(p.notes, key)
		out = append(out, mail.Archived{Receipt: rc, UID: n.uid, Suspicious: n.suspicious, Copied: n.copied})
	}
	slices.SortStableFunc(out, func(a, b mail.Archived) int {
		x, y := a.Receipt.Info, b.Receipt.Info
		return cmp.Or(strings.Compare(x.Ref.Mailbox, y.Ref.Mailbox), cmp.Compare(x.Seq, y.Seq))
	})
	return out
}

// report counts and tells what is durable and recorded.
func (p *pipeline) report(change mail.Change) {
	var n, octets int64
	for _, a := range change.Archived {
		in := a.Receipt.Info
		c := p.byMailbox[in.Ref.Mailbox]
		if c == nil {
			c = new(Counts)
			p.byMailbox[in.Ref.Mailbox] = c
		}
		c.Archived++
		c.Octets += a.Receipt.Wire
		n++
		octets += a.Receipt.Wire
		if a.Suspicious != "" {
			c.Suspicious++
			p.Notify(mail.Event{Kind: mail.EventSuspicious, Ref: in.Ref, Reason: a.Suspicious})
		}
	}
	if n > 0 {
		p.Notify(mail.Event{Kind: mail.EventDone, N: n, Octets: octets})
	}
}
