package auth

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// maxIterations is what a server may make us compute for one login: some seconds.
const maxIterations = 5_000_000

// scramSchemes are RFC 5802 and RFC 7677. With channel binding (-PLUS) the login
// counts for this TLS connection only: nobody in between can pass it on.
var scramSchemes = []Scheme{
	scramScheme("SCRAM-SHA-256-PLUS", scram.SHA256, true),
	scramScheme("SCRAM-SHA-1-PLUS", scram.SHA1, true),
	scramScheme("SCRAM-SHA-256", scram.SHA256, false),
	scramScheme("SCRAM-SHA-1", scram.SHA1, false),
}

func scramScheme(name string, hash scram.HashGeneratorFcn, plus bool) Scheme {
	return Scheme{Name: name, Try: func(c Credentials, o Offer) (Login, bool) {
		if c.Password == "" || !o.has(name) {
			return Login{}, false
		}
		binding, canBind := channelBinding(o.TLS)
		if plus && !canBind {
			return Login{}, false
		}
		authz, user := c.identities()
		client, err := hash.NewClient(user, c.Password.Reveal(), authz)
		if err != nil { // characters that no SCRAM name or password can hold (RFC 4013)
			return Login{}, false
		}
		s := &scramClient{mech: name}
		switch {
		case plus:
			s.conv = client.NewConversationWithChannelBinding(binding)
		case canBind && !o.has(name+"-PLUS"):
			// "We could": a server that could, too, knows that its offer was cut
			// on the way (RFC 5802 section 6).
			s.conv = client.NewConversationAdvertisingChannelBinding()
		default:
			s.conv = client.NewConversation()
		}
		return Login{Name: name, Client: s, Hint: c.hint() + "; if they are right, try --auth plain: some servers offer SCRAM for passwords they keep in another form"}, true
	}}
}

// channelBinding finds what identifies a TLS connection: RFC 9266 for TLS 1.3,
// tls-unique (RFC 5929) before.
func channelBinding(st *tls.ConnectionState) (scram.ChannelBinding, bool) {
	switch {
	case st == nil:
		return scram.ChannelBinding{}, false
	case st.Version >= tls.VersionTLS13:
		b, err := scram.NewTLSExporterBinding(st)
		return b, err == nil
	}
	return scram.NewTLSUniqueBinding(st.TLSUnique), len(st.TLSUnique) > 0
}

// scramClient holds the conversation, which the library computes.
type scramClient struct {
	mech string
	conv *scram.ClientConversation
}

func (s *scramClient) Start() (string, []byte, error) {
	first, err := s.conv.Step("")
	return s.mech, []byte(first), err
}

func (s *scramClient) Next(challenge []byte) ([]byte, error) {
	if s.conv.Done() {
		return nil, errors.New("server goes on after the end of " + s.mech)
	}
	if err := checkIterations(string(challenge)); err != nil {
		return nil, err
	}
	answer, err := s.conv.Step(string(challenge))
	if err != nil {
		// The cause may quote the challenge, which is the server's to choose.
		return nil, fmt.Errorf("%s: %w", s.mech, err)
	}
	return []byte(answer), nil
}

// Proven tells whether the server has shown that it knows the password.
func (s *scramClient) Proven() bool { return s.conv.Valid() }

// checkIterations refuses what would keep us busy for ever.
func checkIterations(challenge string) error {
	for attr := range strings.SplitSeq(challenge, ",") {
		v, ok := strings.CutPrefix(attr, "i=")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(v, 10, 64); err == nil && n > maxIterations {
			return fmt.Errorf("server wants %d iterations of the hash, more than %d", n, maxIterations)
		}
	}
	return nil
}
