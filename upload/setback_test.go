package upload_test

import (
	"errors"
	"fmt"
	"testing"

	"mailhaul/mail"
	"mailhaul/upload"
	"mailhaul/upload/uploadtest"
)

// A mailbox that was restored from a backup keeps its UIDVALIDITY, and gives UIDs
// again that messages had which it lost.
func TestMailboxSetBack(t *testing.T) {
	for _, there := range []int{0, 2} {
		for cut := range 12 {
			t.Run(fmt.Sprintf("%d left, cut after %d calls", there, cut), func(t *testing.T) {
				m, s, l := &messages{}, uploadtest.New(), openLedger(t)
				var want []string
				for i := range 8 {
					want = append(want, letter(i, "body"))
					m.add("INBOX", want[i])
				}
				s.Group = false
				run(t, options(s, m, l))
				back := &uploadtest.Mailbox{UIDValidity: s.Boxes["INBOX"].UIDValidity, UIDNext: 1}
				s.Boxes["INBOX"] = back
				if c := run(t, dry(options(s, m, l))); c.Uploaded != 8 {
					t.Errorf("plan: %+v", c)
				}
				s.Put("INBOX", "Subject: of another\n\nfirst\n", "")
				for i := range there {
					s.Put("INBOX", want[i], "")
				}
				calls := 0
				s.After = func(string) error {
					if calls++; calls > cut {
						return &mail.Error{Kind: mail.KindOther, Err: errors.New("cut")}
					}
					return nil
				}
				_, _ = upload.Run(t.Context(), options(s, m, l))
				s.After = nil
				run(t, options(s, m, l))
				holds(t, s, "INBOX", append(want, "Subject: of another\n\nfirst\n")...)
				if c := run(t, options(s, m, l)); c.Skipped != 8 {
					t.Errorf("afterwards: %+v", c)
				}
			})
		}
	}
}

func dry(o upload.Options) upload.Options {
	o.DryRun = true
	return o
}
