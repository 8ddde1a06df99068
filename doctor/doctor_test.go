package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"mailhaul/doctor"
	"mailhaul/fetch/imap"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/mail"
)

var now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// server is a server in memory with bad habits.
type server struct {
	facts   mail.ServerFacts
	sizeOff int64
	newUIDs bool // every login
	most    int  // connections
	search  string
	used    int64
	open    int
	logins  int
}

type session struct {
	s     *server
	login int
	in    bool
}

func (c *session) Account() string { return "imap:a@x" }

func (c *session) enter() error {
	if c.in {
		return nil
	}
	if c.s.most > 0 && c.s.open >= c.s.most {
		return &mail.Error{Op: "log in", Err: errors.New("refused"), Server: "NO too many connections"}
	}
	c.in = true
	c.s.open++
	return nil
}

func (c *session) Examine(context.Context) (mail.ServerFacts, error) { return c.s.facts, c.enter() }

func (c *session) Mailboxes(context.Context) ([]mail.Mailbox, error) {
	return []mail.Mailbox{{Name: "INBOX", Messages: 3, Octets: -1}, {Name: "Empty", Octets: -1}}, c.enter()
}

func (c *session) List(context.Context, mail.Mailbox) iter.Seq2[mail.Info, error] {
	return func(yield func(mail.Info, error) bool) {
		for i := range 3 {
			uid := fmt.Sprint(i)
			if c.s.newUIDs {
				uid = fmt.Sprint(c.login, "-", i)
			}
			if !yield(mail.Info{Ref: mail.Ref{UID: uid}, Size: 5 + c.s.sizeOff}, nil) {
				return
			}
		}
	}
}

func (c *session) Fetch(_ context.Context, _ mail.Mailbox, wants []mail.Want, deliver mail.Deliver) error {
	for _, w := range wants {
		if err := deliver(mail.Info{Ref: mail.Ref{UID: w.UID}}, strings.NewReader("12345"), nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *session) Quota(context.Context) (used, limit int64, err error) { return c.s.used, 100, nil }

func (c *session) CheckSearch(context.Context, mail.Mailbox, []mail.Info) (string, error) {
	return c.s.search, nil
}

func (c *session) Close() error {
	if c.in {
		c.in = false
		c.s.open--
	}
	return nil
}

func (s *server) examine(t *testing.T) *doctor.Report {
	t.Helper()
	r, err := doctor.Examine(t.Context(), doctor.Options{Protocol: "imap", Connections: 4, Now: now, Open: func() (doctor.Source, error) {
		s.logins++
		return &session{s: s, login: s.logins}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if s.open != 0 {
		t.Errorf("%d sessions are open", s.open)
	}
	return r
}

func level(t *testing.T, r *doctor.Report, name string) doctor.Level {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c doctor.Check) bool { return c.Name == name })
	if i < 0 {
		t.Errorf("no check %q in %+v", name, r.Checks)
		return ""
	}
	return r.Checks[i].Level
}

func advice(r *doctor.Report, verb string) (text string) {
	for _, a := range r.Advice {
		if a.Verb == verb {
			text += a.Text
		}
	}
	return text
}

func TestGoodServer(t *testing.T) {
	s := &server{facts: mail.ServerFacts{Secure: true, Appends: true, DeletesOne: true, Certificates: []mail.Certificate{{Until: now.AddDate(1, 0, 0)}}}}
	r := s.examine(t)
	for _, c := range r.Checks {
		if c.Level == doctor.Warning {
			t.Errorf("%+v", c)
		}
	}
	if s.logins != 6 || r.Mailboxes[0].Octets != 15 || !strings.Contains(advice(r, "upload"), "works.") || !strings.Contains(advice(r, "clean"), "works") {
		t.Errorf("%d logins, %+v", s.logins, r)
	}
}

func TestBadHabits(t *testing.T) {
	s := &server{
		facts: mail.ServerFacts{AppendLimit: 1000, Appends: true, Moves: true, Alert: "mind the gap"}, sizeOff: 2, newUIDs: true, most: 2, search: "SEARCH SEEN leaves out 2", used: 95,
	}
	r := s.examine(t)
	for _, name := range []string{"tls", "size", "stable", "search", "quota", "uidplus"} {
		if l := level(t, r, name); l != doctor.Warning {
			t.Errorf("%s: %s", name, l)
		}
	}
	for name, want := range map[string]string{"connections": "2 connections at a time work, one more was refused: NO too many connections", "alert": "mind the gap", "appendlimit": "1000 octets"} {
		if level(t, r, name); !slices.ContainsFunc(r.Checks, func(c doctor.Check) bool { return c.Name == name && strings.Contains(c.Text, want) }) {
			t.Errorf("%s does not say %q", name, want)
		}
	}
	if !strings.Contains(advice(r, "clean"), "--trash") || !strings.Contains(advice(r, "backup"), "slower") || !strings.Contains(advice(r, "upload"), "may not fit") {
		t.Errorf("%+v", r.Advice)
	}
}

func TestCertificateAboutToEnd(t *testing.T) {
	for until, want := range map[time.Duration]doctor.Level{-time.Hour: doctor.Warning, 24 * time.Hour: doctor.Warning, 1000 * time.Hour: doctor.OK} {
		s := &server{facts: mail.ServerFacts{Secure: true, Certificates: []mail.Certificate{{Until: now.Add(until)}}}}
		if l := level(t, s.examine(t), "certificate"); l != want {
			t.Errorf("%s left: %s", until, l)
		}
	}
}

func TestNoLogin(t *testing.T) {
	want := errors.New("no")
	_, err := doctor.Examine(t.Context(), doctor.Options{Open: func() (doctor.Source, error) { return nil, want }})
	if !errors.Is(err, want) {
		t.Error(err)
	}
}

// At a real server both protocols tell the truth, and nothing is changed.
func TestDovecot(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{Quota: "10M", Separator: ".", Prefix: "INBOX."})
	var all []dovecot.Message
	for i := range 20 {
		all = append(all, dovecot.Message{Octets: fmt.Appendf(nil, "From: a@x.example\r\nSubject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", 50*i))})
	}
	if err := s.Append("ada", "INBOX", all...); err != nil {
		t.Fatal(err)
	}
	if err := s.Store("ada", "INBOX", "3:9", "+FLAGS", `\Seen`); err != nil {
		t.Fatal(err)
	}
	snapshot := func() string {
		list, err := s.Messages("ada", "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, m := range list {
			text += fmt.Sprint(m.Flags, len(m.Octets), "\n")
		}
		status, err := s.Status("ada", "INBOX")
		if err != nil {
			t.Fatal(err)
		}
		return text + fmt.Sprint(status)
	}
	before := snapshot()
	c := auth.Credentials{User: "ada", Password: dovecot.Password}
	srv := func(protocol string, port int) dial.Server {
		return dial.Server{Protocol: protocol, Host: s.Host, Port: port, Security: dial.TLS, CAFile: s.CAFile, Timeout: 30 * time.Second}
	}
	for protocol, open := range map[string]func() (doctor.Source, error){
		"imap": func() (doctor.Source, error) {
			return imap.New(imap.Config{Server: srv("imap", s.IMAPS), Credentials: c, Connections: 1}), nil
		},
		"pop3": func() (doctor.Source, error) {
			return pop3.New(pop3.Config{Server: srv("pop3", s.POP3S), Credentials: c}), nil
		},
	} {
		r, err := doctor.Examine(t.Context(), doctor.Options{Protocol: protocol, Open: open, Connections: 2, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for _, ch := range r.Checks {
			if ch.Level == doctor.Warning && ch.Name != "certificate" {
				t.Errorf("%s: %+v", protocol, ch)
			}
		}
		for _, name := range []string{"size", "stable", "login"} {
			if l := level(t, r, name); l != doctor.OK {
				t.Errorf("%s %s: %s", protocol, name, l)
			}
		}
		if len(r.Facts.Certificates) == 0 || len(r.Facts.Capabilities) == 0 || len(r.Facts.Offered) == 0 || r.Mailboxes[0].Octets <= 0 {
			t.Errorf("%s: %+v", protocol, r)
		}
		if protocol == "imap" && (level(t, r, "search") != doctor.OK || r.Limit != 10<<20 || r.Facts.Prefix != "INBOX." || r.Facts.Delimiter != ".") {
			t.Errorf("%+v", r)
		}
	}
	if after := snapshot(); after != before {
		t.Errorf("the server was changed:\n%s\n%s", before, after)
	}
}
