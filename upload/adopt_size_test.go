package upload_test

import (
	"strings"
	"testing"

	"mailhaul/upload/uploadtest"
)

// The same message has other sizes on the wire: without its last newline, or with
// bare line feeds, it is sent as its canonical octets are.
func TestAdoptOtherWireForms(t *testing.T) {
	full := func(octets string) int64 { return int64(len(octets) + strings.Count(octets, "\n")) }
	for name, of := range map[string]func(octets string) (ours, theirs int64, inexact bool){
		"same":                              func(o string) (int64, int64, bool) { return full(o), full(o), false },
		"came without a final newline":      func(o string) (int64, int64, bool) { return full(o) - 2, full(o), true },
		"is there without a final newline":  func(o string) (int64, int64, bool) { return full(o), full(o) - 2, false },
		"neither has a final newline":       func(o string) (int64, int64, bool) { return full(o) - 2, full(o) - 2, true },
		"came with bare line feeds":         func(o string) (int64, int64, bool) { return int64(len(o)), full(o), true },
		"bare line feeds, no final newline": func(o string) (int64, int64, bool) { return int64(len(o)) - 1, full(o), true },
	} {
		t.Run(name, func(t *testing.T) {
			m, s := &messages{}, uploadtest.New()
			bodies := []string{letter(1, "a"), letter(1, "b"), letter(2, strings.Repeat("long line\n", 9000)), "x\n", letter(3, "twice"), letter(3, "twice")}
			for i, octets := range bodies {
				s.Put("INBOX", octets, "")
				m.add("INBOX", octets)
				sums, there := &m.held[i].Receipt.Sums, &s.Boxes["INBOX"].Messages[i]
				sums.Wire, there.Wire, sums.Inexact = of(octets)
			}
			s.Put("INBOX", letter(1, "another message of the same header"), "")
			c := run(t, options(s, m, openLedger(t)))
			if c.Adopted != int64(len(bodies)) || s.Sent != 0 {
				t.Errorf("%d adopted, %d sent", c.Adopted, s.Sent)
			}
		})
	}
}
