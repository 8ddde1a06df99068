package auth

import "github.com/emersion/go-sasl"

// plain is RFC 4616.
func plain(c Credentials, o Offer) (Login, bool) {
	if !o.has(sasl.Plain) {
		return Login{}, false
	}
	return Login{Name: sasl.Plain, Client: sasl.NewPlainClient("", c.User, c.Password.Reveal())}, true
}
