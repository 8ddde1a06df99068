package uploadtest

import (
	"testing"

	"mailhaul/upload"
)

func TestServer(t *testing.T) {
	Suite(t, func(*testing.T) (upload.Destination, func(string) []string) {
		s := New()
		return s, func(mailbox string) (all []string) {
			for _, m := range s.Boxes[mailbox].Messages {
				all = append(all, m.Octets)
			}
			return all
		}
	})
}
