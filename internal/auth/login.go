package auth

import (
	"errors"

	"github.com/emersion/go-sasl"
)

// clearCommand is the protocol's own: IMAP LOGIN (RFC 9051 section 6.2.3), POP3
// USER and PASS (RFC 1939 section 7).
func clearCommand(c Credentials, o Offer) (Login, bool) {
	return Login{Name: "clear-text command"}, c.Password != "" && o.Plain
}

// login is the mechanism LOGIN (draft-murchison-sasl-login), for servers that
// offer nothing else.
func login(c Credentials, o Offer) (Login, bool) {
	if c.Password == "" || !o.has(sasl.Login) {
		return Login{}, false
	}
	return Login{Name: sasl.Login, Client: &loginClient{answers: []string{c.LoginName(), c.Password.Reveal()}}}, true
}

// loginClient answers the two challenges in their order; what they say differs
// from server to server.
type loginClient struct{ answers []string }

func (l *loginClient) Start() (string, []byte, error) { return sasl.Login, nil, nil }

func (l *loginClient) Next([]byte) ([]byte, error) {
	if len(l.answers) == 0 {
		return nil, errors.New("server asks for more than user and password")
	}
	a := l.answers[0]
	l.answers = l.answers[1:]
	return []byte(a), nil
}
