package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
)

// loginFlags say how to log in.
type loginFlags struct {
	mechanism             string
	admin                 string
	tokenCommand          string
	clientCert, clientKey string
}

// register adds the flags; prefix and whose tell a destination's from a source's.
func (l *loginFlags) register(cmd *cobra.Command, prefix, whose string) {
	f := cmd.Flags()
	f.Func(prefix+"auth", "log in to "+whose+" by this `MECHANISM` only ("+strings.Join(mechanisms(), ", ")+")", func(v string) error {
		if !slices.ContainsFunc(auth.Mechanisms(), func(m string) bool { return strings.EqualFold(m, v) }) {
			return usage("", "it is none of %s", strings.Join(mechanisms(), ", "))
		}
		l.mechanism = v
		return nil
	})
	f.StringVar(&l.admin, prefix+"login-as", "", "log in to "+whose+" as this `ADMIN`, with the admin's password, on behalf of USER")
	f.StringVar(&l.tokenCommand, prefix+"token-command", "", "run `CMD` (no shell) and take the first line of its output as an OAuth 2 access token")
	f.StringVar(&l.clientCert, prefix+"client-cert", "", "present the certificate in this PEM `FILE` to "+whose)
	f.StringVar(&l.clientKey, prefix+"client-key", "", "`FILE` with the key of the certificate, if it is not in the same file")
}

// apply has an account log in as the flags say.
func (l loginFlags) apply(ac *account) error {
	if l.clientKey != "" && l.clientCert == "" {
		return usage("give --client-cert, too", "--client-key without a certificate")
	}
	ac.mechanism, ac.admin = l.mechanism, l.admin
	if l.clientCert != "" {
		ac.server.ClientCert, ac.server.ClientKey = l.clientCert, l.clientKey
	}
	if l.tokenCommand != "" {
		ac.tokens = config.TokenCommand(l.tokenCommand)
	}
	return nil
}
