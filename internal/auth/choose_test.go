package auth

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/mail"
)

var everything = []string{
	"LOGIN", "PLAIN", "CRAM-MD5", "scram-sha-1", "SCRAM-SHA-256", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "XOAUTH2", "OAUTHBEARER", "EXTERNAL", "NTLM", "GSSAPI",
}

func without(names ...string) []string {
	return slices.DeleteFunc(slices.Clone(everything), func(m string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, m) })
	})
}

// unique is a TLS 1.2 connection that can be bound to.
var unique = &tls.ConnectionState{Version: tls.VersionTLS12, TLSUnique: []byte("finished")}

func TestStrongestFirst(t *testing.T) {
	password := Credentials{User: "ada", Password: "secret"}
	order := []string{"SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"}
	for i, want := range order {
		l, err := Choose(password, Offer{Mechanisms: without(order[:i]...), TLS: unique})
		if err != nil || l.Name != want {
			t.Errorf("%q, %v; want %s", l.Name, err, want)
		}
	}
	for _, offer := range []Offer{{Mechanisms: everything}, {Mechanisms: everything, TLS: &tls.ConnectionState{Version: tls.VersionTLS12}}} {
		if l, err := Choose(password, offer); err != nil || l.Name != "SCRAM-SHA-256" {
			t.Errorf("%q, %v: nothing to bind to", l.Name, err)
		}
	}
	if _, err := Choose(password, Offer{Mechanisms: []string{"CRAM-MD5"}}); mail.KindOf(err) != mail.KindLacking || !strings.Contains(mail.HintOf(err), "--auth cram-md5") {
		t.Errorf("CRAM-MD5 unasked: %v", err)
	}
	cert := Credentials{User: "ada", Certificate: true}
	if l, err := Choose(cert, Offer{Mechanisms: everything, TLS: unique}); err != nil || l.Name != "EXTERNAL" || start(t, l.Client) != "ada" {
		t.Errorf("%q, %v", l.Name, err)
	}
	if _, err := Choose(cert, Offer{Mechanisms: everything, Plain: true}); err == nil {
		t.Error("EXTERNAL without TLS")
	}
}

func TestForced(t *testing.T) {
	c := Credentials{User: "ada", Password: "secret"}
	for _, m := range []string{"scram-sha-256-plus", "scram-sha-1-plus", "scram-sha-256", "scram-sha-1", "plain", "login", "cram-md5"} {
		c.Mechanism = m
		l, err := Choose(c, Offer{Mechanisms: everything, TLS: unique})
		if err != nil || !strings.EqualFold(l.Name, m) {
			t.Errorf("%s: %q, %v", m, l.Name, err)
		}
		_, err = Choose(c, Offer{Mechanisms: []string{"GSSAPI"}, TLS: unique})
		if mail.KindOf(err) != mail.KindLacking || !strings.Contains(err.Error(), strings.ToUpper(m)) || !strings.Contains(mail.HintOf(err), "--auth") {
			t.Errorf("%s: %v", m, err)
		}
	}
	c.Mechanism = "login"
	if l, err := Choose(c, Offer{Plain: true}); err != nil || l.Client != nil {
		t.Errorf("%q, %v: login is the protocol's own command, too", l.Name, err)
	}
}

// Channel binding is claimed only where it is used, and said to be possible only
// where the server did not offer it.
func TestChannelBindingFlag(t *testing.T) {
	c := Credentials{User: "ada", Password: "secret"}
	for _, tt := range []struct {
		mechanisms []string
		tls        *tls.ConnectionState
		want       string
	}{
		{[]string{"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, unique, "p=tls-unique,,"},
		{[]string{"SCRAM-SHA-256"}, unique, "y,,"},
		{[]string{"SCRAM-SHA-256"}, nil, "n,,"},
	} {
		l, err := Choose(c, Offer{Mechanisms: tt.mechanisms, TLS: tt.tls})
		if err != nil {
			t.Fatal(err)
		}
		if first := start(t, l.Client); !strings.HasPrefix(first, tt.want) {
			t.Errorf("%q, want %q", first, tt.want)
		}
	}
}

func TestIdentities(t *testing.T) {
	own, admin := Credentials{User: "ada", Password: "secret"}, Credentials{User: "ada", Admin: "root", Password: "secret"}
	for _, tt := range []struct {
		c    Credentials
		mech string
		want string
	}{
		{own, "PLAIN", "\x00ada\x00secret"},
		{admin, "PLAIN", "ada\x00root\x00secret"},
	} {
		if got := start(t, choose(t, tt.c, tt.mech).Client); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	for c, want := range map[*Credentials]string{&own: "ada", &admin: "ada*root"} {
		l := choose(t, *c, "LOGIN")
		if got, _ := l.Client.Next(nil); string(got) != want || c.LoginName() != want {
			t.Errorf("%q and %q, want %q", got, c.LoginName(), want)
		}
	}
}

// RFC 2195 section 2.
func TestCramMD5(t *testing.T) {
	l := choose(t, Credentials{User: "tim", Password: "tanstaaftanstaaf", Mechanism: "cram-md5"}, "CRAM-MD5")
	got, err := l.Client.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	if string(got) != "tim b913a602c7eda7a495b4e6e7334d3890" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := l.Client.Next([]byte("<2>")); err == nil {
		t.Error("answers twice")
	}
}

func withToken(t *testing.T, token string) Credentials {
	t.Helper()
	c := Credentials{User: "a,d=a@example.org", Tokens: NewTokens(func(context.Context, Secret) (Token, error) { return Token{Secret: Secret(token)}, nil })}
	fresh, ok, err := c.Fresh(t.Context(), false)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return fresh
}

func TestOAuth(t *testing.T) {
	c := withToken(t, "tok")
	l, err := Choose(c, Offer{Mechanisms: everything, Plain: true, Host: "imap.example.org", Port: 993})
	if err != nil || l.Name != "OAUTHBEARER" {
		t.Fatalf("%q, %v", l.Name, err)
	}
	if got, want := start(t, l.Client), "n,a=a=2Cd=3Da@example.org,\x01host=imap.example.org\x01port=993\x01auth=Bearer tok\x01\x01"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, err := l.Client.Next([]byte(`{"status":"invalid_token"}`)); string(got) != "\x01" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	l = choose(t, c, "XOAUTH2", "PLAIN")
	if got, want := start(t, l.Client), "user=a,d=a@example.org\x01auth=Bearer tok\x01\x01"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, err := l.Client.Next([]byte(`{"status":"400"}`)); len(got) != 0 || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := l.Client.Next(nil); err == nil {
		t.Error("answers for ever")
	}
	// A token is never sent as a password, and never as one to a server that wants it.
	if _, err := Choose(c, Offer{Mechanisms: []string{"PLAIN", "LOGIN", "SCRAM-SHA-256"}, Plain: true}); mail.KindOf(err) != mail.KindLacking {
		t.Error(err)
	}
	_, err = Choose(Credentials{User: "ada", Password: "x"}, Offer{Mechanisms: []string{"XOAUTH2"}})
	if mail.KindOf(err) != mail.KindLacking || !strings.Contains(mail.HintOf(err), "mailhaul login") {
		t.Error(err)
	}
	for _, form := range []string{
		"tok", base64.StdEncoding.EncodeToString([]byte("user=a,d=a@example.org\x01auth=Bearer tok\x01\x01")),
	} {
		if got := c.Redact("it was " + form); got != "it was ***" {
			t.Errorf("%q", got)
		}
	}
}

// Many connections cause one refresh; a refused token is replaced once.
func TestTokens(t *testing.T) {
	var calls []Secret
	expires := time.Now().Add(time.Hour)
	tokens := NewTokens(func(_ context.Context, refused Secret) (Token, error) {
		calls = append(calls, refused) // a race if two are here at once
		time.Sleep(10 * time.Millisecond)
		return Token{Secret: Secret("token" + strings.Repeat("+", len(calls))), Expires: expires}, nil
	})
	var wg sync.WaitGroup
	got := make([]Credentials, 20)
	for i := range got {
		wg.Go(func() { got[i], _, _ = Credentials{User: "ada", Tokens: tokens}.Fresh(t.Context(), false) })
	}
	wg.Wait()
	for _, c := range got {
		if c.token != "token+" {
			t.Errorf("%q", c.token.Reveal())
		}
	}
	// All of them are refused.
	for i := range got {
		wg.Go(func() {
			fresh, ok, err := got[i].Fresh(t.Context(), true)
			if !ok || err != nil || fresh.token != "token++" {
				t.Errorf("%q, %v, %v", fresh.token.Reveal(), ok, err)
			}
		})
	}
	wg.Wait()
	if want := []Secret{"", "token+"}; !slices.Equal(calls, want) {
		t.Errorf("%d refreshes: %q", len(calls), calls)
	}
	// It is replaced before it ends.
	expires = time.Now().Add(tokenMargin - time.Second)
	if _, err := tokens.Token(t.Context(), "token++"); err != nil {
		t.Fatal(err)
	}
	if s, err := tokens.Token(t.Context(), ""); s != "token++++" || err != nil {
		t.Errorf("%q, %v", s.Reveal(), err)
	}
}

func TestTokensFail(t *testing.T) {
	why := errors.New("why")
	tokens := NewTokens(func(context.Context, Secret) (Token, error) { return Token{}, why })
	if _, err := tokens.Token(t.Context(), ""); !errors.Is(err, why) {
		t.Error(err)
	}
	for _, bad := range []Secret{"", "a b", "a\r\nb", "ü", "a\x01b"} {
		tokens = NewTokens(func(context.Context, Secret) (Token, error) { return Token{Secret: bad}, nil })
		if _, err := tokens.Token(t.Context(), ""); mail.KindOf(err) != mail.KindAuth {
			t.Errorf("%q: %v", bad.Reveal(), err)
		}
	}
	same := Credentials{User: "ada", Tokens: NewTokens(func(context.Context, Secret) (Token, error) { return Token{Secret: "same"}, nil })}
	same, _, _ = same.Fresh(t.Context(), false)
	if _, ok, err := same.Fresh(t.Context(), true); ok || err != nil {
		t.Errorf("%v, %v: the same token is no reason to try again", ok, err)
	}
	if _, ok, _ := (Credentials{User: "ada", Password: "x"}).Fresh(t.Context(), true); ok {
		t.Error("a password is tried again")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	entered := make(chan bool)
	slow := NewTokens(func(ctx context.Context, _ Secret) (Token, error) {
		close(entered)
		<-ctx.Done()
		return Token{}, context.Cause(ctx)
	})
	go func() { _, _ = slow.Token(ctx, "") }()
	<-entered
	done, stop := context.WithCancelCause(t.Context())
	stop(why)
	if _, err := slow.Token(done, ""); !errors.Is(err, why) {
		t.Errorf("%v: who waits for another's refresh can be interrupted", err)
	}
	cancel(why)
}

func TestConnectionLimit(t *testing.T) {
	for _, s := range []string{
		"[ALERT] Too many simultaneous connections. (Failure)",
		"[UNAVAILABLE] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)",
		"Too many open connections", "Too many connections", "too many concurrent sessions for this user", "Maximum connection limit reached for ::1", "user connection limit exceeded",
		"The maximum number of concurrent connections has exceeded a limit",
	} {
		if !ConnectionLimit(s) {
			t.Errorf("%q is no limit", s)
		}
	}
	for _, s := range []string{"[AUTHENTICATIONFAILED] Invalid credentials (Failure)", "LOGIN failed.", "too many invalid login attempts", "connection refused", ""} {
		if ConnectionLimit(s) {
			t.Errorf("%q is a limit", s)
		}
	}
}
