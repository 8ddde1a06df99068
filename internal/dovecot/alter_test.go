package dovecot

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailhaul/internal/corpus"
)

// Dovecot itself alters some octets on APPEND and gives others differently over
// IMAP and POP3 (docs/quirks.md). Tests that compare octets take what the server
// sends, not what was loaded.
func TestWhatDovecotAlters(t *testing.T) {
	for name, o := range map[string]Options{"maildir": {}, "sdbox": {MailLocation: SDBox}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, o)
			var loaded []corpus.Hazard
			for _, h := range corpus.Hazards() {
				err := s.Append("ada", "INBOX", Message{Octets: h.Octets})
				if len(h.Octets) == 0 {
					if err == nil || !strings.Contains(err.Error(), "zero byte message") {
						t.Errorf("a message without octets: %v", err)
					}
					continue
				}
				if err != nil {
					t.Fatalf("%s: %v", h.Name, err)
				}
				loaded = append(loaded, h)
			}
			imap, err := s.Messages("ada", "INBOX")
			if err != nil {
				t.Fatal(err)
			}
			_, pop, err := s.MessagesPOP3("ada")
			if err != nil {
				t.Fatal(err)
			}
			if len(imap) != len(loaded) || len(pop) != len(loaded) {
				t.Fatalf("loaded %d, IMAP has %d, POP3 %d", len(loaded), len(imap), len(pop))
			}
			var altered, popDiffers []string
			for i, h := range loaded {
				if !bytes.Equal(h.Octets, imap[i].Octets) {
					altered = append(altered, h.Name)
				}
				if !bytes.Equal(imap[i].Octets, pop[i]) {
					popDiffers = append(popDiffers, h.Name)
				}
			}
			slices.Sort(altered)
			slices.Sort(popDiffers)
			if d := cmp.Diff([]string{"bare-cr", "bare-lf", "cr-cr-lf", "final-cr", "lf-dot-lf", "nul"}, altered); d != "" {
				t.Errorf("altered on APPEND: %s", d)
			}
			if d := cmp.Diff([]string{"final-cr", "header-cut", "no-final-newline", "nul"}, popDiffers); d != "" {
				t.Errorf("POP3 differs from IMAP: %s", d)
			}
		})
	}
}
