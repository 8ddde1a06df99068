package ui

import (
	"fmt"
	"strings"
	"time"
)

// Summary is how a run ended. Counters a verb cannot have are nil.
type Summary struct {
	Type       string  `json:"type"` // "summary", or "account" of several
	Command    string  `json:"command"`
	Source     string  `json:"source,omitempty"`
	Archive    string  `json:"archive,omitempty"`
	Dest       string  `json:"dest,omitempty"`
	DryRun     bool    `json:"dry_run,omitempty"`
	Listed     *int64  `json:"listed,omitempty"` // selected at the source
	Archived   *int64  `json:"archived,omitempty"`
	Uploaded   *int64  `json:"uploaded,omitempty"`
	Adopted    *int64  `json:"adopted,omitempty"` // recognised in the archive by content
	Deleted    *int64  `json:"deleted,omitempty"`
	Removed    *int64  `json:"removed,omitempty"` // migrate: deleted at the destination
	Skipped    *int64  `json:"skipped,omitempty"` // already held
	Failed     *int64  `json:"failed,omitempty"`
	Suspicious *int64  `json:"suspicious,omitempty"` // part of archived, or of uploaded and adopted
	Checked    *int64  `json:"checked,omitempty"`    // verify: messages read back
	Flags      *int64  `json:"flags,omitempty"`      // uploaded before, and their flags were changed now
	Altered    *int64  `json:"altered,omitempty"`    // uploaded or adopted, but the destination changed their octets
	Repaired   *int64  `json:"repaired,omitempty"`   // part of uploaded: a repaired copy was sent
	Gone       *int64  `json:"gone,omitempty"`       // no longer at the source; part of listed, or left out with --present
	Octets     int64   `json:"octets"`               // archived, uploaded or read back
	Seconds    float64 `json:"seconds"`
	Exit       int     `json:"exit"`
}

// Mailbox is what a run did in one mailbox.
type Mailbox struct {
	Type       string `json:"type"` // always "mailbox"
	Mailbox    string `json:"mailbox"`
	Listed     int64  `json:"listed"`
	Archived   int64  `json:"archived"`
	Adopted    int64  `json:"adopted"`
	Skipped    int64  `json:"skipped"`
	Failed     int64  `json:"failed"`
	Suspicious int64  `json:"suspicious"`
	Octets     int64  `json:"octets"`
	Error      string `json:"error,omitempty"` // why it could not be completed
}

// Mailbox prints the totals of one mailbox: an object with JSON, with verbose a
// line for each that had something to do.
func (u *UI) Mailbox(m Mailbox) {
	m.Type = "mailbox"
	u.Object(m)
	if m.Archived+m.Adopted+m.Failed > 0 && !u.opt.JSON {
		u.Detail("%s: %s (%s) archived, %s recognised, %s already there, %s failed", m.Mailbox,
			Plural(m.Archived, "new message"), Octets(m.Octets), Count(m.Adopted), Count(m.Skipped), Count(m.Failed))
	}
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}

// Balance returns ErrUnbalanced unless every listed message is accounted for.
// A run that was stopped before its end has listed what it did not reach; only
// complete runs are held to it.
func (s Summary) Balance() error {
	if s.Listed == nil {
		return nil
	}
	done := value(s.Archived) + value(s.Uploaded) + value(s.Adopted) + value(s.Skipped) + value(s.Failed)
	most := value(s.Archived)
	if s.Uploaded != nil {
		most = done // it may have been refused where it was sent to
	}
	if done == *s.Listed && value(s.Suspicious) <= most {
		return nil
	}
	return fmt.Errorf("%w: %d listed, but %d archived, %d uploaded, %d adopted, %d skipped and %d failed",
		ErrUnbalanced, *s.Listed, value(s.Archived), value(s.Uploaded), value(s.Adopted), value(s.Skipped), value(s.Failed))
}

// line is the closing line of a run.
func (s Summary) line(label string) string {
	n, what := s.Archived, "new message"
	if s.Uploaded != nil {
		n, what = s.Uploaded, "message"
	}
	parts := []string{fmt.Sprintf("%s (%s) %s", Plural(value(n), what), Octets(s.Octets), s.verb())}
	optional := func(n *int64, word string) {
		if value(n) > 0 {
			parts = append(parts, Count(*n)+" "+word)
		}
	}
	optional(s.Suspicious, "of them suspicious")
	optional(s.Adopted, "recognised")
	parts = append(parts, Count(value(s.Skipped))+" already there", Count(value(s.Failed))+" failed")
	optional(s.Flags, "with new flags")
	optional(s.Altered, "altered by the server")
	optional(s.Repaired, "as repaired copies")
	optional(s.Gone, "no longer at the source")
	switch {
	case s.Uploaded == nil:
		optional(s.Deleted, "deleted at the server")
	case s.DryRun:
		optional(s.Deleted, "to delete at the source")
		optional(s.Removed, "to remove at the destination")
	default:
		optional(s.Deleted, "deleted at the source")
		optional(s.Removed, "removed at the destination")
	}
	return fmt.Sprintf("%s: %s, in %s", label, strings.Join(parts, ", "),
		Duration(time.Duration(s.Seconds*float64(time.Second))))
}

// verb is what was done with the messages, or would be.
func (s Summary) verb() string {
	done, planned := "archived", "to archive"
	switch {
	case s.Command == "undo":
		done, planned = "put back", "to put back"
	case s.Uploaded != nil:
		done, planned = "uploaded", "to upload"
	}
	if s.DryRun {
		return planned
	}
	return done
}

// Summary prints the end of a backup: an object with JSON, else the closing
// line; quiet leaves it out if all went well.
func (u *UI) Summary(label string, s Summary) {
	s.Type = u.last()
	u.told.add(Escape(s.line(label)))
	if u.opt.JSON {
		u.Object(s)
		return
	}
	if u.opt.Quiet && s.Exit == 0 {
		return
	}
	u.Result("%s", s.line(label))
}
