package imap

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"

	"mailhaul/fetch"
	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

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
