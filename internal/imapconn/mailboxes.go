package imapconn

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"mailhaul/mail"
)

// statusWindow is how many STATUS commands are in flight at once where the server
// cannot put the states into the list.
const statusWindow = 100

// Mailboxes lists all mailboxes that can hold messages, each once, with their
// states, and learns how the server's names map to archive form. It costs one round
// trip where the server has LIST-STATUS (RFC 5819), else two.
func (c *Conn) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	defer c.Bind(ctx)()
	if c.Has("NAMESPACE") && !c.hasNames {
		cmd := c.client.Namespace()
		c.later = append(c.later, func() error {
			_, err := cmd.Wait()
			return ignoreRefusal(err)
		})
	}
	l := &lister{states: make(map[string]StatusEntry), seen: make(map[string]bool)}
	res, err := c.sendList(l)
	if err != nil {
		return nil, err
	}
	if !res.OK() {
		return nil, c.refused("list mailboxes", res, res.Kind(), "")
	}
	if err := c.missingStates(l); err != nil {
		return nil, err
	}
	if !c.hasNames {
		c.names = Names{Delim: l.delim()}
	} else if c.names.Delim == 0 {
		c.names.Delim = l.delim()
	}
	if p := c.names.Prefix; p != "" && (c.names.Delim == 0 || p[len(p)-1] != c.names.Delim) {
		c.names.Prefix = "" // not a prefix of levels: names stay as they are
	}
	return l.mailboxes(c.names), nil
}

// Names returns the mapping of mailbox names; it is valid after Mailboxes.
func (c *Conn) Names() Names { return c.names }

// sendList sends the best LIST the server has, and a plain one if it refuses that.
func (c *Conn) sendList(l *lister) (Result, error) {
	var options []string
	if c.Has("SPECIAL-USE") && (c.Has("LIST-EXTENDED") || c.Has("LIST-STATUS")) {
		options = append(options, "SPECIAL-USE")
	}
	if c.Has("LIST-STATUS") {
		options = append(options, "STATUS ("+c.statusItems()+")")
	}
	commands := []string{`LIST "" "*"`}
	if len(options) > 0 {
		commands = []string{commands[0] + " RETURN (" + strings.Join(options, " ") + ")", commands[0]}
	}
	var res Result
	for _, cmd := range commands {
		if _, err := c.Send(cmd); err != nil {
			return res, err
		}
		var err error
		if _, res, err = c.Next(&Handler{List: l.list, Status: l.status}); err != nil || res.OK() {
			return res, err
		}
	}
	return res, nil
}

// Subscribed lists the mailboxes that the user has subscribed to, by their names in
// archive form. It is called after Mailboxes and costs one round trip.
func (c *Conn) Subscribed(ctx context.Context) ([]string, error) {
	defer c.Bind(ctx)()
	cmd := `LSUB "" "*"`
	if c.Has("LIST-EXTENDED") || c.Has("IMAP4REV2") {
		cmd = `LIST (SUBSCRIBED) "" "*"`
	}
	if _, err := c.Send(cmd); err != nil {
		return nil, err
	}
	var names []string
	_, res, err := c.Next(&Handler{Lsub: true, List: func(e ListEntry) error {
		if len(names) >= maxMailboxes {
			return fmt.Errorf("server lists more than %d subscriptions", maxMailboxes)
		}
		if e.holdsMessages() && e.Raw != "" {
			names = append(names, c.names.Archive(e.Raw))
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	if !res.OK() {
		return nil, c.refused("list subscriptions", res, res.Kind(), "")
	}
	return names, nil
}

func (c *Conn) statusItems() string {
	items := "MESSAGES UIDNEXT UIDVALIDITY"
	if c.Has("CONDSTORE") || c.Has("QRESYNC") {
		items += " HIGHESTMODSEQ"
	}
	if c.Has("OBJECTID") {
		items += " MAILBOXID"
	}
	return items
}

// missingStates asks for the states LIST did not bring, many per round trip. A
// mailbox whose state cannot be had is not an error here.
func (c *Conn) missingStates(l *lister) error {
	if c.Has("LIST-STATUS") && len(l.states) > 0 {
		return nil
	}
	for i, e := range l.entries {
		if !e.holdsMessages() {
			continue
		}
		name, ok := commandString(e.Raw, c.literalPlus())
		if !ok {
			continue
		}
		if _, err := c.Send("STATUS " + name + " (" + c.statusItems() + ")"); err != nil {
			return err
		}
		if c.InFlight() >= statusWindow || i == len(l.entries)-1 {
			if err := c.drain(l); err != nil {
				return err
			}
		}
	}
	return c.drain(l)
}

func (c *Conn) drain(l *lister) error {
	for c.InFlight() > 0 {
		if _, _, err := c.Next(&Handler{Status: l.status}); err != nil {
			return err
		}
	}
	return nil
}

// lister collects LIST and STATUS responses.
type lister struct {
	entries []ListEntry
	seen    map[string]bool
	states  map[string]StatusEntry
}

// key makes INBOX one name, whatever its case.
func key(raw string) string {
	if strings.EqualFold(raw, "INBOX") {
		return "INBOX"
	}
	return raw
}

func (l *lister) list(e ListEntry) error {
	if l.seen[key(e.Raw)] || e.Raw == "" {
		return nil
	}
	if len(l.entries) >= maxMailboxes {
		return fmt.Errorf("server lists more than %d mailboxes", maxMailboxes)
	}
	l.seen[key(e.Raw)] = true
	l.entries = append(l.entries, e)
	return nil
}

func (l *lister) status(e StatusEntry) error {
	if len(l.states) < maxMailboxes {
		l.states[key(e.Raw)] = e
	}
	return nil
}

// delim is the delimiter of INBOX, or the first one listed.
func (l *lister) delim() byte {
	var first byte
	for _, e := range l.entries {
		if e.Delim == 0 {
			continue
		}
		if key(e.Raw) == "INBOX" {
			return e.Delim
		}
		if first == 0 {
			first = e.Delim
		}
	}
	return first
}

func (e ListEntry) holdsMessages() bool { return !e.Has(`\Noselect`) && !e.Has(`\NonExistent`) }

// specialUses of RFC 6154, in the order in which one is taken.
var specialUses = []string{`\All`, `\Archive`, `\Drafts`, `\Flagged`, `\Junk`, `\Sent`, `\Trash`, `\Important`}

func (l *lister) mailboxes(names Names) []mail.Mailbox {
	var all []mail.Mailbox
	for _, e := range l.entries {
		if !e.holdsMessages() {
			continue
		}
		mb := mail.Mailbox{Name: names.Archive(e.Raw), Raw: e.Raw, Messages: -1, Octets: -1}
		if i := slices.IndexFunc(specialUses, e.Has); i >= 0 {
			mb.SpecialUse = specialUses[i]
		}
		if st, ok := l.states[key(e.Raw)]; ok {
			st.describe(&mb)
		}
		all = append(all, mb)
	}
	return all
}

// describe puts a state into a mailbox. Without HIGHESTMODSEQ (RFC 7162) flags may
// change unnoticed, so nothing is promised.
func (e StatusEntry) describe(mb *mail.Mailbox) {
	mb.Messages, mb.Octets, mb.ObjectID = e.Messages, e.Size, e.MailboxID
	if e.UIDValidity > 0 && e.UIDValidity < 1<<32 {
		mb.UIDValidity = uint32(e.UIDValidity)
	}
	if e.UIDNext > 0 && e.UIDNext < 1<<32 {
		mb.UIDNext = uint32(e.UIDNext)
	}
	if mb.UIDValidity > 0 && e.UIDNext > 0 && e.Messages >= 0 && e.HighestModSeq > 0 {
		mb.State = fmt.Sprintf("%d:%d:%d:%d", mb.UIDValidity, e.UIDNext, e.Messages, e.HighestModSeq)
	}
}

// State is what a mail.Mailbox's State says.
type State struct {
	UIDValidity   uint32
	UIDNext       uint32
	Messages      int64
	HighestModSeq uint64
}

// ParseState reads a State; ok is false if it is none of this package's.
func ParseState(text string) (s State, ok bool) {
	var end string
	n, _ := fmt.Sscanf(text+" .", "%d:%d:%d:%d %s", &s.UIDValidity, &s.UIDNext, &s.Messages, &s.HighestModSeq, &end)
	return s, n == 5 && end == "." && s.UIDValidity > 0 && s.UIDNext > 0 && s.Messages >= 0 && s.HighestModSeq > 0
}
