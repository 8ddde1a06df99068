package pop3

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"mailhaul/internal/auth"
	"mailhaul/mail"
)

// reply is the status line of an answer.
type reply struct {
	ok   bool
	text string // behind +OK or -ERR
}

var errOutOfStep = errors.New("server's answers do not fit the commands")

// parseReply is tolerant of case and of what stands between status and text, and
// of nothing else: a line that is no status is never taken for success. redact
// takes the password out of what the error repeats.
func parseReply(line []byte, redact func(string) string) (reply, error) {
	status := func(word string) (string, bool) {
		if len(line) < len(word) || !bytes.EqualFold(line[:len(word)], []byte(word)) {
			return "", false
		}
		rest := line[len(word):]
		if len(rest) > 0 && rest[0] != ' ' && rest[0] != '\t' {
			return "", false
		}
		return string(bytes.TrimSpace(rest)), true
	}
	if text, ok := status("+OK"); ok {
		return reply{ok: true, text: text}, nil
	}
	if text, ok := status("-ERR"); ok {
		return reply{text: text}, nil
	}
	return reply{}, fmt.Errorf("%w: %.80q is no POP3 status", errOutOfStep, redact(string(line)))
}

// code returns the response code (RFC 2449 section 8) in upper case, or "".
func (r reply) code() string {
	if !strings.HasPrefix(r.text, "[") {
		return ""
	}
	code, _, ok := strings.Cut(r.text[1:], "]")
	if !ok {
		return ""
	}
	return strings.ToUpper(strings.TrimSpace(code))
}

// temporary are words by which servers without response codes say that the
// mailbox is busy.
var temporary = []string{
	"in use", "already locked", "maildrop locked", "mailbox locked", "maildrop lock", "mailbox lock", "lock busy", "unable to lock",
	"try again", "try later", "temporar", "too many connections", "login delay", "minimum check", "logging in too often",
}

// classify says what kind of refusal it is, and what to do about it.
func (r reply) classify(otherwise mail.Kind) (mail.Kind, string) {
	code := r.code()
	switch {
	case auth.ConnectionLimit(r.text): // whatever the code is
		return mail.KindTemporary, "the server does not want more connections now; try again later"
	case code == "IN-USE": // RFC 2449 section 8.1.2
		return mail.KindTemporary, "another session holds the mailbox, perhaps one that was cut off: wait some minutes and run the same command again"
	case code == "LOGIN-DELAY": // RFC 2449 section 8.1.1
		return mail.KindTemporary, "this server wants a pause between logins: run the same command again later"
	case strings.HasPrefix(code, "SYS/TEMP"): // RFC 3206
		return mail.KindTemporary, "the server has trouble of its own: run the same command again later"
	case strings.HasPrefix(code, "SYS/PERM"):
		return mail.KindAuth, "the server's administrator has to put this right"
	case code == "AUTH":
		return mail.KindAuth, "check user name and password; providers with two-step login want an app password"
	}
	low := strings.ToLower(r.text)
	for _, w := range temporary {
		if strings.Contains(low, w) {
			return mail.KindTemporary, "the mailbox is busy: wait some minutes and run the same command again"
		}
	}
	if otherwise == mail.KindAuth {
		return otherwise, "check user name and password; providers with two-step login want an app password"
	}
	return otherwise, ""
}

// refused builds the error for an -ERR.
func (s *Source) refused(op string, r reply, otherwise mail.Kind) *mail.Error {
	kind, hint := r.classify(otherwise)
	text := s.cfg.Credentials.Redact(r.text)
	if text == "" {
		text = "-ERR"
	}
	return &mail.Error{Kind: kind, Ref: mail.Ref{Account: s.account}, Op: op, Server: text, Hint: hint}
}
