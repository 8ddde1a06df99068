// Package providers knows some large providers of mail: where their servers are, and
// how they want to be treated. It is data, from their documentation and from reports,
// dated in the field "read".
package providers

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// Provider is what is known of one.
type Provider struct {
	Name    string   `json:"name"`
	Domains []string `json:"domains"` // of addresses
	MX      []string `json:"mx"`      // suffixes of the hosts that take mail for domains of customers
	Hosts   []string `json:"hosts"`   // suffixes of its IMAP and POP3 servers

	IMAP string `json:"imap"` // scheme://host:port; "" for none
	POP3 string `json:"pop3"`

	OAuth       string `json:"oauth"`        // provider of internal/oauth; "" for none
	OAuthOnly   bool   `json:"oauth_only"`   // takes no passwords
	AppPassword string `json:"app_password"` // where a person makes one; "" if the usual password will do
	LocalUser   bool   `json:"local_user"`   // the user is the address without its domain

	Connections int   `json:"connections"` // at a time, with room to spare; 0 if not known
	DownIMAP    int64 `json:"down_imap"`   // octets a day; 0 for no known limit
	DownPOP3    int64 `json:"down_pop3"`
	UpIMAP      int64 `json:"up_imap"`
	Append      int64 `json:"append"` // octets of the largest message taken

	Notes []string `json:"notes"` // for a person who sets up an account
	Read  string   `json:"read"`  // when, YYYY-MM
}

//go:embed providers.json
var data []byte

var all = load(data)

func load(data []byte) []Provider {
	var p []Provider
	if err := json.Unmarshal(data, &p); err != nil {
		panic(fmt.Sprintf("providers.json: %v", err)) // a test holds that it never is
	}
	return p
}

// ForDomain returns the provider of addresses in a domain; nil if none is known.
func ForDomain(domain string) *Provider {
	return find(func(p *Provider) bool {
		for _, d := range p.Domains {
			if strings.EqualFold(d, domain) {
				return true
			}
		}
		return false
	})
}

// ForMX returns the provider whose host takes mail for somebody's domain; nil if none
// is known.
func ForMX(host string) *Provider {
	return find(func(p *Provider) bool { return below(host, p.MX) })
}

// ForHost returns the provider of a mail server; nil if none is known.
func ForHost(host string) *Provider {
	return find(func(p *Provider) bool { return below(host, p.Hosts) })
}

func find(ok func(*Provider) bool) *Provider {
	for i := range all {
		if ok(&all[i]) {
			return &all[i]
		}
	}
	return nil
}

// below tells whether a host is one of the domains or in one of them.
func below(host string, domains []string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, d := range domains {
		if host == d || strings.HasSuffix(host, "."+d) {
			return true
		}
	}
	return false
}
