package mail

import (
	"errors"
	"testing"
)

type answered struct{ error }

func (answered) Words() string { return "NO [AUTHENTICATIONFAILED] no" }

// What a server said is said once.
func TestErrorText(t *testing.T) {
	ref := Ref{Account: "imap:ada@h"}
	for _, tt := range []struct {
		err  *Error
		want string
	}{
		{&Error{Op: "log in", Err: answered{errors.New("server answered NO")}, Server: "NO [AUTHENTICATIONFAILED] no"}, "log in: server said: NO [AUTHENTICATIONFAILED] no"},
		{&Error{Op: "log in", Err: answered{errors.New("server answered NO")}}, "log in: server answered NO"},
		{&Error{Ref: ref, Op: "list", Err: errors.New("cut off"), Server: "BYE"}, ref.String() + ": list: cut off: server said: BYE"},
		{&Error{Err: errors.New("no room")}, "no room"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
