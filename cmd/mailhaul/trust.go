package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/place"
	"mailhaul/mail"
)

type trustFlags struct{ remove, dryRun bool }

func newTrust(a *app) *cobra.Command {
	var o trustFlags
	cmd := &cobra.Command{
		Use:   "trust HOST",
		Short: "Show a certificate, ask, and store its fingerprint",
		Long: `trust is for servers whose certificate no authority vouches for: it shows the
certificate, asks, and stores its SHA-256. From then on every verb trusts exactly this
certificate at this host and port, whatever it says about names and dates, and nothing
else: when the server shows another one, nothing is sent to it, and you decide again.

Compare the fingerprint with one that reached you another way, for example what this
prints on the server itself:
    openssl x509 -noout -fingerprint -sha256 -in cert.pem

HOST is HOST or HOST:PORT (993 if no port is given), a place such as
imap://mail.example.org (with STARTTLS), or an account of the configuration. Nothing but
the handshake is sent. Without a terminal nothing is stored, unless --tls-fingerprint
says what is expected, and the server shows it.`,
		Example: `  mailhaul trust mail.example.org
  mailhaul trust mail.example.org:995
  mailhaul trust imap://mail.example.org          # STARTTLS, port 143
  mailhaul trust mail.example.org --tls-fingerprint 8A:2F:…     # without a question, if it is this one
  mailhaul trust mail.example.org --remove`,
		Args: arguments(1, 1, "a HOST"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.trust(cmd.Context(), args[0], o) },
	}
	cmd.Flags().BoolVar(&o.remove, "remove", false, "forget what was stored")
	cmd.Flags().BoolVarP(&o.dryRun, "dry-run", "n", false, "show the certificate and what is stored, and change nothing")
	return cmd
}

// server reads what trust is given.
func (a *app) trustedServer(typed string) (dial.Server, error) {
	s := dial.Server{CAFile: a.flags.caFile, Timeout: a.flags.timeout}
	ac, err := a.named(typed)
	if err != nil {
		return s, err
	}
	if ac != nil {
		s.Protocol, s.Security, s.Host, s.Port = ac.Server.Protocol, ac.Server.Security, ac.Server.Host, ac.Server.Port
		return s, secured(s)
	}
	scheme, host, ok := strings.Cut(typed, "://")
	if !ok {
		scheme, host = "imaps", typed
		switch _, port, _ := net.SplitHostPort(typed); port {
		case "995":
			scheme = "pop3s"
		case "110":
			scheme = "pop3"
		case "143":
			scheme = "imap"
		}
	}
	if !strings.Contains(host, "@") {
		host = "anybody@" + host
	}
	p, err := place.ParseServer(scheme + "://" + host)
	if err != nil {
		return s, err
	}
	s.Protocol, s.Security, s.Host, s.Port = p.Protocol, p.Security, p.Host, p.Port
	return s, secured(s)
}

func secured(s dial.Server) error {
	if s.Security == dial.Cleartext {
		return usage("", "without TLS there is no certificate")
	}
	return nil
}

// certificate gets the chain a server shows. No certificate fits the pin, so the
// handshake never ends and nothing is said to the server.
func (a *app) certificate(ctx context.Context, s dial.Server) ([]*x509.Certificate, error) {
	s.Fingerprint = strings.Repeat("00", 32)
	err := a.tryCredentials(ctx, s, auth.Credentials{User: "anybody", Password: "none"})
	if u, ok := errors.AsType[*dial.Untrusted](err); ok && len(u.Chain) > 0 {
		return u.Chain, nil
	}
	if err == nil {
		err = errors.New("the server showed no certificate")
	}
	return nil, err
}

func (a *app) trust(ctx context.Context, typed string, o trustFlags) error {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	s, err := a.trustedServer(typed)
	if err != nil {
		return err
	}
	store := config.TrustedBeside(a.flags.config)
	before, err := store.Fingerprint(s.Addr())
	if err != nil {
		return err
	}
	if o.remove {
		if before == "" {
			return usage("", "nothing is stored for %s", s.Addr())
		}
		if o.dryRun {
			a.ui.Done("%s: would be forgotten: %s", s.Addr(), before)
			return nil
		}
		if err := store.Set(ctx, s.Addr(), ""); err != nil {
			return err
		}
		a.ui.Done("%s: forgotten: %s", s.Addr(), before)
		return nil
	}
	chain, err := a.certificate(ctx, s)
	if err != nil {
		return err
	}
	print := dial.Fingerprint(chain[0])
	verdict := s.Verify(chain)
	show := a.ui.Result
	if a.flags.fingerprint != "" || o.dryRun || sameFingerprint(before, print) {
		show = a.ui.Done // nobody has to decide by it
	}
	a.showCertificate(show, s, chain[0], verdict, before)
	if a.flags.fingerprint != "" {
		if !sameFingerprint(a.flags.fingerprint, print) {
			return &mail.Error{Kind: mail.KindAuth, Op: "trust " + s.Addr(), Err: fmt.Errorf("the server shows %s, not the certificate that was expected", print), Hint: "nothing was stored"}
		}
	} else if o.dryRun {
		return nil
	} else if err := a.askTrust(ctx, s, print, before); err != nil {
		return err
	}
	if o.dryRun {
		return nil
	}
	if err := store.Set(ctx, s.Addr(), print); err != nil {
		return err
	}
	a.ui.Done("%s: trusted, and only this certificate; stored in %s", s.Addr(), store.Path)
	return nil
}

// sameFingerprint compares two, however they are written.
func sameFingerprint(x, y string) bool {
	a, errA := dial.ParseFingerprint(x)
	b, errB := dial.ParseFingerprint(y)
	return errA == nil && errB == nil && a == b
}

func (a *app) askTrust(ctx context.Context, s dial.Server, print, before string) error {
	if sameFingerprint(before, print) {
		return nil
	}
	if !a.canAsk() {
		return &mail.Error{Err: errors.New("nothing was stored: there is no terminal to ask on"), Hint: "if this is the right certificate, add --tls-fingerprint " + print}
	}
	answer, err := a.answer(ctx, fmt.Sprintf("Trust this certificate at %s, and no other? [y/N] ", s.Addr()))
	if err == nil && !isYes(answer, false) {
		err = &mail.Error{Err: errors.New("nothing was stored: not confirmed")}
	}
	return err
}

func (a *app) showCertificate(show func(string, ...any), s dial.Server, leaf *x509.Certificate, verdict error, before string) {
	names := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	trusted := "trusts it: chain, names and dates are right, so nothing needs to be stored"
	if verdict != nil {
		trusted = "does not trust it: " + verdict.Error()
	}
	fingerprint := dial.Fingerprint(leaf)
	show("%s", s.Addr())
	for _, row := range [][2]string{
		{"names", strings.Join(names[:min(len(names), 10)], ", ")},
		{"subject", leaf.Subject.String()},
		{"issued by", leaf.Issuer.String()},
		{"valid", leaf.NotBefore.UTC().Format(time.DateOnly) + " to " + leaf.NotAfter.UTC().Format(time.DateOnly)},
		{"SHA-256", fingerprint},
		{"this system", trusted},
	} {
		if row[1] != "" {
			show("  %-12s %s", row[0]+":", row[1])
		}
	}
	switch {
	case before == "":
	case sameFingerprint(before, fingerprint):
		show("  %-12s %s", "stored:", "this one")
	default:
		show("  %-12s %s", "stored:", "ANOTHER ONE: "+before)
	}
	a.ui.Object(struct {
		Type        string   `json:"type"`
		Server      string   `json:"server"`
		Names       []string `json:"names"`
		Subject     string   `json:"subject"`
		Issuer      string   `json:"issuer"`
		NotBefore   string   `json:"not_before"`
		NotAfter    string   `json:"not_after"`
		Fingerprint string   `json:"fingerprint"`
		Trusted     bool     `json:"trusted"`
		Problem     string   `json:"problem,omitempty"`
		Stored      string   `json:"stored,omitempty"`
	}{
		"certificate", s.Addr(), names, leaf.Subject.String(), leaf.Issuer.String(), leaf.NotBefore.UTC().Format(time.RFC3339),
		leaf.NotAfter.UTC().Format(time.RFC3339), fingerprint, verdict == nil, map[bool]string{true: trusted}[verdict != nil], before,
	})
}

// usePin has a server trusted as mailhaul trust stored it, where neither a flag nor
// the configuration says anything.
func (a *app) usePin(s *dial.Server) error {
	if s.Fingerprint != "" || s.Security == dial.Cleartext {
		return nil
	}
	var err error
	s.Fingerprint, err = config.TrustedBeside(a.flags.config).Fingerprint(s.Addr())
	return err
}
