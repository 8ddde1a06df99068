package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"mailhaul/internal/testserver"
)

// provider starts an OAuth 2 provider and a mail server that takes its tokens and
// nothing else. It sets $OAUTH and $TOKENMAIL.
func provider(ts *testscript.TestScript, neg bool, args []string) {
	o := &testserver.OAuth{User: "ada@example.org", ClientID: "me", ClientSecret: "registered"}
	ts.Check(o.Start())
	ts.Defer(func() { ts.Check(o.Close()) })
	srv := &testserver.IMAP{
		Capabilities: "IMAP4rev1 SASL-IR LOGINDISABLED AUTH=XOAUTH2 AUTH=OAUTHBEARER",
		Messages:     []testserver.IMAPMessage{{UID: 1, Octets: "Subject: hello\r\n\r\nhello\r\n"}},
		Answer: func(c *testserver.IMAPConn, cmd string) bool {
			words := strings.Fields(cmd)
			if words[0] != "AUTHENTICATE" {
				return false
			}
			blob, err := base64.StdEncoding.DecodeString(words[2])
			_, token, _ := strings.Cut(strings.TrimRight(string(blob), "\x01"), "Bearer ")
			if err == nil && o.Valid(token) {
				c.OK("in")
				return true
			}
			c.Send("+ e30=\r\n")
			if _, err := c.Line(); err == nil {
				c.NO("[AUTHENTICATIONFAILED] no")
			}
			return true
		},
	}
	ts.Check(srv.Start())
	ts.Defer(func() { ts.Check(srv.Close()) })
	tokens.Store(ts.MkAbs("."), o.Valid)
	ts.Setenv("OAUTH", o.URL())
	ts.Setenv("TOKENMAIL", fmt.Sprintf("imap+insecure://ada@example.org@127.0.0.1:%d", srv.Port()))
	stop := func(refresh bool) { o.Revoke(refresh) }
	revokes[ts.Getenv("WORK")] = stop
	ts.Defer(func() { delete(revokes, ts.Getenv("WORK")) })
}

// revokes end the tokens of the provider of a script.
var revokes = map[string]func(refresh bool){}

// revoke withdraws all access tokens, or the consent.
//
//	revoke [consent]
func revoke(ts *testscript.TestScript, neg bool, args []string) {
	revokes[ts.Getenv("WORK")](len(args) > 0)
}

// browser opens an address, as the browser of a person who consents does.
func browser() {
	r, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer r.Body.Close()
	_, _ = io.Copy(os.Stdout, r.Body)
}
