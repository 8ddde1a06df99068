package ui

import (
	"fmt"
	"strings"
	"time"

	"mailhaul/mail"
)

// Compared is how a comparison of two places ended.
type Compared struct {
	Type         string  `json:"type"` // always "summary"
	Command      string  `json:"command"`
	Archive      string  `json:"archive,omitempty"` // the left side is an archive
	Source       string  `json:"source,omitempty"`  // or a server
	Dest         string  `json:"dest"`
	Mailboxes    int64   `json:"mailboxes"`
	Listed       int64   `json:"listed"` // on the left
	ListedOctets int64   `json:"listed_octets"`
	DestListed   int64   `json:"dest_listed"`
	DestOctets   int64   `json:"dest_octets"`
	Compared     int64   `json:"compared"`  // of Listed
	Unsampled    int64   `json:"unsampled"` // of Listed: left out by --sample
	Same         int64   `json:"same"`
	Octets       int64   `json:"octets"` // of Same
	Known        int64   `json:"known"`  // altered as servers are known to
	Altered      int64   `json:"altered"`
	Moved        int64   `json:"moved"` // in another mailbox
	Missing      int64   `json:"missing"`
	Explained    int64   `json:"explained"` // need not be there: deleted by us, or gone before
	Deleted      int64   `json:"deleted"`   // part of Explained: by us
	Extra        int64   `json:"extra"`
	Unarchived   int64   `json:"unarchived"` // at the source, not in the archive
	Unreadable   int64   `json:"unreadable"`
	Vanished     int64   `json:"vanished"`           // went meanwhile
	Verified     *int64  `json:"verified,omitempty"` // of the archive: read back with the right octets
	Damaged      *int64  `json:"damaged,omitempty"`  // of the archive: missing, altered or unreadable
	Repaired     *int64  `json:"repaired,omitempty"`
	Complete     bool    `json:"complete"`
	Seconds      float64 `json:"seconds"`
	Exit         int     `json:"exit"`
}

// ComparedMailbox is one line of a comparison.
type ComparedMailbox struct {
	Type       string   `json:"type"`    // always "mailbox"
	Mailbox    string   `json:"mailbox"` // at the right side
	From       []string `json:"from"`    // those of the left side
	Exists     bool     `json:"exists"`  // at the right side
	Listed     int64    `json:"listed"`
	Octets     int64    `json:"octets"`
	DestListed int64    `json:"dest_listed"`
	DestOctets int64    `json:"dest_octets"`
	Compared   int64    `json:"compared"`
	Same       int64    `json:"same"`
	Known      int64    `json:"known"`
	Altered    int64    `json:"altered"`
	Moved      int64    `json:"moved"`
	Missing    int64    `json:"missing"`
	Explained  int64    `json:"explained"`
	Deleted    int64    `json:"deleted"`
	Extra      int64    `json:"extra"`
	Unarchived int64    `json:"unarchived"`
	Unreadable int64    `json:"unreadable"`
}

// Name is the mailbox for a person, with those its messages come from where they
// are called otherwise.
func (m ComparedMailbox) Name() string {
	from := strings.Join(m.From, ", ")
	if from == "" || from == m.Mailbox {
		return m.Mailbox
	}
	return from + " -> " + m.Mailbox
}

// Note says in a few words what is to be said of a mailbox.
func (m ComparedMailbox) Note() string {
	var parts []string
	add := func(n int64, word string) {
		if n > 0 {
			parts = append(parts, Count(n)+" "+word)
		}
	}
	add(m.Missing, "missing")
	add(m.Altered, "altered")
	add(m.Unarchived, "not archived")
	add(m.Unreadable, "unreadable")
	add(m.Known, "altered by the server")
	add(m.Moved, "in another mailbox")
	add(m.Deleted, "deleted by us")
	add(m.Explained-m.Deleted, "gone before")
	add(m.Extra, "extra")
	switch {
	case len(parts) == 0 && m.Listed != m.DestListed:
		return "what differs belongs to other mailboxes"
	case len(parts) == 0:
		return "equal"
	}
	return strings.Join(parts, ", ")
}

// maxName is the widest column for names of mailboxes.
const maxName = 34

// ComparedMailboxes prints the table of a comparison, or an object for each.
func (u *UI) ComparedMailboxes(left, right string, all []ComparedMailbox) {
	name := columnsOf("mailbox")
	for _, m := range all {
		m.Type = "mailbox"
		u.Object(m)
		name = max(name, columnsOf(Escape(m.Name())))
	}
	if u.opt.JSON || u.opt.Quiet || len(all) == 0 {
		return
	}
	name = min(name, maxName)
	const side = 9 + 1 + 9
	u.Result("%s  %s  %s", Pad("mailbox", name), padLeft(left, side), padLeft(right, side))
	for _, m := range all {
		u.Result("%s  %9s %9s  %9s %9s  %s", Pad(Escape(m.Name()), name),
			Count(m.Listed), Octets(m.Octets), Count(m.DestListed), Octets(m.DestOctets), m.Note())
	}
}

func padLeft(s string, columns int) string {
	s = cut(s, columns)
	return strings.Repeat(" ", columns-columnsOf(s)) + s
}

// Difference is one message that is not on both sides as it should.
type Difference struct {
	Type    string    `json:"type"` // always "finding"
	Kind    string    `json:"kind"` // missing, unarchived, altered, unreadable, known, moved or extra
	Account string    `json:"account,omitempty"`
	Mailbox string    `json:"mailbox"`
	UID     string    `json:"uid,omitempty"`
	Other   string    `json:"other,omitempty"` // mailbox at the right side
	Date    time.Time `json:"date,omitzero"`
	Octets  int64     `json:"octets"`
	From    string    `json:"from,omitempty"`
	Subject string    `json:"subject,omitempty"`
	Digest  string    `json:"digest,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Hint    string    `json:"hint,omitempty"`
	Wrong   bool      `json:"-"` // it is an error, and not only to be mentioned
}

// Sentence says for a person what the message is.
func (d Difference) Sentence() string {
	var parts []string
	if !d.Date.IsZero() {
		parts = append(parts, d.Date.UTC().Format("2006-01-02 15:04"))
	}
	if d.From != "" {
		parts = append(parts, d.From)
	}
	if d.Subject != "" {
		parts = append(parts, fmt.Sprintf("%q", d.Subject))
	}
	parts = append(parts, Octets(d.Octets))
	if d.Digest != "" {
		parts = append(parts, "SHA-256 "+d.Digest[:min(12, len(d.Digest))])
	}
	return strings.Join(parts, ", ")
}

// Difference prints one finding.
func (u *UI) Difference(ref mail.Ref, d Difference) {
	d.Type = "finding"
	if u.opt.JSON {
		u.Object(d)
		return
	}
	text := d.Reason + ": " + d.Sentence()
	if d.Wrong {
		u.Error(&mail.Error{Kind: mail.KindIntegrity, Ref: ref, Err: fmt.Errorf("%s", text), Hint: d.Hint})
		return
	}
	u.Note("%s: %s", ref, text)
}

// Compared prints the end of a comparison; done says whether there is a result to
// tell besides the error.
func (u *UI) Compared(label string, c Compared, done bool) {
	c.Type = "summary"
	if u.opt.JSON {
		u.Object(c)
		return
	}
	if !done || u.opt.Quiet && c.Exit == 0 {
		return
	}
	u.Result("%s: %s, in %s", label, c.Line(), Duration(time.Duration(c.Seconds*float64(time.Second))))
}

// Line is the result in one sentence.
func (c Compared) Line() string {
	verdict := "complete"
	if !c.Complete {
		verdict = "NOT complete"
	}
	parts := []string{fmt.Sprintf("%s: %s (%s) the same", verdict, Plural(c.Same, "message"), Octets(c.Octets))}
	add := func(n int64, word string, always bool) {
		if n > 0 || always {
			parts = append(parts, Count(n)+" "+word)
		}
	}
	add(c.Missing, "missing", true)
	add(c.Altered, "altered", true)
	add(c.Unarchived, "not archived", false)
	if c.Damaged != nil {
		add(*c.Damaged, "damaged in the archive", false)
	}
	if c.Repaired != nil {
		add(*c.Repaired, "repaired", true)
	}
	add(c.Unreadable, "unreadable", false)
	add(c.Known, "altered as servers are known to", false)
	add(c.Moved, "in another mailbox", false)
	add(c.Deleted, "deleted by us", false)
	add(c.Explained-c.Deleted, "gone before", false)
	add(c.Extra, "extra", false)
	add(c.Unsampled, "not looked at", false)
	return strings.Join(parts, ", ")
}
