package notify

import (
	"context"
	"io"
	"mime/quotedprintable"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/history"
	"mailhaul/internal/place"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const password = "correct horse"

var message = history.Message{Subject: "mailhaul: büro failed", Body: "büro: backup failed\n.\n.. and dots\n"}

// serve starts a server, and returns where a report is handed in to it.
func serve(t *testing.T, s *testserver.SMTP, leaf testserver.Leaf) (*testserver.SMTP, Envelope) {
	t.Helper()
	ca, err := testserver.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	if s.TLS, err = ca.TLS(leaf); err != nil {
		t.Fatal(err)
	}
	s.User, s.Password = "ada@example.org", password
	if s, err = testserver.StartSMTP(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	file, err := ca.WriteFile(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	security := dial.StartTLS
	if s.Implicit {
		security = dial.TLS
	}
	return s, Envelope{
		To:     []string{"ada@example.org", "root@example.org"},
		Server: place.Submission{Security: security, User: s.User, Host: "127.0.0.1", Port: s.Port()}, CAFile: file,
	}
}

var ada = auth.Credentials{User: "ada@example.org", Password: password}

func TestMail(t *testing.T) {
	for _, implicit := range []bool{false, true} {
		s, e := serve(t, &testserver.SMTP{Implicit: implicit}, testserver.Leaf{})
		e.From = "mailhaul@example.org"
		if err := Mail(t.Context(), e, ada, message); err != nil {
			t.Fatalf("implicit TLS %v: %v", implicit, err)
		}
		got := s.Messages()
		if len(got) != 1 || got[0].From != e.From || strings.Join(got[0].To, " ") != strings.Join(e.To, " ") {
			t.Fatalf("%+v", got)
		}
		m, err := netmail.ReadMessage(strings.NewReader(got[0].Data))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
		if text := strings.ReplaceAll(string(body), "\r\n", "\n"); err != nil || strings.TrimRight(text, "\n") != strings.TrimRight(message.Body, "\n") {
			t.Errorf("body %q, %v", body, err)
		}
		if m.Header.Get("Auto-Submitted") != "auto-generated" || m.Header.Get("Date") == "" || m.Header.Get("Message-Id") == "" {
			t.Errorf("header %v", m.Header)
		}
		for _, line := range s.Clear() {
			if word, _, _ := strings.Cut(line, " "); word != "EHLO" && word != "STARTTLS" {
				t.Errorf("sent in clear: %q", line)
			}
		}
	}
}

// With OAuth 2 the token goes there and no password; one that is refused is replaced
// once.
func TestMailToken(t *testing.T) {
	for name, tokens := range map[string][]auth.Secret{"good": {"good"}, "replaced": {"old", "good"}, "refused": {"old", "older", "good"}} {
		s, e := serve(t, &testserver.SMTP{Takes: func(token string) bool { return token == "good" }}, testserver.Leaf{})
		asked := 0
		c := auth.Credentials{User: "ada@example.org", Tokens: auth.NewTokens(func(context.Context, auth.Secret) (auth.Token, error) {
			asked++
			return auth.Token{Secret: tokens[asked-1]}, nil
		})}
		err := Mail(t.Context(), e, c, message)
		if want := name != "refused"; (err == nil) != want || (len(s.Messages()) == 1) != want {
			t.Errorf("%s: %d messages, %v", name, len(s.Messages()), err)
		}
		if asked > 2 {
			t.Errorf("%s: %d tokens", name, asked)
		}
		if err != nil && strings.Contains(err.Error(), "old") {
			t.Errorf("%s: a token is in %v", name, err)
		}
	}
}

// Nothing but a greeting is sent where the connection is not to be trusted, and no
// failure tells the password.
func TestMailRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		server *testserver.SMTP
		leaf   testserver.Leaf
		c      auth.Credentials
		change func(*Envelope)
		kind   mail.Kind
		err    string
	}{
		"no STARTTLS":     {server: &testserver.SMTP{NoTLS: true}, kind: mail.KindTemporary, err: "the server offers no STARTTLS"},
		"other host":      {leaf: testserver.Leaf{Hosts: []string{"other.example"}}, kind: mail.KindAuth, err: "certificate"},
		"self-signed":     {server: &testserver.SMTP{Implicit: true}, leaf: testserver.Leaf{SelfSigned: true}, kind: mail.KindAuth, err: "certificate"},
		"wrong password":  {c: auth.Credentials{User: "ada@example.org", Password: "battery staple"}, kind: mail.KindTemporary, err: "535"},
		"no password":     {c: auth.Credentials{User: "ada@example.org", Mechanism: "PLAIN"}, kind: mail.KindAuth, err: "no password"},
		"refused":         {server: &testserver.SMTP{Refuse: "554 5.7.1 no reports here"}, kind: mail.KindOther, err: "no reports here"},
		"bad address":     {change: func(e *Envelope) { e.To = []string{"nobody"} }, kind: mail.KindConfig, err: "nobody"},
		"injected header": {change: func(e *Envelope) { e.From = "a@b.c\r\nBcc: x@y.z" }, kind: mail.KindConfig, err: ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.server == nil {
				tt.server = &testserver.SMTP{}
			}
			s, e := serve(t, tt.server, tt.leaf)
			c := tt.c
			if c.User == "" {
				c = ada
			}
			if tt.change != nil {
				tt.change(&e)
			}
			err := Mail(t.Context(), e, c, message)
			if mail.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("kind %v of %v, want %v of %s", mail.KindOf(err), err, tt.kind, tt.err)
			}
			if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "battery")) {
				t.Errorf("the password is in %v", err)
			}
			for _, line := range s.Clear() {
				if strings.HasPrefix(line, "AUTH") || strings.HasPrefix(line, "MAIL") {
					t.Errorf("sent in clear: %q", line)
				}
			}
			if len(s.Messages()) > 0 {
				t.Errorf("%+v", s.Messages())
			}
		})
	}
}

func TestCommand(t *testing.T) {
	t.Setenv("MAILHAUL_PASSWORD", password)
	out := filepath.Join(t.TempDir(), "out")
	notices := []history.Notice{
		{Occasion: history.Failure, Run: history.Run{Account: "home"}},
		{Occasion: history.Failure, Run: history.Run{Account: "work"}},
		{Occasion: history.Weekly, Run: history.Run{Account: "home"}},
	}
	err := Command(t.Context(), []string{"sh", "-c", `{ env | grep ^MAILHAUL_ | sort; cat; } >` + out}, message, notices)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	want := "MAILHAUL_ACCOUNTS=home work\nMAILHAUL_OCCASION=failure weekly\nMAILHAUL_SUBJECT=" + message.Subject + "\n" + message.Body
	if err != nil || string(b) != want {
		t.Errorf("%q, %v; want %q", b, err, want)
	}
	err = Command(t.Context(), []string{"sh", "-c", "cat >/dev/null; echo no line >&2; exit 3"}, message, notices)
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "no line") || mail.HintOf(err) == "" {
		t.Error(err)
	}
}
