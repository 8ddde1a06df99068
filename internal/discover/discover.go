// Package discover finds the mail servers of an address: by SRV records (RFC 6186 and
// RFC 8314), by the autoconfiguration files of Thunderbird at the domain and in the
// central database, among known providers, and by guessing.
package discover

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"mailhaul/internal/dial"
	"mailhaul/internal/place"
	"mailhaul/internal/providers"
	"mailhaul/mail"
)

// Resolver is what is asked of the domain name system; net.Resolver is one.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupMX(ctx context.Context, name string) ([]*net.MX, error)
}

// Finder asks. Every field must be set, but Autoconfig.
type Finder struct {
	DNS  Resolver
	HTTP *http.Client
	// Autoconfig are the addresses of autoconfiguration files; DOMAIN and ADDRESS in
	// them are replaced. nil stands for those of Thunderbird.
	Autoconfig []string
	// Probe tells whether a server answers, and is to be trusted.
	Probe func(ctx context.Context, s place.Server) error
}

// Thunderbird's places (Mozilla's autoconfiguration documentation).
var thunderbird = []string{
	"https://autoconfig.DOMAIN/mail/config-v1.1.xml?emailaddress=ADDRESS",
	"https://DOMAIN/.well-known/autoconfig/mail/config-v1.1.xml",
	central + "DOMAIN",
}

const (
	central = "https://autoconfig.thunderbird.net/v1.1/"
	// step is how long one way of finding may take.
	step = 15 * time.Second
)

// Found is what is known of an address.
type Found struct {
	By         string // how it was found, for a person
	IMAP, POP3 *place.Server
	// Users are names to log in by, the likeliest first.
	Users    []string
	Provider *providers.Provider // nil if none is known
	// Foreign says that the domain name system alone names servers outside of the
	// address's domain (RFC 6186 section 6): a person has to agree before a password
	// goes there.
	Foreign bool
}

func (f *Found) any() bool { return f.IMAP != nil || f.POP3 != nil }

// SplitAddress returns the two parts of an address, the domain in lower case.
func SplitAddress(address string) (local, domain string, err error) {
	i := strings.LastIndexByte(address, '@')
	if i < 1 || i == len(address)-1 || len(address) > 320 || strings.ContainsAny(address, " \t\r\n\x00<>\"") {
		return "", "", &mail.Error{Kind: mail.KindUsage, Err: errors.New("this is no mail address"), Hint: "write it like ada@example.org"}
	}
	local, domain = address[:i], strings.ToLower(strings.TrimSuffix(address[i+1:], "."))
	for _, r := range domain {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
		case r >= 0x80:
			return "", "", &mail.Error{Kind: mail.KindUsage, Err: errors.New("the domain is not ASCII"), Hint: "write it in its ASCII form, which begins with xn--"}
		default:
			return "", "", &mail.Error{Kind: mail.KindUsage, Err: errors.New("this is no mail address"), Hint: "write it like ada@example.org"}
		}
	}
	return local, domain, nil
}

// Find looks in every place in turn and returns the first answer. That nothing was
// found is no error of the network: it is mail.KindUsage.
func (f Finder) Find(ctx context.Context, address string) (*Found, error) {
	local, domain, err := SplitAddress(address)
	if err != nil {
		return nil, err
	}
	ways := []func(context.Context, string, string, string) (*Found, error){f.known, f.srv, f.autoconfig, f.mx, f.guess}
	var last error
	for _, way := range ways {
		limited, cancel := context.WithTimeout(ctx, step)
		found, err := way(limited, address, local, domain)
		cancel()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if found != nil {
			f.finish(found, address, local)
			return found, nil
		}
		last = errors.Join(last, err)
	}
	e := &mail.Error{Kind: mail.KindUsage, Err: fmt.Errorf("no mail server was found for %s", domain), Hint: "check the address, or name the server: --server imaps://mail." + domain}
	if last != nil {
		e.Kind, e.Err = mail.KindTemporary, fmt.Errorf("no mail server was found for %s: %w", domain, last)
	}
	return nil, e
}

// finish fills in what follows from the servers.
func (f Finder) finish(found *Found, address, local string) {
	for _, s := range []*place.Server{found.IMAP, found.POP3} {
		if s != nil && found.Provider == nil {
			found.Provider = providers.ForHost(s.Host)
		}
	}
	if found.Provider != nil && found.any() {
		found.Foreign = false
	}
	if len(found.Users) == 0 {
		found.Users = []string{address, local}
		if found.Provider != nil {
			found.Users = []string{address}
			if found.Provider.LocalUser {
				found.Users = []string{local, address}
			}
		}
	}
	for _, s := range []*place.Server{found.IMAP, found.POP3} {
		if s != nil {
			s.User = found.Users[0]
		}
	}
}

// server reads scheme://host:port.
func server(text string) *place.Server {
	if text == "" {
		return nil
	}
	s, err := place.ParseServer(strings.Replace(text, "://", "://x@", 1))
	if err != nil {
		return nil
	}
	return &s
}

func (f Finder) known(_ context.Context, _, _, domain string) (*Found, error) {
	p := providers.ForDomain(domain)
	if p == nil {
		return nil, nil
	}
	return &Found{By: "what is known of " + p.Name, IMAP: server(p.IMAP), POP3: server(p.POP3), Provider: p}, nil
}

// srv is RFC 6186, implicit TLS first (RFC 8314 section 5.1).
func (f Finder) srv(ctx context.Context, _, _, domain string) (*Found, error) {
	found := &Found{By: "the SRV records of " + domain}
	var wg sync.WaitGroup
	services := []struct{ name, scheme string }{{"imaps", "imaps"}, {"imap", "imap"}, {"pop3s", "pop3s"}, {"pop3", "pop3"}}
	servers := make([]*place.Server, len(services))
	errs := make([]error, len(services))
	for i, s := range services {
		wg.Go(func() { servers[i], errs[i] = f.service(ctx, s.name, s.scheme, domain) })
	}
	wg.Wait()
	found.IMAP, found.POP3 = first(servers[:2]), first(servers[2:])
	if !found.any() {
		return nil, errors.Join(errs...)
	}
	for _, s := range []*place.Server{found.IMAP, found.POP3} {
		if s != nil && s.Host != domain && !strings.HasSuffix(s.Host, "."+domain) {
			found.Foreign = true
		}
	}
	return found, nil
}

func (f Finder) service(ctx context.Context, name, scheme, domain string) (*place.Server, error) {
	_, records, err := f.DNS.LookupSRV(ctx, name, "tcp", domain)
	for _, r := range records { // by priority
		host := strings.TrimSuffix(strings.ToLower(r.Target), ".")
		if host == "" { // "." says that there is no such service
			return nil, nil
		}
		if s := server(fmt.Sprintf("%s://%s:%d", scheme, host, r.Port)); s != nil {
			return s, nil
		}
	}
	return nil, unlessMissing(err)
}

func first(servers []*place.Server) *place.Server {
	for _, s := range servers {
		if s != nil {
			return s
		}
	}
	return nil
}

// unlessMissing drops the error that says that there is nothing.
func unlessMissing(err error) error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return nil
	}
	return err
}

// mx looks who takes the domain's mail: a known provider has its mailboxes, too.
func (f Finder) mx(ctx context.Context, _, _, domain string) (*Found, error) {
	records, err := f.DNS.LookupMX(ctx, domain)
	for _, r := range records {
		if p := providers.ForMX(r.Host); p != nil {
			return &Found{By: "the MX record of " + domain + ", which is " + p.Name + "'s", IMAP: server(p.IMAP), POP3: server(p.POP3), Provider: p}, nil
		}
	}
	return nil, unlessMissing(err)
}

// guess tries the usual names. Only a server whose certificate holds counts.
func (f Finder) guess(ctx context.Context, _, _, domain string) (*Found, error) {
	found := &Found{By: "trying the usual names at " + domain}
	var wg sync.WaitGroup
	for to, names := range map[**place.Server][]string{
		&found.IMAP: {"imaps://imap.", "imaps://mail.", "imaps://", "imap://imap.", "imap://mail."},
		&found.POP3: {"pop3s://pop.", "pop3s://pop3.", "pop3s://mail.", "pop3s://", "pop3://pop.", "pop3://mail."},
	} {
		wg.Go(func() {
			answers := make([]*place.Server, len(names))
			var each sync.WaitGroup
			for i, prefix := range names {
				each.Go(func() {
					s := server(prefix + domain)
					if s != nil && f.Probe(ctx, *s) == nil {
						answers[i] = s
					}
				})
			}
			each.Wait()
			*to = first(answers)
		})
	}
	wg.Wait()
	if !found.any() {
		return nil, nil
	}
	return found, nil
}

// addresses are where autoconfiguration files of a domain may be.
func (f Finder) addresses(address, domain string) []string {
	patterns := f.Autoconfig
	if patterns == nil {
		patterns = thunderbird
	}
	return slices.Collect(func(yield func(string) bool) {
		for _, p := range patterns {
			p = strings.ReplaceAll(p, "ADDRESS", url.QueryEscape(address))
			if !yield(strings.ReplaceAll(p, "DOMAIN", domain)) {
				return
			}
		}
	})
}

// autoconfig asks everywhere at once, and takes the answer of the first in order.
func (f Finder) autoconfig(ctx context.Context, address, local, domain string) (*Found, error) {
	addresses := f.addresses(address, domain)
	found := make([]*Found, len(addresses))
	var wg sync.WaitGroup
	for i, a := range addresses {
		wg.Go(func() {
			b, err := f.get(ctx, a)
			if err != nil {
				return // there is none: domains without are the rule
			}
			if found[i] = parseAutoconfig(b, address, local, domain); found[i] != nil {
				found[i].By = "the autoconfiguration of " + host(a)
				if strings.HasPrefix(a, central) {
					found[i].By = "the central autoconfiguration database"
				}
			}
		})
	}
	wg.Wait()
	for _, one := range found {
		if one != nil {
			return one, nil
		}
	}
	return nil, nil
}

func host(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	return u.Host
}

// Reach is the Probe of a real network: it connects with TLS. For STARTTLS it only
// looks whether somebody listens; the login insists on it.
func Reach(ctx context.Context, s dial.Server) error {
	if s.Security != dial.TLS {
		s.Security = dial.Cleartext
		s.AllowCleartext = true
	}
	c, err := dial.Dial(ctx, s)
	if err != nil {
		return err
	}
	return c.Close()
}

// HTTPClient fetches autoconfiguration files; a redirect leads to https only. It
// trusts the authorities in the PEM file caFile, too; "" is none.
func HTTPClient(caFile string) (*http.Client, error) {
	roots, err := dial.Roots(caFile)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Timeout: step,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			TLSHandshakeTimeout: step, DisableKeepAlives: true,
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 4 || r.URL.Scheme != "https" {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}, nil
}

// NameServer returns a resolver that asks one server, HOST:PORT, and no other.
func NameServer(addr string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}}
}
