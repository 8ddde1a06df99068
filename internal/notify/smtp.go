package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/history"
	"mailhaul/internal/place"
	"mailhaul/mail"
)

// Envelope says from whom, to whom, and where a report is handed in.
type Envelope struct {
	From   string // "" for the user at the server, if that is an address
	To     []string
	Server place.Submission
	CAFile string // further roots, PEM
}

// Mail hands a report in: over TLS, by STARTTLS if the server is one of those,
// verified like any server, and after a login (RFC 6409 section 4.3). No octet of
// the login or the report is sent in clear. A token that is refused is replaced once.
// Errors are *mail.Error.
func Mail(ctx context.Context, e Envelope, c auth.Credentials, m history.Message) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	msg, err := compose(e, m)
	if err != nil {
		return err
	}
	c, _, err = c.Fresh(ctx, false)
	if err != nil {
		return err
	}
	refused, err := e.send(ctx, c, msg)
	if refused && c.Tokens != nil {
		if fresh, ok, freshErr := c.Fresh(ctx, true); freshErr == nil && ok {
			c = fresh
			_, err = e.send(ctx, c, msg)
		}
	}
	if err != nil {
		return e.failed(kindOf(err), err, c)
	}
	return nil
}

// send hands a message in; refused tells that the server did not let us in.
func (e Envelope) send(ctx context.Context, c auth.Credentials, msg *gomail.Msg) (refused bool, err error) {
	server := dial.Server{Protocol: "smtp", Host: e.Server.Host, Port: e.Server.Port, Security: e.Server.Security, CAFile: e.CAFile}
	config, err := server.TLSConfig()
	if err != nil {
		return false, err
	}
	login := &saslAuth{credentials: c, host: e.Server.Host, port: e.Server.Port}
	verify := config.VerifyConnection
	config.VerifyConnection = func(st tls.ConnectionState) error {
		if verify != nil {
			if err := verify(st); err != nil {
				return err
			}
		}
		login.tls = &st // trusted, and only now
		return nil
	}
	options := []gomail.Option{
		gomail.WithPort(e.Server.Port), gomail.WithTimeout(patience / 2), gomail.WithTLSConfig(config),
		gomail.WithTLSPolicy(gomail.TLSMandatory), gomail.WithSMTPAuthCustom(login), gomail.WithoutNoop(),
	}
	if e.Server.Security == dial.TLS {
		options = append(options, gomail.WithSSL())
	}
	client, err := gomail.NewClient(e.Server.Host, options...)
	if err != nil {
		return false, &mail.Error{Kind: mail.KindConfig, Err: err}
	}
	err = client.DialAndSendWithContext(ctx, msg)
	return login.tried && !login.in, err
}

func compose(e Envelope, m history.Message) (*gomail.Msg, error) {
	from := e.From
	if from == "" {
		from = e.Server.User
		if !strings.Contains(from, "@") {
			host, err := os.Hostname()
			if err != nil || host == "" {
				host = "localhost"
			}
			from = "mailhaul@" + host
		}
	}
	bad := func(err error) error {
		return &mail.Error{Kind: mail.KindConfig, Op: "address the report", Err: err, Hint: "to and from below [notify] are mail addresses"}
	}
	msg := gomail.NewMsg()
	if err := msg.From(from); err != nil {
		return nil, bad(err)
	}
	if err := msg.To(e.To...); err != nil {
		return nil, bad(err)
	}
	msg.Subject(m.Subject)
	msg.SetDate()
	msg.SetMessageID()
	msg.SetUserAgent("mailhaul")
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: nobody answers it
	msg.SetBodyString(gomail.TypeTextPlain, m.Body)
	return msg, nil
}

func (e Envelope) failed(kind mail.Kind, err error, c auth.Credentials) error {
	text := c.Redact(err.Error())
	if strings.Contains(text, "does not support STARTTLS") {
		text = "the server offers no STARTTLS, and without it nothing is sent"
	}
	return &mail.Error{
		Kind: kind, Op: fmt.Sprintf("mail the report by %s", e.Server.Host), Err: errors.New(text),
		Hint: "the report was not delivered and is tried again with the next run; server and password of reports stand below [notify]",
	}
}

func kindOf(err error) mail.Kind {
	var sent *gomail.SendError
	var untrusted *tls.CertificateVerificationError
	switch {
	case errors.As(err, &untrusted):
		return mail.KindAuth
	case errors.As(err, &sent) && !sent.IsTemp():
		return mail.KindOther
	case mail.KindOf(err) != mail.KindOther:
		return mail.KindOf(err)
	}
	return mail.KindTemporary
}

// saslAuth logs in as to any other server.
type saslAuth struct {
	credentials auth.Credentials // fresh
	host        string
	port        int
	tls         *tls.ConnectionState
	login       auth.Login
	tried, in   bool
}

// Start implements smtp.Auth.
func (a *saslAuth) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS || a.tls == nil {
		return "", nil, errors.New("no login without TLS")
	}
	var err error
	a.login, err = auth.Choose(a.credentials, auth.Offer{Mechanisms: server.Auth, TLS: a.tls, Host: a.host, Port: a.port})
	if err != nil {
		return "", nil, err
	}
	a.tried = true
	return a.login.Client.Start()
}

// Next implements smtp.Auth.
func (a *saslAuth) Next(challenge []byte, more bool) ([]byte, error) {
	if more {
		return a.login.Client.Next(challenge)
	}
	a.in = true
	return nil, a.login.Confirm()
}
