package login

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/fetch/imap"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/oauth"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

const oauthUser = "ada@example.org"

// granted is an account that has logged in by OAuth 2: the provider, and its tokens.
func granted(t *testing.T, host string) (*testserver.OAuth, *auth.Tokens) {
	t.Helper()
	o := &testserver.OAuth{User: oauthUser, ClientID: "me"}
	if err := o.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	web, err := oauth.HTTPClient("")
	if err != nil {
		t.Fatal(err)
	}
	c := oauth.Client{ID: "me", AuthURL: o.URL() + "/authorize", TokenURL: o.URL() + "/token"}
	var wg sync.WaitGroup
	defer wg.Wait()
	g, err := oauth.Browser(t.Context(), web, c, oauthUser, 0, func(address string) {
		wg.Go(func() {
			b := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
			if r, err := b.Get(address); err == nil {
				r.Body.Close()
			}
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	s := oauth.Store{Dir: filepath.Join(t.TempDir(), "oauth")}
	if err := s.Save(t.Context(), oauthUser, host, c, g, false); err != nil {
		t.Fatal(err)
	}
	return o, s.Tokens(web, oauthUser, host, "home")
}

// TestDovecotOAuth has a real server ask the provider about every token.
func TestDovecotOAuth(t *testing.T) {
	o, tokens := granted(t, "127.0.0.1")
	conf := filepath.Join(t.TempDir(), "oauth2.conf")
	text := fmt.Sprintf("introspection_mode = get\nintrospection_url = %s/introspect?token=\nusername_attribute = username\nactive_attribute = active\nactive_value = true\n", o.URL())
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d := dovecot.Start(t, dovecot.Options{Extra: `
auth_mechanisms = plain oauthbearer xoauth2
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = ` + conf + `
}
`})
	for _, s := range servers(d)[:2] {
		for _, mech := range []string{"", "xoauth2"} {
			c := auth.Credentials{User: oauthUser, Tokens: tokens, Mechanism: mech}
			if mech == "" {
				mech = "OAUTHBEARER"
			}
			seen, err := logIn(t, s, c)
			bad(t, s, seen, strings.ToUpper(mech), err, "access-")
			// The token is withdrawn: another is got, and the login tried once more.
			before := o.Refreshes()
			o.Revoke(false)
			seen, err = logIn(t, s, c)
			bad(t, s, seen, strings.ToUpper(mech), err, "access-")
			if o.Refreshes() != before+1 {
				t.Errorf("%s %s: %d refreshes", name(s), mech, o.Refreshes()-before)
			}
			if c.Mechanism != "" {
				continue // a refusal takes Dovecot half a second
			}
			c.User = "grace" // the token is ada's
			if _, err := logIn(t, s, c); mail.KindOf(err) != mail.KindAuth {
				t.Errorf("%s %s: %v", name(s), mech, err)
			}
		}
	}
	o.Revoke(true)
	for _, s := range servers(d)[:2] {
		if _, err := logIn(t, s, auth.Credentials{User: oauthUser, Tokens: tokens}); mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "mailhaul login home") {
			t.Errorf("%s: %v, hint %q", name(s), err, mail.HintOf(err))
		}
	}
}

// TestTokenEndsInTheMiddle plays the server that ends sessions when their token
// does: several connections go on with one new token, and nothing is fetched twice.
func TestTokenEndsInTheMiddle(t *testing.T) {
	o, tokens := granted(t, "127.0.0.1")
	var mu sync.Mutex
	ended := false
	var messages []testserver.IMAPMessage
	for i := range uint32(40) {
		messages = append(messages, testserver.IMAPMessage{UID: i + 1, Octets: fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 2000))})
	}
	srv := &testserver.IMAP{Capabilities: "IMAP4rev1 SASL-IR AUTH=XOAUTH2", Messages: messages}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		words := strings.Fields(cmd)
		switch {
		case words[0] == "AUTHENTICATE":
			blob := decode(words[2])
			_, token, _ := strings.Cut(strings.TrimRight(blob, "\x01"), "Bearer ")
			if o.Valid(token) {
				c.OK("in")
				return true
			}
			ask(c, `{"status":"401"}`)
			c.NO("AUTHENTICATE failed.")
			return true
		case words[0] == "UID" && strings.Contains(cmd, "BODY.PEEK[]"):
			mu.Lock()
			defer mu.Unlock()
			if !ended {
				ended = true
				o.Revoke(false)
				first := messages[0]
				c.Send("* 1 FETCH (" + first.Meta() + " BODY[] " + testserver.Literal(first.Octets) + ")\r\n")
				c.Send("* BYE Session invalidated - AccessTokenExpired\r\n")
				c.Close()
				return true
			}
		}
		return false
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	src := imap.New(imap.Config{
		Server:      dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: srv.Port(), Security: dial.Cleartext, Timeout: 20 * time.Second},
		Credentials: auth.Credentials{User: oauthUser, Tokens: tokens}, Connections: 4, Pause: time.Millisecond,
	})
	defer src.Close()
	got := fetchAll(t, src)
	for uid, n := range got {
		if n != 1 {
			t.Errorf("UID %s came %d times", uid, n)
		}
	}
	if len(got) != len(messages) || o.Refreshes() != 1 {
		t.Errorf("%d messages, %d refreshes", len(got), o.Refreshes())
	}
}

func fetchAll(t *testing.T, src *imap.Source) map[string]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	boxes, err := src.Mailboxes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, mb := range boxes {
		var infos []mail.Info
		for info, err := range src.List(ctx, mb) {
			if err != nil {
				t.Fatal(err)
			}
			infos = append(infos, info)
		}
		fetchInto(t, ctx, src, mb, infos, got)
	}
	return got
}

func decode(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return ""
	}
	return string(b)
}

// fetchInto counts the messages whose octets came whole.
func fetchInto(t *testing.T, ctx context.Context, src *imap.Source, mb mail.Mailbox, infos []mail.Info, got map[string]int) {
	t.Helper()
	wants := make([]mail.Want, len(infos))
	for i, info := range infos {
		wants[i] = mail.Want{UID: info.Ref.UID, Size: info.Size}
	}
	var mu sync.Mutex
	err := src.Fetch(ctx, mb, wants, func(info mail.Info, r io.Reader, err error) error {
		if err != nil {
			t.Error(err)
			return nil
		}
		if _, err := io.ReadAll(r); err != nil {
			return nil // it is given again
		}
		mu.Lock()
		defer mu.Unlock()
		got[info.Ref.UID]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
