package imap_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/upload"
	"mailhaul/upload/imap"
	"mailhaul/upload/uploadtest"
)

// The suite against Dovecot in its different manners.
func TestSuite(t *testing.T) {
	capabilities := func(list string) dovecot.Options {
		return dovecot.Options{Extra: "protocol imap {\n  imap_capability = IMAP4rev1 NAMESPACE " + list + "\n}\n"}
	}
	for name, o := range map[string]dovecot.Options{
		"Maildir": {}, "sdbox": {MailLocation: dovecot.SDBox, Separator: "."},
		"INBOX prefix": {Separator: ".", Prefix: "INBOX.", MailLocation: "maildir:~/mail"}, "quota": {Quota: "20M"},
		"LITERAL+": capabilities("LITERAL+ UIDPLUS UNSELECT"), "LITERAL-": capabilities("LITERAL-"), "lockstep": capabilities(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := dovecot.Start(t, o)
			var users atomic.Int32
			uploadtest.Suite(t, func(t *testing.T) (upload.Destination, func(string) []string) {
				user := fmt.Sprint("u", users.Add(1))
				d := imap.New(imap.Config{
					Server:      dial.Server{Host: s.Host, Port: s.IMAP, Security: dial.Cleartext, Timeout: 10 * time.Second},
					Credentials: auth.Credentials{User: user, Password: auth.Secret(dovecot.Password)},
				})
				t.Cleanup(func() { _ = d.Close() })
				return d, func(mailbox string) (all []string) {
					msgs, err := s.Messages(user, mailbox)
					if err != nil {
						t.Fatal(err)
					}
					for _, m := range msgs {
						all = append(all, canonical(t, m.Octets))
					}
					return all
				}
			})
		})
	}
}
