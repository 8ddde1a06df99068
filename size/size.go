// Package size tells where the space of an account or an archive is: by mailbox,
// year, sender and size of message, and what rules of clean would free.
package size

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailhaul/mail"
)

// Sum is a number of messages and the octets of their wire forms.
type Sum struct{ Messages, Octets int64 }

func (s *Sum) add(octets int64) { s.Messages, s.Octets = s.Messages+1, s.Octets+octets }

// Group is what messages with something in common take.
type Group struct {
	Name string
	Sum
}

// Rule is a rule of clean and what it would free. Flagged messages stay, as clean
// leaves them.
type Rule struct {
	Flags string // as they are typed
	Sum
}

// Sizes is where the space is.
type Sizes struct {
	Total     Sum
	Mailboxes []Group // largest first
	Years     []Group // latest first; "" for messages without a readable date
	Senders   []Group // largest first; "" for messages without a readable sender
	Classes   []Group // smallest messages first; every class
	Rules     []Rule
	// Others is what senders beyond the largest take, where there are very many.
	Others Sum
	// WithSenders says that senders were looked at.
	WithSenders bool
	// Unsized is how many messages the server states no size of.
	Unsized int64
}

// message is what is counted of one.
type message struct {
	mailbox string
	size    int64
	date    time.Time
	flagged bool
}

// classes are the upper limits of the classes of size.
var classes = []struct {
	below int64
	name  string
}{
	{10 << 10, "below 10 KiB"}, {100 << 10, "10 to 100 KiB"}, {1 << 20, "100 KiB to 1 MiB"}, {10 << 20, "1 to 10 MiB"},
	{100 << 20, "10 to 100 MiB"}, {1<<63 - 1, "100 MiB and more"},
}

// rule is a rule that is tried.
type rule struct {
	flags  string
	before time.Time
	larger int64
	sum    Sum
}

// maxSenders is how many senders are told apart; when there are more, the smallest
// are put together.
const maxSenders = 20_000

// counter counts messages, in memory that depends on mailboxes, years and
// maxSenders.
type counter struct {
	total     Sum
	unsized   int64
	mailboxes map[string]*Sum
	years     map[string]*Sum
	senders   map[string]*Sum
	others    Sum
	classes   []Sum
	rules     []rule
}

func newCounter(now time.Time) *counter {
	c := &counter{
		mailboxes: make(map[string]*Sum), years: make(map[string]*Sum), senders: make(map[string]*Sum), classes: make([]Sum, len(classes)),
	}
	years := func(n int) time.Time { return now.AddDate(-n, 0, 0) }
	c.rules = []rule{
		{flags: "--older-than 1y", before: years(1)}, {flags: "--older-than 2y", before: years(2)}, {flags: "--older-than 5y", before: years(5)},
		{flags: "--larger 1M", larger: 1 << 20}, {flags: "--larger 5M", larger: 5 << 20}, {flags: "--larger 10M", larger: 10 << 20},
		{flags: "--older-than 1y --larger 1M", before: years(1), larger: 1 << 20},
		{flags: "--older-than 2y --larger 100K", before: years(2), larger: 100 << 10},
	}
	return c
}

func (c *counter) add(m message) {
	if m.size < 0 {
		c.unsized++
		m.size = 0
	}
	c.total.add(m.size)
	count(c.mailboxes, m.mailbox, m.size)
	year := ""
	if !m.date.IsZero() {
		year = strconv.Itoa(m.date.Local().Year())
	}
	count(c.years, year, m.size)
	for i, k := range classes {
		if m.size < k.below {
			c.classes[i].add(m.size)
			break
		}
	}
	if m.flagged {
		return
	}
	for i := range c.rules {
		r := &c.rules[i]
		if (r.before.IsZero() || !m.date.IsZero() && m.date.Before(r.before)) && m.size > r.larger {
			r.sum.add(m.size)
		}
	}
}

func (c *counter) addSender(address string, size int64) {
	count(c.senders, address, max(size, 0))
	if len(c.senders) < 2*maxSenders {
		return
	}
	list := groups(c.senders)
	for _, g := range list[maxSenders:] {
		c.others.Messages += g.Messages
		c.others.Octets += g.Octets
		delete(c.senders, g.Name)
	}
}

func count(by map[string]*Sum, name string, size int64) {
	s := by[name]
	if s == nil {
		s = new(Sum)
		by[name] = s
	}
	s.add(size)
}

// groups sorts, largest first.
func groups(by map[string]*Sum) []Group {
	list := make([]Group, 0, len(by))
	for name, s := range by {
		list = append(list, Group{name, *s})
	}
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Octets, a.Octets), cmp.Compare(b.Messages, a.Messages), strings.Compare(a.Name, b.Name))
	})
	return list
}

func (c *counter) sizes(senders bool) *Sizes {
	s := &Sizes{
		Total: c.total, Unsized: c.unsized, WithSenders: senders, Others: c.others,
		Mailboxes: groups(c.mailboxes), Years: groups(c.years), Senders: groups(c.senders),
	}
	slices.SortFunc(s.Years, func(a, b Group) int { return strings.Compare(b.Name, a.Name) })
	for i, k := range classes {
		s.Classes = append(s.Classes, Group{k.name, c.classes[i]})
	}
	for _, r := range c.rules {
		s.Rules = append(s.Rules, Rule{r.flags, r.sum})
	}
	return s
}

// selected tells whether a message counts; what is not known of it does not
// leave it out.
func selected(sel mail.Selection, in mail.Info) bool {
	match, known := sel.Match(in)
	return match || !known
}
