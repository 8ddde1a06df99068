package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"errors"
)

// CramMD5 is the mechanism of RFC 2195.
const CramMD5 = "CRAM-MD5"

// cramMD5 is used only when asked for: what goes over the wire lets passwords be
// guessed offline, and the server must keep them in clear.
func cramMD5(c Credentials, o Offer) (Login, bool) {
	if c.Password == "" || !o.has(CramMD5) {
		return Login{}, false
	}
	return Login{Name: CramMD5, Client: &cramClient{user: c.LoginName(), password: c.Password}}, true
}

type cramClient struct {
	user     string
	password Secret
	done     bool
}

func (m *cramClient) Start() (string, []byte, error) { return CramMD5, nil, nil }

func (m *cramClient) Next(challenge []byte) ([]byte, error) {
	if m.done || len(challenge) == 0 {
		return nil, errors.New("server breaks the rules of CRAM-MD5")
	}
	m.done = true
	h := hmac.New(md5.New, []byte(m.password.Reveal()))
	h.Write(challenge)
	return []byte(m.user + " " + hex.EncodeToString(h.Sum(nil))), nil
}
