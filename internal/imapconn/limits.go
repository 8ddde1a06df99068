package imapconn

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailhaul/internal/auth"
	"mailhaul/mail"
)

// LimitKind is what a server wants less of.
type LimitKind int

const (
	LimitRate        LimitKind = iota + 1 // commands, or octets, in a short time
	LimitTraffic                          // octets in a day, or so
	LimitConnections                      // connections at a time
	LimitInUse                            // access to something another session works on
)

// Limit is a server's word that the account has to wait. It is about all that is
// done with the account, not about one message.
type Limit struct {
	Kind LimitKind
	Wait time.Duration // the pause the server names, 0 if it names none
}

// limitWords mark limits in texts of servers. They, and auth.ConnectionLimit, come before response codes,
// since the codes with them are often of another kind: a connection limit may be
// called AUTHENTICATIONFAILED, UNAVAILABLE or ALERT.
var limitWords = []struct {
	words string
	kind  LimitKind
}{
	{"bandwidth limit", LimitTraffic}, // Gmail
	{"suggested backoff time", LimitRate},
	{"throttled", LimitRate}, // Microsoft
	{"rate limit", LimitRate},
	{"too many requests", LimitRate},
	{"too many commands", LimitRate},
}

// limitCodes are response codes of RFC 5530 and of Gmail. OVERQUOTA is no limit of
// this kind where something is to be stored.
var limitCodes = map[string]LimitKind{
	"THROTTLED": LimitRate, "LIMIT": LimitRate, "OVERQUOTA": LimitTraffic, "INUSE": LimitInUse,
}

// itemWords mark the LIMIT (RFC 5530 section 3) that a message itself is beyond, which
// no waiting helps: Cyrus says "Too many user flags in mailbox".
var itemWords = []string{
	"flag", "keyword", "header", "message size", "message too", "message is too", "too large", "too big", "too long",
}

// itemLimit tells whether a LIMIT is one of the message. Words about rates come
// before those about messages.
func (r Result) itemLimit() bool {
	if r.Code != "LIMIT" {
		return false
	}
	text := strings.ToLower(r.Text)
	for _, w := range limitWords {
		if strings.Contains(text, w.words) {
			return false
		}
	}
	return namedWait(text) == 0 && slices.ContainsFunc(itemWords, func(w string) bool { return strings.Contains(text, w) })
}

// Limit tells whether the server wants the account to wait. Failures of one
// command, temporary ones too, are no limits.
func (r Result) Limit() (l Limit, ok bool) {
	if r.itemLimit() {
		return l, false
	}
	if r.Condition != "NO" && r.Condition != "BAD" && r.Condition != "BYE" {
		return l, false
	}
	text := strings.ToLower(r.Text)
	if auth.ConnectionLimit(text) {
		return Limit{LimitConnections, namedWait(text)}, true
	}
	for _, w := range limitWords {
		if strings.Contains(text, w.words) {
			return Limit{w.kind, namedWait(text)}, true
		}
	}
	if kind := limitCodes[r.Code]; kind != 0 {
		return Limit{kind, namedWait(text)}, true
	}
	return l, false
}

var waitPattern = regexp.MustCompile(`(?:backoff time:?|try again in|retry in|retry after|wait)\s+(?:for\s+|after\s+)?(\d{1,12})\s*(milliseconds?|msecs?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h)\b`)

// maxWait is the longest pause a server is believed to mean.
const maxWait = 48 * time.Hour

// namedWait finds the pause in "Suggested Backoff Time: 299961 milliseconds" and
// its like; text is in lower case.
func namedWait(text string) time.Duration {
	m := waitPattern.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return 0
	}
	unit := time.Second
	switch {
	case strings.HasPrefix(m[2], "ms"), strings.HasPrefix(m[2], "milli"):
		unit = time.Millisecond
	case strings.HasPrefix(m[2], "m"):
		unit = time.Minute
	case strings.HasPrefix(m[2], "h"):
		unit = time.Hour
	}
	if n > int64(maxWait/unit) {
		return maxWait
	}
	return time.Duration(n) * unit
}

// LimitOf tells whether an error is a server's word to wait: a refusal, or the BYE
// it ended the connection with. words is what it said.
func LimitOf(err error) (l Limit, words string, ok bool) {
	if r, found := errors.AsType[*Refused](err); found {
		l, ok = r.Limit()
		return l, r.Words(), ok
	}
	e, found := errors.AsType[*mail.Error](err)
	if !found || !strings.HasPrefix(e.Server, "BYE ") {
		return l, "", false
	}
	r, _ := parseResult([]byte(e.Server))
	l, ok = r.Limit()
	return l, e.Server, ok
}
