package auth

import (
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/xdg-go/scram"
)

// scramServer is the other side of one exchange.
func scramServer(t *testing.T, hash scram.HashGeneratorFcn, user, password string) *scram.ServerConversation {
	t.Helper()
	c, err := hash.NewClient(user, password, "")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt of sixteen.", Iters: 4096})
	if err != nil {
		t.Fatal(err)
	}
	s, err := hash.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		t.Fatal(err)
	}
	return s.NewConversation()
}

func choose(t *testing.T, c Credentials, mechanisms ...string) Login {
	t.Helper()
	l, err := Choose(c, Offer{Mechanisms: mechanisms})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func start(t *testing.T, c sasl.Client) string {
	t.Helper()
	_, first, err := c.Start()
	if err != nil {
		t.Fatal(err)
	}
	return string(first)
}

func TestScram(t *testing.T) {
	for name, hash := range map[string]scram.HashGeneratorFcn{"SCRAM-SHA-256": scram.SHA256, "SCRAM-SHA-1": scram.SHA1} {
		server := scramServer(t, hash, "a,d=a", "sécret")
		l := choose(t, Credentials{User: "a,d=a", Password: "sécret"}, name)
		said := start(t, l.Client)
		for !server.Done() {
			if l.Confirm() == nil {
				t.Errorf("%s: server is trusted before its proof", name)
			}
			challenge, err := server.Step(said)
			if err != nil {
				t.Fatal(name, err)
			}
			answer, err := l.Client.Next([]byte(challenge))
			if err != nil {
				t.Fatal(name, err)
			}
			said = string(answer)
		}
		if l.Confirm() != nil || said != "" {
			t.Errorf("%s: %v, %q", name, l.Confirm(), said)
		}
		if _, err := l.Client.Next(nil); err == nil {
			t.Errorf("%s goes on behind its end", name)
		}
	}
}

func TestScramIdentities(t *testing.T) {
	l := choose(t, Credentials{User: "ada", Admin: "root", Password: "x"}, "SCRAM-SHA-256")
	if first := start(t, l.Client); !strings.HasPrefix(first, "n,a=ada,n=root,r=") {
		t.Error(first)
	}
}

// A server that does not know the password, or breaks the rules, is not believed.
func TestScramServerIsChecked(t *testing.T) {
	proofs := map[string]string{
		"another password": "v=YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=",
		"an error":         "e=other-error",
		"nonsense":         "hello",
		"nothing":          "",
	}
	for name, proof := range proofs {
		server := scramServer(t, scram.SHA256, "ada", "secret")
		l := choose(t, Credentials{User: "ada", Password: "secret"}, "SCRAM-SHA-256")
		challenge, err := server.Step(start(t, l.Client))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Client.Next([]byte(challenge)); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Client.Next([]byte(proof)); err == nil || l.Confirm() == nil {
			t.Errorf("%s: %v, %v", name, err, l.Confirm())
		}
	}
	for name, first := range map[string]string{
		"other nonce":   "r=short,s=c2FsdA==,i=4096",
		"no iterations": "r=%s1,s=c2FsdA==,i=0",
		"endless":       "r=%s1,s=c2FsdA==,i=4294967295",
		"more endless":  "r=%s1,s=c2FsdA==,i=99999999999999999999",
		"garbage":       "\x00\xff,=,=",
		"empty":         "",
	} {
		l := choose(t, Credentials{User: "ada", Password: "secret"}, "SCRAM-SHA-256")
		_, nonce, _ := strings.Cut(start(t, l.Client), "r=")
		answer, err := l.Client.Next([]byte(strings.Replace(first, "%s", nonce, 1)))
		if err == nil {
			t.Errorf("%s: answered %q", name, answer)
		}
	}
}

func FuzzScramChallenge(f *testing.F) {
	for _, s := range []string{"r=%s1,s=c2FsdA==,i=4096", "r=%s,s=,i=1", "m=x,r=%s", "e=other-error", "v=", "i=1,i=99999999", "r=%s,s=c2FsdA==,i=07"} {
		f.Add(s, "v=eA==")
	}
	f.Fuzz(func(t *testing.T, first, final string) {
		if len(first) > 200 || strings.Contains(first, "i=") && !strings.Contains(first, "i=4096") {
			return // many iterations are allowed, and slow
		}
		l := choose(t, Credentials{User: "ada", Password: "secret"}, "SCRAM-SHA-256")
		_, nonce, _ := strings.Cut(start(t, l.Client), "r=")
		if _, err := l.Client.Next([]byte(strings.Replace(first, "%s", nonce, 1))); err != nil {
			return
		}
		_, err := l.Client.Next([]byte(final))
		if err == nil && l.Confirm() == nil {
			t.Fatalf("%q, %q: a server without the password is believed", first, final)
		}
	})
}
