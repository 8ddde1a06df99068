package clean_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"testing"

	"mailhaul/clean"
	"mailhaul/mail"
)

// crowd is a server of many messages that takes no memory.
type crowd struct {
	*server
	n      int
	listed func()
}

func (c *crowd) info(i int) mail.Info {
	return mail.Info{
		Ref:  mail.Ref{Account: ada, Mailbox: "INBOX", UIDValidity: 7, UID: fmt.Sprint(i + 1)},
		Size: 5000, InternalDate: day.AddDate(0, 0, -100), DateFrom: mail.DateInternal, Flags: `\Seen`,
	}
}

func (c *crowd) List(context.Context, mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for i := range c.n {
			if !yield(c.info(i), nil) {
				return
			}
		}
		c.listed()
	}
}

// A plan takes little memory for each message.
func TestMemoryOfAPlan(t *testing.T) {
	const n = 12_000
	w := newWorld(t)
	c := &crowd{server: w.s, n: n}
	_, sums := mail.CanonicalInPlace([]byte("Subject: x\r\n\r\n" + strings.Repeat("x", 100) + "\r\n"))
	var ch mail.Change
	for i := range n {
		ch.Archived = append(ch.Archived, mail.Archived{Receipt: mail.Receipt{Info: c.info(i), Place: fmt.Sprint("INBOX/", i), Sums: sums}})
	}
	if err := w.l.Record(context.Background(), ch); err != nil {
		t.Fatal(err)
	}
	ch = mail.Change{}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var listing, plan int64
	c.listed = func() { listing = heap() - before }
	o := w.options()
	o.Source, o.DryRun = c, true
	o.Confirm = func(p *clean.Plan) error {
		plan = heap() - before
		if p.Go.Messages != n {
			t.Errorf("%d are to go", p.Go.Messages)
		}
		return nil
	}
	if _, err := clean.Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if listing/n > 200 || plan/n > 120 {
		t.Errorf("%d octets for each message while a mailbox is listed, %d in the plan", listing/n, plan/n)
	}
}
