package hostile

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"mailhaul/internal/testserver"
)

// once answers the first command that begins so, and contains what, by f.
func once(verb, what string, f func(c *testserver.IMAPConn)) func(*testserver.IMAP) {
	return func(s *testserver.IMAP) {
		var done atomic.Bool
		s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
			if !strings.HasPrefix(cmd, verb) || !strings.Contains(cmd, what) || done.Swap(true) {
				return false
			}
			f(c)
			return true
		}
	}
}

// TestProviders plays the manners of providers that docs/quirks.md tells of.
func TestProviders(t *testing.T) {
	t.Parallel()
	for _, a := range providers() {
		t.Run(a.name, a.play)
	}
	for _, c := range providersSent() {
		t.Run(c.name, c.play)
	}
}

// providers are those that mail is read from.
func providers() []attack {
	three := letters(3)
	var times atomic.Int32
	return []attack{
		{name: "Gmail, too many connections", start: imap(three, once("AUTHENTICATE", "", func(c *testserver.IMAPConn) {
			c.NO("[ALERT] Too many simultaneous connections. (Failure)")
		})), args: []string{"--max-time", "3s"}, exit: 75},
		{name: "Gmail, session expired", start: imap(three, once("UID FETCH", "BODY.PEEK[]", func(c *testserver.IMAPConn) {
			c.Send("* BYE Session expired, please login again\r\n")
			c.Close()
		})), held: 3},
		{name: "Gmail, odd labels", start: imap(three, before("UID FETCH", "* 1 FETCH (X-GM-LABELS ([Mailbox] \"a\" \\Sent) UID 1)\r\n")), held: 3},
		{name: "Microsoft 365, throttled by BAD", start: imap(three, once("UID FETCH", "BODY.PEEK[]", func(c *testserver.IMAPConn) {
			c.Send(c.Tag + " BAD Request is throttled. Suggested Backoff Time: 200 milliseconds\r\n")
		})), held: 3},
		{name: "Microsoft 365, token expired inside FETCH", start: imap(three, once("UID FETCH", "BODY.PEEK[]", func(c *testserver.IMAPConn) {
			c.Send("* 1 FETCH (UID 1 FLAGS ())\r\n* BYE Session invalidated - AccessTokenExpired\r\n")
			c.Close()
		})), held: 3},
		{name: "Exchange, header and text apart", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !asked(cmd, 2) || !strings.Contains(cmd, "BODY.PEEK[]") {
				return false
			}
			c.OK("FETCH completed.")
			return true
		})), held: 3},
		{name: "Exchange, notice instead of a message", start: imap(append(letters(2), "Subject: x\r\n\r\nRetrieval using the IMAP4 protocol failed for the following message: 7\r\n"), nil), exit: 3, held: 3, left: 1},
		{name: "Yahoo, one message unavailable", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			if !asked(cmd, 2) {
				return false
			}
			c.NO("[SERVERBUG] UID FETCH Server error")
			return true
		})), exit: 3, held: 2, again: 3, left: 1},
		{name: "iCloud, no LIST RETURN, odd VANISHED", start: imap(three, func(s *testserver.IMAP) {
			s.Capabilities += " LIST-STATUS LIST-EXTENDED SPECIAL-USE"
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if strings.HasPrefix(cmd, "LIST") && strings.Contains(cmd, "RETURN") {
					c.Send(c.Tag + " BAD Parse Error\r\n")
					return true
				}
				if strings.HasPrefix(cmd, "UID FETCH") {
					c.Send("* VANISHED (EARLIER) 1:,,*:4 x\r\n")
				}
				return false
			}
		}), held: 3},
		{name: "NetEase, unsafe login without ID", start: imap(three, func(s *testserver.IMAP) {
			var known atomic.Bool
			s.Capabilities += " ID"
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				known.Store(known.Load() || strings.HasPrefix(cmd, "ID "))
				if (strings.HasPrefix(cmd, "EXAMINE") || strings.HasPrefix(cmd, "SELECT")) && !known.Load() {
					c.NO("SELECT Unsafe Login. Please contact kefu@188.com for help")
					return true
				}
				return false
			}
		}), held: 3},
		{name: "Courier, new UIDVALIDITY at each EXAMINE", start: imap(three, answer(func(_ *testserver.IMAP, c *testserver.IMAPConn, cmd string) bool {
			switch {
			case strings.HasPrefix(cmd, "EXAMINE"):
				c.Send(fmt.Sprintf("* 3 EXISTS\r\n* OK [UIDVALIDITY %d] ok\r\n* OK [UIDNEXT 4] ok\r\n", 5000+times.Add(1)/8))
			case strings.HasPrefix(cmd, "STATUS"):
				c.Send("* STATUS INBOX (MESSAGES 3)\r\n")
			default:
				return false
			}
			c.OK("done")
			return true
		})), held: 3, again: 3, left: 3},
		{name: "hMailServer, no UIDPLUS, wrong sizes in the listing", start: imap(three, func(s *testserver.IMAP) {
			s.Capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN"
			s.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if !strings.Contains(cmd, "RFC822.SIZE") || strings.Contains(cmd, "BODY") {
					return false
				}
				for i, m := range s.Held("INBOX") {
					c.Send(fmt.Sprintf("* %d FETCH (UID %d FLAGS () INTERNALDATE \"14-Nov-2023 22:13:20 +0000\" RFC822.SIZE %d)\r\n", i+1, m.UID, len(m.Octets)+77))
				}
				c.OK("done")
				return true
			}
		}), held: 3, again: 69, left: 3},
		{name: "the same UIDVALIDITY for all mailboxes", start: imap(three, named("a", "b")), held: 5},
	}
}

// providersSent are those that mail is sent to.
func providersSent() []sending {
	return []sending{
		{name: "Cyrus, bare line feeds refused", exit: 3, there: 2, says: "bare newlines", end: func(_ *testserver.IMAP, c *testserver.IMAPConn, octets []string) bool {
			if strings.Contains(octets[0], "letter 2") {
				c.NO("Message contains bare newlines")
				return true
			}
			return false
		}},
		{name: "Exchange, reserved name", exit: 3, args: []string{"--prefix", "Files"}, bad: is("CREATE", func(_ *testserver.IMAP, c *testserver.IMAPConn) {
			c.NO("Folder name is reserved.")
		}), final: -1},
	}
}
