package imap_test

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
	"mailhaul/upload"
	"mailhaul/upload/imap"
)

// BenchmarkUpload sends 2,000 messages of 5 KB to Dovecot over TLS, ledger
// included, beside the same octets in bare MULTIAPPENDs of 100 and a run that
// finds nothing new.
func BenchmarkUpload(b *testing.B) {
	s := dovecot.Start(b, dovecot.Options{})
	var letters []letter
	var raw []dovecot.Message
	for i := range 2000 {
		l := text(i, "INBOX")
		l.wire = append(l.wire, strings.Repeat(fmt.Sprintf("line of message %d\r\n", i), 250)...)
		letters = append(letters, l)
		raw = append(raw, dovecot.Message{Octets: l.wire, Date: l.date})
	}
	v := archiveOf(b, letters...)
	for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
		r, err := relay.Start(net.JoinHostPort(s.Host, strconv.Itoa(s.IMAPS)), relay.Options{Delay: delay})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = r.Close() })
		n := 0
		open := func() *imap.Destination {
			return imap.New(imap.Config{
				Server:      dial.Server{Host: "127.0.0.1", Port: r.Port(), CAFile: s.CAFile},
				Credentials: auth.Credentials{User: fmt.Sprintf("b%v%d", delay, n), Password: auth.Secret(dovecot.Password)},
			})
		}
		once := func(b *testing.B) upload.Counts {
			d := open()
			defer d.Close()
			res, err := upload.Run(b.Context(), options(v, d))
			if err != nil {
				b.Fatal(err)
			}
			return res.Counts
		}
		b.Run(fmt.Sprintf("all/rtt=%v", 2*delay), func(b *testing.B) {
			for b.Loop() {
				n++
				if c := once(b); c.Uploaded != 2000 {
					b.Fatalf("%+v", c)
				}
			}
		})
		b.Run(fmt.Sprintf("nothing/rtt=%v", 2*delay), func(b *testing.B) {
			for b.Loop() {
				if c := once(b); c.Skipped != 2000 {
					b.Fatalf("%+v", c)
				}
			}
		})
	}
	b.Run("bare/rtt=0s", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			c, err := s.Dial(fmt.Sprintf("bare%d", n))
			if err != nil {
				b.Fatal(err)
			}
			for i := 0; i < len(raw); i += 100 {
				if err := c.Append("INBOX", raw[i:i+100]...); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
		}
	})
}
