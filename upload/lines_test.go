package upload_test

import (
	"errors"
	"strings"
	"testing"

	"mailhaul/mail"
	"mailhaul/upload"
	"mailhaul/upload/uploadtest"
)

// Of two large messages alike but for their last octet the destination has the second
// one: that is recognised, and the first is sent.
func TestOneOfTwoAlikeIsThere(t *testing.T) {
	head := "Received: from a by b; Tue, 2 Jan 2024 03:04:05 +0000\nSubject: s\n\n" + strings.Repeat("a line\n", 20_000)
	s, m := uploadtest.New(), &messages{}
	m.add("INBOX", head+"1\n")
	m.add("INBOX", head+"2\n")
	s.Put("INBOX", head+"2\n", "")
	if c := run(t, options(s, m, openLedger(t))); c.Adopted != 1 || c.Uploaded != 1 {
		t.Errorf("%+v", c)
	}
	holds(t, s, "INBOX", head+"1\n", head+"2\n")
}

// A mailbox that is another one when it is opened than when it was listed is not
// written to: what is known of it is of the other one.
func TestRenewedBetweenListAndOpen(t *testing.T) {
	s, m, l := uploadtest.New(), &messages{}, openLedger(t)
	m.add("INBOX", letter(1, "a"))
	run(t, options(s, m, l))
	m.add("INBOX", letter(2, "b"))
	s.Before = func(op string) error {
		if op == "open" {
			s.Before = nil
			s.Boxes["INBOX"] = &uploadtest.Mailbox{UIDValidity: 2, UIDNext: 1}
		}
		return nil
	}
	if _, err := upload.Run(t.Context(), options(s, m, l)); !errors.Is(err, upload.ErrUIDValidity) || mail.KindOf(err) != mail.KindTemporary {
		t.Errorf("err %v", err)
	}
	holds(t, s, "INBOX")
	if c := run(t, options(s, m, l)); c.Uploaded != 2 {
		t.Errorf("%+v", c)
	}
	holds(t, s, "INBOX", letter(1, "a"), letter(2, "b"))
}
