package imapconn

import (
	"strings"
	"testing"
)

// Whatever stands behind a condition, code and text are parts of it, and what is
// concluded from them is one of the kinds there are.
func FuzzResult(f *testing.F) {
	for _, s := range []string{
		"OK done", "NO [AUTHENTICATIONFAILED] no", "BYE [UNAVAILABLE] later", "BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds",
		"OK [APPENDUID 1 2:3] x", "OK [COPYUID 1 1:4294967295 1] x", "NO [", "NO []", "NO [X", "OK [UIDVALIDITY 99999999999999999999] x", "PREAUTH", "", "nil",
		"NO [OVERQUOTA] Account exceeded command or bandwidth limits", "NO [LIMIT] wait -1 seconds", "NO [ALERT] Too many simultaneous connections. (Failure)",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := parseResult([]byte(s))
		if !ok {
			return
		}
		if !strings.Contains(s, r.Text) || !strings.Contains(strings.ToUpper(r.Text), r.Code) || !strings.Contains(r.Text, r.Arg) {
			t.Errorf("%q: %+v", s, r)
		}
		l, limited := r.Limit()
		if limited && (l.Kind < LimitRate || l.Kind > LimitInUse) || l.Wait < 0 || l.Wait > maxWait {
			t.Errorf("%q: %+v", s, l)
		}
		_, _ = r.Kind(), r.Busy()
	})
}
