package mail

import (
	"slices"
	"strings"
)

// Flags is a set of IMAP flags and keywords in one canonical form: system flags
// (`\Answered`, `\Deleted`, ...) in their RFC 9051 spelling, then keywords as
// the server wrote them, both sorted, separated by one space. Two sets are equal
// when the strings are.
type Flags string

const (
	Seen     = `\Seen`
	Answered = `\Answered`
	Flagged  = `\Flagged`
	Deleted  = `\Deleted`
	Draft    = `\Draft`
)

var systemFlags = []string{Answered, Deleted, Draft, Flagged, Seen}

// NewFlags puts flags into canonical form. \Recent, the empty string, unknown
// backslash flags and anything that is no printable ASCII or UTF-8 atom are
// dropped; keywords are compared without case (RFC 9051 section 2.3.2).
func NewFlags(list ...string) Flags {
	seen := make(map[string]bool, len(list))
	var system, keywords []string
	for _, f := range list {
		f, ok := canonicalFlag(f)
		if !ok || seen[strings.ToLower(f)] {
			continue
		}
		seen[strings.ToLower(f)] = true
		if f[0] == '\\' {
			system = append(system, f)
		} else {
			keywords = append(keywords, f)
		}
	}
	slices.Sort(system)
	slices.Sort(keywords)
	return Flags(strings.Join(append(system, keywords...), " "))
}

func canonicalFlag(f string) (string, bool) {
	if f == "" {
		return "", false
	}
	if f[0] == '\\' {
		for _, s := range systemFlags {
			if strings.EqualFold(f, s) {
				return s, true
			}
		}
		return "", false
	}
	for _, r := range f {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`(){%*"\]`, r) {
			return "", false
		}
	}
	return f, true
}

// List returns the flags one by one; nil for none.
func (f Flags) List() []string { return strings.Fields(string(f)) }

// Has tells whether the set holds flag, without regard to case.
func (f Flags) Has(flag string) bool {
	for have := range strings.FieldsSeq(string(f)) {
		if strings.EqualFold(have, flag) {
			return true
		}
	}
	return false
}

// Keywords returns the flags that are no system flags.
func (f Flags) Keywords() []string {
	return slices.DeleteFunc(f.List(), func(s string) bool { return s[0] == '\\' })
}

// With returns the set and flags.
func (f Flags) With(flags ...string) Flags { return NewFlags(append(f.List(), flags...)...) }

// Without returns the set less flags.
func (f Flags) Without(flags ...string) Flags {
	drop := NewFlags(flags...)
	return NewFlags(slices.DeleteFunc(f.List(), drop.Has)...)
}

// MergeFlags merges three ways: what changed from base to server is applied to
// local; what was changed locally stays.
func MergeFlags(base, server, local Flags) Flags {
	var added, removed []string
	for _, f := range server.List() {
		if !base.Has(f) {
			added = append(added, f)
		}
	}
	for _, f := range base.List() {
		if !server.Has(f) {
			removed = append(removed, f)
		}
	}
	return local.Without(removed...).With(added...)
}
