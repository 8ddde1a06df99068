package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"mailhaul/mail"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	const text = "correct-horse"
	c := Credentials{User: "ada", Password: text}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T %v"} {
		fmt.Fprintf(&out, verb+"\n", c, c.Password)
		fmt.Fprintf(&out, verb+"\n", &c)
		fmt.Fprintf(&out, verb+"\n", fmt.Errorf("x: %v", c))
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", c.Password, "all", c)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", c.Password, "all", c)
	if got := out.String(); strings.Contains(got, text) || strings.Contains(got, fmt.Sprintf("%x", text)) {
		t.Errorf("the secret is in\n%s", got)
	}
	if c.Password.Reveal() != text {
		t.Error("Reveal does not tell it")
	}
}

func TestRedact(t *testing.T) {
	c := Credentials{User: "ada", Password: "a b&c-secret"}
	for _, s := range []string{"a b&c-secret", "YSBiJmMtc2VjcmV0", "AGFkYQBhIGImYy1zZWNyZXQ=", "a+b%26c-secret"} {
		if got := c.Redact("said " + s + " back"); got != "said *** back" {
			t.Errorf("%q: %q", s, got)
		}
	}
	if got := (Credentials{}).Redact("as it is"); got != "as it is" {
		t.Error(got)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []Credentials{{}, {User: "a"}, {Password: "b"}, {User: "a\r\nDELE 1", Password: "b"}, {User: "a", Password: "b\nc"}, {User: "a\x00b", Password: "c"}, {User: "a", Password: "\x00"}, {User: "a", Admin: "b\n", Password: "c"}} {
		err := c.Check()
		if mail.KindOf(err) != mail.KindAuth || mail.HintOf(err) == "" {
			t.Errorf("%q: %v", c.User, err)
		}
		if _, err := Choose(c, Offer{Plain: true}); err == nil {
			t.Errorf("%q was chosen for", c.User)
		}
	}
	if err := (Credentials{User: "ada", Password: "pässword with blanks"}).Check(); err != nil {
		t.Error(err)
	}
}

func TestChoose(t *testing.T) {
	c := Credentials{User: "ada", Password: "secret"}
	for _, tt := range []struct {
		offer Offer
		name  string
		sasl  bool
	}{
		{Offer{Mechanisms: []string{"CRAM-MD5", "plain", "LOGIN"}, Plain: true}, "PLAIN", true},
		{Offer{Mechanisms: []string{"LOGIN"}, Plain: true}, "clear-text command", false},
		{Offer{Mechanisms: []string{"login"}}, "LOGIN", true},
	} {
		l, err := Choose(c, tt.offer)
		if err != nil || l.Name != tt.name || (l.Client != nil) != tt.sasl {
			t.Errorf("%v: %q, %v", tt.offer, l.Name, err)
		}
	}
	_, err := Choose(c, Offer{Mechanisms: []string{"NTLM"}})
	if e, ok := errors.AsType[*mail.Error](err); !ok || e.Kind != mail.KindLacking || e.Server != "NTLM" {
		t.Error(err)
	}
}

func TestLoginAnswersTwoChallenges(t *testing.T) {
	l, _ := Choose(Credentials{User: "ada", Password: "secret"}, Offer{Mechanisms: []string{"LOGIN"}})
	if mech, first, err := l.Client.Start(); mech != "LOGIN" || first != nil || err != nil {
		t.Errorf("%q %q %v", mech, first, err)
	}
	for _, want := range []string{"ada", "secret"} {
		if got, err := l.Client.Next([]byte("whatever:")); string(got) != want || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if _, err := l.Client.Next(nil); err == nil {
		t.Error("a third challenge was answered")
	}
}
