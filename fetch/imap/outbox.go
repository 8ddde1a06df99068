package imap

import (
	"bytes"

	"mailhaul/mail"
)

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
