package login

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mailhaul/fetch"
	"mailhaul/fetch/imap"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/imapconn"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trace is a protocol trace that several goroutines write.
type trace struct{ bytes.Buffer }

func dialIMAP(ctx context.Context, s dial.Server, c auth.Credentials) (*imapconn.Conn, error) {
	return imapconn.Dial(ctx, imapconn.Config{Server: s, Credentials: c})
}

// source makes the driver of a protocol.
func source(s dial.Server, c auth.Credentials) fetch.Source {
	if s.Protocol == "pop3" {
		return pop3.New(pop3.Config{Server: s, Credentials: c, Pause: time.Millisecond})
	}
	return imap.New(imap.Config{Server: s, Credentials: c, Pause: time.Millisecond})
}

// logIn connects and returns what the trace shows.
func logIn(t *testing.T, s dial.Server, c auth.Credentials) (string, error) {
	t.Helper()
	var seen trace
	s.Trace = &dial.Trace{W: &seen}
	s.Timeout = 20 * time.Second
	src := source(s, c)
	_, err := src.Mailboxes(t.Context())
	src.Close()
	return seen.String(), err
}

// servers are the ports with TLS of a Dovecot.
func servers(d *dovecot.Server) []dial.Server {
	return []dial.Server{
		{Protocol: "imap", Host: d.Host, Port: d.IMAPS, CAFile: d.CAFile},
		{Protocol: "pop3", Host: d.Host, Port: d.POP3S, CAFile: d.CAFile},
		{Protocol: "imap", Host: d.Host, Port: d.IMAP, Security: dial.StartTLS, CAFile: d.CAFile},
		{Protocol: "pop3", Host: d.Host, Port: d.POP3, Security: dial.StartTLS, CAFile: d.CAFile},
	}
}

func name(s dial.Server) string { return fmt.Sprintf("%s/%v", s.Protocol, s.Security == dial.StartTLS) }

const master = "master-horse"

// bad complains of a login that did not go by want or showed a secret.
func bad(t *testing.T, s dial.Server, seen, want string, err error, secrets ...string) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", name(s), err)
		return
	}
	if !strings.Contains(seen, want) {
		t.Errorf("%s: not by %s:\n%s", name(s), want, seen)
	}
	for _, secret := range append(secrets, dovecot.Password, master) {
		if strings.Contains(seen, secret) || strings.Contains(seen, base64.StdEncoding.EncodeToString([]byte(secret))) {
			t.Errorf("%s: a secret is in the trace:\n%s", name(s), seen)
		}
	}
}

func TestDovecotMechanisms(t *testing.T) {
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	caFile, err := ca.WriteFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	// Where Dovecot, which is another user, can read it.
	public := filepath.Join(t.TempDir(), "clients.pem")
	if err := os.WriteFile(public, pem, 0o644); err != nil {
		t.Fatal(err)
	}
	d := dovecot.Start(t, dovecot.Options{Extra: `
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 external
auth_master_user_separator = *
ssl_ca = <` + public + `
ssl_verify_client_cert = yes
ssl_require_crl = no
auth_ssl_username_from_cert = yes
passdb {
  driver = static
  args = password={PLAIN}` + master + `
  master = yes
}
passdb {
  driver = static
  mechanisms = external
  args = nopassword=y
}
`})
	cert, err := ca.Client(dir, "ada")
	if err != nil {
		t.Fatal(err)
	}
	good := auth.Credentials{User: "ada", Password: dovecot.Password}
	for _, s := range servers(d)[2:] { // over STARTTLS and STLS
		seen, err := logIn(t, s, good)
		bad(t, s, seen, "SCRAM-SHA-256", err)
	}
	for _, s := range servers(d)[:2] {
		for _, mech := range []string{"", "scram-sha-256", "scram-sha-1", "plain", "login", "cram-md5"} {
			c := good
			c.Mechanism = mech
			if mech == "" {
				mech = "SCRAM-SHA-256"
			}
			seen, err := logIn(t, s, c)
			bad(t, s, seen, strings.ToUpper(mech), err)
			if mech != "plain" && mech != "scram-sha-1" {
				continue // a refusal takes Dovecot half a second
			}
			c.Password = "wrong-horse"
			if seen, err = logIn(t, s, c); mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "check user name and password") {
				t.Errorf("%s %s: %v, hint %q", name(s), mech, err, mail.HintOf(err))
			}
			if n := strings.Count(seen, "AUTH"); strings.Contains(seen, "wrong-horse") || n == 0 {
				t.Errorf("%s %s: %s", name(s), mech, seen)
			}
		}
		for _, mech := range []string{"", "plain", "login"} {
			admin := auth.Credentials{User: "grace", Admin: "root", Password: master, Mechanism: mech}
			seen, err := logIn(t, s, admin)
			bad(t, s, seen, "", err)
			if mech != "" {
				continue
			}
			admin.Password = dovecot.Password // the user's own is not the admin's
			if _, err := logIn(t, s, admin); mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "administrator") {
				t.Errorf("%s %s: %v", name(s), mech, err)
			}
		}
		c := auth.Credentials{User: "ada", Certificate: true}
		with := s
		with.ClientCert = cert
		seen, err := logIn(t, with, c)
		bad(t, s, seen, "EXTERNAL", err)
		c.User = "grace" // the certificate is ada's
		if _, err := logIn(t, with, c); mail.KindOf(err) != mail.KindAuth || !strings.Contains(mail.HintOf(err), "client certificate") {
			t.Errorf("%s: %v", name(s), err)
		}
	}
	if n := strings.Count(d.Log(), "Login: user=<grace>"); n != 6 {
		t.Errorf("%d logins of grace", n)
	}
}

// Too many connections are no wrong password, however a server calls them.
func TestDovecotConnectionLimit(t *testing.T) {
	d := dovecot.Start(t, dovecot.Options{Extra: "mail_max_userip_connections = 1"})
	c := auth.Credentials{User: "ada", Password: dovecot.Password}
	for _, s := range servers(d)[:2] {
		s.Timeout = 20 * time.Second
		first := source(s, c)
		if _, err := first.Mailboxes(t.Context()); err != nil {
			t.Fatal(err)
		}
		var err error
		if s.Protocol == "imap" { // whose driver would wait for its turn
			_, err = dialIMAP(t.Context(), s, c)
		} else {
			_, err = source(s, c).Mailboxes(t.Context())
		}
		if mail.KindOf(err) != mail.KindTemporary || !strings.Contains(mail.HintOf(err), "more connections") {
			t.Errorf("%s: kind %v, hint %q: %v", name(s), mail.KindOf(err), mail.HintOf(err), err)
		}
		first.Close()
	}
}
