package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"golang.org/x/term"
	"golang.org/x/time/rate"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/keyring"
	"mailhaul/internal/place"
	"mailhaul/mail"
)

// account is a server to talk to and the way to log in.
type account struct {
	place  place.Server
	server dial.Server
	secret config.Password
	named  *config.Account // where it is one of the configuration; else nil

	mechanism string       // the only one to log in by; "" for the strongest
	admin     string       // who logs in on behalf of the user; "" for the user
	tokens    *auth.Tokens // OAuth 2 instead of a password; nil for none
}

func (ac account) key() string { return ac.place.Account() }

// label is what a person calls the account.
func (ac account) label() string {
	if ac.named != nil {
		return ac.named.Name
	}
	return mail.AccountLabel(ac.key())
}

// account reads a source or destination as typed, and applies the global flags.
// ctx ends a question that may come later.
func (a *app) account(ctx context.Context, typed string, s secretFlags, limit *rate.Limiter) (account, error) {
	named, err := a.named(typed)
	if err != nil {
		return account{}, err
	}
	var p place.Server
	switch {
	case named != nil:
		p = named.Server
	case !place.IsServer(typed):
		return account{}, a.noServer(typed)
	default:
		if p, err = place.ParseServer(typed); err != nil {
			return account{}, err
		}
	}
	trace, err := a.trace()
	if err != nil {
		return account{}, err
	}
	ac := account{
		place: p, named: named,
		server: dial.Server{
			Protocol: p.Protocol, Host: p.Host, Port: p.Port, Security: p.Security,
			CAFile: a.flags.caFile, Fingerprint: a.flags.fingerprint, AllowCleartext: a.flags.allowCleartext,
			Timeout: a.flags.timeout, Limit: limit, Trace: trace,
		},
		secret: config.Password{
			User: p.User, Host: p.Host, Command: s.command, File: s.file, Env: config.Env, Netrc: netrc(),
		},
	}
	if named != nil {
		a.trustAsConfigured(&ac.server, named)
		ac.secret.Entry = named.Entry
		if a.only != "" && named.Entry == (config.Entry{}) {
			ac.secret.Given = a.shared.password
		}
	}
	if err := s.login.apply(&ac); err != nil {
		return account{}, err
	}
	if err := a.usePin(&ac.server); err != nil {
		return account{}, err
	}
	if err := a.useGrant(&ac, s); err != nil {
		return account{}, err
	}
	if keyring.Available() {
		ac.secret.Keyring = func(ctx context.Context) (auth.Secret, bool, error) { return keyring.Get(ctx, ac.key()) }
	}
	if a.canAsk() {
		ac.secret.Prompt = func(question string) (string, error) { return a.ask(ctx, question) }
	}
	if p.Security == dial.Cleartext { // quiet or not
		a.ui.Warn(errors.New(p.String() + ": no TLS: whoever is on the way can read password and mail"))
	}
	return ac, nil
}

// trustAsConfigured takes from the configuration what no flag says.
func (a *app) trustAsConfigured(s *dial.Server, ac *config.Account) {
	if s.CAFile == "" {
		s.CAFile = ac.CAFile
	}
	if s.Fingerprint == "" {
		s.Fingerprint = ac.Fingerprint
	}
	s.AllowCleartext = s.AllowCleartext || ac.AllowCleartext
	s.ClientCert, s.ClientKey = ac.ClientCert, ac.ClientKey
	if ac.Timeout > 0 && !a.flags.timeoutTyped {
		s.Timeout = ac.Timeout
	}
}

// netrc is where ftp(1) and curl look, "" if there is no home.
func netrc() string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".netrc")
}

// credentials finds the password; it may ask a person. With tokens none is wanted,
// with a client certificate one may be missing.
func (ac account) credentials(ctx context.Context) (auth.Credentials, error) {
	c := auth.Credentials{
		User: ac.place.User, Admin: ac.admin, Mechanism: ac.mechanism,
		Tokens: ac.tokens, Certificate: ac.server.ClientCert != "",
	}
	if c.Tokens != nil {
		return c, nil
	}
	if c.Certificate {
		ac.secret.Prompt = nil
	}
	if ac.admin != "" {
		ac.secret.User = ac.admin
	}
	password, err := ac.secret.Find(ctx)
	if c.Certificate && errors.Is(err, config.ErrNoPassword) {
		return c, nil
	}
	c.Password = password
	return c, err
}

// canAsk tells whether there is a person to ask: only where both ends are a
// terminal, so that an unattended run never waits.
func (a *app) canAsk() bool {
	f, ok := a.stderr.(*os.File)
	return ok && a.stdin != nil && term.IsTerminal(int(a.stdin.Fd())) && term.IsTerminal(int(f.Fd()))
}

// hidden waits until the terminal no longer is as it was before: what is typed at
// once is not shown, either. It waits for a moment only, since it may have been so.
func hidden(fd int, before *term.State) {
	for range 50 {
		if now, err := term.GetState(fd); err != nil || !reflect.DeepEqual(before, now) {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// ask reads a line from the terminal without showing it. An interrupt gives the
// terminal back as it was.
func (a *app) ask(ctx context.Context, question string) (string, error) {
	fd := int(a.stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	type answer struct {
		line []byte
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(fd)
		got <- answer{line, err}
	}()
	hidden(fd, before)
	a.ui.Prompt(question)
	select {
	case r := <-got:
		a.ui.Break()
		return string(r.line), r.err
	case <-ctx.Done():
		_ = term.Restore(fd, before) // the run is ending either way
		a.ui.Break()
		return "", context.Cause(ctx)
	}
}
