package imap

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"mailhaul/fetch"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

const (
	setMessages  = 500      // in one command
	setOctets    = 4 << 20  // in one command, as listed
	windowSets   = 6        // commands in flight on one connection
	windowOctets = 32 << 20 // likewise
	windowSingle = 32       // commands in flight when messages are asked for one by one
	unknownSize  = 16 << 10 // octets of a message whose size is not known

	perConnMessages = 4000     // work that is worth one more connection,
	perConnOctets   = 24 << 20 // or so many octets

	fruitless = 4 // connections in a row that may end without a message
)

// Fetch gets whole messages.
func (s *Source) Fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.fetch(ctx, mb, wants, deliver, "")
}

// Headers gets headers only.
func (s *Source) Headers(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.fetch(ctx, mb, wants, deliver, "HEADER")
}

// fromField is the section that holds the From field alone.
const fromField = "HEADER.FIELDS (FROM)"

// From gets the From fields only.
func (s *Source) From(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver) error {
	return s.fetch(ctx, mb, wants, deliver, fromField)
}

// isSection tells whether a server answers with the section that was asked for; it
// may write the list of fields in its own way.
func isSection(got, asked string) bool {
	if asked == fromField {
		return len(got) >= len("HEADER.FIELDS") && strings.EqualFold(got[:len("HEADER.FIELDS")], "HEADER.FIELDS")
	}
	return got == asked
}

func (s *Source) fetch(ctx context.Context, mb mail.Mailbox, wants []mail.Want, deliver fetch.Deliver, section string) error {
	if len(wants) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j := &job{s: s, mb: mb, deliver: deliver, section: section, wants: wants, uidValidity: mb.UIDValidity, cancel: cancel}
	for _, w := range wants {
		j.octets += sizeOf(w)
	}
	var wg sync.WaitGroup
	for range j.extra() {
		wg.Go(func() {
			if c := s.pool.more(ctx, mb.Raw); c != nil {
				// What such a connection leaves undone, the first one does.
				if err := j.work(ctx, c); err != nil && ctx.Err() == nil && !s.heed(err) {
					s.pool.keep()
				}
			}
		})
	}
	err := j.main(ctx)
	if err != nil {
		cancel(err)
	}
	wg.Wait()
	if err == nil {
		err = j.main(ctx) // what others left
	}
	if e := j.failure(); e != nil {
		return e
	}
	return s.at(err, mb, "fetch messages")
}

func sizeOf(w mail.Want) int64 {
	if w.Size < 0 {
		return unknownSize
	}
	return w.Size
}

// job is one Fetch.
type job struct {
	s       *Source
	mb      mail.Mailbox
	deliver fetch.Deliver
	section string
	cancel  context.CancelCauseFunc

	mu          sync.Mutex
	wants       []mail.Want // not yet in any batch
	octets      int64       // of wants
	back        []*batch    // to be asked for again
	suspects    []*want     // did not come when asked for one by one
	uidValidity uint32
	progress    int // messages settled
	refusals    int // suspects in a row that could not be had
	busy        int // those of them that the server was too busy for
	err         error
}

// want is a message in a batch.
type want struct {
	mail.Want
	uid   uint32         // 0: by sequence number
	meta  imapconn.Fetch // what came without octets
	done  bool
	tries int
	cuts  int             // how often its octets ended in the middle
	words imapconn.Result // the server's last refusal
	nodat bool            // the server answered without octets
}

// batch is what one command asks for.
type batch struct {
	wants  []*want // sorted by UID or sequence number
	bySeq  bool
	octets int64
	tries  int
	set    imapconn.Set
	tag    string
}

// extra is how many further connections the work is worth.
func (j *job) extra() int {
	if j.section != "" {
		return 0
	}
	n := max(j.octets/perConnOctets, int64(len(j.wants)/perConnMessages))
	return int(min(n, int64(j.s.cfg.Connections-1)))
}

func (j *job) fail(err error) {
	j.mu.Lock()
	if j.err == nil {
		j.err = err
	}
	j.mu.Unlock()
	j.cancel(err)
}

func (j *job) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// next makes the next batch; nil if there is none.
func (j *job) next() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.back); n > 0 {
		b := j.back[n-1]
		j.back = j.back[:n-1]
		return b
	}
	b := &batch{}
	for len(j.wants) > 0 {
		w := j.wants[0]
		bySeq := w.UID == ""
		full := len(b.wants) >= setMessages || b.octets+sizeOf(w) > setOctets
		if len(b.wants) > 0 && (full || bySeq != b.bySeq) {
			break
		}
		uid, err := strconv.ParseUint(w.UID, 10, 32)
		if !bySeq && (err != nil || uid == 0) {
			j.suspects = append(j.suspects, &want{Want: w})
			j.octets -= sizeOf(w)
			j.wants = j.wants[1:]
			continue
		}
		b.bySeq = bySeq
		b.wants = append(b.wants, &want{Want: w, uid: uint32(uid)})
		b.octets += sizeOf(w)
		j.octets -= sizeOf(w)
		j.wants = j.wants[1:]
	}
	if len(b.wants) == 0 {
		return nil
	}
	slices.SortFunc(b.wants, func(x, y *want) int { return cmp.Compare(b.key(x), b.key(y)) })
	return j.cut(b)
}

// cut gives back what does not fit into one command. It is called with mu held.
func (j *job) cut(b *batch) *batch {
	for i, w := range b.wants {
		if b.set.Add(b.key(w)) {
			continue
		}
		rest := &batch{wants: slices.Clone(b.wants[i:]), bySeq: b.bySeq}
		b.wants = b.wants[:i]
		j.back = append(j.back, j.cut(rest))
		break
	}
	return b
}

func (b *batch) key(w *want) uint32 {
	if b.bySeq {
		return w.Seq
	}
	return w.uid
}

// open returns the wants that have not come.
func (b *batch) open() []*want {
	var open []*want
	for _, w := range b.wants {
		if !w.done {
			open = append(open, w)
		}
	}
	return open
}

// find returns the want a response belongs to.
func (b *batch) find(f *imapconn.Fetch) *want {
	k := f.UID
	if b.bySeq {
		k = f.Seq
	} else if f.Has&imapconn.ItemUID == 0 {
		// The UID came in an earlier response about the same message.
		for _, w := range b.wants {
			if w.meta.Seq == f.Seq && w.meta.Has&imapconn.ItemUID != 0 && !w.done {
				return w
			}
		}
		return nil
	}
	i, ok := slices.BinarySearchFunc(b.wants, k, func(w *want, k uint32) int { return cmp.Compare(b.key(w), k) })
	for ; ok && i < len(b.wants) && b.key(b.wants[i]) == k; i++ {
		if !b.wants[i].done {
			return b.wants[i]
		}
	}
	return nil
}

// again puts what is left of a batch back.
func (j *job) again(b *batch) {
	open := b.open()
	if len(open) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	rest := &batch{wants: open, bySeq: b.bySeq, tries: b.tries}
	j.back = append(j.back, j.cut(rest))
}

// singly has every message of a batch asked for alone.
func (j *job) singly(b *batch, res imapconn.Result) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range b.open() {
		w.words = res
		one := &batch{wants: []*want{w}, bySeq: b.bySeq, tries: b.tries}
		j.back = append(j.back, j.cut(one))
	}
}

func (j *job) suspect(w *want) {
	j.mu.Lock()
	j.suspects = append(j.suspects, w)
	j.mu.Unlock()
}

func (j *job) nextSuspect() *want {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.suspects) == 0 {
		return nil
	}
	w := j.suspects[0]
	j.suspects = j.suspects[1:]
	return w
}

func (j *job) left() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.wants)+len(j.back)+len(j.suspects) > 0
}

func (j *job) settled() {
	j.mu.Lock()
	j.progress++
	j.mu.Unlock()
}

func (j *job) count() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.progress
}

// main works on one connection after the other until nothing is left.
func (j *job) main(ctx context.Context) error {
	wait := j.s.cfg.Pause
	for lost := 0; j.left(); {
		before := j.count()
		c, err := j.s.pool.get(ctx, j.mb.Raw)
		if err != nil {
			return err
		}
		err = j.work(ctx, c)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			continue
		case isGivenUp(err):
			return err
		case j.s.heed(err):
			continue
		}
		if j.count() > before {
			lost, wait = 0, j.s.cfg.Pause
		}
		if lost++; lost > fruitless || mail.KindOf(err) != mail.KindTemporary && mail.KindOf(err) != mail.KindOther {
			return err
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait *= 2
	}
	return nil
}

// work fetches over one connection until nothing is left, the connection is lost, or
// the server allows no more as many.
func (j *job) work(ctx context.Context, c *imapconn.Conn) error {
	defer j.s.pool.put(c)
	defer c.Bind(ctx)()
	if err := j.open(ctx, c); err != nil {
		return err
	}
	w := newWorker(j, c)
	err := w.run(ctx)
	w.out.finish()
	if err == nil {
		err = w.ladder(ctx)
	}
	if err != nil && c.InFlight() > 0 {
		_ = c.Close() // answers are still to come: of no use to anybody
	}
	return err
}

// open selects the mailbox, unless it is, and makes sure that it is still the same.
func (j *job) open(ctx context.Context, c *imapconn.Conn) error {
	sel := c.Selected()
	if sel.Raw != j.mb.Raw || sel.UIDValidity == 0 {
		var err error
		if sel, _, err = c.Examine(ctx, j.mb.Raw); err != nil {
			return j.s.at(err, j.mb, "select mailbox")
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.uidValidity == 0 {
		j.uidValidity = sel.UIDValidity
	}
	if sel.UIDValidity != j.uidValidity {
		return &mail.Error{
			Kind: mail.KindTemporary, Op: "fetch messages",
			Err:  givenUp{fmt.Errorf("UIDVALIDITY changed from %d to %d during the run", j.uidValidity, sel.UIDValidity)},
			Hint: "run the same command again",
		}
	}
	return nil
}

// worker fetches over one connection. It is an imapconn.FetchHandler.
type worker struct {
	j        *job
	c        *imapconn.Conn
	items    string
	out      *outbox
	inFlight []*batch
	octets   int64 // of inFlight
	held     int   // octets at the end of the outbox's parcel that belong to the response being read
	holding  bool
	meter    meter
}

func newWorker(j *job, c *imapconn.Conn) *worker {
	return &worker{j: j, c: c, items: items(c, " BODY.PEEK["+j.section+"]"), out: newOutbox(j)}
}

func (w *worker) run(ctx context.Context) error {
	h := &imapconn.Handler{Fetch: w}
	w.startMeter()
	for {
		if err := w.fill(ctx); err != nil {
			return w.lost(ctx, err)
		}
		if len(w.inFlight) == 0 {
			return nil
		}
		tag, res, err := w.c.Next(h)
		w.out.flush()
		if err != nil {
			return w.lost(ctx, err)
		}
		i := slices.IndexFunc(w.inFlight, func(b *batch) bool { return b.tag == tag })
		b := w.inFlight[i]
		w.inFlight = slices.Delete(w.inFlight, i, i+1)
		w.octets -= b.octets
		if err := w.answered(ctx, b, res); err != nil {
			return w.lost(ctx, err)
		}
	}
}

// fill keeps the line busy: the next sets are asked for while one is read.
func (w *worker) fill(ctx context.Context) error {
	for {
		n := len(w.inFlight)
		if n > 0 && w.j.s.gov.holding() || w.j.s.pool.crowded() {
			return nil
		}
		if err := w.j.s.gov.wait(ctx); err != nil {
			return err
		}
		if w.toCompress() {
			if n > 0 {
				return nil // what is in flight comes first
			}
			if err := w.c.Compress(ctx); err != nil {
				return err
			}
		}
		if n >= windowSingle || n > 1 && w.octets >= windowOctets ||
			n >= w.sets() && len(w.inFlight[n-1].wants) > 1 {
			return nil
		}
		b := w.j.next()
		if b == nil {
			return nil
		}
		w.inFlight = append(w.inFlight, b)
		w.octets += b.octets
		verb := "UID FETCH "
		if b.bySeq {
			verb = "FETCH "
		}
		var err error
		if b.tag, err = w.c.Send(verb + b.set.String() + " " + w.items); err != nil {
			return err
		}
	}
}

// sets is how many sets are asked for ahead.
func (w *worker) sets() int {
	if w.meter.idle {
		return windowSets
	}
	return meterSets
}

// answered looks at what a command did not bring.
func (w *worker) answered(ctx context.Context, b *batch, res imapconn.Result) error {
	open := b.open()
	if len(open) < len(b.wants) {
		w.j.s.gov.came()
	}
	if l, ok := res.Limit(); ok {
		w.j.s.limited(l, res.Condition+" "+res.Text)
		w.j.again(b)
		return nil
	}
	if len(open) == 0 {
		return nil
	}
	if !res.OK() && res.Busy() && b.tries < attempts {
		b.tries++
		if err := sleep(ctx, w.j.s.cfg.Pause<<b.tries); err != nil {
			return err
		}
		w.j.again(b)
		return nil
	}
	if len(b.wants) > 1 {
		w.j.singly(b, res)
		return nil
	}
	if !res.OK() {
		open[0].words = res
	}
	w.j.suspect(open[0])
	return nil
}

// lost puts back what was asked for and has not come. Where the connection ended
// without bringing anything, one of the messages may be the reason; so may one that
// it ended in again and again, which is given up.
func (w *worker) lost(ctx context.Context, err error) error {
	for i, b := range slices.Backward(w.inFlight) {
		for _, x := range b.open() {
			if x.cuts < attempts || ctx.Err() != nil {
				continue
			}
			if e := w.j.giveUp(x, brokeOver(err)); e != nil {
				return e
			}
		}
		switch {
		case i > 0 || len(b.open()) < len(b.wants):
			w.j.again(b)
		case len(b.wants) > 1:
			w.j.singly(b, imapconn.Result{})
		default:
			one := b.wants[0]
			if one.tries++; one.tries < 2 {
				w.j.again(b)
			} else {
				w.j.suspect(one)
			}
		}
	}
	w.inFlight = nil
	return err
}

// find looks for the message a response is about.
func (w *worker) find(f *imapconn.Fetch) *want {
	for _, b := range w.inFlight {
		if x := b.find(f); x != nil {
			return x
		}
	}
	return nil
}

// Body takes the octets of a message. Small ones wait in memory for the end of the
// response, since UID and flags may come behind them; large ones are delivered as
// they come, if what describes them came before.
func (w *worker) Body(f *imapconn.Fetch, b *imapconn.Body) error {
	w.holding = false
	if !isSection(b.Section, w.j.section) || b.Partial || b.Nil() {
		return nil
	}
	if b.Size() <= smallMessage {
		into := w.out.room(int(b.Size()))
		if _, err := io.ReadFull(b, into); err != nil {
			return err
		}
		w.held, w.holding = len(into), true
		return nil
	}
	x := w.find(f)
	if x == nil || x.merged(f).Has&imapconn.ItemsMeta != imapconn.ItemsMeta {
		return nil // later, alone
	}
	return w.j.stream(x, x.merged(f), b.Whole(nil))
}

// End takes what a response says.
func (w *worker) End(f *imapconn.Fetch) error {
	w.measure()
	x := w.find(f)
	holding := w.holding
	w.holding = false
	switch {
	case x == nil:
		// Unsolicited, or a second time.
	case !holding:
		x.meta = x.merged(f)
		if f.Has&imapconn.ItemBody != 0 {
			x.nodat = true
		}
	case w.held == 0 && x.merged(f).Size > 0:
		x.meta, x.nodat = x.merged(f), true // no octets where there should be some
	default:
		x.done = true
		w.j.settled()
		w.out.add(w.j.info(x, x.merged(f)), w.held)
	}
	if w.out.ready(w.c.Buffered() == 0) {
		w.out.flush()
	}
	return nil
}

// merged adds what earlier responses said.
func (x *want) merged(f *imapconn.Fetch) imapconn.Fetch {
	m := *f
	lacks := x.meta.Has &^ f.Has
	if lacks&imapconn.ItemUID != 0 {
		m.UID = x.meta.UID
	}
	if lacks&imapconn.ItemFlags != 0 {
		m.Flags = x.meta.Flags
	}
	if lacks&imapconn.ItemDate != 0 {
		m.InternalDate = x.meta.InternalDate
	}
	if lacks&imapconn.ItemSize != 0 {
		m.Size = x.meta.Size
	}
	if m.ObjectID == "" {
		m.ObjectID = x.meta.ObjectID
	}
	m.Has |= x.meta.Has
	return m
}

func (j *job) info(x *want, f imapconn.Fetch) mail.Info {
	if f.Seq == 0 {
		f.Seq = x.Seq
	}
	return info(&f, mail.Ref{Account: j.s.account, Mailbox: j.mb.Name, UIDValidity: j.uidValidity, UID: x.UID})
}

// stream delivers a message while it comes. If deliver sees the octets end in the
// middle, the message stays wanted.
func (j *job) stream(x *want, f imapconn.Fetch, r io.Reader) error {
	watched := &watched{r: r}
	if err := j.hand(j.info(x, f), watched, nil); err != nil {
		return err
	}
	if watched.failed {
		x.cuts++
		return nil
	}
	x.done = true
	j.settled()
	return nil
}

// watched notices whether whoever read a message saw an error.
type watched struct {
	r      io.Reader
	failed bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.failed = true
	}
	return n, err
}

// hand calls deliver, unless it has failed before.
func (j *job) hand(in mail.Info, r io.Reader, failed error) error {
	if err := j.failure(); err != nil {
		return err
	}
	if err := j.deliver(in, r, failed); err != nil {
		j.fail(err)
		return err
	}
	return nil
}

// giveUp tells that a message could not be had.
func (j *job) giveUp(x *want, why error) error {
	x.done = true
	j.settled()
	in := j.info(x, x.merged(&imapconn.Fetch{Size: x.Size}))
	if errors.Is(why, mail.ErrVanished) {
		return j.hand(in, nil, why)
	}
	e := &mail.Error{Kind: mail.KindPartial, Ref: in.Ref, Op: "fetch message", Err: why}
	if x.words.Condition != "" && !x.words.OK() {
		e.Server = x.words.Condition + " " + x.words.Text
		if x.words.Busy() {
			e.Kind, e.Hint = mail.KindTemporary, "try again later"
		}
	}
	return j.hand(in, nil, e)
}

// smallMessage is the size up to which octets are held in memory.
const smallMessage = 256 << 10

// parcel is messages in memory, one behind the other.
type parcel struct {
	buf   []byte
	infos []mail.Info
	ends  []int
}

// outbox carries small messages from the goroutine that reads the network to one
// that delivers them: the network never waits for a disk until three parcels are
// full.
type outbox struct {
	j    *job
	cur  *parcel
	full chan *parcel
	free chan *parcel
	idle chan struct{}
}

const (
	parcels    = 3
	parcelGoal = 128 << 10 // octets at which one is sent
)

func newOutbox(j *job) *outbox {
	o := &outbox{j: j, full: make(chan *parcel, parcels), free: make(chan *parcel, parcels), idle: make(chan struct{})}
	for range parcels - 1 {
		o.free <- &parcel{}
	}
	o.cur = &parcel{}
	go o.run()
	return o
}

func (o *outbox) run() {
	defer close(o.idle)
	r := bytes.NewReader(nil)
	for p := range o.full {
		from := 0
		for i, in := range p.infos {
			r.Reset(p.buf[from:p.ends[i]])
			from = p.ends[i]
			if o.j.hand(in, r, nil) != nil {
				break // the job has failed; nothing more is delivered
			}
		}
		clear(p.infos)
		p.buf, p.infos, p.ends = p.buf[:0], p.infos[:0], p.ends[:0]
		o.free <- p
	}
}

// room returns n octets behind what the parcel holds. They become part of it by
// add.
func (o *outbox) room(n int) []byte {
	used := o.used()
	if used > 0 && used+n > smallMessage {
		o.flush()
		used = 0
	}
	if cap(o.cur.buf) < used+n {
		grown := make([]byte, used, max(used+n, parcelGoal+32<<10))
		copy(grown, o.cur.buf[:used])
		o.cur.buf = grown
	}
	o.cur.buf = o.cur.buf[:used+n]
	return o.cur.buf[used:]
}

func (o *outbox) used() int {
	if n := len(o.cur.ends); n > 0 {
		return o.cur.ends[n-1]
	}
	return 0
}

func (o *outbox) add(in mail.Info, n int) {
	o.cur.infos = append(o.cur.infos, in)
	o.cur.ends = append(o.cur.ends, o.used()+n)
}

// ready tells whether the parcel should go: it is large enough, or the network has
// nothing to read just now.
func (o *outbox) ready(starved bool) bool {
	return len(o.cur.infos) > 0 && (starved || o.used() >= parcelGoal)
}

func (o *outbox) flush() {
	if len(o.cur.infos) == 0 {
		return
	}
	o.full <- o.cur
	o.cur = <-o.free
}

// finish waits until everything was delivered.
func (o *outbox) finish() {
	o.flush()
	close(o.full)
	<-o.idle
}
