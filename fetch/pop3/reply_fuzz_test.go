package pop3

import (
	"strings"
	"testing"

	"mailhaul/mail"
)

// Only a line that begins with +OK is a success, and no refusal is one.
func FuzzReply(f *testing.F) {
	for _, s := range []string{"+OK", "+OK 3 100", "+ok lower", "-ERR [AUTH] no", "-ERR [IN-USE] later", "-ERR [SYS/TEMP", "+OKAY", "-", "", "+OK\x00", "-ERR [LOGIN-DELAY]", "* OK IMAP"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseReply([]byte(line), func(s string) string { return s })
		if err != nil {
			if r.ok {
				t.Errorf("%q is a success and an error", line)
			}
			return
		}
		if r.ok != strings.EqualFold(line[:3], "+OK") || !strings.Contains(line, r.text) {
			t.Errorf("%q: %+v", line, r)
		}
		if kind, _ := r.classify(mail.KindPartial); kind < mail.KindOther || kind > mail.KindPartial {
			t.Errorf("%q: kind %d", line, kind)
		}
		_ = r.code()
	})
}
