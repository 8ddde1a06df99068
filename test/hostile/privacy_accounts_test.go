package hostile

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mailhaul/internal/testserver"
)

// TestAccountPrivacy does what TestPrivacy does for the verbs about accounts, with the
// tokens of OAuth 2 as further secrets: they stand nowhere but where they are kept, in
// files of mode 0600.
func TestAccountPrivacy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.user.Password, h.configured = "", true
	h.secrets = map[string]string{"as a token": strings.Repeat("x", 40), "as a token in base64": strings.Repeat("eHh4", 10), "as the registration's secret": clientSecret}
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := file("secret", password)
	s, at := secure(t, capable, letters(4))
	place := fmt.Sprintf(at, user)
	ports := []int{s.Port()}

	// A password that is referred to, and one that is kept.
	h.discreet(t, []string{"setup", "ada@example.org", "--yes", "--server", place, "--name", "home", "--archive", h.archive(), "--password-command", "cat " + secret, "--backup"}, ports)
	if config := h.configuration(t); !strings.Contains(config, `password-command = "cat `) {
		t.Errorf("%s", config)
	}
	h.keeps = []string{"config/mailhaul/secrets", "state/mailhaul/oauth"}
	h.setUpFromEnvironment(t, place)
	for _, run := range [][]string{
		{"trust", fmt.Sprintf("127.0.0.1:%d", s.Port()), "--tls-fingerprint", fingerprint(s)},
		{"doctor", "home"}, {"size", "home"}, {"backup", "kept"}, {"verify", "kept"}, {"clean", "kept", "--larger", "1", "--dry-run"},
		{"account", "list"}, {"account", "show", "home"}, {"account", "show", "kept"},
		{"schedule", "kept"}, {"schedule", "kept", "--remove"},
	} {
		h.discreet(t, run, ports)
	}

	// Tokens.
	o, mail := tokens(t)
	h.append(t, fmt.Sprintf("\n[account.token]\nserver = %q\nca-file = %q\narchive = %q\n", mail.place, h.user.CAFile, filepath.Join(h.user.Home, "archive", "token")))
	provider := portOf(o.URL())
	h.discreet(t, []string{"login", "token", "--client-id", "me", "--client-secret-file", file("registered", clientSecret), "--device-url", o.URL() + "/device", "--token-url", o.URL() + "/token", "--store", "file"}, []int{provider, mail.port})
	o.Revoke(false) // the next run gets another token
	h.discreet(t, []string{"backup", "token"}, []int{provider, mail.port})
	if o.Refreshes() == 0 {
		t.Error("no token was renewed")
	}
	o.Revoke(true)
	h.ending(t, 77, []string{"backup", "token"}, []int{provider, mail.port})

	// Reports, by password and token.
	reports := submission(t)
	h.append(t, fmt.Sprintf("\n[account.gone]\nserver = \"imaps://%s@127.0.0.1:1\"\npassword-command = \"cat %s\"\narchive = %q\n"+
		"[account.gone.notify]\nto = \"ada@example.org\"\nserver = \"smtps://%s@127.0.0.1:%d\"\nca-file = %q\npassword-command = \"cat %s\"\ntrouble-after = 1\n",
		user, secret, filepath.Join(h.user.Home, "archive", "gone"), user, reports.Port(), h.user.CAFile, secret))
	h.ending(t, 75, []string{"backup", "gone", "--max-time", "1s"}, []int{1, reports.Port()})
	if all := reports.Messages(); len(all) != 1 || h.tells([]byte(all[0].Data)) != "" {
		t.Errorf("%d reports: %v", len(all), all)
	}

	h.discreet(t, []string{"login", "token", "--forget"}, nil)
	h.discreet(t, []string{"account", "remove", "kept", "--yes"}, nil)
}

// setUpFromEnvironment has setup keep a password that it finds in the environment,
// where everybody who may look at the process sees it.
func (h *house) setUpFromEnvironment(t *testing.T, place string) {
	t.Helper()
	h.user.Password = password
	r := h.run("setup", "ada@example.org", "--yes", "--server", place, "--name", "kept", "--archive", filepath.Join(h.user.Home, "source"), "--store", "file", "-v", "--log-level", "debug")
	h.user.Password = ""
	if r.code != 0 {
		t.Errorf("setup: %v", r)
	}
	kept := filepath.Join(h.user.Home, "config", "mailhaul", "secrets", "kept")
	if b, err := os.ReadFile(kept); err != nil || string(b) != password+"\n" {
		t.Errorf("%q, %v", b, err)
	}
	if config := h.configuration(t); telling([]byte(config)) != "" || !strings.Contains(config, "password-file = ") {
		t.Errorf("%s", config)
	}
}

func (h *house) configuration(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.user.Home, "config", "mailhaul", "config.toml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// append adds to the configuration.
func (h *house) append(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.user.Home, "config", "mailhaul", "config.toml"), []byte(h.configuration(t)+text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const clientSecret = "registered+with=care"

// tokenMail is a mail server that takes nothing but tokens.
type tokenMail struct {
	place string
	port  int
}

func tokens(t *testing.T) (*testserver.OAuth, tokenMail) {
	t.Helper()
	o := &testserver.OAuth{User: user, ClientID: "me", ClientSecret: clientSecret}
	if err := o.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	s, at := secure(t, "IMAP4rev1 SASL-IR LOGINDISABLED AUTH=XOAUTH2", letters(2))
	s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
		words := strings.Fields(cmd)
		if words[0] != "AUTHENTICATE" {
			return false
		}
		blob, _ := base64.StdEncoding.DecodeString(words[len(words)-1])
		_, token, _ := strings.Cut(strings.TrimRight(string(blob), "\x01"), "Bearer ")
		if o.Valid(token) {
			c.OK("in, with " + token) // which is not to be shown
			return true
		}
		c.Send("+ e30=\r\n")
		if _, err := c.Line(); err == nil {
			c.NO("[AUTHENTICATIONFAILED] no " + token)
		}
		return true
	}
	return o, tokenMail{fmt.Sprintf(at, user), s.Port()}
}

// submission is where reports are handed in.
func submission(t *testing.T) *testserver.SMTP {
	t.Helper()
	cfg, err := authority.TLS(testserver.Leaf{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := testserver.StartSMTP(&testserver.SMTP{TLS: cfg, Implicit: true, User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func portOf(address string) (port int) {
	_, _ = fmt.Sscan(address[strings.LastIndexByte(address, ':')+1:], &port)
	return port
}

// fingerprint is that of the certificate a server shows.
func fingerprint(s *testserver.IMAP) string {
	sum := sha256.Sum256(s.TLS.Certificates[0].Certificate[0])
	return hex.EncodeToString(sum[:])
}
