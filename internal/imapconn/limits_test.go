package imapconn

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"mailhaul/mail"
)

// What servers say of limits, in their words.
func TestLimit(t *testing.T) {
	for text, want := range map[string]Limit{
		// Microsoft
		"NO Request is throttled. Suggested Backoff Time: 299961 milliseconds":  {LimitRate, 299961 * time.Millisecond},
		"BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds": {LimitRate, 299961 * time.Millisecond},
		"BAD User is authenticated but not connected.":                          {},
		"BYE Connection closed":                        {},
		"BYE Session invalidated - AccessTokenExpired": {},
		"NO Server Unavailable. 15":                    {},
		// Gmail
		"NO [OVERQUOTA] Account exceeded command or bandwidth limits. abc123":     {LimitTraffic, 0},
		"BYE [OVERQUOTA] Account exceeded command or bandwidth limits.":           {LimitTraffic, 0},
		"NO [ALERT] Too many simultaneous connections. (Failure)":                 {LimitConnections, 0},
		"NO [AUTHENTICATIONFAILED] Too many simultaneous connections. (Failure)":  {LimitConnections, 0},
		"NO [THROTTLED] slow down":                                                {LimitRate, 0},
		"BYE Session expired, please login again":                                 {},
		"NO [CANNOT] Folder contains excess whitespace (Failure)":                 {},
		"NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)":                 {},
		"NO [ALERT] Please log in via your web browser: https://example.org/wait": {},
		// Dovecot
		"NO [UNAVAILABLE] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)": {LimitConnections, 0},
		"NO [LIMIT] Rate limit hit":                                        {LimitRate, 0},
		"NO [INUSE] Mailbox is locked by another session":                  {LimitInUse, 0},
		"NO [UNAVAILABLE] Temporary authentication failure.":               {},
		"BYE [UNAVAILABLE] Internal error occurred":                        {},
		"NO [SERVERBUG] Internal error occurred.":                          {},
		"NO [UNAVAILABLE] UID FETCH Server error - Please try again later": {}, // Yahoo, of one message
		// of one message, not of the account
		"NO [LIMIT] Too many user flags in mailbox":            {},
		"NO [LIMIT] Message size exceeds fixed limit":          {},
		"NO [LIMIT] Header too long":                           {},
		"NO [LIMIT] Rate limit for large message sizes":        {LimitRate, 0},
		"NO [LIMIT] Too many keywords, retry after 10 seconds": {LimitRate, 10 * time.Second},
		// times
		"NO [THROTTLED] try again in 2 minutes":                      {LimitRate, 2 * time.Minute},
		"NO [THROTTLED] Retry after 30 s":                            {LimitRate, 30 * time.Second},
		"NO [LIMIT] please wait for 1 hour":                          {LimitRate, time.Hour},
		"NO [THROTTLED] Suggested Backoff Time: 999999999999 hours":  {LimitRate, maxWait},
		"NO [THROTTLED] Suggested Backoff Time: 9999999999999999 ms": {LimitRate, 0},
		"NO [THROTTLED] Suggested Backoff Time: -5 milliseconds":     {LimitRate, 0},
		// no refusal
		"OK [ALERT] Too many simultaneous connections": {},
		"NO":  {},
		"BAD": {},
	} {
		r, ok := parseResult([]byte(text))
		if !ok {
			t.Fatalf("%q is no result", text)
		}
		got, ok := r.Limit()
		if got != want || ok != (want != Limit{}) {
			t.Errorf("%q: %+v %v, want %+v", text, got, ok, want)
		}
		if ok && (r.Kind() != mail.KindTemporary) {
			t.Errorf("%q: kind %d", text, r.Kind())
		}
		if !ok && r.Code == "LIMIT" && (r.Busy() || r.Kind() != mail.KindOther) {
			t.Errorf("%q: kind %d, busy %v", text, r.Kind(), r.Busy())
		}
	}
}

func TestLimitOf(t *testing.T) {
	refused := func(text string) error {
		r, _ := parseResult([]byte(text))
		return fmt.Errorf("x: %w", &mail.Error{Kind: mail.KindTemporary, Server: text, Err: r.Err()})
	}
	for _, tc := range []struct {
		err  error
		kind LimitKind
	}{
		{refused("NO [THROTTLED] x"), LimitRate},
		{refused("NO [SERVERBUG] x"), 0},
		{&mail.Error{Server: "BYE Too many simultaneous connections"}, LimitConnections},
		{&mail.Error{Server: "BYE see you"}, 0},
		{&mail.Error{Server: "NO [THROTTLED] x"}, 0}, // told by whoever wrapped it, not by the connection
		{errors.New("throttled"), 0},
		{nil, 0},
	} {
		l, words, ok := LimitOf(tc.err)
		if l.Kind != tc.kind || ok != (tc.kind != 0) || ok && words == "" {
			t.Errorf("%v: %+v %q %v", tc.err, l, words, ok)
		}
	}
}
