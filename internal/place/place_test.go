package place

import (
	"path/filepath"
	"strings"
	"testing"

	"mailhaul/internal/dial"
	"mailhaul/mail"
)

func TestParseServer(t *testing.T) {
	tests := []struct {
		in   string
		want Server
		out  string // String(), in if empty
	}{
		{"imaps://ada@example.org", Server{"imap", dial.TLS, "ada", "example.org", 993}, ""},
		{"pop3s://ada@example.org", Server{"pop3", dial.TLS, "ada", "example.org", 995}, ""},
		{"imap://ada@example.org", Server{"imap", dial.StartTLS, "ada", "example.org", 143}, ""},
		{"pop3://ada@example.org", Server{"pop3", dial.StartTLS, "ada", "example.org", 110}, ""},
		{"imap+insecure://ada@localhost", Server{"imap", dial.Cleartext, "ada", "localhost", 143}, ""},
		{"pop3+insecure://ada@127.0.0.1:1110", Server{"pop3", dial.Cleartext, "ada", "127.0.0.1", 1110}, ""},
		{"imaps://ada@example.org@mail.example.net", Server{"imap", dial.TLS, "ada@example.org", "mail.example.net", 993}, ""},
		{"imaps://ada%40example.org@mail.example.net", Server{"imap", dial.TLS, "ada@example.org", "mail.example.net", 993}, "imaps://ada@example.org@mail.example.net"},
		{"imaps://a%3Ab%2fc%25@h", Server{"imap", dial.TLS, "a:b/c%", "h", 993}, "imaps://a%3Ab%2Fc%25@h"},
		{"imaps://dom\\ada@h", Server{"imap", dial.TLS, `dom\ada`, "h", 993}, ""},
		{"imaps://jörg@h", Server{"imap", dial.TLS, "jörg", "h", 993}, "imaps://j%C3%B6rg@h"},
		{"IMAPS://ada@Mail.Example.ORG:993", Server{"imap", dial.TLS, "ada", "mail.example.org", 993}, "imaps://ada@mail.example.org"},
		{"imaps://ada@[::1]", Server{"imap", dial.TLS, "ada", "::1", 993}, ""},
		{"pop3s://ada@[2001:DB8::1]:1995", Server{"pop3", dial.TLS, "ada", "2001:db8::1", 1995}, "pop3s://ada@[2001:db8::1]:1995"},
	}
	for _, tt := range tests {
		got, err := ParseServer(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("ParseServer(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			continue
		}
		out := tt.out
		if out == "" {
			out = tt.in
		}
		if got.String() != out {
			t.Errorf("ParseServer(%q).String() = %q, want %q", tt.in, got, out)
		}
	}
	if got := tests[6].want.Account(); got != "imap:ada@example.org@mail.example.net" {
		t.Errorf("Account() = %q", got)
	}
}

func TestParseServerErrors(t *testing.T) {
	tests := []struct{ in, err, hint string }{
		{"imasp://ada@h", `unknown scheme "imasp"`, "did you mean imaps://?"},
		{"pop://ada@h", `unknown scheme "pop"`, "did you mean pop3://?"},
		{"imap+insecur://ada@h", `unknown scheme "imap+insecur"`, "did you mean imap+insecure://?"},
		{"http://ada@h", `unknown scheme "http"`, "known are imaps, pop3s, imap, pop3, imap+insecure, pop3+insecure"},
		{"ada@h", "needs a scheme", "imaps://USER@HOST"},
		{"imaps://example.org", "names no user", "imaps://USER@HOST"},
		{"imaps://@example.org", "names no user", "imaps://USER@HOST"},
		{"imaps://ada@", "names no host", ""},
		{"imaps://a%zz@h", "bad percent-escape", "%25"},
		{"imaps://a%0d%0aDELE@h", "control character", ""},
		{"imaps://a%ff@h", "not UTF-8", ""},
		{"imaps://ada@h:0", `"0" is no port`, "1 to 65535"},
		{"imaps://ada@h:65536", `"65536" is no port`, "1 to 65535"},
		{"imaps://ada@h:imap", `"imap" is no port`, "1 to 65535"},
		{"imaps://ada@h:", `"" is no port`, "1 to 65535"},
		{"imaps://ada@::1", "is no host", "in brackets"},
		{"imaps://ada@[::1", "closing bracket", ""},
		{"imaps://ada@[::1]x", "only :PORT", ""},
		{"imaps://ada@[127.0.0.1]", "no IPv6 address", ""},
		{"imaps://ada@h/INBOX", "nothing may follow the host", "--mailbox"},
		{"imaps://ada@müller.example", "not ASCII", "xn--"},
		{"imaps://ada@h h", "is no host", ""},
		{"imaps://ada:S3CRET@h", "must not hold a password", "--password-file"},
		{"imaps://ada:S3C/R@ET@h", "must not hold a password", "MAILHAUL_PASSWORD"},
		{"imasp://ada:S3CRET@h", "unknown scheme", "did you mean"},
	}
	for _, tt := range tests {
		_, err := ParseServer(tt.in)
		if mail.KindOf(err) != mail.KindUsage {
			t.Errorf("ParseServer(%q): kind of %v is not KindUsage", tt.in, err)
			continue
		}
		if !strings.Contains(err.Error(), tt.err) || !strings.Contains(mail.HintOf(err), tt.hint) {
			t.Errorf("ParseServer(%q) = %q (hint %q), want %q (hint %q)", tt.in, err, mail.HintOf(err), tt.err, tt.hint)
		}
		if text := err.Error() + mail.HintOf(err); strings.Contains(text, "S3C") || strings.Contains(text, "ET@") {
			t.Errorf("ParseServer(%q) repeats the password: %q", tt.in, text)
		}
	}
}

func TestParseArchive(t *testing.T) {
	t.Setenv("HOME", "/home/ada")
	tests := []struct {
		in   string
		want Archive
	}{
		{"Mail", Archive{"", "Mail"}},
		{"/srv/mail/", Archive{"", "/srv/mail"}},
		{"maildir:Mail", Archive{"maildir", "Mail"}},
		{"mbox:/srv/mail", Archive{"mbox", "/srv/mail"}},
		{"mbox:~/Mail", Archive{"mbox", "/home/ada/Mail"}},
		{"./mbox:x", Archive{"", "mbox:x"}},
		{"2024:backup", Archive{"", "2024:backup"}},
		{"ada@example.org", Archive{"", "ada@example.org"}},
	}
	for _, tt := range tests {
		tt.want.Dir = filepath.FromSlash(tt.want.Dir)
		if got, err := ParseArchive(tt.in); err != nil || got != tt.want {
			t.Errorf("ParseArchive(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
	bad := []struct{ in, err, hint string }{
		{"", "no name", "directory"},
		{"mbox:", "no directory", "mbox:DIR"},
		{"mailbox:x", "", ""},
		{"maildr:x", `unknown archive format "maildr"`, "did you mean maildir:? A directory of that name is written ./maildr:x"},
		{"mobx:x", `unknown archive format "mobx"`, "did you mean mbox:?"},
		{"imaps://ada@h", "a server was given", "--help shows what comes first"},
		{"a\x00b", "NUL", ""},
	}
	for _, tt := range bad {
		_, err := ParseArchive(tt.in)
		if tt.err == "" {
			if err != nil {
				t.Errorf("ParseArchive(%q) = %v, want a directory", tt.in, err)
			}
			continue
		}
		if err == nil || mail.KindOf(err) != mail.KindUsage || !strings.Contains(err.Error(), tt.err) || !strings.Contains(mail.HintOf(err), tt.hint) {
			t.Errorf("ParseArchive(%q) = %v (hint %q), want %q (hint %q)", tt.in, err, mail.HintOf(err), tt.err, tt.hint)
		}
	}
}

func FuzzParseServer(f *testing.F) {
	for _, s := range []string{
		"imaps://ada@example.org", "pop3+insecure://a%3Ab@[::1]:1110", "imap://@", "pop3://a@b@c:99999",
		"imaps://ada:secret@h", "x://", "imaps://a%00@h", "imaps://a@[fe80::1%25eth0]", "://@", "imaps://ü@ü",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseServer(s)
		if err != nil {
			if mail.KindOf(err) != mail.KindUsage {
				t.Fatalf("ParseServer(%q): %v is no usage error", s, err)
			}
			return
		}
		if got.User == "" || got.Host == "" || got.Port < 1 || got.Port > 65535 {
			t.Fatalf("ParseServer(%q) = %+v", s, got)
		}
		again, err := ParseServer(got.String())
		if err != nil || again != got {
			t.Fatalf("%q -> %+v -> %q -> %+v, %v", s, got, got.String(), again, err)
		}
	})
}

// A password never comes back out of an error, whatever stands around it.
func FuzzPasswordNotRepeated(f *testing.F) {
	f.Add("imaps", "ada", "h")
	f.Add("imapz", "a/b", "h/INBOX")
	f.Add("", "", "[::1")
	f.Fuzz(func(t *testing.T, scheme, user, host string) {
		const password = "correct horse"
		if strings.Contains(scheme+user+host, password) || strings.Contains(scheme, "://") || strings.Contains(host, "@") {
			return
		}
		_, err := ParseServer(scheme + "://" + user + ":" + password + "@" + host)
		if err == nil {
			t.Fatal("a password was accepted")
		}
		if strings.Contains(err.Error()+mail.HintOf(err), password) {
			t.Fatalf("the password is repeated: %v", err)
		}
	})
}
