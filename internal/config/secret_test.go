package config

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mailhaul/mail"
)

const secret = "pa55 wörd"

func write(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func found(t *testing.T, p Password) {
	t.Helper()
	got, err := p.Find(t.Context())
	if err != nil || got.Reveal() != secret {
		t.Errorf("found %q, %v", got.Reveal(), err)
	}
}

func refused(t *testing.T, p Password, kind mail.Kind, text, hint string) {
	t.Helper()
	got, err := p.Find(t.Context())
	if err == nil || got != "" || mail.KindOf(err) != kind || !strings.Contains(err.Error(), text) || !strings.Contains(mail.HintOf(err), hint) {
		t.Errorf("got %q, %v (hint %q), want %q (hint %q)", got.Reveal(), err, mail.HintOf(err), text, hint)
	}
	if err != nil && strings.Contains(err.Error()+mail.HintOf(err), secret) {
		t.Errorf("the secret is in %q", err)
	}
}

func TestCommand(t *testing.T) {
	found(t, Password{Command: `printf '%s\nsecond line\n' '` + secret + `'`})
	found(t, Password{Command: `printf '%s\r\n' "` + secret + `"`})
	found(t, Password{Command: `sh -c 'printf "%s" "` + secret + `"; echo oops >&2'`})
	refused(t, Password{Command: `sh -c 'echo "` + secret + `" >&2; exit 3'`}, mail.KindAuth, "exit status 3", "by hand")
	refused(t, Password{Command: "true"}, mail.KindAuth, "no password in its first line", "")
	refused(t, Password{Command: "no-such-command-here"}, mail.KindAuth, "executable file not found", "by hand")
	refused(t, Password{Command: `pass "mail`}, mail.KindUsage, "quote is not closed", "sh -c")
	refused(t, Password{Command: "  "}, mail.KindUsage, "names no command", "sh -c")
	// Children do not see a password that is meant for us.
	t.Setenv("MAILHAUL_PASSWORD", "other")
	found(t, Password{Command: `sh -c 'echo "${MAILHAUL_PASSWORD-` + secret + `}"'`})
	// What was asked for by name is not passed over.
	refused(t, Password{Command: "true", File: write(t, 0o600, secret)}, mail.KindAuth, "first line", "")
}

func TestCommandEndsWithTheRun(t *testing.T) {
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := (Password{Command: "sleep 60"}).Find(ctx); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestFile(t *testing.T) {
	found(t, Password{File: write(t, 0o600, secret+"\n")})
	found(t, Password{File: write(t, 0o400, secret)})
	for _, mode := range []os.FileMode{0o640, 0o604, 0o666} {
		refused(t, Password{File: write(t, mode, secret)}, mail.KindAuth, "can be read by others", "chmod 600")
	}
	refused(t, Password{File: write(t, 0o600, "\n"+secret)}, mail.KindAuth, "first line", "")
	refused(t, Password{File: t.TempDir()}, mail.KindAuth, "is a directory", "")
	refused(t, Password{File: filepath.Join(t.TempDir(), "none")}, mail.KindAuth, "no such file", "")
}

func TestEnvironment(t *testing.T) {
	const name = "MAILHAUL_PASSWORD"
	t.Setenv(name, secret)
	found(t, Password{Env: name})
	if _, ok := os.LookupEnv(name); ok {
		t.Error("the variable is still set")
	}
	t.Setenv(name, "")
	refused(t, Password{Env: name}, mail.KindAuth, "MAILHAUL_PASSWORD is empty", "unset")
}

func TestNetrc(t *testing.T) {
	text := `# a comment
machine other.example login ada password wrong
macdef init
machine mail.example login ada password macro

machine mail.example
	login bob password bobs
machine Mail.Example login ada@example.org account x password "` + secret + `"
default login ada password fallback
`
	p := Password{User: "ada@example.org", Host: "mail.example", Netrc: write(t, 0o600, text)}
	found(t, p)
	p.Netrc = write(t, 0o644, text)
	refused(t, p, mail.KindAuth, "can be read by others", "chmod 600")
	p.Host = "nobody.example"
	p.User = "carol"
	refused(t, p, mail.KindAuth, "no password for carol at nobody.example", "--password-command")
	p.Netrc = filepath.Join(t.TempDir(), "none")
	refused(t, p, mail.KindAuth, "no password for carol", "~/.netrc")

	for _, tt := range []struct{ host, user, want string }{
		{"mail.example", "bob", "bobs"}, {"other.example", "ada", "wrong"}, {"x", "ada", "fallback"}, {"x", "eve", ""},
	} {
		got, ok := parseNetrc(text, tt.host, tt.user)
		if got != tt.want && ok || ok != (tt.want != "") {
			t.Errorf("%s at %s: %q, %v; want %q", tt.user, tt.host, got, ok, tt.want)
		}
	}
}

func TestPrompt(t *testing.T) {
	var asked string
	ask := func(answer string, err error) func(string) (string, error) {
		return func(q string) (string, error) { asked = q; return answer, err }
	}
	found(t, Password{User: "ada", Host: "h", Prompt: ask(secret, nil)})
	if asked != "Password of ada at h: " {
		t.Errorf("asked %q", asked)
	}
	refused(t, Password{Prompt: ask("", nil)}, mail.KindAuth, "no password was typed", "")
	refused(t, Password{Prompt: ask("", errors.New("EOF"))}, mail.KindAuth, "EOF", "")
	refused(t, Password{User: "ada", Host: "h"}, mail.KindAuth, "no password for ada at h", "without a terminal nothing is asked")
}

func TestSplit(t *testing.T) {
	t.Setenv("HOME", "/home/ada")
	for in, want := range map[string][]string{
		"pass show mail":          {"pass", "show", "mail"},
		`a 'b c' "d \" e" f\ g`:   {"a", "b c", `d " e`, "f g"},
		`a '' b`:                  {"a", "", "b"},
		`a$(x);y|z`:               {"a$(x);y|z"},
		"  a\tb\n":                {"a", "b"},
		"~/bin/secret mail":       {filepath.FromSlash("/home/ada/bin/secret"), "mail"},
		`'it'"'"'s' \'`:           {"it's", "'"},
		`a 'back\slash' "b\\s" ü`: {"a", `back\slash`, `b\s`, "ü"},
	} {
		got, err := split(in)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("split(%q): %v %s", in, err, diff)
		}
	}
	if _, err := split(`a\`); err == nil {
		t.Error("a trailing backslash is accepted")
	}
}

// A password that was written down is found again, whatever else is in the file.
func FuzzNetrc(f *testing.F) {
	f.Add("p", "login u password p")
	f.Add(`a"b\\c d`, "macdef x\nmachine h password p\n\nmachine")
	f.Add("#", "default password \"")
	f.Fuzz(func(t *testing.T, password, rest string) {
		if strings.Contains(password, "\n") || len(password)+len(rest) > 10_000 {
			return
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(password)
		text := "machine h login u password \"" + quoted + "\"\nmachine other " + rest
		if got, ok := parseNetrc(text, "h", "u"); !ok || got != password {
			t.Errorf("%q: got %q, %v, want %q", text, got, ok, password)
		}
	})
}
