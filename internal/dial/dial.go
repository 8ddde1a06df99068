// Package dial makes the connections: TCP, TLS, deadlines, octet counters,
// traces with secrets removed. Protocol drivers put their library on top of a
// Conn and move octets over the same Conn.
package dial

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"mailhaul/mail"
)

// Security says how a connection is protected.
type Security int

const (
	TLS       Security = iota // TLS from the first octet (RFC 8314)
	StartTLS                  // STLS or STARTTLS, mandatory before any login
	Cleartext                 // none, said out loud by "+insecure"
)

// DefaultTimeout is the longest silence where Server.Timeout says nothing.
const DefaultTimeout = 60 * time.Second

// Server says where a server is and how it is to be trusted.
type Server struct {
	Protocol       string // "imap" or "pop3"
	Host           string
	Port           int // 0 means DefaultPort
	Security       Security
	CAFile         string        // PEM file of further roots; "" for the system's only
	Fingerprint    string        // SHA-256 of the leaf in DER, hexadecimal with or without colons; replaces chain and name checks
	ClientCert     string        // PEM file of a certificate to present, its chain behind it; "" for none
	ClientKey      string        // PEM file of its key; "" if that is in ClientCert, too
	AllowCleartext bool          // Cleartext to a host that is not loopback
	Timeout        time.Duration // longest silence while an answer is owed; 0 means DefaultTimeout
	Limit          *rate.Limiter // octets per second, both ways together; nil for none
	Count          func(int)     // told how many octets were read, by any goroutine; nil for nobody
	Trace          *Trace        // nil for none
}

// DefaultPort returns the registered port of the protocol and security.
func (s Server) DefaultPort() int {
	switch {
	case s.Protocol == "pop3" && s.Security == TLS:
		return 995
	case s.Protocol == "pop3":
		return 110
	case s.Security == TLS:
		return 993
	default:
		return 143
	}
}

// Addr returns host and port as net.Dial takes them, IPv6 literals in brackets.
func (s Server) Addr() string {
	port := s.Port
	if port == 0 {
		port = s.DefaultPort()
	}
	return net.JoinHostPort(s.bareHost(), strconv.Itoa(port))
}

// bareHost is the host without the brackets of an IPv6 literal.
func (s Server) bareHost() string {
	if strings.HasPrefix(s.Host, "[") && strings.HasSuffix(s.Host, "]") {
		return s.Host[1 : len(s.Host)-1]
	}
	return s.Host
}

func (s Server) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return DefaultTimeout
}

// Dial connects to the server, and with Security TLS completes and verifies the
// handshake. ctx bounds the connecting only; see Conn.Bind for what follows.
// Errors are *mail.Error: KindTemporary where the server could not be reached,
// KindAuth where it cannot be trusted, KindUsage where the settings are wrong.
// The caller closes the Conn.
func Dial(ctx context.Context, s Server) (*Conn, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.needsSystemRoots() {
		go func() { _, _ = x509.SystemCertPool() }() // read once; meanwhile the network is waited for
	}
	d := net.Dialer{Timeout: s.timeout()}
	nc, err := d.DialContext(ctx, "tcp", s.Addr())
	if err != nil {
		return nil, s.connectError(ctx, err)
	}
	if s.Security == Cleartext && !s.AllowCleartext && !isLoopback(nc.RemoteAddr()) {
		nc.Close()
		return nil, s.cleartextError()
	}
	c := NewConn(nc, s)
	if s.Security == TLS {
		if err := c.handshake(ctx); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// check refuses settings that cannot or must not be connected with.
func (s Server) check() error {
	if s.bareHost() == "" {
		return &mail.Error{Kind: mail.KindUsage, Op: "connect", Err: errors.New("no host name")}
	}
	if s.Port < 0 || s.Port > 65535 {
		return &mail.Error{Kind: mail.KindUsage, Op: "connect to " + s.bareHost(), Err: fmt.Errorf("port %d does not exist", s.Port)}
	}
	if s.Fingerprint != "" {
		if _, err := ParseFingerprint(s.Fingerprint); err != nil {
			return err
		}
	}
	if s.Security == Cleartext && !s.AllowCleartext && !loopbackName(s.bareHost()) {
		return s.cleartextError()
	}
	return nil
}

func (s Server) cleartextError() error {
	return &mail.Error{
		Kind: mail.KindUsage,
		Op:   "connect to " + s.Addr(),
		Err:  errors.New("without TLS everybody on the way can read password and mail"),
		Hint: "use a place with TLS (" + s.Protocol + "s://), or say --allow-cleartext if this network is trusted",
	}
}

// loopbackName tells whether a host can only be this machine.
func loopbackName(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	host, _, _ = strings.Cut(host, "%")
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// connectError says why there is no connection.
func (s Server) connectError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	e := &mail.Error{Kind: mail.KindTemporary, Op: "connect to " + s.Addr(), Err: err, Hint: "check the network, then run the same command again"}
	var dns *net.DNSError
	var ne net.Error
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		e.Hint = "check the host name " + strconv.Quote(s.bareHost()) + " and the name server"
	case errors.As(err, &dns):
		e.Hint = "the name server did not answer; check the network, then run the same command again"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "nothing listens on that port: check host and port, or try again later"
	case errors.As(err, &ne) && ne.Timeout():
		e.Hint = "no answer: check host, port and firewall, or try again later"
	}
	return e
}

// Fleeting tells whether an error of Dial may pass within seconds: a server that
// refused, reset or did not answer, but neither a host that does not exist nor one
// that cannot be trusted.
func Fleeting(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return mail.KindOf(err) == mail.KindTemporary && !(ok && dns.IsNotFound)
}
