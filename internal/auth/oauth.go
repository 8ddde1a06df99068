package auth

import (
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
)

// XOAuth2 is the mechanism of Google and Microsoft from before RFC 7628.
const XOAuth2 = "XOAUTH2"

// oauthBearer is RFC 7628.
func oauthBearer(c Credentials, o Offer) (Login, bool) {
	if c.Tokens == nil || !o.has(sasl.OAuthBearer) {
		return Login{}, false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "n,a=%s,\x01", gs2Name(c.User))
	if o.Host != "" {
		fmt.Fprintf(&b, "host=%s\x01", o.Host)
	}
	if o.Port != 0 {
		fmt.Fprintf(&b, "port=%d\x01", o.Port)
	}
	fmt.Fprintf(&b, "auth=Bearer %s\x01\x01", c.token.Reveal())
	return Login{Name: sasl.OAuthBearer, Client: &tokenClient{mech: sasl.OAuthBearer, first: b.String(), end: "\x01"}}, true
}

// gs2Name spells a name as RFC 5801 section 4 has it.
func gs2Name(s string) string { return strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s) }

// xoauth2 names the mailbox, which with Microsoft may be another than that of the
// token's owner.
func xoauth2(c Credentials, o Offer) (Login, bool) {
	if c.Tokens == nil || !o.has(XOAuth2) {
		return Login{}, false
	}
	first := "user=" + c.User + "\x01auth=Bearer " + c.token.Reveal() + "\x01\x01"
	return Login{Name: XOAuth2, Client: &tokenClient{mech: XOAuth2, first: first}}, true
}

// tokenClient sends the token at once. A server that refuses it says why in a
// challenge, and waits for an empty answer (or RFC 7628's) before it says NO.
type tokenClient struct {
	mech, first, end string
	refused          bool
}

func (t *tokenClient) Start() (string, []byte, error) { return t.mech, []byte(t.first), nil }

func (t *tokenClient) Next([]byte) ([]byte, error) {
	if t.refused {
		return nil, errors.New("server asks for more than a token")
	}
	t.refused = true
	return []byte(t.end), nil
}
