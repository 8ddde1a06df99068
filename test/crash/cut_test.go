package crash

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"mailhaul/fetch"
	"mailhaul/fetch/imap"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/relay"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
	"mailhaul/test/rig"
)

// wired is an account at a server that is reached by TCP.
type wired struct {
	protocol string
	port     int
	close    func() error
}

const password = "secret"

// fewMessages are those of INBOX that are no longer than some thousand octets.
func fewMessages() (list []message) {
	for _, m := range awkwardMessages()[inbox] {
		if len(m.wire) < 10_000 {
			list = append(list, m)
		}
	}
	return list
}

func startPOP3(t *testing.T) wired {
	t.Helper()
	o := testserver.POP3Options{User: "ada", Password: password}
	for _, m := range fewMessages() {
		o.Messages = append(o.Messages, testserver.POP3Message{Octets: []byte(m.wire), UIDL: m.uid})
	}
	s, err := testserver.NewPOP3(o)
	if err != nil {
		t.Fatal(err)
	}
	return wired{"pop3", s.Port(), s.Close}
}

func startIMAP(t *testing.T) wired {
	t.Helper()
	s := &testserver.IMAP{}
	for i, m := range fewMessages() {
		s.Messages = append(s.Messages, testserver.IMAPMessage{UID: uint32(i + 1), Octets: m.wire, Flags: string(m.flags)})
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return wired{"imap", s.Port(), s.Close}
}

// source is the driver, with pauses that do not hold a test up.
func (w wired) source(port int) fetch.Source {
	c := auth.Credentials{User: "ada", Password: password}
	d := dial.Server{Protocol: w.protocol, Host: "127.0.0.1", Port: port, Security: dial.Cleartext, Timeout: 10 * time.Second}
	if w.protocol == "pop3" {
		return pop3.New(pop3.Config{Server: d, Credentials: c, Pause: time.Millisecond})
	}
	return imap.New(imap.Config{Server: d, Credentials: c, Connections: 2, Pause: time.Millisecond})
}

// through runs a backup over a relay.
func (w wired) through(t *testing.T, p place, o relay.Options) (res fetch.Result, down int64, err error) {
	t.Helper()
	r, err := relay.Start(fmt.Sprintf("127.0.0.1:%d", w.port), o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	src := w.source(r.Port())
	res, err = p.backup(src, run{})
	_ = src.Close() // its connection may be gone
	_, down = r.Octets()
	return res, down, err
}

// The connection is cut behind each octet that the server sends: once, and the
// same run gets over it, or every time, and the next one does. Nothing half is
// archived.
func TestCutBehindEveryOctet(t *testing.T) {
	for _, start := range []func(*testing.T) wired{startPOP3, startIMAP} {
		for _, format := range rig.Formats {
			w := start(t)
			t.Cleanup(func() {
				if err := w.close(); err != nil {
					t.Error(err)
				}
			})
			t.Run(w.protocol+"-"+format, func(t *testing.T) {
				t.Parallel()
				p := place{root: rig.MemoryDir(t), format: format}
				_, total, err := w.through(t, p, relay.Options{})
				if err != nil {
					t.Fatal(err)
				}
				tried, over := 0, 0
				for n := int64(1); n < total; n += int64(rig.Stride(211)) {
					if err := os.RemoveAll(p.root); err != nil {
						t.Fatal(err)
					}
					if w.cut(t, p, relay.Options{CutDown: n, Broken: n % 2, Reset: n%4 < 2}) {
						over++
					}
					tried++
					if t.Failed() {
						return
					}
				}
				t.Logf("%d cuts in %d octets, %d runs got over it", tried, total, over)
			})
		}
	}
}

// cut runs once with the cut and once without. over says that the first sufficed.
func (w wired) cut(t *testing.T, p place, o relay.Options) (over bool) {
	t.Helper()
	when := fmt.Sprintf("cut: %+v", o)
	want := rig.Multiset{}
	for _, m := range fewMessages() {
		k := p.message(inbox, m)
		k.Flags = ""
		want[k]++
	}
	res, _, err := w.through(t, p, o)
	if err != nil && mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("%s: kind %d: %v", when, mail.KindOf(err), err)
	}
	got, herr := p.held()
	if herr != nil && !errors.Is(herr, os.ErrNotExist) {
		t.Errorf("%s: %v", when, herr)
	}
	for k, n := range got.Plain() {
		if n > want[k] {
			t.Errorf("%s: %v is held %d times", when, k, n)
		}
	}
	// A message that ends every connection counts as failed.
	if err == nil && int64(got.Size())+res.Failed != int64(want.Size()) {
		t.Errorf("%s: a run without error left %d of %d messages, %d failed", when, got.Size(), want.Size(), res.Failed)
	}
	src := w.source(w.port)
	defer src.Close()
	if _, err := p.backup(src, run{}); err != nil {
		t.Errorf("%s: the next run: %v", when, err)
	}
	if got, herr = p.held(); herr != nil {
		t.Errorf("%s: %v", when, herr)
	}
	if d := gocmp.Diff(want, got.Plain()); d != "" {
		t.Errorf("%s: %s", when, d)
	}
	if err := p.verify(); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	return err == nil && res.Failed == 0
}
