package auth

import (
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"

	"mailhaul/mail"
)

// Offer is what a server says it accepts.
type Offer struct {
	Mechanisms []string // SASL mechanisms (AUTH=... or SASL ...), in any case
	Plain      bool     // the protocol's own login command (IMAP LOGIN, POP3 USER and PASS) may be used
	Secure     bool     // TLS is up
	Host       string   // as in the place, for schemes that name the server
	Port       int
}

func (o Offer) has(mech string) bool {
	return slices.ContainsFunc(o.Mechanisms, func(m string) bool { return strings.EqualFold(m, mech) })
}

// Login is one way to log in.
type Login struct {
	// Client runs the SASL exchange; nil means the protocol's own login command
	// with user and password in clear.
	Client sasl.Client
	// Name is the mechanism, for traces and errors.
	Name string
}

// Scheme offers a Login where credentials and server allow it, else ok is false.
type Scheme func(Credentials, Offer) (l Login, ok bool)

// schemes in the order of preference. Each stands in a file of its own.
var schemes = []Scheme{plain, clearCommand, login}

// Choose finds the login to use. It is tried once: a refused one is never
// followed by another, since some servers lock accounts after a few failures.
// Errors are *mail.Error of KindAuth or, where the server offers nothing usable,
// KindLacking.
func Choose(c Credentials, o Offer) (Login, error) {
	if err := c.Check(); err != nil {
		return Login{}, err
	}
	for _, s := range schemes {
		if l, ok := s(c, o); ok {
			return l, nil
		}
	}
	return Login{}, &mail.Error{
		Kind:   mail.KindLacking,
		Op:     "log in",
		Err:    errors.New("no way to log in that both sides know"),
		Server: strings.Join(o.Mechanisms, " "),
		Hint:   "this program knows PLAIN, LOGIN and the protocol's own login command",
	}
}
