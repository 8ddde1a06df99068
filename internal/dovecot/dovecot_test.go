package dovecot

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func message(i int) Message {
	return Message{
		Flags:  []string{`\Seen`, "$Forwarded"},
		Date:   time.Date(2020, 1, 2, 3, 4, i, 0, time.FixedZone("", 3600)),
		Octets: []byte(fmt.Sprintf("Subject: %d\r\n\r\n.\r\n..dots\r\nbody %d\r\n", i, i)),
	}
}

// What is loaded comes back over both protocols, in every storage format, with
// several servers at once.
func TestLoadAndDrain(t *testing.T) {
	servers := map[string]Options{
		"maildir": {},
		"sdbox":   {MailLocation: SDBox, Compress: true},
		"mdbox":   {MailLocation: MDBox, Separator: ".", Prefix: "INBOX.", Quota: "50M"},
	}
	for name, o := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, o)
			sep := o.Separator
			if sep == "" {
				sep = "/"
			}
			nested := o.Prefix + "Entwürfe & Co" + sep + "日本"
			var want []Message
			for i := range 30 {
				want = append(want, message(i))
			}
			for _, mailbox := range []string{"INBOX", nested} {
				if err := s.Append("ada", mailbox, want...); err != nil {
					t.Fatal(err)
				}
				got, err := s.Messages("ada", mailbox)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, got, want)
			}
			uidls, bodies, err := s.MessagesPOP3("ada")
			if err != nil {
				t.Fatal(err)
			}
			if len(uidls) != 30 || len(bodies) != 30 || uidls[0] == uidls[1] || !bytes.Equal(bodies[7], want[7].Octets) {
				t.Errorf("POP3: %d UIDLs, %d bodies, the eighth %q", len(uidls), len(bodies), bodies[7])
			}
			if n, err := s.Count("grace", "INBOX"); n != 0 || err != nil {
				t.Errorf("another user has %d messages, %v", n, err)
			}
		})
	}
}

func compare(t *testing.T, got, want []Message) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d messages, loaded %d", len(got), len(want))
	}
	for i := range got {
		slices.Sort(got[i].Flags)
		g, w := got[i], want[i]
		w.UID = g.UID
		w.Flags = slices.Sorted(slices.Values(w.Flags))
		if d := cmp.Diff(w, g, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); d != "" {
			t.Fatalf("message %d: %s", i, d)
		}
	}
}

func TestOtherClient(t *testing.T) {
	s := Start(t, Options{})
	if err := s.Append("ada", "INBOX", message(1), message(2), message(3)); err != nil {
		t.Fatal(err)
	}
	before, err := s.Status("ada", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Expunge("ada", "INBOX", "2"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetUIDValidity("ada", "INBOX", 4711); err != nil {
		t.Fatal(err)
	}
	after, err := s.Status("ada", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	if before["MESSAGES"] != 3 || after["MESSAGES"] != 2 || after["UIDVALIDITY"] != 4711 || after["HIGHESTMODSEQ"] <= before["HIGHESTMODSEQ"] {
		t.Errorf("before %v, after %v", before, after)
	}
}

func TestQuota(t *testing.T) {
	s := Start(t, Options{Quota: "10k"})
	big := Message{Octets: []byte("Subject: big\r\n\r\n" + strings.Repeat("x", 20<<10) + "\r\n")}
	if err := s.Append("ada", "INBOX", big); err == nil || !strings.Contains(err.Error(), "OVERQUOTA") {
		t.Errorf("20 KiB into 10 KiB: %v", err)
	}
}

func TestManyAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 4 {
		s := Start(t, Options{})
		wg.Go(func() {
			if err := s.Append("ada", "INBOX", message(1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestEncodeName(t *testing.T) {
	for name, want := range map[string]string{
		"plain": "plain", "a&b": "a&-b", "Entwürfe": "Entw&APw-rfe", "日本/x": "&ZeVnLA-/x", "😀": "&2D3eAA-",
	} {
		if got := EncodeName(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
