package imapconn

import (
	"bytes"
	"fmt"
	"strings"

	"mailhaul/mail"
)

// Result is the tagged answer to a command.
type Result struct {
	Condition string // "OK", "NO" or "BAD"
	Code      string // response code in upper case without brackets, "" if there is none
	Arg       string // what follows the code in the brackets
	Text      string // the server's words, code included
}

// OK tells whether the command was completed.
func (r Result) OK() bool { return r.Condition == "OK" }

// Err returns nil for OK, else a *Refused.
func (r Result) Err() error {
	if r.OK() {
		return nil
	}
	return &Refused{r}
}

// Refused is a NO or BAD.
type Refused struct{ Result }

func (e *Refused) Error() string { return fmt.Sprintf("server answered %s", e.Condition) }

// Words returns what the server said, as it said it.
func (e *Refused) Words() string { return e.Condition + " " + e.Text }

// Kind sorts a refusal by its response code (RFC 5530) and, where the code says
// nothing, by words that servers are known to use when they are only busy.
func (r Result) Kind() mail.Kind {
	switch r.Code {
	case "AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED":
		if r.Busy() {
			return mail.KindTemporary
		}
		return mail.KindAuth
	case "PRIVACYREQUIRED", "CANNOT":
		return mail.KindLacking
	case "UNAVAILABLE", "INUSE", "THROTTLED", "OVERQUOTA", "SERVERBUG":
		return mail.KindTemporary
	}
	if r.Busy() {
		return mail.KindTemporary
	}
	return mail.KindOther
}

// busyWords mark answers that mean "later", besides those about limits: failures
// the server itself calls temporary.
var busyWords = []string{
	"too many", "backoff", "try again", "try later", "temporar",
	"server busy", "server unavailable", "not connected", "session expired",
}

// Busy tells whether the server refused for now and not for good.
func (r Result) Busy() bool {
	if r.itemLimit() {
		return false
	}
	switch r.Code {
	case "UNAVAILABLE", "INUSE", "LIMIT", "THROTTLED":
		return true
	}
	if _, ok := r.Limit(); ok {
		return true
	}
	text := strings.ToLower(r.Text)
	for _, w := range busyWords {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// parseResult reads "OK [CODE arg] text". ok is false where no condition stands.
func parseResult(b []byte) (r Result, ok bool) {
	word, rest, _ := bytes.Cut(b, []byte(" "))
	r.Condition = upper(word)
	switch r.Condition {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
	default:
		return r, false
	}
	r.Text = string(bytes.TrimSpace(rest))
	if inner, found := strings.CutPrefix(r.Text, "["); found {
		if inner, _, found = strings.Cut(inner, "]"); found {
			code, arg, _ := strings.Cut(inner, " ")
			r.Code, r.Arg = strings.ToUpper(code), arg
		}
	}
	return r, true
}

// result reads a condition without the password that a server may repeat in it.
func (c *Conn) result(b []byte) (Result, bool) {
	r, ok := parseResult(b)
	r.Text = c.cfg.Credentials.Redact(r.Text)
	return r, ok
}

// plain makes text safe for a protocol line of at most 500 octets.
func plain(text string) string {
	text = text[:min(len(text), 500)]
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, text)
}
