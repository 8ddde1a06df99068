package fetch

import (
	"bytes"
	"strings"

	"mailhaul/mail"
)

// A suspicious message is archived, but what came may not be what the server
// holds; it is never deleted there.

// exchangeStub is what Exchange sends in the place of a message it cannot
// convert (docs/quirks.md).
const exchangeStub = "Retrieval using the IMAP4 protocol failed for the following message"

// suspect says why a message in memory is suspicious, "" if nothing is odd.
func suspect(in mail.Info, sums mail.Sums, canonical []byte) func(mail.Sums) string {
	return func(mail.Sums) string {
		head := canonical[:min(len(canonical), 16<<10)]
		if bytes.Contains(head, []byte(exchangeStub)) {
			return "the server sent a notice that it could not convert the message"
		}
		return suspectSize(in, sums)
	}
}

// suspectSize says whether the length fits what the server listed. Servers that
// count line ends as one octet are believed, too, and over POP3 those that do not
// count the line end they have to add to a message without a final one.
func suspectSize(in mail.Info, sums mail.Sums) string {
	switch {
	case sums.Wire == 0:
		return "the server sent no octets"
	case in.Size < 0, in.Size == sums.Wire, in.Size == sums.Octets:
		return ""
	case isPOP3(in) && (in.Size+2 == sums.Wire || in.Size+1 == sums.Octets):
		return ""
	}
	return mail.SizeDoubt(in.Size, sums.Wire)
}

func isPOP3(in mail.Info) bool { return strings.HasPrefix(in.Ref.Account, "pop3:") }
