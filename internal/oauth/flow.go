package oauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/oauth2"

	"mailhaul/internal/auth"
	"mailhaul/mail"
)

const (
	requestTime = 30 * time.Second // one request to the provider
	personTime  = 10 * time.Minute // a person at a browser
)

// HTTPClient makes the client for the provider's endpoints. caFile is a PEM file of
// further authorities, "" for the system's only. Redirects are refused: secrets go
// where they were meant to go.
func HTTPClient(caFile string) (*http.Client, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: requestTime,
		MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true,
	}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, &mail.Error{Kind: mail.KindUsage, Op: "read CA file", Err: err}
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM(pem)
		t.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport: t, Timeout: requestTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// Grant is what a person's consent gave.
type Grant struct {
	Access  auth.Token
	Refresh auth.Secret
}

func grant(op string, t *oauth2.Token) (Grant, error) {
	g := Grant{Access: auth.Token{Secret: auth.Secret(t.AccessToken), Expires: t.Expiry}, Refresh: auth.Secret(t.RefreshToken)}
	if g.Access.Secret == "" {
		return g, &mail.Error{Kind: mail.KindAuth, Op: op, Err: errors.New("the provider gave no token")}
	}
	return g, nil
}

// Browser has a person log in with a browser on this machine. show gets the address
// to be opened. user is told to the provider, so that it need not be typed; port is
// where the browser comes back to, 0 for any. It waits for at most ten minutes.
func Browser(ctx context.Context, h *http.Client, c Client, user string, port int, show func(url string)) (Grant, error) {
	const op = "log in with the browser"
	ctx, cancel := context.WithTimeoutCause(ctx, personTime, &mail.Error{Kind: mail.KindAuth, Op: op, Err: fmt.Errorf("nobody came back within %s", personTime), Hint: "run the command again"})
	defer cancel()
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return Grant{}, &mail.Error{Kind: mail.KindOther, Op: op, Err: err, Hint: "another program uses that port: choose another with --port"}
	}
	defer ln.Close()
	cfg := c.config()
	cfg.RedirectURL = "http://" + ln.Addr().String() + "/"
	state, verifier := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	opts := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("login_hint", user)}
	if c.Provider == "google" { // else there is no refresh token the second time
		opts = append(opts, oauth2.AccessTypeOffline, oauth2.SetAuthURLParam("prompt", "consent"))
	}
	back := make(chan redirected, 1)
	srv := &http.Server{Handler: comesBack(state, back), ReadHeaderTimeout: requestTime, WriteTimeout: requestTime, MaxHeaderBytes: 64 << 10}
	go func() { _ = srv.Serve(ln) }() // ends with Shutdown below
	defer func() {
		end, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		if srv.Shutdown(end) != nil {
			_ = srv.Close()
		}
	}()
	show(cfg.AuthCodeURL(state, opts...))
	var r redirected
	select {
	case r = <-back:
	case <-ctx.Done():
		return Grant{}, context.Cause(ctx)
	}
	if r.err != "" {
		return Grant{}, &mail.Error{Kind: mail.KindAuth, Op: op, Err: errors.New("the provider refuses"), Server: r.err, Hint: "log in again, and allow the access; docs/oauth.md says what the registration needs"}
	}
	t, err := cfg.Exchange(context.WithValue(ctx, oauth2.HTTPClient, h), r.code, oauth2.VerifierOption(verifier))
	if err != nil {
		if ctx.Err() != nil {
			return Grant{}, context.Cause(ctx)
		}
		return Grant{}, fault(op, "run the command again", err, c.Secret, auth.Secret(r.code), auth.Secret(verifier))
	}
	return grant(op, t)
}

// redirected is what the browser brings back: a code, or why there is none.
type redirected struct{ code, err string }

// comesBack takes the browser's request that bears our state, once. Whatever else
// comes is told off and changes nothing.
func comesBack(state string, back chan<- redirected) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		q := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.Path != "/" || q.Get("state") != state || q.Get("code") == "" && q.Get("error") == "" {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintln(w, "mailhaul did not expect this. Go back to the page of your provider.")
			return
		}
		got := redirected{code: q.Get("code"), err: q.Get("error")}
		if d := q.Get("error_description"); got.err != "" && d != "" {
			got.err += ": " + d[:min(len(d), 500)]
		}
		select {
		case back <- got:
		default: // a second one
		}
		if got.err != "" {
			fmt.Fprintln(w, "Your provider did not allow the access. Go back to the terminal.")
			return
		}
		fmt.Fprintln(w, "Done. You can close this page and go back to the terminal.")
	})
}

// Device has a person log in with a browser anywhere. show gets the address and the
// code to be typed there.
func Device(ctx context.Context, h *http.Client, c Client, show func(url, code string)) (Grant, error) {
	const op = "log in by device code"
	ctx, cancel := context.WithTimeoutCause(ctx, personTime, &mail.Error{Kind: mail.KindAuth, Op: op, Err: fmt.Errorf("the code was not used within %s", personTime), Hint: "run the command again"})
	defer cancel()
	cfg := c.config()
	web := context.WithValue(ctx, oauth2.HTTPClient, h)
	d, err := cfg.DeviceAuth(web)
	if err != nil {
		if ctx.Err() != nil {
			return Grant{}, context.Cause(ctx)
		}
		return Grant{}, fault(op, "check --client-id; the registration must allow public clients (docs/oauth.md)", err, c.Secret)
	}
	if d.UserCode == "" || d.VerificationURI == "" {
		return Grant{}, &mail.Error{Kind: mail.KindOther, Op: op, Err: errors.New("the provider gave no code"), Hint: "is this the right --device-url?"}
	}
	d.Interval = min(max(d.Interval, 0), 60)
	show(d.VerificationURI, d.UserCode)
	t, err := cfg.DeviceAccessToken(web, d)
	if err != nil {
		if ctx.Err() != nil {
			return Grant{}, context.Cause(ctx)
		}
		return Grant{}, fault(op, "the access was not allowed, or too late: run the command again", err, c.Secret, auth.Secret(d.DeviceCode))
	}
	return grant(op, t)
}
