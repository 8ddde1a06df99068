package compare

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"

	"mailhaul/mail"
)

// large is an account of many messages in one mailbox, made when they are asked for.
type large struct {
	n     int
	first int // number of the first message
	look  func()
}

func (l *large) Account() string { return fmt.Sprint("imap:a@", l.first) }

func (l *large) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return []mail.Mailbox{{Name: "INBOX", UIDValidity: 1}}, nil
}

func (l *large) octets(i int) string {
	return fmt.Sprintf("Subject: %d\r\nMessage-ID: <%d@x>\r\n\r\nx\r\n", l.first+i, l.first+i)
}

func (l *large) List(context.Context, mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for i := range l.n {
			if !yield(mail.Info{Ref: mail.Ref{UID: fmt.Sprint(i + 1)}, Seq: uint32(i + 1), Size: 40}, nil) {
				return
			}
		}
	}
}

func (l *large) Fetch(_ context.Context, _ mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	for i, w := range wants {
		if i%10_000 == 0 {
			l.look()
		}
		if err := deliver(mail.Info{Ref: mail.Ref{UID: w.UID}, Seq: w.Seq}, strings.NewReader(l.octets(int(w.Seq)-1)), nil); err != nil {
			return err
		}
	}
	return nil
}

// live is what the last collection found in use, in octets: not what the other
// goroutines have left lying about since.
func live() uint64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// 100,000 messages on either side, ten of which the other lacks.
func TestMemory(t *testing.T) {
	const n, most = 100_000, 64 << 20 // with what is allocated while the collector marks
	before, peak := live(), uint64(0)
	look := func() { peak = max(peak, live()) }
	left, right := &large{n: n, look: look}, &large{n: n, first: 10, look: func() {}}
	res, err := Run(t.Context(), Options{Left: Server(left), Right: Server(right)})
	if err != nil || res.Same != n-10 || res.Missing != 10 || res.Extra != 10 {
		t.Fatalf("%+v %v", res.Counts, err)
	}
	t.Logf("%.1f MiB", float64(peak-before)/(1<<20))
	if peak-before > most {
		t.Errorf("%d octets of heap", peak-before)
	}
}
