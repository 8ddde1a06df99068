// Package dial makes the connections: TCP, TLS, deadlines, octet counters,
// traces with secrets removed. Protocol drivers put their library on top of a
// Conn and move octets over the same Conn.
package dial

import (
	"time"

	"golang.org/x/time/rate"
)

// Security says how a connection is protected.
type Security int

const (
	TLS       Security = iota // TLS from the first octet (RFC 8314)
	StartTLS                  // STLS or STARTTLS, mandatory before any login
	Cleartext                 // none, said out loud by "+insecure"
)

// Server says where a server is and how it is to be trusted.
type Server struct {
	Protocol       string // "imap" or "pop3"
	Host           string
	Port           int
	Security       Security
	CAFile         string        // PEM file of further roots; "" for the system's only
	Fingerprint    string        // SHA-256 of the leaf in DER, hexadecimal with or without colons; replaces chain and name checks
	AllowCleartext bool          // Cleartext to a host that is not loopback
	Timeout        time.Duration // longest silence while an answer is owed; 0 means 60 s
	Limit          *rate.Limiter // octets per second, both ways together; nil for none
	Trace          *Trace        // nil for none
}
