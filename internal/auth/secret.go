// Package auth holds secrets and logs in with them. A login scheme is a Scheme in
// a file of its own; drivers let Choose find the one that server and credentials
// have in common, and never see how it works.
package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"mailhaul/mail"
)

const redacted = "***"

// Secret is a password or token. Whatever prints it prints ***; Reveal gives the
// text for the one place that sends it.
type Secret string

// String returns ***, or nothing if there is no secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString hides it from %#v.
func (s Secret) GoString() string { return `auth.Secret("` + s.String() + `")` }

// Format hides it from every verb of fmt.
func (s Secret) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		fmt.Fprint(f, s.GoString())
		return
	}
	fmt.Fprint(f, s.String())
}

// LogValue hides it from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides it from encoding/json, toml and their like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Credentials say who logs in, and with what: a password, OAuth 2 tokens or a client
// certificate.
type Credentials struct {
	User     string // whose mailbox it is
	Password Secret
	Tokens   *Tokens // OAuth 2; nil for none. With them, no password is used
	// Admin logs in, with the password, on behalf of User; "" where User does so.
	Admin string
	// Mechanism is the only one to be used, in any case; "" for the strongest that
	// both sides know. See Mechanisms.
	Mechanism string
	// Certificate says that the connection presents a client certificate.
	Certificate bool

	token Secret // of Tokens; see Fresh
}

// identities returns whose mailbox is wanted, "" for the user's own, and who logs
// in (RFC 4422 section 3.4.1).
func (c Credentials) identities() (authorization, authentication string) {
	if c.Admin == "" {
		return "", c.User
	}
	return c.User, c.Admin
}

// LoginName is the name for logins that know only one: an administrator is written
// behind the user, as Dovecot and others have it for master users.
func (c Credentials) LoginName() string {
	if c.Admin == "" {
		return c.User
	}
	return c.User + "*" + c.Admin
}

// hint says what to look at when a login was refused.
func (c Credentials) hint() string {
	switch {
	case c.Tokens != nil:
		return "the server does not take the token: run mailhaul login again, and check that the account is allowed to use this protocol"
	case c.Admin != "":
		return "check the administrator's name and password, and whether the server lets them act for this user"
	}
	return "check user name and password; some providers want an app password or OAuth"
}

// Check refuses what no protocol line can carry: CR, LF and NUL would end the
// command and begin another.
func (c Credentials) Check() error {
	what := ""
	switch {
	case c.User == "":
		what = "no user name"
	case c.Tokens != nil && c.token == "":
		what = "no token"
	case c.Password == "" && c.Tokens == nil && !c.Certificate:
		what = "no password"
	case strings.ContainsAny(c.User+c.Admin, "\r\n\x00\x01"):
		what = "the user name contains a line break, NUL or SOH"
	case strings.ContainsAny(string(c.Password), "\r\n\x00"):
		what = "the password contains a line break or NUL"
	default:
		return nil
	}
	return &mail.Error{Kind: mail.KindAuth, Op: "log in", Err: errors.New(what), Hint: "check where the password comes from; it must be one line"}
}

// Redact takes password and tokens out of a text (a server's answer, a trace), in
// clear and in the forms in which they go over the wire.
func (c Credentials) Redact(s string) string {
	if s == "" {
		return s
	}
	secrets := []Secret{c.Password}
	if c.Tokens != nil {
		secrets = append(secrets, c.Tokens.secrets()...)
	}
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		for _, form := range c.forms(secret.Reveal()) {
			s = strings.ReplaceAll(s, form, redacted)
		}
	}
	return s
}

// forms are the ways in which a secret goes over the wire.
func (c Credentials) forms(p string) []string {
	authz, user := c.identities()
	forms := []string{p, base64.StdEncoding.EncodeToString([]byte(p)), url.QueryEscape(p)}
	for _, blob := range []string{
		authz + "\x00" + user + "\x00" + p,
		"user=" + c.User + "\x01auth=Bearer " + p + "\x01\x01",
		"auth=Bearer " + p + "\x01\x01",
	} {
		forms = append(forms, base64.StdEncoding.EncodeToString([]byte(blob)))
	}
	return forms
}
