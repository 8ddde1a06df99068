package dial

import (
	"crypto/tls"

	"mailhaul/mail"
)

// Facts tells what is known of the connection's security and of the certificates.
func (c *Conn) Facts() mail.ServerFacts {
	f := mail.ServerFacts{Address: c.srv.Addr(), Secure: c.Secure()}
	if st, ok := c.ConnectionState(); ok {
		f.TLS = tls.VersionName(st.Version) + ", " + tls.CipherSuiteName(st.CipherSuite)
	}
	for _, cert := range c.PeerCertificates() {
		names := append([]string{}, cert.DNSNames...)
		for _, ip := range cert.IPAddresses {
			names = append(names, ip.String())
		}
		f.Certificates = append(f.Certificates, mail.Certificate{
			Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Names: names,
			From: cert.NotBefore.UTC(), Until: cert.NotAfter.UTC(), SHA256: Fingerprint(cert),
		})
	}
	return f
}
