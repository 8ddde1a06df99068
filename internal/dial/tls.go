package dial

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"

	"mailhaul/mail"
)

// Untrusted is the cause of the error returned when a server's certificate is
// not accepted. Nothing but the handshake was sent to that server.
type Untrusted struct {
	Chain       []*x509.Certificate // as the server sent it, leaf first
	Fingerprint string              // of the leaf
	Err         error               // what is wrong with it
}

func (u *Untrusted) Error() string { return u.Err.Error() }
func (u *Untrusted) Unwrap() error { return u.Err }

// Fingerprint returns the SHA-256 of a certificate in DER as
// `openssl x509 -fingerprint -sha256` prints it.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return formatFingerprint(sum)
}

func formatFingerprint(sum [sha256.Size]byte) string {
	var b strings.Builder
	for i, x := range sum {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02X", x)
	}
	return b.String()
}

// ParseFingerprint reads 32 octets in hexadecimal, in either case, with or
// without colons, and with or without openssl's "sha256 Fingerprint=" or
// "sha256:" in front.
func ParseFingerprint(s string) (sum [sha256.Size]byte, err error) {
	t := strings.TrimSpace(s)
	if _, after, ok := strings.Cut(t, "="); ok {
		t = after
	}
	if len(t) > 7 && strings.EqualFold(t[:7], "sha256:") {
		t = t[7:]
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(t, ":", ""))
	if err != nil || len(raw) != len(sum) {
		return sum, &mail.Error{
			Kind: mail.KindUsage,
			Op:   "read TLS fingerprint",
			Err:  errors.New("not a SHA-256 in hexadecimal (64 digits)"),
			Hint: "openssl x509 -noout -fingerprint -sha256 -in cert.pem prints it",
		}
	}
	copy(sum[:], raw)
	return sum, nil
}

// TLSConfig is how connections to the server are secured, for protocols that this
// package does not speak. VerifyConnection may be what verifies the server: whoever
// sets it calls the one before.
func (s Server) TLSConfig() (*tls.Config, error) { return s.tlsConfig() }

// tlsConfig verifies chain and name, or the pinned fingerprint instead of both.
func (s Server) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: strings.TrimSuffix(s.bareHost(), ".")}
	if s.ClientCert != "" {
		cert, err := clientCertificate(s.ClientCert, s.ClientKey)
		if err != nil {
			return nil, err
		}
		// Presented whatever authorities the server names: there is only this one.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	if s.Fingerprint != "" {
		want, err := ParseFingerprint(s.Fingerprint)
		if err != nil {
			return nil, err
		}
		cfg.InsecureSkipVerify = true // VerifyConnection below is stricter: one certificate only
		cfg.VerifyConnection = func(st tls.ConnectionState) error { return checkPin(st, want) }
		return cfg, nil
	}
	if s.CAFile != "" {
		roots, err := rootsOf(s.CAFile)
		if err != nil {
			return nil, err
		}
		cfg.InsecureSkipVerify = true // VerifyConnection does it
		cfg.VerifyConnection = func(st tls.ConnectionState) error { return checkChain(st, cfg.ServerName, roots) }
	}
	return cfg, nil
}

// checkChain verifies chain and name as crypto/tls does, against the authorities of
// a file, and only if none of them vouches against the system's, which take longer
// to read than many a run.
func checkChain(st tls.ConnectionState, name string, roots *x509.CertPool) error {
	if len(st.PeerCertificates) == 0 {
		return &Untrusted{Err: errors.New("server sent no certificate")}
	}
	o := x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range st.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := st.PeerCertificates[0].Verify(o)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
		if system, sysErr := x509.SystemCertPool(); sysErr == nil {
			o.Roots = system
			_, err = st.PeerCertificates[0].Verify(o)
		}
	}
	if err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: st.PeerCertificates, Err: err}
	}
	return nil
}

// needsSystemRoots tells whether the server's certificate is checked against the
// system's authorities and nothing else.
func (s Server) needsSystemRoots() bool {
	return s.Security != Cleartext && s.CAFile == "" && s.Fingerprint == ""
}

func checkPin(st tls.ConnectionState, want [sha256.Size]byte) error {
	if len(st.PeerCertificates) == 0 {
		return &Untrusted{Err: errors.New("server sent no certificate")}
	}
	leaf := st.PeerCertificates[0]
	if sha256.Sum256(leaf.Raw) != want {
		return &Untrusted{
			Chain:       st.PeerCertificates,
			Fingerprint: Fingerprint(leaf),
			Err:         fmt.Errorf("certificate %s is not the pinned one %s", Fingerprint(leaf), formatFingerprint(want)),
		}
	}
	return nil
}

// clientCertificate reads a certificate and its key. A key that others can read is
// refused like a password.
func clientCertificate(certFile, keyFile string) (*tls.Certificate, error) {
	fail := func(kind mail.Kind, err error, hint string) error {
		return &mail.Error{Kind: kind, Op: "read client certificate", Err: err, Hint: hint}
	}
	if keyFile == "" {
		keyFile = certFile
	}
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fail(mail.KindUsage, err, "")
	}
	st, err := os.Stat(keyFile)
	if err != nil {
		return nil, fail(mail.KindUsage, err, "")
	}
	if runtime.GOOS != "windows" && st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 {
		return nil, fail(mail.KindAuth, fmt.Errorf("the key %q can be read by others (mode %04o)", keyFile, st.Mode().Perm()), "run chmod 600 "+keyFile)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fail(mail.KindUsage, err, "")
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		hint := "certificate and key are PEM files, or both in one"
		if bytes.Contains(key, []byte("ENCRYPTED")) {
			hint = "the key is encrypted; openssl pkey -in " + keyFile + " -out plain.pem writes one that is not (then chmod 600)"
		}
		return nil, fail(mail.KindUsage, err, hint)
	}
	return &pair, nil
}

// Roots returns the authorities of the system and those of a PEM file, for servers
// other than those of mail; nil, which is the system's alone, for no file.
func Roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	return pool, addRoots(pool, file)
}

func rootsOf(file string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if err := addRoots(pool, file); err != nil {
		return nil, err
	}
	return pool, nil
}

func addRoots(pool *x509.CertPool, file string) error {
	pem, err := os.ReadFile(file)
	if err == nil && !pool.AppendCertsFromPEM(pem) {
		err = errors.New("no certificate in it")
	}
	if err != nil {
		return &mail.Error{Kind: mail.KindUsage, Op: "read CA file " + file, Err: err, Hint: "--ca-file takes PEM certificates"}
	}
	return nil
}

// trustError turns a failed handshake into what a person can act on.
func (s Server) trustError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &mail.Error{Kind: mail.KindAuth, Op: "TLS with " + s.Addr(), Err: err}
	var pin *Untrusted
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &pin):
		e.Err = pin
		e.Hint = "if the certificate was replaced on purpose: mailhaul trust " + s.Addr() + ", or --tls-fingerprint " + pin.Fingerprint
	case errors.As(err, &verify) && len(verify.UnverifiedCertificates) > 0:
		leaf := verify.UnverifiedCertificates[0]
		u := &Untrusted{Chain: verify.UnverifiedCertificates, Fingerprint: Fingerprint(leaf), Err: errors.New(s.whatIsWrong(verify.Err, leaf))}
		e.Err = u
		e.Hint = "if this is your server: --ca-file FILE with its authority, mailhaul trust " + s.Addr() + ", or --tls-fingerprint " + u.Fingerprint
	case errors.As(err, &record):
		e.Err = fmt.Errorf("no TLS on this port: %w", err)
		e.Hint = fmt.Sprintf("the server speaks plain text there: %s://, with STARTTLS, is usually port %d", s.Protocol, Server{Protocol: s.Protocol, Security: StartTLS}.DefaultPort())
	case isAlert(err), strings.Contains(err.Error(), "unsupported protocol version"):
		e.Hint = "the server refused the handshake: TLS 1.2 or newer is required; " + s.certificateHint()
	default:
		var ne net.Error
		e.Kind = mail.KindTemporary
		e.Hint = "the connection broke before it was secure: run the same command again"
		if errors.As(err, &ne) && ne.Timeout() {
			e.Hint = "the server does not answer the TLS handshake: check that this port speaks TLS, or try again later"
		}
	}
	return e
}

// certificateHint is for a server that ended TLS, as those do that want a client
// certificate.
func (s Server) certificateHint() string {
	if s.ClientCert != "" {
		return "perhaps it does not take the client certificate"
	}
	return "perhaps it wants a client certificate (--client-cert FILE)"
}

// isAlert tells whether the server ended TLS by an alert of its own.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// Verify tells why a chain that a server showed, leaf first, is not accepted, pins
// left aside; nil if it is.
func (s Server) Verify(chain []*x509.Certificate) error {
	var roots *x509.CertPool
	if s.CAFile != "" {
		var err error
		if roots, err = rootsOf(s.CAFile); err != nil {
			return err
		}
	}
	err := checkChain(tls.ConnectionState{PeerCertificates: chain}, strings.TrimSuffix(s.bareHost(), "."), roots)
	if v, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return errors.New(s.whatIsWrong(v.Err, chain[0]))
	}
	return err
}

// whatIsWrong says in words, for the person who has to decide, why a certificate was
// not accepted.
func (s Server) whatIsWrong(err error, leaf *x509.Certificate) string {
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	const day = "2006-01-02"
	switch {
	case errors.As(err, &host):
		names := append([]string(nil), leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 {
			return fmt.Sprintf("certificate names no host at all, not %s", s.bareHost())
		}
		if len(names) > 5 {
			names = append(names[:5], "...")
		}
		return fmt.Sprintf("certificate is for another host: %s, not %s", strings.Join(names, ", "), s.bareHost())
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		cert := leaf
		if invalid.Cert != nil {
			cert = invalid.Cert
		}
		return fmt.Sprintf("certificate is not valid now (from %s to %s)", cert.NotBefore.UTC().Format(day), cert.NotAfter.UTC().Format(day))
	case errors.As(err, &unknown):
		if leaf.Issuer.String() == leaf.Subject.String() {
			return "certificate is signed by itself, no authority vouches for it"
		}
		return "certificate is signed by an unknown authority: " + leaf.Issuer.String()
	}
	return "certificate does not hold: " + err.Error()
}
