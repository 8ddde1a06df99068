package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/discover"
	"mailhaul/internal/place"
	"mailhaul/internal/ui"
	"mailhaul/mail"
)

// find looks for the servers and shows them.
func (s *setting) find(ctx context.Context) error {
	var err error
	if len(s.o.servers) > 0 {
		s.found, err = s.given()
	} else {
		web, webErr := discover.HTTPClient(s.a.flags.caFile)
		if webErr != nil {
			return webErr
		}
		finder := discover.Finder{DNS: net.DefaultResolver, HTTP: web, Autoconfig: s.o.autoconfig, Probe: func(ctx context.Context, p place.Server) error {
			return discover.Reach(ctx, s.server(p))
		}}
		if s.o.nameServer != "" {
			finder.DNS = discover.NameServer(s.o.nameServer)
		}
		s.a.ui.Note("Looking for the servers of %s …", s.address)
		s.found, err = finder.Find(ctx, s.address)
	}
	if err != nil {
		return err
	}
	s.say("%s, found by %s", s.address, s.found.By)
	for _, p := range []*place.Server{s.found.IMAP, s.found.POP3} {
		if p != nil {
			s.say("  %-6s %s", strings.ToUpper(p.Protocol)+":", p)
		}
	}
	if s.found.Provider != nil {
		for _, note := range s.found.Provider.Notes {
			s.say("  %s", note)
		}
		if at := s.found.Provider.AppPassword; at != "" {
			s.say("  App passwords are made at %s", at)
		}
	}
	if s.found.IMAP == nil && s.found.POP3 == nil {
		return usage("name the server: --server imaps://HOST", "%s has no server that mailhaul could use directly", s.found.Provider.Name)
	}
	return s.agree(ctx)
}

// given reads the servers that were named.
func (s *setting) given() (*discover.Found, error) {
	local, _, err := discover.SplitAddress(s.address)
	if err != nil {
		return nil, err
	}
	f := &discover.Found{By: "--server", Users: []string{s.address, local}}
	for _, text := range s.o.servers {
		p, err := place.ParseServer(text)
		if err != nil {
			if p, err = place.WithUser(text, s.address); err != nil {
				return nil, err
			}
		} else {
			f.Users = []string{p.User}
		}
		if p.Protocol == "pop3" {
			f.POP3 = &p
		} else {
			f.IMAP = &p
		}
	}
	return f, nil
}

// agree asks before a password goes where only the domain name system points to.
func (s *setting) agree(ctx context.Context) error {
	if !s.found.Foreign {
		return nil
	}
	if !s.ask {
		return &mail.Error{
			Kind: mail.KindAuth, Err: errors.New("the servers are outside of the domain of the address, and nothing but the domain name system says that they are right"),
			Hint: "if they are, name them: --server " + serverOf(s.found),
		}
	}
	answer, err := s.a.answer(ctx, "These servers are outside of the address's domain. Send the password there? [y/N] ")
	if err == nil && !isYes(answer, false) {
		err = &mail.Error{Err: errors.New("nothing was set up: not confirmed"), Hint: "name the right server: --server imaps://HOST"}
	}
	return err
}

func serverOf(f *discover.Found) string {
	p := f.IMAP
	if p == nil {
		p = f.POP3
	}
	scheme, _, _ := strings.Cut(p.String(), "://")
	return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(p.Host, fmt.Sprint(p.Port)))
}

// server is how a place is connected to.
func (s *setting) server(p place.Server) dial.Server {
	return dial.Server{
		Protocol: p.Protocol, Host: p.Host, Port: p.Port, Security: p.Security, CAFile: s.a.flags.caFile,
		Fingerprint: s.a.flags.fingerprint, AllowCleartext: s.a.flags.allowCleartext, Timeout: s.a.flags.timeout,
	}
}

// test logs in by both protocols, and says what they give. It returns the one to use.
func (s *setting) test(ctx context.Context) (*account, error) {
	chosen, err := s.testOnce(ctx)
	if err != nil && s.ask && !s.again && s.secret != "" && ctx.Err() == nil && refused(err) {
		s.a.ui.Warn(err)
		s.a.ui.Note("Perhaps it was mistyped: once more, and no oftener, since some servers lock accounts.")
		s.again, s.secret = true, ""
		chosen, err = s.testOnce(ctx)
	}
	return chosen, err
}

// refused tells whether a login was refused; err may join several errors.
func refused(err error) bool {
	all := joined(err)
	if all == nil {
		return refusal(err)
	}
	return slices.ContainsFunc(all, func(e error) bool { return e != nil && refused(e) })
}

// testOnce does it with one password.
func (s *setting) testOnce(ctx context.Context) (*account, error) {
	var imapErr, pop3Err error
	if p := s.found.IMAP; p != nil {
		s.imap, imapErr = s.try(ctx, *p)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if p := s.found.POP3; p != nil {
		if s.imap != nil {
			p.User = s.imap.place.User
		}
		// One refusal is enough: a second wrong password may lock the account.
		if untrusted := mail.KindOf(imapErr) == mail.KindAuth; !untrusted || s.found.IMAP == nil {
			s.pop3, pop3Err = s.try(ctx, *p)
		}
	}
	switch {
	case s.imap == nil && s.pop3 == nil:
		return nil, errors.Join(imapErr, pop3Err)
	case s.o.protocol == "imap" && s.imap == nil:
		return nil, s.unwanted("IMAP", imapErr)
	case s.o.protocol == "pop3" && s.pop3 == nil:
		return nil, s.unwanted("POP3", pop3Err)
	}
	for _, err := range []error{imapErr, pop3Err} {
		if err != nil {
			s.a.ui.Warn(err)
		}
	}
	chosen := s.imap
	if chosen == nil || s.o.protocol == "pop3" {
		chosen = s.pop3
	}
	s.explain(chosen)
	return chosen, nil
}

func (s *setting) unwanted(protocol string, err error) error {
	if err != nil {
		return err
	}
	return usage("leave out --protocol", "no %s server was found", protocol)
}

// try logs in at a server, by the names that may be right.
func (s *setting) try(ctx context.Context, p place.Server) (*account, error) {
	var err, first error
	for i, user := range s.found.Users {
		p.User = user
		if s.imap != nil {
			p.User = s.imap.place.User
		}
		var ac account
		if ac, err = s.account(ctx, p); err != nil {
			return nil, err
		}
		if i == 0 {
			s.a.ui.Note("Logging in over %s at %s …", strings.ToUpper(p.Protocol), p.Host)
		}
		var seen string
		if seen, err = s.look(ctx, ac); err == nil {
			s.say("  %-6s logged in as %s: %s", strings.ToUpper(p.Protocol)+":", p.User, seen)
			return &ac, nil
		}
		if s.imap != nil || ac.tokens != nil || mail.KindOf(err) != mail.KindAuth || !refusal(err) {
			break
		}
		if first == nil {
			first = err
		}
	}
	if refusal(err) && first != nil {
		err = first // what was said of the likeliest name
	}
	return nil, err
}

// refusal tells a login that was refused from a connection that is not to be trusted.
func refusal(err error) bool {
	e, ok := errors.AsType[*mail.Error](err)
	return ok && e.Op == "log in"
}

// account is a place with its password, which is asked for once.
func (s *setting) account(ctx context.Context, p place.Server) (account, error) {
	ac, err := s.a.account(ctx, p.String(), s.o.secret, nil)
	if err != nil {
		return ac, err
	}
	if s.found.Provider != nil && s.found.Provider.OAuthOnly && ac.tokens == nil {
		return ac, &mail.Error{Kind: mail.KindAuth, Err: fmt.Errorf("%s takes no password", s.found.Provider.Name), Hint: "register a client id (docs/oauth.md), then: mailhaul login " + p.String() + " --client-id ID, and mailhaul setup again"}
	}
	if s.secret != "" {
		ac.secret = config.Password{Given: s.secret}
		return ac, nil
	}
	if ac.tokens != nil || ac.secret.Command != "" || ac.secret.File != "" {
		return ac, nil
	}
	if s.again { // what other places have was refused
		ac.secret = config.Password{Prompt: ac.secret.Prompt}
	}
	ac.secret.User, ac.secret.Host = s.address, p.Host
	if s.secret, err = ac.secret.Find(ctx); err != nil {
		return ac, err
	}
	ac.secret = config.Password{Given: s.secret}
	return ac, nil
}

// look logs in and counts.
func (s *setting) look(ctx context.Context, ac account) (string, error) {
	c, err := ac.credentials(ctx)
	if err != nil {
		return "", err
	}
	src, err := s.a.openSource(ac.server, c, 1)
	if err != nil {
		return "", err
	}
	boxes, err := src.Mailboxes(ctx)
	if err = errors.Join(err, src.Close()); err != nil {
		return "", err
	}
	var messages int64
	known := true
	for _, b := range boxes {
		known = known && b.Messages >= 0
		messages += b.Messages
	}
	text := ui.Plural(int64(len(boxes)), "mailbox")
	if known {
		text = ui.Plural(messages, "message") + " in " + text
	}
	return text, nil
}

// explain says what the protocols mean for this person.
func (s *setting) explain(chosen *account) {
	switch {
	case chosen.place.Protocol == "pop3" && s.imap != nil:
		s.say("POP3 is used, as you asked: it sees the INBOX only, and not which messages were read or flagged. IMAP would see all mailboxes.")
	case chosen.place.Protocol == "pop3":
		s.say("Only POP3 works here: it sees the INBOX and no other mailbox, and not which messages were read or flagged. What you sent is not in it.")
	case s.pop3 != nil:
		s.say("IMAP is used: it sees all mailboxes, and what was read or flagged. POP3 would see the INBOX only.")
	default:
		s.say("IMAP is used: it sees all mailboxes, and what was read or flagged.")
	}
}
