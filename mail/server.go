package mail

import "time"

// ServerFacts is what a server says of itself, for a person to read.
type ServerFacts struct {
	Address      string // host and port
	Secure       bool
	TLS          string // version and cipher suite, "" without TLS
	Certificates []Certificate
	Greeting     string
	Capabilities []string // after login, sorted
	Offered      []string // login methods, sorted
	Login        string   // the method that was used
	RoundTrip    time.Duration
	Delimiter    string // between levels of mailboxes, "" for none
	Prefix       string // of the personal namespace
	AppendLimit  int64  // most octets of a message, 0 where the server does not say
	LoginDelay   time.Duration
	Expire       bool // reading a message may delete it
	DeletesOne   bool // single messages can be deleted
	Moves        bool // messages can be moved in one step
	Appends      bool // messages can be added
	Alert        string
}

// Certificate is one of the certificates a server shows.
type Certificate struct {
	Subject, Issuer string
	Names           []string // it is good for
	From, Until     time.Time
	SHA256          string // of the DER form
}

// Has tells whether the server has a capability, written in upper case.
func (f ServerFacts) Has(capability string) bool {
	for _, c := range f.Capabilities {
		if c == capability {
			return true
		}
	}
	return false
}
