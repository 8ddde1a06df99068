package testserver

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Names of Gmail's own mailboxes.
const (
	GmailAll   = "[Gmail]/All Mail"
	GmailSent  = "[Gmail]/Sent Mail"
	GmailTrash = "[Gmail]/Trash"
)

// Gmail is an account with the manners of Gmail: a message is one thing with labels,
// shown in the mailbox of each and in All Mail; moving it to the trash takes all
// labels off, and what is appended a second time is the message that is there.
type Gmail struct {
	IMAP
	mu     sync.Mutex
	octets map[string]string          // by X-GM-MSGID
	labels map[string]map[string]bool // likewise; mailboxes
	modSeq map[string]int             // by mailbox
	nextID int64
}

// NewGmail returns an account with Gmail's own mailboxes and those of labels. Start
// and Close are the caller's.
func NewGmail(labels ...string) *Gmail {
	g := &Gmail{octets: make(map[string]string), labels: make(map[string]map[string]bool), modSeq: make(map[string]int), nextID: 1}
	g.Capabilities = "IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 X-GM-EXT-1 UIDPLUS MOVE ID CONDSTORE SPECIAL-USE LITERAL- APPENDLIMIT=35651584"
	g.Boxes = make(map[string][]IMAPMessage)
	g.Attributes = map[string]string{
		GmailAll: `\All \HasNoChildren`, GmailSent: `\HasNoChildren \Sent`, GmailTrash: `\HasNoChildren \Trash`,
		"[Gmail]/Starred": `\Flagged \HasNoChildren`, "[Gmail]/Important": `\HasNoChildren \Important`, "[Gmail]": `\HasChildren \Noselect`,
	}
	for _, name := range slices.Concat(labels, slices.Collect(maps.Keys(g.Attributes))) {
		g.Boxes[name] = nil
	}
	g.Answer = g.answer
	g.Appended = g.appended
	return g
}

// Add adds a message and returns its X-GM-MSGID.
func (g *Gmail) Add(octets string, labels ...string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.add(octets, labels...)
}

func (g *Gmail) add(octets string, labels ...string) string {
	id := fmt.Sprint(1_700_000_000_000_000_000 + g.nextID)
	g.nextID++
	g.octets[id], g.labels[id] = octets, make(map[string]bool)
	g.show(GmailAll, id)
	for _, l := range labels {
		g.label(id, l)
	}
	return id
}

// Label gives a message a label.
func (g *Gmail) Label(id, label string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.label(id, label)
}

func (g *Gmail) label(id, label string) {
	if !g.labels[id][label] {
		g.labels[id][label] = true
		g.show(label, id)
		g.relabel(id)
	}
}

// Unlabel takes a label off.
func (g *Gmail) Unlabel(id, label string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.labels[id], label)
	g.hide(label, id)
	g.relabel(id)
}

// Labels returns where each message is to be seen but in All Mail, sorted, by octets.
func (g *Gmail) Labels() map[string][]string {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make(map[string][]string)
	for id, octets := range g.octets {
		all[octets] = slices.Sorted(maps.Keys(g.labels[id]))
	}
	return all
}

// appended keeps messages in a mailbox, as APPEND does.
func (g *Gmail) appended(c *IMAPConn, mailbox string, messages []string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Contains(g.names(), quote(mailbox)) {
		return false
	}
	first := g.uidNext(mailbox)
	for _, octets := range messages {
		id := ""
		for known, o := range g.octets {
			if o == octets {
				id = known
			}
		}
		switch {
		case id == "":
			id = g.add(octets)
		case g.labels[id][mailbox]:
			c.OK(g.APPENDUID(first, 1) + "(Success)") // thrown away
			return true
		}
		if mailbox != GmailAll {
			g.label(id, mailbox)
		}
	}
	c.OK(g.APPENDUID(first, len(messages)) + "(Success)")
	return true
}

func msgid(id string) string { return "X-GM-MSGID " + id }

// show puts a message into a mailbox, with mu held.
func (g *Gmail) show(mailbox, id string) {
	g.modSeq[mailbox]++
	g.Store(mailbox, IMAPMessage{Octets: g.octets[id], More: msgid(id) + " MODSEQ (1)"})
}

func (g *Gmail) hide(mailbox, id string) {
	g.modSeq[mailbox]++
	g.Change(mailbox, func(m *IMAPMessage) bool { return !strings.HasPrefix(m.More, msgid(id)+" ") })
}

// relabel has All Mail show the labels a message has now.
func (g *Gmail) relabel(id string) {
	var labels []string
	for l := range g.labels[id] {
		switch l {
		case "INBOX":
			l = `\Inbox`
		case GmailSent:
			l = `\Sent`
		}
		labels = append(labels, quoted(l))
	}
	g.Change(GmailAll, func(m *IMAPMessage) bool {
		if strings.HasPrefix(m.More, msgid(id)+" ") {
			m.More = msgid(id) + " MODSEQ (1) X-GM-LABELS (" + strings.Join(labels, " ") + ")"
		}
		return true
	})
}

func (g *Gmail) answer(c *IMAPConn, cmd string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	verb, rest, _ := strings.Cut(cmd, " ")
	switch name := argument(rest); {
	case verb == "STATUS":
		c.Send(fmt.Sprintf("* STATUS %s (MESSAGES %d UIDNEXT %d UIDVALIDITY %s HIGHESTMODSEQ %d)\r\n",
			quote(name), len(g.Held(name)), g.uidNext(name), g.validity(), g.modSeq[name]+1))
		c.OK("done")
	case verb == "SELECT" || verb == "EXAMINE":
		c.Send(fmt.Sprintf("* OK [HIGHESTMODSEQ %d] ok\r\n", g.modSeq[name]+1))
		return false
	case strings.HasPrefix(cmd, "UID MOVE "):
		set, to, _ := strings.Cut(strings.TrimPrefix(cmd, "UID MOVE "), " ")
		if argument(to) != GmailTrash {
			c.NO("only to the trash here")
			return true
		}
		for _, m := range g.Held(c.box) {
			if InSet(set, m.UID) {
				g.bin(strings.Fields(m.More)[1])
			}
		}
		c.OK("done")
	default:
		return false
	}
	return true
}

// bin moves a message to the trash: no label is left, and All Mail does not show it.
func (g *Gmail) bin(id string) {
	for label := range g.labels[id] {
		g.hide(label, id)
	}
	clear(g.labels[id])
	g.hide(GmailAll, id)
	g.show(GmailTrash, id)
	g.labels[id][GmailTrash] = true
}
