package login

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/xdg-go/scram"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

const password = "staple-battery"

// imapServer answers AUTHENTICATE by login, over TLS.
func imapServer(t *testing.T, capabilities string, change func(*tls.Config), login func(c *testserver.IMAPConn, mech, first string)) dial.Server {
	t.Helper()
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	file, err := ca.WriteFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ca.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(cfg)
	}
	s := &testserver.IMAP{Capabilities: "IMAP4rev1 " + capabilities, TLS: cfg}
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		words := strings.Fields(cmd)
		if words[0] != "AUTHENTICATE" && words[0] != "LOGIN" {
			return false
		}
		if words[0] == "LOGIN" {
			login(c, "", strings.Join(words[1:], " "))
			return true
		}
		first := ""
		if len(words) > 2 {
			first = words[2]
		} else if words[1] != "CRAM-MD5" && words[1] != "LOGIN" {
			c.Send("+ \r\n")
			first, _ = c.Line()
		}
		if b, err := base64.StdEncoding.DecodeString(first); err == nil {
			first = string(b)
		}
		login(c, words[1], first)
		return true
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return dial.Server{Protocol: "imap", Host: "127.0.0.1", Port: s.Port(), CAFile: file}
}

// ask sends a challenge and returns the answer.
func ask(c *testserver.IMAPConn, challenge string) string {
	c.Send("+ " + base64.StdEncoding.EncodeToString([]byte(challenge)) + "\r\n")
	line, _ := c.Line()
	if b, err := base64.StdEncoding.DecodeString(line); err == nil {
		return string(b)
	}
	return line
}

// TestChannelBinding logs in by -PLUS over TLS 1.2 and 1.3, with and without SASL-IR.
func TestChannelBinding(t *testing.T) {
	client, err := scram.SHA256.NewClient("ada", password, "")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "0123456789abcdef", Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, capabilities string
		version            uint16
		foreign            bool // the binding of another connection
	}{
		{"TLS 1.3", "SASL-IR AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN", tls.VersionTLS13, false},
		{"TLS 1.2", "AUTH=SCRAM-SHA-256-PLUS AUTH=SCRAM-SHA-256 AUTH=PLAIN", tls.VersionTLS12, false},
		{"somebody between", "SASL-IR AUTH=SCRAM-SHA-256-PLUS AUTH=PLAIN", tls.VersionTLS13, true},
	} {
		var went atomic.Value
		s := imapServer(t, tt.capabilities, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tt.version, tt.version }, func(c *testserver.IMAPConn, mech, first string) {
			went.Store(mech)
			st := c.Conn.(*tls.Conn).ConnectionState()
			binding := scram.NewTLSUniqueBinding(st.TLSUnique)
			if tt.version == tls.VersionTLS13 {
				binding, _ = scram.NewTLSExporterBinding(&st)
			}
			if tt.foreign {
				binding.Data[0] ^= 1
			}
			conv := server.NewConversationWithChannelBindingRequired(binding)
			said := first
			for {
				challenge, err := conv.Step(said)
				if err != nil {
					c.NO("[AUTHENTICATIONFAILED] no")
					return
				}
				said = ask(c, challenge)
				if conv.Done() {
					c.OK("in")
					return
				}
			}
		})
		seen, err := logIn(t, s, auth.Credentials{User: "ada", Password: password})
		if went.Load() != "SCRAM-SHA-256-PLUS" || strings.Contains(seen, password) {
			t.Errorf("%s: %v\n%s", tt.name, went.Load(), seen)
		}
		if tt.foreign != (mail.KindOf(err) == mail.KindAuth) || tt.foreign != (err != nil) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// A server that lets us in without its proof is not talked to.
func TestServerProof(t *testing.T) {
	first := func(s string) string { // r=nonce of the client
		_, nonce, _ := strings.Cut(s, "r=")
		return "r=" + nonce + "x,s=c2FsdA==,i=4096"
	}
	lies := map[string]func(c *testserver.IMAPConn, said string){
		"no exchange": func(c *testserver.IMAPConn, _ string) { c.OK("welcome") },
		"no proof":    func(c *testserver.IMAPConn, said string) { ask(c, first(said)); c.OK("welcome") },
		"false proof": func(c *testserver.IMAPConn, said string) {
			ask(c, first(said))
			ask(c, "v=YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=")
			c.OK("welcome")
		},
		"years of work": func(c *testserver.IMAPConn, said string) {
			ask(c, strings.Replace(first(said), "4096", "4000000000", 1))
		},
		"rounds": func(c *testserver.IMAPConn, said string) {
			for range 100 {
				if ask(c, "v=eA==") == "" {
					return
				}
			}
		},
	}
	for name, lie := range lies {
		s := imapServer(t, "SASL-IR AUTH=SCRAM-SHA-256 AUTH=PLAIN", nil, func(c *testserver.IMAPConn, _, said string) { lie(c, said) })
		if _, err := logIn(t, s, auth.Credentials{User: "ada", Password: password}); mail.KindOf(err) != mail.KindAuth {
			t.Errorf("IMAP, %s: %v", name, err)
		}
	}
	for name, script := range map[string][]testserver.Step{
		"no exchange": {testserver.Answer("^AUTH SCRAM", "+OK in\r\n")},
		"endless":     {testserver.Answer("^AUTH SCRAM", "+ "+base64.StdEncoding.EncodeToString([]byte("r=x,s=c2FsdA==,i=4000000000"))+"\r\n"), testserver.Answer(`^\*$`, "-ERR\r\n")},
		"no base64":   {testserver.Answer("^AUTH SCRAM", "+ !!!\r\n"), testserver.Answer(`^\*$`, "-ERR\r\n")},
	} {
		script = append([]testserver.Step{testserver.Send("+OK\r\n"), testserver.Answer("CAPA", "+OK\r\nSASL PLAIN SCRAM-SHA-256\r\n.\r\n")}, script...)
		p, err := testserver.NewScript(append(script, testserver.Hold()))
		if err != nil {
			t.Fatal(err)
		}
		_, err = logIn(t, dial.Server{Protocol: "pop3", Host: "127.0.0.1", Port: p.Port(), Security: dial.Cleartext}, auth.Credentials{User: "ada", Password: password})
		if mail.KindOf(err) != mail.KindAuth {
			t.Errorf("POP3, %s: %v", name, err)
		}
		p.Close()
	}
}

// What looks like a wrong password and is none; what is one is said once only.
func TestRefusals(t *testing.T) {
	for answer, want := range map[string]mail.Kind{
		"[ALERT] Too many simultaneous connections. (Failure)":                                              mail.KindTemporary,
		"[AUTHENTICATIONFAILED] Too many simultaneous connections":                                          mail.KindTemporary,
		"[UNAVAILABLE] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=1)": mail.KindTemporary,
		"[LIMIT] LOGIN Rate limit hit.":                                                                     mail.KindTemporary,
		"[UNAVAILABLE] Temporary authentication failure.":                                                   mail.KindTemporary,
		"[AUTHENTICATIONFAILED] Invalid credentials (Failure)":                                              mail.KindAuth,
		"LOGIN failed.": mail.KindAuth,
		"[ALERT] Application-specific password required": mail.KindAuth,
	} {
		var tries atomic.Int32
		s := imapServer(t, "SASL-IR AUTH=PLAIN AUTH=LOGIN", nil, func(c *testserver.IMAPConn, _, _ string) {
			tries.Add(1)
			c.NO(answer)
		})
		ctx, cancel := context.WithCancel(t.Context())
		_, err := dialIMAP(ctx, s, auth.Credentials{User: "ada", Password: password})
		cancel()
		if mail.KindOf(err) != want || mail.HintOf(err) == "" || tries.Load() != 1 {
			t.Errorf("%s: kind %v, hint %q, %d attempts: %v", answer, mail.KindOf(err), mail.HintOf(err), tries.Load(), err)
		}
	}
	for answer, want := range map[string]mail.Kind{
		"[AUTH] Too many simultaneous connections":   mail.KindTemporary,
		"Too many connections for this user":         mail.KindTemporary,
		"[IN-USE] locked":                            mail.KindTemporary,
		"[AUTH] Username and password not accepted.": mail.KindAuth,
		"logon failure":                              mail.KindAuth,
	} {
		script := []testserver.Step{
			testserver.Send("+OK\r\n"), testserver.Answer("CAPA", "+OK\r\nSASL PLAIN\r\n.\r\n"), testserver.Answer("^AUTH PLAIN", "-ERR "+answer+"\r\n"), testserver.Hold(),
		}
		p, err := testserver.NewScript(script)
		if err != nil {
			t.Fatal(err)
		}
		_, err = logIn(t, dial.Server{Protocol: "pop3", Host: "127.0.0.1", Port: p.Port(), Security: dial.Cleartext}, auth.Credentials{User: "ada", Password: password})
		if mail.KindOf(err) != want || mail.HintOf(err) == "" || p.Connections() != 1 {
			t.Errorf("%s: kind %v, hint %q, %d connections: %v", answer, mail.KindOf(err), mail.HintOf(err), p.Connections(), err)
		}
		p.Close()
	}
}
