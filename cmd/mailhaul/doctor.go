package main

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/doctor"
	"mailhaul/internal/ui"
	"mailhaul/mail"
)

type doctorFlags struct {
	secret      secretFlags
	connections int
}

// triedConnections is how many logins at a time doctor tries.
const triedConnections = 5

func newDoctor(a *app) *cobra.Command {
	var o doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor SERVER|ACCOUNT",
		Short: "What a server can do, what it gets wrong, and what that means here",
		Long: `doctor logs in and shows the certificate, what the server can do, how one may log in,
quota, limits and mailboxes. It then tries what matters: whether SEARCH and the
stated sizes tell the truth, whether UIDs (POP3: UIDLs) are the same in two logins, and
how many connections at a time are let in (five at most). Last it says what that means
for backup, clean and upload.

Nothing is changed at the server and no message is marked as read. Warnings are no
error: the exit code is 0 wherever one can log in.`,
		Example: `  mailhaul doctor imaps://ada@example.org
  mailhaul doctor pop3s://ada@mail.example.net --password-file ~/.mail-password
  mailhaul doctor imaps://ada@example.org --json`,
		Args: arguments(1, 1, "a SERVER"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.doctor(cmd.Context(), args[0], o) },
	}
	o.secret.register(cmd)
	cmd.Flags().IntVar(&o.connections, "connections", triedConnections, "try at most `N` connections at a time (0: do not try)")
	return cmd
}

func (a *app) doctor(ctx context.Context, typed string, o doctorFlags) (err error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	began := time.Now()
	if o.connections < 0 || o.connections > 20 {
		return usage("write a number from 0 to 20", "--connections %d makes no sense", o.connections)
	}
	ac, err := a.account(ctx, typed, o.secret, nil)
	if err != nil {
		return err
	}
	credentials, err := ac.credentials(ctx)
	if err != nil {
		return err
	}
	_, end := a.show(ac.label())
	defer end()
	r, err := doctor.Examine(ctx, doctor.Options{
		Protocol: ac.server.Protocol, Connections: o.connections, Now: began,
		Open: func() (doctor.Source, error) {
			src, err := a.openSource(ac.server, credentials, 1)
			if err != nil {
				return nil, err
			}
			d, ok := src.(doctor.Source)
			if !ok {
				return nil, usage("", "%s cannot be examined", ac.server.Protocol)
			}
			return d, nil
		},
	})
	end()
	if err != nil {
		return err
	}
	a.showReport(r, time.Since(began))
	return nil
}

// showReport prints what was found.
func (a *app) showReport(r *doctor.Report, took time.Duration) {
	a.reportObjects(r, took)
	f := r.Facts
	line := func(name, format string, args ...any) { a.ui.Field(13, name, format, args...) }
	line("Server", "%s", f.Address)
	if g := greeting.ReplaceAllString(f.Greeting, ""); g != "" {
		line("Greeting", "%s", g)
	}
	if f.TLS != "" {
		line("TLS", "%s", f.TLS)
	}
	if len(f.Certificates) > 0 {
		c := f.Certificates[0]
		line("Certificate", "%s, by %s", c.Subject, c.Issuer)
		line("", "for %s", strings.Join(c.Names, ", "))
		line("", "from %s to %s", c.From.Format(time.DateOnly), c.Until.Format(time.DateOnly))
		line("", "SHA-256 %s", c.SHA256)
	}
	line("Logins", "%s%s", strings.Join(f.Offered, ", "), used(f.Login))
	line("Can do", "%s", strings.Join(f.Capabilities, " "))
	if f.Delimiter != "" {
		line("Names", "levels are parted by %q%s", f.Delimiter, prefixed(f.Prefix))
	}
	if r.Limit > 0 {
		line("Quota", "%s of %s", ui.Octets(r.Used), ui.Octets(r.Limit))
	}
	a.ui.Result("")
	a.ui.Result("Mailboxes")
	for _, mb := range inboxFirst(r.Mailboxes) {
		n, size := "?", "?"
		if mb.Messages >= 0 {
			n = ui.Count(mb.Messages)
		}
		if mb.Octets >= 0 {
			size = ui.Octets(mb.Octets)
		}
		a.ui.Result("%9s  %9s  %s%s", n, size, mb.Name, role(mb.SpecialUse))
	}
	a.ui.Result("")
	for _, c := range r.Checks {
		a.ui.Field(8, mark(c.Level), "%s", c.Text)
	}
	a.ui.Result("")
	for _, ad := range r.Advice {
		a.ui.Field(8, ad.Verb, "%s", ad.Text)
	}
}

// greeting matches what a greeting says of capabilities, which are shown anyway.
var greeting = regexp.MustCompile(`(?i)^\[CAPABILITY [^]]*\] *`)

// inboxFirst puts mailboxes in the order of a listing.
func inboxFirst(list []mail.Mailbox) []mail.Mailbox {
	return slices.SortedFunc(slices.Values(list), func(a, b mail.Mailbox) int {
		switch {
		case a.Name == b.Name:
			return 0
		case a.Name == "INBOX":
			return -1
		case b.Name == "INBOX":
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
}

func used(login string) string {
	if login == "" {
		return ""
	}
	return " (used: " + login + ")"
}

func prefixed(prefix string) string {
	if prefix == "" {
		return ""
	}
	return fmt.Sprintf(", own mailboxes begin with %q", prefix)
}

func role(use string) string {
	if use == "" {
		return ""
	}
	return " (" + use + ")"
}

func mark(l doctor.Level) string {
	switch l {
	case doctor.OK:
		return "good"
	case doctor.Warning:
		return "WARNING"
	}
	return "note"
}

// reportObjects prints the report as JSON.
func (a *app) reportObjects(r *doctor.Report, took time.Duration) {
	f := r.Facts
	certificates := make([]map[string]any, 0, len(f.Certificates))
	for _, c := range f.Certificates {
		certificates = append(certificates, map[string]any{
			"subject": c.Subject, "issuer": c.Issuer, "names": c.Names, "from": c.From, "until": c.Until, "sha256": c.SHA256,
		})
	}
	a.ui.Object(map[string]any{
		"type": "server", "account": r.Account, "address": f.Address, "greeting": f.Greeting, "tls": f.TLS, "certificates": certificates,
		"logins": f.Offered, "login": f.Login, "capabilities": f.Capabilities, "delimiter": f.Delimiter, "prefix": f.Prefix,
		"append_limit": f.AppendLimit, "login_delay": f.LoginDelay.Seconds(), "quota_used": r.Used, "quota_limit": r.Limit,
		"deletes": f.DeletesOne, "moves": f.Moves, "appends": f.Appends,
	})
	for _, mb := range r.Mailboxes {
		a.ui.Object(map[string]any{"type": "mailbox", "mailbox": mb.Name, "messages": mb.Messages, "octets": mb.Octets, "uidvalidity": mb.UIDValidity, "special_use": mb.SpecialUse})
	}
	for _, c := range r.Checks {
		a.ui.Object(map[string]any{"type": "check", "name": c.Name, "level": string(c.Level), "text": c.Text})
	}
	for _, ad := range r.Advice {
		a.ui.Object(map[string]any{"type": "advice", "verb": ad.Verb, "text": ad.Text})
	}
	warnings := 0
	for _, c := range r.Checks {
		if c.Level == doctor.Warning {
			warnings++
		}
	}
	a.ui.Object(map[string]any{
		"type": "summary", "command": "doctor", "source": r.Account, "mailboxes": len(r.Mailboxes), "checks": len(r.Checks),
		"warnings": warnings, "seconds": took.Seconds(), "exit": exitDone,
	})
}
