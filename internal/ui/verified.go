package ui

import (
	"fmt"
	"strings"
	"time"

	"mailhaul/mail"
)

// Verified is how a verification ended.
type Verified struct {
	Type       string  `json:"type"` // "summary", or "account" of several
	Command    string  `json:"command"`
	Archive    string  `json:"archive,omitempty"`
	Mailboxes  int64   `json:"mailboxes"`
	Messages   int64   `json:"messages"` // on record
	Verified   int64   `json:"verified"` // read back with the right octets
	Missing    int64   `json:"missing"`
	Altered    int64   `json:"altered"`
	Unreadable int64   `json:"unreadable"`
	Extra      int64   `json:"extra"`               // files that no backup wrote
	Skipped    int64   `json:"skipped"`             // left out of a sample
	Accepted   int64   `json:"accepted,omitempty"`  // missing or altered, and wanted so
	SetAside   int64   `json:"set_aside,omitempty"` // for the next backup to fetch again
	Octets     int64   `json:"octets"`
	Seconds    float64 `json:"seconds"`
	Exit       int     `json:"exit"`
}

// Finding is one message that is not as it was archived, or one extra file.
type Finding struct {
	Type    string    `json:"type"` // always "finding"
	Kind    string    `json:"kind"` // missing, altered, unreadable or extra
	Mailbox string    `json:"mailbox,omitempty"`
	Place   string    `json:"place"`
	Digest  string    `json:"digest,omitempty"`
	Date    time.Time `json:"date,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	Hint    string    `json:"hint,omitempty"`
}

// Finding prints one finding; an extra file is only mentioned.
func (u *UI) Finding(f Finding) {
	f.Type = "finding"
	switch {
	case u.opt.JSON:
		u.Object(f)
	case f.Digest == "":
		u.Note("%s: extra: no backup wrote it", f.Place)
	default:
		what := f.Kind
		if f.Place != "" {
			what += ": " + f.Place
		}
		u.Error(&mail.Error{
			Kind: mail.KindIntegrity, Ref: mail.Ref{Mailbox: f.Mailbox}, Hint: f.Hint,
			Err: fmt.Errorf("message of %s, SHA-256 %.12s: %s", f.Date.UTC().Format("2006-01-02 15:04"), f.Digest, what),
		})
	}
}

// Verified prints the end of a verification; complete says whether there is a
// result to tell besides the error.
func (u *UI) Verified(v Verified, complete bool) {
	v.Type = u.last()
	if u.opt.JSON {
		u.Object(v)
		return
	}
	if !complete || u.opt.Quiet && v.Exit == 0 {
		return
	}
	parts := []string{fmt.Sprintf("%s in %s verified (%s)", Plural(v.Verified, "message"), Plural(v.Mailboxes, "mailbox"), Octets(v.Octets)),
		Count(v.Missing) + " missing", Count(v.Altered) + " altered", Count(v.Unreadable) + " unreadable", Plural(v.Extra, "extra file")}
	add := func(n int64, what string) {
		if n > 0 {
			parts = append(parts, Count(n)+" "+what)
		}
	}
	add(v.Skipped, "not looked at")
	add(v.Accepted, "accepted as they are")
	add(v.SetAside, "set aside")
	u.Result("%s: %s, in %s", u.named(v.Archive), strings.Join(parts, ", "), Duration(time.Duration(v.Seconds*float64(time.Second))))
}
