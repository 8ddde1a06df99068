package mail

import "testing"

func TestRecentIsTheSameAccount(t *testing.T) {
	for _, tt := range []struct{ protocol, user, host, want string }{
		{"pop3", "recent:ada@gmail.com", "POP.gmail.com", "pop3:ada@gmail.com@pop.gmail.com"},
		{"pop3", "recent:ada", "example.org", "pop3:recent:ada@example.org"},
		{"imap", "recent:ada", "imap.gmail.com", "imap:recent:ada@imap.gmail.com"},
	} {
		if got := AccountKey(tt.protocol, tt.user, tt.host); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
}
