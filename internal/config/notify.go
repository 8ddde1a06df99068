package config

import (
	"slices"

	"mailhaul/internal/place"
	"mailhaul/mail"
)

// Notify says who is told of runs that went wrong, how, and when.
type Notify struct {
	// To and From are mail addresses, Server where mail is handed in.
	To     []string
	From   string
	Server place.Submission
	Entry  Entry // the password of Server
	// TokenCommand gives an OAuth 2 token for Server in place of a password.
	TokenCommand string
	CAFile       string
	// Command is run with the report on its standard input.
	Command string

	On    []string // of Occasions
	After int      // how many runs in a row must have had trouble
}

// Occasions are what Notify.On may hold.
var Occasions = []string{"failure", "trouble", "weekly"}

// On tells whether anybody is to be told of an occasion.
func (n Notify) Wants(occasion string) bool {
	return (len(n.To) > 0 || n.Command != "") && slices.Contains(n.On, occasion)
}

// notify reads a table; what it does not say is as in base.
func (f *File) notify(s *section, base Notify) Notify {
	n := base
	if base.After == 0 {
		n.After, n.On = 3, []string{"failure", "trouble"}
	}
	if to, _ := s.texts("to"); to != nil {
		n.To = to
	}
	if from, _ := s.text("from"); from != "" {
		n.From = from
	}
	user, _ := s.text("user")
	if server, line := s.text("server"); server != "" {
		p, err := place.ParseSubmission(server, user)
		if err != nil {
			s.r.fail(line, mail.HintOf(err), "%w", err)
		}
		n.Server = p
	}
	e := f.entry(s)
	token, line := s.text("token-command")
	if token != "" {
		if _, err := split(token); err != nil {
			s.r.fail(line, "quote it as for a shell, or write sh -c '…'", "token-command: %w", err)
		}
		if e != (Entry{}) {
			s.r.fail(line, "keep one of them", "%s has a password and a token-command", s.title)
		}
	}
	if e != (Entry{}) || token != "" { // what is said here replaces that of the whole
		n.Entry, n.TokenCommand = e, token
	}
	if ca, _ := f.file(s, "ca-file"); ca != "" {
		n.CAFile = ca
	}
	if command, line := s.text("command"); command != "" {
		if _, err := split(command); err != nil {
			s.r.fail(line, "quote it as for a shell, or write sh -c '…'", "command: %w", err)
		}
		n.Command = command
	}
	if on, line := s.texts("on"); line > 0 {
		for _, o := range on {
			if !slices.Contains(Occasions, o) {
				s.r.fail(line, "known are "+join(Occasions), "there is no occasion %q to tell of", o)
			}
		}
		n.On = on
	}
	if after, _ := s.number("trouble-after", 1, 1000); after > 0 {
		n.After = int(after)
	}
	s.end()
	return n
}
