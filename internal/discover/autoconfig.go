package discover

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"mailhaul/internal/place"
)

// maxFile is the longest autoconfiguration file that is read, in octets.
const maxFile = 256 << 10

// get fetches a file, over https or from this machine only.
func (f Finder) get(ctx context.Context, address string) ([]byte, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme != "https" && !(u.Scheme == "http" && ip != nil && ip.IsLoopback()) {
		return nil, errors.New("not over https")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	r, err := f.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, errors.New(r.Status)
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = errors.New("the file is too long")
	}
	return b, err
}

// clientConfig is version 1.1 of Mozilla's format, as far as it is used.
type clientConfig struct {
	XMLName  xml.Name `xml:"clientConfig"`
	Provider []struct {
		Incoming []struct {
			Type           string   `xml:"type,attr"`
			Host           string   `xml:"hostname"`
			Port           int      `xml:"port"`
			Socket         string   `xml:"socketType"`
			User           string   `xml:"username"`
			Authentication []string `xml:"authentication"`
		} `xml:"incomingServer"`
	} `xml:"emailProvider"`
}

// parseAutoconfig takes the first server of each protocol that has TLS; nil if there
// is none.
func parseAutoconfig(b []byte, address, local, domain string) *Found {
	var c clientConfig
	if xml.Unmarshal(b, &c) != nil {
		return nil
	}
	replace := strings.NewReplacer("%EMAILADDRESS%", address, "%EMAILLOCALPART%", local, "%EMAILDOMAIN%", domain)
	found := &Found{}
	for _, p := range c.Provider {
		for _, in := range p.Incoming {
			scheme := schemeOf(in.Type, in.Socket)
			to := &found.IMAP
			if strings.HasPrefix(scheme, "pop3") {
				to = &found.POP3
			}
			if scheme == "" || *to != nil {
				continue
			}
			s := server(fmt.Sprintf("%s://%s:%d", scheme, replace.Replace(strings.TrimSpace(in.Host)), in.Port))
			if s == nil {
				continue
			}
			*to = s
			user := replace.Replace(strings.TrimSpace(in.User))
			if _, err := place.WithUser("imaps://h", user); err == nil && user != "" && found.Users == nil {
				found.Users = []string{user}
				if user != address {
					found.Users = append(found.Users, address)
				}
			}
		}
	}
	if !found.any() {
		return nil
	}
	return found
}

// schemeOf is "" for what has no TLS, and for other protocols.
func schemeOf(kind, socket string) string {
	switch kind = strings.ToLower(kind); {
	case kind != "imap" && kind != "pop3":
		return ""
	case strings.EqualFold(socket, "SSL"):
		return kind + "s"
	case strings.EqualFold(socket, "STARTTLS"):
		return kind
	}
	return ""
}
