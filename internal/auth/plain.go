package auth

import "github.com/emersion/go-sasl"

// plain is RFC 4616.
func plain(c Credentials, o Offer) (Login, bool) {
	if c.Password == "" || !o.has(sasl.Plain) {
		return Login{}, false
	}
	authz, user := c.identities()
	return Login{Name: sasl.Plain, Client: sasl.NewPlainClient(authz, user, c.Password.Reveal())}, true
}
