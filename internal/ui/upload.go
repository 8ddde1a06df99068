package ui

import "strings"

// Target is where the messages of a mailbox go at a destination.
type Target struct {
	Type string `json:"type"` // always "target"
	From string `json:"from"`
	To   string `json:"to"`
	Why  string `json:"why,omitempty"` // "map", "prefix" or the role of both mailboxes
	New  bool   `json:"new,omitempty"` // the mailbox is to be made
}

// Target prints one line of a plan.
func (u *UI) Target(t Target) {
	t.Type = "target"
	u.Object(t)
	if u.opt.JSON {
		return
	}
	var notes []string
	if t.New {
		notes = append(notes, "new")
	}
	if t.Why != "" {
		notes = append(notes, t.Why)
	}
	note := ""
	if len(notes) > 0 {
		note = " (" + strings.Join(notes, ", ") + ")"
	}
	u.Result("%s -> %s%s", t.From, t.To, note)
}

// Forecast is what a run would send, and what of it will not fit. -1 is what the
// destination does not say.
type Forecast struct {
	Type           string `json:"type"` // always "forecast"
	Messages       int64  `json:"messages"`
	Octets         int64  `json:"octets"`
	TooBig         int64  `json:"too_big"` // messages over Limit; they come besides
	Limit          int64  `json:"limit"`   // octets of one message, 0: not said
	FreeOctets     int64  `json:"free_octets"`
	FreeMessages   int64  `json:"free_messages"`
	ExcessMessages int64  `json:"excess_messages"` // about so many messages will not fit
	ExcessOctets   int64  `json:"excess_octets"`
	Uncompared     int64  `json:"uncompared"` // at the destination: what of it is equal is not sent
}

// Forecast prints what a plan comes to.
func (u *UI) Forecast(f Forecast) {
	f.Type = "forecast"
	u.Object(f)
	if u.opt.JSON {
		return
	}
	free := ""
	switch {
	case f.FreeOctets >= 0:
		free = ", " + Octets(f.FreeOctets) + " free at the destination"
	case f.FreeMessages >= 0:
		free = ", space for " + Plural(f.FreeMessages, "message") + " at the destination"
	}
	u.Result("to send: %s, %s%s", Plural(f.Messages, "message"), Octets(f.Octets), free)
	if f.Uncompared > 0 && f.Messages > 0 {
		u.Result("there already: %s, not compared in a dry run; what is equal is recognised and not sent", Plural(f.Uncompared, "message"))
	}
	if f.TooBig > 0 {
		u.Result("will not fit: %s of more than the %s that the destination takes in one", Plural(f.TooBig, "message"), Octets(f.Limit))
	}
	if f.ExcessMessages > 0 {
		u.Result("will not fit: about %s for lack of space", Plural(f.ExcessMessages, "message"))
	}
}

// UploadMailbox is what a run did in one mailbox of a destination.
type UploadMailbox struct {
	Type     string   `json:"type"` // always "mailbox"
	Mailbox  string   `json:"mailbox"`
	From     []string `json:"from"`
	Listed   int64    `json:"listed"`
	Uploaded int64    `json:"uploaded"`
	Adopted  int64    `json:"adopted"`
	Skipped  int64    `json:"skipped"`
	Failed   int64    `json:"failed"`
	Flags    int64    `json:"flags"`   // known messages whose flags were changed
	Altered  int64    `json:"altered"` // the destination changed their octets
	Repaired int64    `json:"repaired"`
	Gone     int64    `json:"gone"` // no longer at the source
	Octets   int64    `json:"octets"`
	Error    string   `json:"error,omitempty"` // why it could not be completed
}

// UploadMailbox prints the totals of one mailbox, as Mailbox does.
func (u *UI) UploadMailbox(m UploadMailbox) {
	m.Type = "mailbox"
	u.Object(m)
	if m.Uploaded+m.Adopted+m.Failed+m.Flags > 0 && !u.opt.JSON {
		u.Detail("%s: %s (%s) uploaded, %s recognised, %s already there, %s failed", m.Mailbox,
			Plural(m.Uploaded, "message"), Octets(m.Octets), Count(m.Adopted), Count(m.Skipped), Count(m.Failed))
	}
}
