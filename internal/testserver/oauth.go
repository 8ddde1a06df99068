package testserver

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// OAuth is an OAuth 2 provider on 127.0.0.1 for one user, who always consents. Refresh
// tokens are rotated: each is good once.
type OAuth struct {
	User, ClientID, ClientSecret string
	Lifetime                     time.Duration // of access tokens; 0 means an hour
	Pending                      int           // how often a device code is not yet approved
	// Answer may answer a request to the token endpoint itself and then returns true.
	Answer func(w http.ResponseWriter, form url.Values) bool

	ln  net.Listener
	srv *http.Server

	mu        sync.Mutex
	n         int
	codes     map[string]string // code -> PKCE challenge, redirect address
	refresh   map[string]bool
	access    map[string]time.Time
	refreshes int
}

// Start listens; Close must be called.
func (o *OAuth) Start() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if o.Lifetime == 0 {
		o.Lifetime = time.Hour
	}
	o.ln, o.codes, o.refresh, o.access = ln, map[string]string{}, map[string]bool{}, map[string]time.Time{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", o.authorize)
	mux.HandleFunc("POST /token", o.token)
	mux.HandleFunc("POST /device", o.device)
	mux.HandleFunc("GET /introspect", o.introspect)
	o.srv = &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	go func() { _ = o.srv.Serve(ln) }()
	return nil
}

// Close ends it.
func (o *OAuth) Close() error { return o.srv.Close() }

// URL is where it listens, without a slash at the end.
func (o *OAuth) URL() string { return "http://" + o.ln.Addr().String() }

// Refreshes returns how often a refresh token was used.
func (o *OAuth) Refreshes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refreshes
}

// Revoke ends all access tokens, and with refresh all refresh tokens.
func (o *OAuth) Revoke(refresh bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.access)
	if refresh {
		clear(o.refresh)
	}
}

// Valid tells whether an access token is good.
func (o *OAuth) Valid(token string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Now().Before(o.access[token])
}

func (o *OAuth) next(kind string) string {
	o.n++
	return fmt.Sprintf("%s-%d-of-%s", kind, o.n, strings.Repeat("x", 40))
}

func (o *OAuth) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back := q.Get("redirect_uri")
	if q.Get("client_id") != o.ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || back == "" || q.Get("state") == "" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	code := o.next("code")
	o.codes[code] = q.Get("code_challenge") + " " + back
	o.mu.Unlock()
	answer := url.Values{"state": {q.Get("state")}, "code": {code}}
	if q.Get("login_hint") != o.User {
		answer = url.Values{"state": {q.Get("state")}, "error": {"access_denied"}, "error_description": {"the user said no"}}
	}
	http.Redirect(w, r, back+"?"+answer.Encode(), http.StatusFound)
}

func refuse(w http.ResponseWriter, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadRequest)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "about " + code})
}

func (o *OAuth) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		refuse(w, "invalid_request")
		return
	}
	f := r.PostForm
	if o.Answer != nil && o.Answer(w, f) {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.Get("client_id") != o.ClientID || f.Get("client_secret") != o.ClientSecret {
		refuse(w, "invalid_client")
		return
	}
	switch f.Get("grant_type") {
	case "authorization_code":
		sum := sha256.Sum256([]byte(f.Get("code_verifier")))
		want, ok := o.codes[f.Get("code")]
		delete(o.codes, f.Get("code"))
		if !ok || want != base64.RawURLEncoding.EncodeToString(sum[:])+" "+f.Get("redirect_uri") {
			refuse(w, "invalid_grant")
			return
		}
	case "urn:ietf:params:oauth:grant-type:device_code":
		if o.Pending > 0 {
			o.Pending--
			refuse(w, "authorization_pending")
			return
		}
	case "refresh_token":
		o.refreshes++
		if !o.refresh[f.Get("refresh_token")] {
			refuse(w, "invalid_grant")
			return
		}
		delete(o.refresh, f.Get("refresh_token"))
	default:
		refuse(w, "unsupported_grant_type")
		return
	}
	access, refresh := o.next("access"), o.next("refresh")
	maps.DeleteFunc(o.access, func(_ string, until time.Time) bool { return time.Now().After(until) })
	o.access[access], o.refresh[refresh] = time.Now().Add(o.Lifetime), true
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": access, "refresh_token": refresh, "token_type": "Bearer", "expires_in": int(o.Lifetime.Seconds()),
	})
}

func (o *OAuth) device(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil || r.PostForm.Get("client_id") != o.ClientID {
		refuse(w, "invalid_client")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"device_code": "device", "user_code": "WDJB-MJHT", "verification_uri": o.URL() + "/code", "expires_in": 600, "interval": 1,
	})
}

// introspect is what Dovecot asks (RFC 7662, by GET with the token behind the address).
func (o *OAuth) introspect(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if !o.Valid(r.URL.Query().Get("token")) {
		_ = json.NewEncoder(w).Encode(map[string]any{"active": false})
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"active": true, "email": o.User, "username": o.User})
}
