package mail

import (
	"fmt"
	"strings"
	"time"
)

// AccountKey builds the identity of an account: protocol ("imap" or "pop3"),
// user as the server is told it, and host in lower case. Port, TLS mode and the
// name in a configuration do not count, nor does the "recent:" by which Gmail is asked
// over POP3 for the last 30 days whatever was read before.
func AccountKey(protocol, user, host string) string {
	if h := strings.ToLower(host); protocol == "pop3" && (h == "pop.gmail.com" || h == "pop.googlemail.com") {
		user = strings.TrimPrefix(user, "recent:")
	}
	return protocol + ":" + user + "@" + strings.ToLower(host)
}

// AccountLabel turns an account key into what a person calls the account: the
// user, with the host only where the user is no address itself.
func AccountLabel(key string) string {
	_, who, ok := strings.Cut(key, ":")
	if !ok {
		return key
	}
	user, _, _ := cutLast(who, "@")
	if strings.Contains(user, "@") {
		return user
	}
	return who
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Ref names one message at one server.
type Ref struct {
	Account     string // AccountKey
	Mailbox     string // in archive form: UTF-8, "/" between levels
	UIDValidity uint32 // 0 over POP3
	UID         string // IMAP UID in decimal, or POP3 UIDL; opaque above the driver; "" where the server gives no usable one
}

// String names the message for a person: account, mailbox, UID.
func (r Ref) String() string {
	var parts []string
	if r.Account != "" {
		parts = append(parts, AccountLabel(r.Account))
	}
	if r.Mailbox != "" {
		parts = append(parts, r.Mailbox)
	}
	if r.UID != "" {
		word := "UID"
		if strings.HasPrefix(r.Account, "pop3:") {
			word = "UIDL"
		}
		parts = append(parts, fmt.Sprintf("%s %s", word, r.UID))
	}
	return strings.Join(parts, " ")
}

// DateSource says where Info.InternalDate came from.
type DateSource string

const (
	DateUnknown      DateSource = ""
	DateInternal     DateSource = "internaldate" // the server's INTERNALDATE
	DateReceived     DateSource = "received"     // topmost Received line
	DateHeader       DateSource = "date"         // Date line
	DateFetched      DateSource = "fetched"      // nothing readable: the time of fetching
	DateFromFileTime DateSource = "mtime"        // re-learnt from an archive whose ledger was lost
)

// Info is what a server says about a message without its octets.
type Info struct {
	Ref          Ref
	Seq          uint32     // message number of this session; never stored. 0 where there is none
	Size         int64      // octets on the wire as the server states them (RFC822.SIZE, LIST); -1 if it does not
	InternalDate time.Time  // zero if unknown
	DateFrom     DateSource // where InternalDate came from
	Flags        Flags
	ObjectID     string // EMAILID (RFC 8474), X-GM-MSGID, JMAP id; "" if the server has none
}

// Mailbox is one mailbox at a server, with what the server says of its state.
type Mailbox struct {
	Name        string // archive form: UTF-8, "/" between levels, personal namespace prefix removed, INBOX in upper case
	Raw         string // the server's own name, as it must be sent; opaque above the driver
	UIDValidity uint32 // 0 if unknown (POP3)
	UIDNext     uint32 // what is added from now on has this UID or a higher one; 0 if unknown
	Messages    int64  // -1 if unknown
	Octets      int64  // -1 if unknown
	// State changes whenever a message comes, goes or changes its flags. Two
	// equal, non-empty states mean that nothing happened in between. Empty where
	// the server gives no such guarantee.
	State string
	// SpecialUse is the RFC 6154 attribute (`\Sent`, `\Trash`, ...) or "".
	SpecialUse string
	ObjectID   string // MAILBOXID (RFC 8474) or ""
}

// Want asks for one message of a mailbox; the compact form of an Info, since a
// run may hold hundreds of thousands.
type Want struct {
	UID  string // "" only where the server gives none; then Seq counts
	Seq  uint32
	Size int64 // octets as listed; -1 unknown
}
