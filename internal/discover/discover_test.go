package discover

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"mailhaul/internal/place"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// web answers by address, and notes what it was asked.
type web struct {
	mu    sync.Mutex
	files map[string]string
	asked []string
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, r.URL.String())
	text, ok := w.files[r.URL.String()]
	code := http.StatusOK
	if !ok {
		code = http.StatusNotFound
	}
	return &http.Response{StatusCode: code, Status: fmt.Sprint(code), Body: io.NopCloser(strings.NewReader(text)), Request: r, Header: http.Header{}}, nil
}

type fixture struct {
	dns    *testserver.DNS
	web    *web
	listen []string // hosts:ports that answer
}

func (x *fixture) finder(t *testing.T) Finder {
	t.Helper()
	if x.dns == nil {
		x.dns = &testserver.DNS{}
	}
	if x.web == nil {
		x.web = &web{}
	}
	if err := x.dns.Start(); err != nil {
		t.Fatal(err)
	}
	dns := x.dns
	t.Cleanup(func() { dns.Close() })
	return Finder{
		DNS: NameServer(x.dns.Addr()), HTTP: &http.Client{Transport: x.web},
		Probe: func(_ context.Context, s place.Server) error {
			if slices.Contains(x.listen, fmt.Sprintf("%s:%d", s.Host, s.Port)) {
				return nil
			}
			return errors.New("nobody there")
		},
	}
}

const config = `<?xml version="1.0"?><clientConfig version="1.1"><emailProvider id="example.org"><domain>example.org</domain>
<incomingServer type="imap"><hostname>clear.example.org</hostname><port>143</port><socketType>plain</socketType><username>%EMAILADDRESS%</username></incomingServer>
<incomingServer type="imap"><hostname>mail.%EMAILDOMAIN%</hostname><port>993</port><socketType>SSL</socketType><username>%EMAILLOCALPART%</username><authentication>password-cleartext</authentication></incomingServer>
<incomingServer type="pop3"><hostname>mail.example.org</hostname><port>110</port><socketType>STARTTLS</socketType><username>%EMAILLOCALPART%</username></incomingServer>
<outgoingServer type="smtp"><hostname>smtp.example.org</hostname><port>465</port><socketType>SSL</socketType></outgoingServer>
</emailProvider></clientConfig>`

func TestFind(t *testing.T) {
	srv := func(service string, port uint16, targets ...string) map[string][]testserver.SRV {
		var records []testserver.SRV
		for i, target := range targets {
			records = append(records, testserver.SRV{Priority: uint16(10 * (len(targets) - i)), Port: port, Target: target})
		}
		return map[string][]testserver.SRV{"_" + service + "._tcp.example.org": records}
	}
	for name, tt := range map[string]struct {
		x          fixture
		address    string
		by         string
		imap, pop3 string
		foreign    bool
		noWeb      bool
	}{
		"SRV": {
			x: fixture{dns: &testserver.DNS{SRV: map[string][]testserver.SRV{
				"_imaps._tcp.example.org": {{Priority: 20, Port: 993, Target: "old.example.org"}, {Priority: 10, Port: 1993, Target: "Mail.Example.org"}},
				"_imap._tcp.example.org":  {{Port: 143, Target: "clear.example.org"}},
				"_pop3s._tcp.example.org": {{Port: 0, Target: "."}},
				"_pop3._tcp.example.org":  {{Port: 110, Target: "mail.example.org"}},
			}}},
			by: "SRV records", imap: "imaps://ada@example.org@mail.example.org:1993", pop3: "pop3://ada@example.org@mail.example.org", noWeb: true,
		},
		"SRV of another domain": {
			x:  fixture{dns: &testserver.DNS{SRV: srv("imaps", 993, "mail.evil.example")}},
			by: "SRV records", imap: "imaps://ada@example.org@mail.evil.example", foreign: true, noWeb: true,
		},
		"SRV of a domain that only looks like ours": {
			x:  fixture{dns: &testserver.DNS{SRV: srv("imaps", 993, "mail.notexample.org")}},
			by: "SRV records", imap: "imaps://ada@example.org@mail.notexample.org", foreign: true, noWeb: true,
		},
		"SRV of a known provider": {
			x:  fixture{dns: &testserver.DNS{SRV: srv("imaps", 993, "imap.fastmail.com")}},
			by: "SRV records", imap: "imaps://ada@example.org@imap.fastmail.com", noWeb: true,
		},
		"autoconfig of the domain": {
			x:  fixture{web: &web{files: map[string]string{"https://autoconfig.example.org/mail/config-v1.1.xml?emailaddress=ada%40example.org": config}}},
			by: "autoconfiguration of autoconfig.example.org", imap: "imaps://ada@mail.example.org", pop3: "pop3://ada@mail.example.org",
		},
		"autoconfig well-known": {
			x:  fixture{web: &web{files: map[string]string{"https://example.org/.well-known/autoconfig/mail/config-v1.1.xml": config}}},
			by: "autoconfiguration of example.org", imap: "imaps://ada@mail.example.org", pop3: "pop3://ada@mail.example.org",
		},
		"central database": {
			x:  fixture{web: &web{files: map[string]string{"https://autoconfig.thunderbird.net/v1.1/example.org": config}}},
			by: "central autoconfiguration database", imap: "imaps://ada@mail.example.org", pop3: "pop3://ada@mail.example.org",
		},
		"MX of a provider": {
			x:  fixture{dns: &testserver.DNS{MX: map[string][]string{"example.org": {"aspmx.l.google.com"}}}},
			by: "Gmail", imap: "imaps://ada@example.org@imap.gmail.com", pop3: "pop3s://ada@example.org@pop.gmail.com",
		},
		"known":             {x: fixture{}, address: "ada@gmail.com", by: "known of Gmail", imap: "imaps://ada@gmail.com@imap.gmail.com", pop3: "pop3s://ada@gmail.com@pop.gmail.com", noWeb: true},
		"known, local part": {x: fixture{}, address: "ada@me.com", by: "known of iCloud", imap: "imaps://ada@imap.mail.me.com", noWeb: true},
		"guess": {
			x:  fixture{listen: []string{"mail.example.org:993", "mail.example.org:143", "pop.example.org:110", "mail.example.org:995"}},
			by: "trying the usual names", imap: "imaps://ada@example.org@mail.example.org", pop3: "pop3s://ada@example.org@mail.example.org",
		},
		"a broken file is passed over": {
			x:  fixture{web: &web{files: map[string]string{"https://example.org/.well-known/autoconfig/mail/config-v1.1.xml": "<html>", "https://autoconfig.thunderbird.net/v1.1/example.org": config}}},
			by: "central", imap: "imaps://ada@mail.example.org", pop3: "pop3://ada@mail.example.org",
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := tt.address
			if address == "" {
				address = "ada@example.org"
			}
			found, err := tt.x.finder(t).Find(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			text := func(s *place.Server) string {
				if s == nil {
					return ""
				}
				return s.String()
			}
			if !strings.Contains(found.By, tt.by) || text(found.IMAP) != tt.imap || text(found.POP3) != tt.pop3 || found.Foreign != tt.foreign {
				t.Errorf("by %s: %s, %s, foreign %v", found.By, text(found.IMAP), text(found.POP3), found.Foreign)
			}
			if tt.noWeb && len(tt.x.web.asked) > 0 {
				t.Errorf("asked %q in vain", tt.x.web.asked)
			}
		})
	}
}

func TestNotFound(t *testing.T) {
	x := fixture{}
	if _, err := x.finder(t).Find(t.Context(), "ada@example.org"); mail.KindOf(err) != mail.KindUsage || !strings.Contains(mail.HintOf(err), "--server imaps://mail.example.org") {
		t.Error(err)
	}
	x = fixture{dns: &testserver.DNS{Fail: true}}
	if _, err := x.finder(t).Find(t.Context(), "ada@example.org"); mail.KindOf(err) != mail.KindTemporary {
		t.Error(err)
	}
	for _, bad := range []string{"", "ada", "@example.org", "ada@", "ada@exa mple.org", "ada@ex/ample.org", "ada@müller.example", "a\r\nb@c", "ada@example.org:993"} {
		if _, err := (Finder{}).Find(t.Context(), bad); mail.KindOf(err) != mail.KindUsage || mail.HintOf(err) == "" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOnlyHTTPS(t *testing.T) {
	w := &web{files: map[string]string{"http://example.org/config": config}}
	f := Finder{HTTP: &http.Client{Transport: w}, Autoconfig: []string{"http://DOMAIN/config"}}
	if found, err := f.autoconfig(t.Context(), "ada@example.org", "ada", "example.org"); found != nil || err != nil || len(w.asked) != 0 {
		t.Errorf("%v, %v, %q", found, err, w.asked)
	}
}

func FuzzAutoconfig(f *testing.F) {
	f.Add([]byte(config))
	f.Add([]byte(`<clientConfig><emailProvider><incomingServer type="imap"><hostname>@</hostname><port>-1</port><socketType>SSL</socketType></incomingServer></emailProvider></clientConfig>`))
	f.Add([]byte(`<clientConfig><emailProvider><incomingServer type="IMAP"><hostname>a:b@c/d</hostname><port>99999</port><socketType>ssl</socketType><username>x
y</username></incomingServer></emailProvider></clientConfig>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		found := parseAutoconfig(b, "ada@example.org", "ada", "example.org")
		if found == nil {
			return
		}
		for _, s := range []*place.Server{found.IMAP, found.POP3} {
			if s == nil {
				continue
			}
			s.User = "ada"
			if again, err := place.ParseServer(s.String()); err != nil || again != *s {
				t.Fatalf("%+v, %v", s, err)
			}
		}
	})
}

// A company's own authority vouches for its autoconfiguration, too.
func TestHTTPClientTrustsTheFile(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, trusted := range map[string]bool{ca: true, "": false} {
		c, err := HTTPClient(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Get(srv.URL)
		if (err == nil) != trusted {
			t.Errorf("%q: %v", file, err)
		}
		if err == nil {
			r.Body.Close()
		}
	}
	if _, err := HTTPClient(filepath.Join(t.TempDir(), "none")); mail.KindOf(err) != mail.KindUsage {
		t.Error(err)
	}
}
