package mail

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Selection narrows what a verb works on. The zero value selects everything.
type Selection struct {
	Mailboxes []string  // globs; empty means all. `*` stops at "/", `**` does not
	Exclude   []string  // globs
	Since     time.Time // inclusive; zero means no limit
	Before    time.Time // exclusive; zero means no limit
	Larger    int64     // octets, exclusive; 0 means no limit
	Smaller   int64     // octets, exclusive; 0 means no limit
	Flagged   *bool
	Seen      *bool
}

// All tells that every message is selected, so that a mailbox read under this
// selection was read completely.
func (s Selection) All() bool {
	return !s.NeedsDate() && s.Larger == 0 && s.Smaller == 0 && s.Flagged == nil && s.Seen == nil
}

// NeedsDate tells whether Match looks at the date.
func (s Selection) NeedsDate() bool { return !s.Since.IsZero() || !s.Before.IsZero() }

// MatchMailbox tells whether a mailbox (archive form) is selected.
func (s Selection) MatchMailbox(name string) bool {
	for _, g := range s.Exclude {
		if MatchGlob(g, name) {
			return false
		}
	}
	if len(s.Mailboxes) == 0 {
		return true
	}
	for _, g := range s.Mailboxes {
		if MatchGlob(g, name) {
			return true
		}
	}
	return false
}

// CheckNames returns an error of KindUsage where a mailbox that is selected or
// excluded by its name, not by a pattern, is none of all. account is for the error.
func (s Selection) CheckNames(account string, all []Mailbox) error {
	for _, name := range slices.Concat(s.Mailboxes, s.Exclude) {
		if IsGlob(name) || slices.ContainsFunc(all, func(mb Mailbox) bool { return MatchGlob(name, mb.Name) }) {
			continue
		}
		return &Error{
			Kind: KindUsage, Ref: Ref{Account: account, Mailbox: name},
			Err: errors.New("no such mailbox"), Hint: nameMailboxes(all),
		}
	}
	return nil
}

func nameMailboxes(all []Mailbox) string {
	const most = 20
	if len(all) == 0 {
		return "there are no mailboxes"
	}
	names := make([]string, len(all))
	for i, mb := range all {
		names[i] = mb.Name
	}
	slices.Sort(names)
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return "the mailboxes are " + strings.Join(names, ", ")
}

// Match tells whether a message is selected, and whether that can be said: known
// is false where the date or the size it depends on is unknown. A rule that
// deletes must take unknown for no, a rule that copies for yes.
func (s Selection) Match(in Info) (match, known bool) {
	if s.Flagged != nil && in.Flags.Has(Flagged) != *s.Flagged {
		return false, true
	}
	if s.Seen != nil && in.Flags.Has(Seen) != *s.Seen {
		return false, true
	}
	known = true
	if s.Larger > 0 || s.Smaller > 0 {
		switch {
		case in.Size < 0:
			known = false
		case s.Larger > 0 && in.Size <= s.Larger, s.Smaller > 0 && in.Size >= s.Smaller:
			return false, true
		}
	}
	if s.NeedsDate() {
		switch {
		case in.InternalDate.IsZero():
			known = false
		case !s.Since.IsZero() && in.InternalDate.Before(s.Since), !s.Before.IsZero() && !in.InternalDate.Before(s.Before):
			return false, true
		}
	}
	return true, known
}

// IsGlob tells whether a mailbox argument is a pattern rather than a name.
func IsGlob(pattern string) bool { return strings.ContainsAny(pattern, "*?") }

// MatchGlob matches a mailbox name: `**` any octets, `*` any but "/", `?` one
// character but "/". INBOX is compared without regard to case.
func MatchGlob(pattern, name string) bool {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); {
		switch {
		case strings.HasPrefix(pattern[i:], "**"):
			b.WriteString(`.*`)
			i += 2
		case pattern[i] == '*':
			b.WriteString(`[^/]*`)
			i++
		case pattern[i] == '?':
			b.WriteString(`[^/]`)
			i++
		default:
			end := i + 1
			for end < len(pattern) && pattern[end] != '*' && pattern[end] != '?' {
				end++
			}
			b.WriteString(regexp.QuoteMeta(pattern[i:end]))
			i = end
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil { // invalid UTF-8 in the pattern
		return pattern == name
	}
	if strings.EqualFold(pattern, "INBOX") || strings.HasPrefix(strings.ToUpper(pattern), "INBOX/") {
		re = regexp.MustCompile(`(?i)` + re.String())
		_, rest, _ := strings.Cut(name, "/")
		_, prest, _ := strings.Cut(pattern, "/")
		return re.MatchString(name) && (prest == rest || MatchGlob(prest, rest))
	}
	return re.MatchString(name)
}
