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

// Credentials say who logs in, and with what.
type Credentials struct {
	User     string
	Password Secret
}

// Check refuses what no protocol line can carry: CR, LF and NUL would end the
// command and begin another.
func (c Credentials) Check() error {
	what := ""
	switch {
	case c.User == "":
		what = "no user name"
	case c.Password == "":
		what = "no password"
	case strings.ContainsAny(c.User, "\r\n\x00"):
		what = "the user name contains a line break or NUL"
	case strings.ContainsAny(string(c.Password), "\r\n\x00"):
		what = "the password contains a line break or NUL"
	default:
		return nil
	}
	return &mail.Error{Kind: mail.KindAuth, Op: "log in", Err: errors.New(what), Hint: "check where the password comes from; it must be one line"}
}

// Redact takes the password out of a text (a server's answer, a trace), in clear
// and in the forms in which it goes over the wire.
func (c Credentials) Redact(s string) string {
	p := string(c.Password)
	if p == "" || s == "" {
		return s
	}
	for _, form := range []string{
		p,
		base64.StdEncoding.EncodeToString([]byte(p)),
		base64.StdEncoding.EncodeToString([]byte("\x00" + c.User + "\x00" + p)),
		url.QueryEscape(p),
	} {
		s = strings.ReplaceAll(s, form, redacted)
	}
	return s
}
