package auth

import (
	"errors"
	"net/smtp"
)

// SMTP logs in to a submission server by net/smtp's Client.Auth (or a library with
// the same interface). The connection must be the one that Offer.TLS of o tells of;
// what the server offers is taken from its greeting. Call Credentials.Fresh before,
// and Confirm after Client.Auth.
type SMTP struct {
	Credentials Credentials
	Offer       Offer // Mechanisms are filled in

	login Login
}

var _ smtp.Auth = (*SMTP)(nil)

// Start chooses the mechanism. Without TLS nothing is sent but to this machine.
func (s *SMTP) Start(server *smtp.ServerInfo) (mech string, first []byte, err error) {
	if !server.TLS && server.Name != "localhost" && server.Name != "127.0.0.1" && server.Name != "::1" {
		return "", nil, errors.New("the connection to the mail server is not secured by TLS")
	}
	s.Offer.Mechanisms, s.Offer.Plain = server.Auth, false
	if s.login, err = Choose(s.Credentials, s.Offer); err != nil {
		return "", nil, err
	}
	return s.login.Client.Start()
}

// Next answers a challenge.
func (s *SMTP) Next(challenge []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	answer, err := s.login.Client.Next(challenge)
	if answer == nil {
		answer = []byte{} // nil would be no answer at all
	}
	return answer, err
}

// Confirm is Login.Confirm of the mechanism used.
func (s *SMTP) Confirm() error { return s.login.Confirm() }
