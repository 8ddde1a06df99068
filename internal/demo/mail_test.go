package demo

import (
	"bytes"
	netmail "net/mail"
	"reflect"
	"testing"
)

func TestAccount(t *testing.T) {
	all := Account()
	if !reflect.DeepEqual(all, Account()) {
		t.Error("not the same each time")
	}
	messages, octets, fromLines, attachments := 0, 0, 0, 0
	seen := map[string]bool{}
	for _, mb := range all {
		for i, m := range mb.Messages {
			messages++
			octets += len(m.Octets)
			if seen[string(m.Octets)] {
				t.Errorf("%s %d is there twice", mb.Name, i)
			}
			seen[string(m.Octets)] = true
			if bytes.Count(m.Octets, []byte("\n")) != bytes.Count(m.Octets, []byte("\r\n")) || !bytes.HasSuffix(m.Octets, []byte("\r\n")) {
				t.Errorf("%s %d is not in wire form", mb.Name, i)
			}
			if bytes.Contains(m.Octets, []byte("\nFrom ")) {
				fromLines++
			}
			if bytes.Contains(m.Octets, []byte("attachment")) {
				attachments++
			}
			parsed, err := netmail.ReadMessage(bytes.NewReader(m.Octets))
			if err != nil {
				t.Fatalf("%s %d: %v", mb.Name, i, err)
			}
			if _, err := parsed.Header.AddressList("From"); err != nil {
				t.Errorf("%s %d: %v", mb.Name, i, err)
			}
			if at, err := parsed.Header.Date(); err != nil || at.After(m.InternalDate) {
				t.Errorf("%s %d: Date %v, %v, INTERNALDATE %v", mb.Name, i, at, err, m.InternalDate)
			}
		}
	}
	if messages < 300 || octets > 8<<20 || fromLines == 0 || attachments == 0 {
		t.Errorf("%d messages, %d octets, %d with From lines, %d with attachments", messages, octets, fromLines, attachments)
	}
}
