// Package oauth gets OAuth 2 tokens (RFC 6749) for logins: by a browser on this
// machine (RFC 8252, with PKCE, RFC 7636) or on any other (RFC 8628), and keeps them
// good by refreshing.
package oauth

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"

	"mailhaul/internal/auth"
	"mailhaul/mail"
)

// Client is how one person's registration with a provider is used.
type Client struct {
	Provider string      `json:"provider,omitempty"` // name of a known one; "" for another
	ID       string      `json:"client_id"`
	Secret   auth.Secret `json:"-"` // of the registration, where the provider wants one; not a person's

	AuthURL   string   `json:"auth_url,omitempty"`
	TokenURL  string   `json:"token_url"`
	DeviceURL string   `json:"device_url,omitempty"`
	Scopes    []string `json:"scopes,omitempty"`
}

// Known are the providers whose endpoints need not be given.
var Known = []Client{
	{
		Provider: "google", AuthURL: "https://accounts.google.com/o/oauth2/v2/auth", TokenURL: "https://oauth2.googleapis.com/token",
		Scopes: []string{"https://mail.google.com/"},
	},
	{
		Provider: "microsoft", AuthURL: "https://login.microsoftonline.com/TENANT/oauth2/v2.0/authorize",
		TokenURL: "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token", DeviceURL: "https://login.microsoftonline.com/TENANT/oauth2/v2.0/devicecode",
		Scopes: []string{"https://outlook.office.com/IMAP.AccessAsUser.All", "https://outlook.office.com/POP.AccessAsUser.All", "offline_access"},
	},
}

// Lookup returns a known provider, for Microsoft in a tenant ("" for any).
func Lookup(name, tenant string) (Client, bool) {
	for _, c := range Known {
		if !strings.EqualFold(c.Provider, name) {
			continue
		}
		if tenant == "" {
			tenant = "common"
		}
		for _, u := range []*string{&c.AuthURL, &c.TokenURL, &c.DeviceURL} {
			*u = strings.ReplaceAll(*u, "TENANT", url.PathEscape(tenant))
		}
		c.Scopes = slices.Clone(c.Scopes)
		return c, true
	}
	return Client{}, false
}

// ForHost names the known provider of a mail server; "" for none.
func ForHost(host string) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for suffix, name := range map[string]string{
		"gmail.com": "google", "googlemail.com": "google",
		"office365.com": "microsoft", "outlook.com": "microsoft", "hotmail.com": "microsoft", "live.com": "microsoft",
	} {
		if host == suffix || strings.HasSuffix(host, "."+suffix) {
			return name
		}
	}
	return ""
}

// Check refuses what cannot work, and endpoints to which secrets must not go: they
// are https, or on this machine.
func (c Client) Check() error {
	fail := func(hint, format string, args ...any) error {
		return &mail.Error{Kind: mail.KindUsage, Op: "OAuth 2", Err: fmt.Errorf(format, args...), Hint: hint}
	}
	if c.ID == "" {
		return fail("give --client-id; docs/oauth.md says how to register one", "there is no client id")
	}
	if c.TokenURL == "" {
		return fail("give --provider google or microsoft, or --token-url with --auth-url or --device-url", "the provider's endpoints are not known")
	}
	if c.AuthURL == "" && c.DeviceURL == "" {
		return fail("give --auth-url (a browser on this machine) or --device-url", "there is no endpoint at which a person can log in")
	}
	for flag, text := range map[string]string{"auth-url": c.AuthURL, "token-url": c.TokenURL, "device-url": c.DeviceURL} {
		if text == "" {
			continue
		}
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
			return fail("write https://HOST/PATH", "--%s is no address", flag)
		case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		default:
			return fail("write https://…", "--%s: secrets go over https only", flag)
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// config is the same for the library.
func (c Client) config() *oauth2.Config {
	return &oauth2.Config{
		ClientID: c.ID, ClientSecret: c.Secret.Reveal(), Scopes: c.Scopes,
		Endpoint: oauth2.Endpoint{AuthURL: c.AuthURL, TokenURL: c.TokenURL, DeviceAuthURL: c.DeviceURL, AuthStyle: oauth2.AuthStyleInParams},
	}
}

// fault turns an error of the library into one a person can act on. What the
// provider said is kept, without secrets; again is what to do where a person has to
// log in.
func fault(op, again string, err error, secrets ...auth.Secret) error {
	clean := func(s string) string {
		for _, secret := range secrets {
			s = (auth.Credentials{Password: secret}).Redact(s)
		}
		return s[:min(len(s), 500)]
	}
	re, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		if e, ok := errors.AsType[*mail.Error](err); ok {
			return e
		}
		return &mail.Error{Kind: mail.KindTemporary, Op: op, Err: errors.New(clean(err.Error())), Hint: "the provider cannot be reached: check the network, then run the same command again"}
	}
	e := &mail.Error{Kind: mail.KindAuth, Op: op, Err: errors.New("the provider refuses"), Hint: again}
	e.Server = clean(strings.TrimSpace(re.ErrorCode + " " + re.ErrorDescription))
	if re.Response != nil && e.Server == "" {
		e.Server = re.Response.Status
	}
	switch {
	case re.ErrorCode == "invalid_client", re.ErrorCode == "unauthorized_client":
		e.Hint = "check --client-id and --client-secret-file against the registration; see docs/oauth.md"
	case re.ErrorCode == "invalid_scope":
		e.Hint = "the registration does not allow what was asked for; see docs/oauth.md"
	case re.ErrorCode == "temporarily_unavailable", re.ErrorCode == "server_error", re.Response != nil && (re.Response.StatusCode >= 500 || re.Response.StatusCode == 429):
		e.Kind, e.Hint = mail.KindTemporary, "run the same command again later"
	}
	return e
}
