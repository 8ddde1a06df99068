package auth

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net"
	"net/smtp"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// submission is a server that takes what login lets in; it returns a client.
func submission(t *testing.T, mechanisms string, login func(line string, say func(string), next func() string)) *smtp.Client {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		r := bufio.NewReader(theirs)
		next := func() string {
			line, _ := r.ReadString('\n')
			return strings.TrimRight(line, "\r\n")
		}
		say := func(s string) { fmt.Fprintf(theirs, "%s\r\n", s) }
		say("220 ready")
		for {
			line := next()
			switch {
			case line == "":
				return
			case strings.HasPrefix(line, "EHLO"):
				say("250-hello\r\n250 AUTH " + mechanisms)
			case strings.HasPrefix(line, "AUTH "):
				login(strings.TrimPrefix(line, "AUTH "), say, next)
			default:
				say("250 fine")
			}
		}
	}()
	c, err := smtp.NewClient(ours, "localhost")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSMTP(t *testing.T) {
	server := scramServer(t, scram.SHA256, "ada", "secret")
	c := submission(t, "LOGIN PLAIN SCRAM-SHA-256", func(line string, say func(string), next func() string) {
		mech, said, _ := strings.Cut(line, " ")
		if mech != "SCRAM-SHA-256" {
			say("504 not that")
			return
		}
		for !server.Done() {
			b, err := base64.StdEncoding.DecodeString(said)
			if err != nil {
				say("501 no base64")
				return
			}
			challenge, err := server.Step(string(b))
			if err != nil {
				say("535 no")
				return
			}
			say("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
			said = next()
		}
		say("235 welcome")
	})
	a := &SMTP{Credentials: Credentials{User: "ada", Password: "secret"}}
	if err := c.Auth(a); err != nil || a.Confirm() != nil {
		t.Errorf("%v, %v", err, a.Confirm())
	}

	// A token that is refused.
	var answer string
	c = submission(t, "XOAUTH2", func(_ string, say func(string), next func() string) {
		say("334 " + base64.StdEncoding.EncodeToString([]byte(`{"status":"400"}`)))
		answer = "answer:" + next()
		say("535 5.7.8 not accepted")
	})
	if err := c.Auth(&SMTP{Credentials: withToken(t, "tok")}); err == nil || !strings.Contains(err.Error(), "5.7.8") || answer != "answer:" {
		t.Errorf("%v, %q", err, answer)
	}
	// Nothing that is not known is answered, nothing leaves without TLS.
	c = submission(t, "NTLM", func(string, func(string), func() string) { t.Error("logs in") })
	if err := c.Auth(&SMTP{Credentials: Credentials{User: "ada", Password: "secret"}}); err == nil {
		t.Error("logged in by nothing")
	}
	if _, _, err := (&SMTP{Credentials: Credentials{User: "ada", Password: "secret"}}).Start(&smtp.ServerInfo{Name: "mail.example.org", Auth: []string{"PLAIN"}}); err == nil {
		t.Error("a password in clear text")
	}
}
