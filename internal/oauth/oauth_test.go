package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailhaul/internal/auth"
	"mailhaul/internal/keyring"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const user, host = "ada@example.org", "imap.example.org"

func provider(t *testing.T, o *testserver.OAuth) Client {
	t.Helper()
	o.User, o.ClientID, o.ClientSecret = user, "me", "s3cret of the registration"
	if err := o.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return Client{ID: o.ClientID, Secret: auth.Secret(o.ClientSecret), AuthURL: o.URL() + "/authorize", TokenURL: o.URL() + "/token", DeviceURL: o.URL() + "/device", Scopes: []string{"mail"}}
}

func web(t *testing.T) *http.Client {
	t.Helper()
	h, err := HTTPClient("")
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// browse is a browser that a person looks at.
func browse(t *testing.T, address string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := c.Get(address)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

func TestBrowser(t *testing.T) {
	c := provider(t, &testserver.OAuth{})
	var wg sync.WaitGroup
	defer wg.Wait()
	g, err := Browser(t.Context(), web(t), c, user, 0, func(address string) {
		u, err := url.Parse(address)
		if err != nil {
			t.Error(err)
			return
		}
		q := u.Query()
		back := q.Get("redirect_uri")
		if b, err := url.Parse(back); err != nil || b.Hostname() != "127.0.0.1" || q.Get("login_hint") != user || q.Get("scope") != "mail" || strings.Contains(address, "s3cret") {
			t.Errorf("%s", address)
		}
		wg.Go(func() {
			// Whoever else knocks is told off.
			for _, stray := range []string{back, back + "?code=stolen", back + "?code=stolen&state=guessed", back + "favicon.ico?state=" + q.Get("state") + "&code=x"} {
				if page := browse(t, stray); !strings.Contains(page, "did not expect") {
					t.Errorf("%s: %s", stray, page)
				}
			}
			if page := browse(t, address); !strings.Contains(page, "Done") {
				t.Error(page)
			}
		})
	})
	if err != nil || g.Access.Secret == "" || g.Refresh == "" || time.Until(g.Access.Expires) < 50*time.Minute {
		t.Errorf("%v, %v", g.Access.Expires, err)
	}
}

func TestBrowserRefused(t *testing.T) {
	c := provider(t, &testserver.OAuth{})
	var wg sync.WaitGroup
	defer wg.Wait()
	_, err := Browser(t.Context(), web(t), c, "mallory", 0, func(address string) {
		wg.Go(func() {
			if page := browse(t, address); !strings.Contains(page, "did not allow") {
				t.Error(page)
			}
		})
	})
	if mail.KindOf(err) != mail.KindAuth || !strings.Contains(err.Error(), "access_denied: the user said no") {
		t.Error(err)
	}
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	if _, err := Browser(ctx, web(t), c, user, 0, func(string) { cancel(why) }); !errors.Is(err, why) {
		t.Error(err)
	}
	c.Secret = "wrong-secret"
	_, err = Browser(t.Context(), web(t), c, user, 0, func(address string) { wg.Go(func() { browse(t, address) }) })
	if mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "--client-secret-file") || strings.Contains(err.Error(), "wrong-secret") {
		t.Error(err)
	}
}

func TestDevice(t *testing.T) {
	o := &testserver.OAuth{Pending: 1}
	c := provider(t, o)
	var shown string
	g, err := Device(t.Context(), web(t), c, func(u, code string) { shown = u + " " + code })
	if err != nil || g.Refresh == "" || shown != o.URL()+"/code WDJB-MJHT" {
		t.Errorf("%q, %v", shown, err)
	}
	c.ID = "somebody"
	if _, err := Device(t.Context(), web(t), c, func(string, string) { t.Error("shows a code") }); mail.KindOf(err) != mail.KindAuth {
		t.Error(err)
	}
}

func saved(t *testing.T, o *testserver.OAuth, inKeyring bool) (Store, Client) {
	t.Helper()
	c := provider(t, o)
	s := Store{Dir: filepath.Join(t.TempDir(), "oauth")}
	var wg sync.WaitGroup
	defer wg.Wait()
	g, err := Browser(t.Context(), web(t), c, user, 0, func(address string) { wg.Go(func() { browse(t, address) }) })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(t.Context(), user, host, c, g, inKeyring); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// Processes that start together refresh once, and rotate the refresh token safely.
func TestOneRefresh(t *testing.T) {
	o := &testserver.OAuth{Lifetime: 30 * time.Minute}
	s, _ := saved(t, o, false)
	o.Revoke(false) // the first token is of no use, though it looks so
	first, err := s.Tokens(web(t), user, host, "home").Token(t.Context(), "")
	if err != nil || o.Refreshes() != 0 {
		t.Fatal(err, o.Refreshes())
	}
	var wg sync.WaitGroup
	for range 5 { // processes, each with its connections
		tokens := s.Tokens(web(t), user, host, "home")
		for range 4 {
			wg.Go(func() {
				if got, err := tokens.Token(t.Context(), first); err != nil || !o.Valid(got.Reveal()) {
					t.Errorf("%v", err)
				}
			})
		}
	}
	wg.Wait()
	if o.Refreshes() != 1 {
		t.Errorf("%d refreshes", o.Refreshes())
	}
	// The new refresh token was kept: the old one is dead.
	now, err := s.Tokens(web(t), user, host, "home").Token(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Tokens(web(t), user, host, "home").Token(t.Context(), now); err != nil || again == now || o.Refreshes() != 2 {
		t.Errorf("%v, %d refreshes", err, o.Refreshes())
	}
}

// A token that ends soon is replaced before it does.
func TestRefreshInTime(t *testing.T) {
	o := &testserver.OAuth{Lifetime: margin - time.Second}
	s, _ := saved(t, o, false)
	tokens := s.Tokens(web(t), user, host, "home")
	o.Lifetime = time.Hour
	for range 3 {
		if _, err := tokens.Token(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	if o.Refreshes() != 1 {
		t.Errorf("%d refreshes", o.Refreshes())
	}
}

func TestRefreshFails(t *testing.T) {
	o := &testserver.OAuth{Lifetime: time.Minute}
	s, _ := saved(t, o, false)
	get := func() error {
		_, err := s.Tokens(web(t), user, host, "home").Token(t.Context(), "")
		return err
	}
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		kind   mail.Kind
	}{
		"busy":     {func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, mail.KindTemporary},
		"too many": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }, mail.KindTemporary},
		"elsewhere": {func(w http.ResponseWriter) {
			w.Header().Set("Location", o.URL()+"/introspect")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, mail.KindAuth},
		"nonsense": {func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") }, mail.KindTemporary},
		"endless":  {func(w http.ResponseWriter) { _, _ = w.Write(make([]byte, 8<<20)) }, mail.KindTemporary},
		"revoked": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_grant","error_description":"s3cret of the registration is known"}`)
		}, mail.KindAuth},
	} {
		o.Answer = func(w http.ResponseWriter, _ url.Values) bool { tt.answer(w); return true }
		err := get()
		if mail.KindOf(err) != tt.kind || mail.HintOf(err) == "" || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "refresh-") {
			t.Errorf("%s: kind %v: %v", name, mail.KindOf(err), err)
		}
		if name == "revoked" && !strings.Contains(mail.HintOf(err), "mailhaul login home") {
			t.Errorf("%s: %s", name, mail.HintOf(err))
		}
	}
	o.Answer = nil
	if err := get(); err != nil { // nothing of all that has spoilt what is kept
		t.Error(err)
	}
	o.Close()
	o.Lifetime = time.Minute
	if err := get(); mail.KindOf(err) != mail.KindTemporary {
		t.Error(err)
	}
}

func TestStoreFile(t *testing.T) {
	o := &testserver.OAuth{}
	s, c := saved(t, o, false)
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	again, inKeyring, ok := s.Client(t.Context(), user, host)
	if !ok || inKeyring || again.ID != c.ID || again.Secret != c.Secret || again.TokenURL != c.TokenURL {
		t.Errorf("%+v, %v", again, ok)
	}
	path := filepath.Join(s.Dir, file(user, host))
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tokens(web(t), user, host, "home").Token(t.Context(), ""); mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "chmod 600") {
		t.Error(err)
	}
	if err := os.WriteFile(path, []byte(`{"secrets":{"refresh_token":"s3cret`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Tokens(web(t), user, host, "home").Token(t.Context(), ""); mail.KindOf(err) != mail.KindAuth || strings.Contains(err.Error(), "s3cret") {
		t.Error(err)
	}
	if err := s.Forget(t.Context(), user, host); err != nil || s.Has(user, host) {
		t.Error(err)
	}
	if _, err := s.Tokens(web(t), user, host, "home").Token(t.Context(), ""); mail.KindOf(err) != mail.KindAuth || mail.HintOf(err) != "run mailhaul login" {
		t.Error(err)
	}
}

func TestStoreKeyring(t *testing.T) {
	keyring.Mock(nil)
	o := &testserver.OAuth{Lifetime: time.Minute}
	s, _ := saved(t, o, true)
	tokens := s.Tokens(web(t), user, host, "home")
	if got, err := tokens.Token(t.Context(), ""); err != nil || !o.Valid(got.Reveal()) {
		t.Error(err)
	}
	b, err := os.ReadFile(filepath.Join(s.Dir, file(user, host)))
	if err != nil || strings.Contains(string(b), "refresh") || strings.Contains(string(b), "access") || strings.Contains(string(b), "s3cret") {
		t.Errorf("%s, %v", b, err)
	}
	keyring.Mock(errors.New("locked"))
	if _, err := tokens.Token(t.Context(), ""); mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "--store file") {
		t.Error(err)
	}
	keyring.Mock(nil)
	if _, err := tokens.Token(t.Context(), ""); mail.KindOf(err) != mail.KindAuth || !strings.Contains(err.Error(), "lost it") {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, u := range []string{"ada", "a/da", "..", ".", "a%2fda", "a\x00da", "ädä"} {
		name := file(u, "h")
		if seen[name] || strings.ContainsAny(name, "/\\\x00") || strings.HasPrefix(name, ".") {
			t.Errorf("%q: %q", u, name)
		}
		seen[name] = true
	}
}

func TestCheck(t *testing.T) {
	google, _ := Lookup("Google", "")
	ms, _ := Lookup("microsoft", "contoso.example/x")
	google.ID, ms.ID = "id", "id"
	if google.Check() != nil || ms.Check() != nil || !strings.Contains(ms.TokenURL, "/contoso.example%2Fx/") || strings.Contains(ms.DeviceURL, "TENANT") {
		t.Errorf("%v, %v, %s", google.Check(), ms.Check(), ms.TokenURL)
	}
	if again, _ := Lookup("microsoft", ""); !strings.Contains(again.TokenURL, "/common/") {
		t.Error(again.TokenURL)
	}
	for _, bad := range []Client{
		{}, {ID: "x"}, {ID: "x", TokenURL: "https://h/t"}, {ID: "x", TokenURL: "http://example.org/t", AuthURL: "https://h/a"},
		{ID: "x", TokenURL: "https://h/t", AuthURL: "ftp://h/a"}, {ID: "x", TokenURL: "https://u:p@h/t", AuthURL: "https://h/a"}, {ID: "x", TokenURL: "nowhere", AuthURL: "https://h/a"},
	} {
		if err := bad.Check(); mail.KindOf(err) != mail.KindUsage || mail.HintOf(err) == "" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for h, want := range map[string]string{"imap.gmail.com": "google", "outlook.office365.com.": "microsoft", "notgmail.com": "", "imap.example.org": ""} {
		if got := ForHost(h); got != want {
			t.Errorf("%s: %q", h, got)
		}
	}
}
