package auth

import "github.com/emersion/go-sasl"

// external is the mechanism EXTERNAL (RFC 4422 appendix A): the client certificate
// of the TLS connection says who we are. The user is always named, so that the
// mailbox of another cannot be taken for this one's.
func external(c Credentials, o Offer) (Login, bool) {
	if !c.Certificate || o.TLS == nil || !o.has(sasl.External) {
		return Login{}, false
	}
	return Login{
		Name: sasl.External, Client: sasl.NewExternalClient(c.User),
		Hint: "the server does not take the client certificate for this user",
	}, true
}
