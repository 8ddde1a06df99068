package auth

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"mailhaul/mail"
)

// Offer is what a server says it accepts.
type Offer struct {
	Mechanisms []string             // SASL mechanisms (AUTH=... or SASL ...), in any case
	Plain      bool                 // the protocol's own login command (IMAP LOGIN, POP3 USER and PASS) may be used
	TLS        *tls.ConnectionState // of the connection; nil without TLS
	Host       string               // as in the place, for schemes that name the server
	Port       int
}

func (o Offer) has(mech string) bool {
	return slices.ContainsFunc(o.Mechanisms, func(m string) bool { return strings.EqualFold(m, mech) })
}

// Login is one way to log in.
type Login struct {
	// Client runs the SASL exchange; nil means the protocol's own login command
	// with Credentials.LoginName and the password in clear.
	Client sasl.Client
	// Name is the mechanism, for traces and errors.
	Name string
	// Hint is what to tell the person if the server refuses it.
	Hint string
}

// Confirm must be called once the server has let us in. It tells whether the server
// has proven what the mechanism asks of it; an error is of mail.KindAuth, and the
// server is not to be trusted.
func (l Login) Confirm() error {
	p, ok := l.Client.(interface{ Proven() bool })
	if !ok || p.Proven() {
		return nil
	}
	return &mail.Error{
		Kind: mail.KindAuth, Op: "log in with " + l.Name,
		Err:  errors.New("the server let us in without proving that it knows the password"),
		Hint: "somebody may be posing as the server: check host, certificate and network before you try again",
	}
}

// Scheme offers a Login where credentials and server allow it, else ok is false.
type Scheme struct {
	// Name is how a person asks for it (Credentials.Mechanism).
	Name string
	// Forced schemes are used only when asked for.
	Forced bool
	// Try makes the Login.
	Try func(Credentials, Offer) (l Login, ok bool)
}

// schemes in the order of preference. Each stands in a file of its own.
var schemes = slices.Concat(
	[]Scheme{{Name: sasl.External, Try: external}},
	[]Scheme{{Name: sasl.OAuthBearer, Try: oauthBearer}, {Name: XOAuth2, Try: xoauth2}},
	scramSchemes,
	[]Scheme{{Name: sasl.Plain, Try: plain}, {Name: sasl.Login, Try: clearCommand}, {Name: sasl.Login, Try: login}},
	[]Scheme{{Name: CramMD5, Forced: true, Try: cramMD5}},
)

// Mechanisms returns the names Credentials.Mechanism may hold, strongest first.
func Mechanisms() []string {
	var names []string
	for _, s := range schemes {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	return names
}

// Choose finds the login to use: the strongest that both sides know, or the one
// that Credentials.Mechanism names. It is tried once: a refused one is never
// followed by another, since some servers lock accounts after a few failures.
// Errors are *mail.Error of KindAuth or, where the server offers nothing usable,
// KindLacking.
func Choose(c Credentials, o Offer) (Login, error) {
	if err := c.Check(); err != nil {
		return Login{}, err
	}
	for _, s := range schemes {
		if c.Mechanism == "" && s.Forced || c.Mechanism != "" && !strings.EqualFold(c.Mechanism, s.Name) {
			continue
		}
		if l, ok := s.Try(c, o); ok {
			if l.Hint == "" {
				l.Hint = c.hint()
			}
			return l, nil
		}
	}
	return Login{}, lacking(c, o)
}

func lacking(c Credentials, o Offer) error {
	e := &mail.Error{
		Kind:   mail.KindLacking,
		Op:     "log in",
		Err:    errors.New("no way to log in that both sides know"),
		Server: strings.Join(o.Mechanisms, " "),
		Hint:   "this program knows " + strings.Join(Mechanisms(), ", ") + " and the protocol's own login command",
	}
	switch {
	case c.Mechanism != "":
		e.Err = fmt.Errorf("the server does not offer %s here", strings.ToUpper(c.Mechanism))
		e.Hint = "leave out --auth to use the strongest that both sides know"
	case c.Tokens != nil:
		e.Err = errors.New("the server takes no OAuth 2 token")
		e.Hint = "this server wants a password: configure the account without OAuth"
	case slices.ContainsFunc([]string{XOAuth2, sasl.OAuthBearer}, o.has):
		e.Err = errors.New("the server takes no password, only OAuth 2")
		e.Hint = "see mailhaul login --help, or give --token-command"
	case o.has(CramMD5):
		e.Hint += "; CRAM-MD5, which is weak, only by --auth cram-md5"
	}
	return e
}
