package providers

import (
	"bytes"
	"encoding/json"
	"net/url"
	"testing"
)

func TestData(t *testing.T) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var list []Provider
	if err := d.Decode(&list); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, p := range list {
		if p.Name == "" || p.Read == "" || len(p.Domains) == 0 || p.IMAP == "" && p.POP3 == "" && len(p.Notes) == 0 {
			t.Errorf("%s: something is missing", p.Name)
		}
		for _, domain := range p.Domains {
			if seen[domain] != "" {
				t.Errorf("%s is at %s and at %s", domain, seen[domain], p.Name)
			}
			seen[domain] = p.Name
		}
		for _, place := range []string{p.IMAP, p.POP3} {
			if place == "" {
				continue
			}
			u, err := url.Parse(place)
			if err != nil || u.Port() == "" || u.Scheme != "imaps" && u.Scheme != "pop3s" {
				t.Errorf("%s: %q", p.Name, place)
				continue
			}
			if got := ForHost(u.Hostname()); got == nil || got.Name != p.Name {
				t.Errorf("%s: its server %s is not recognised", p.Name, u.Hostname())
			}
		}
	}
}

func TestFind(t *testing.T) {
	for got, want := range map[*Provider]string{
		ForDomain("GMail.com"): "Gmail", ForMX("aspmx.l.google.com."): "Gmail", ForHost("imap.gmail.com"): "Gmail",
		ForMX("example-org.mail.protection.outlook.com"): "Microsoft 365", ForHost("outlook.office365.com"): "Microsoft 365",
	} {
		if got == nil || got.Name != want {
			t.Errorf("%v, want %s", got, want)
		}
	}
	if ForDomain("example.org") != nil || ForMX("notgoogle.com") != nil || ForHost("imap.example.org") != nil {
		t.Error("finds what it does not know")
	}
}
