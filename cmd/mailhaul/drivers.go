package main

import (
	"fmt"

	"mailhaul/archive"
	"mailhaul/archive/maildir"
	"mailhaul/archive/mbox"
	"mailhaul/fetch"
	"mailhaul/fetch/imap"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/durable"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/upload"
	destimap "mailhaul/upload/imap"
)

// This file is the one place that names every driver.

// formats are the archive formats, by the names of place.Formats.
var formats = map[string]vault.Constructor{
	"maildir": func(fsys durable.FS, anchors archive.Anchors) (archive.Archive, error) {
		return maildir.New(fsys, anchors, maildir.Options{})
	},
	"mbox": func(fsys durable.FS, anchors archive.Anchors) (archive.Archive, error) {
		return mbox.New(fsys, anchors, mbox.Options{})
	},
}

// sources are the protocols. connections is how many may be open at once. Nothing
// is connected yet. notify is told when they wait.
var sources = map[string]func(s dial.Server, c auth.Credentials, connections int, notify mail.Notify) fetch.Source{
	"imap": func(s dial.Server, c auth.Credentials, connections int, notify mail.Notify) fetch.Source {
		return imap.New(imap.Config{Server: s, Credentials: c, Connections: connections, Notify: notify, Version: versionText()})
	},
	"pop3": func(s dial.Server, c auth.Credentials, _ int, notify mail.Notify) fetch.Source {
		return pop3.New(pop3.Config{Server: s, Credentials: c, Notify: notify})
	},
}

// openSource makes the driver of a server's protocol.
func (a *app) openSource(s dial.Server, c auth.Credentials, connections int) (fetch.Source, error) {
	open := sources[s.Protocol]
	if open == nil {
		return nil, &mail.Error{Kind: mail.KindUsage, Err: fmt.Errorf("no driver for the protocol %q", s.Protocol)}
	}
	return open(s, c, connections, a.notify), nil
}

// selectMailboxes tells a source which mailboxes the run works on, if it wants to know.
func selectMailboxes(src fetch.Source, sel mail.Selection) {
	if s, ok := src.(interface{ Select(mail.Selection) }); ok {
		s.Select(sel)
	}
}

// notify shows an event in the run that is on, if there is one.
func (a *app) notify(e mail.Event) {
	if r := a.current.Load(); r != nil {
		r.Notify(e)
	}
}

// destinations are the protocols by which messages can be added to a server.
var destinations = map[string]func(s dial.Server, c auth.Credentials, connections int) upload.Destination{
	"imap": func(s dial.Server, c auth.Credentials, connections int) upload.Destination {
		return destimap.New(destimap.Config{Server: s, Credentials: c, Connections: connections, Version: versionText()})
	},
}

// openDestination makes the driver of a server that messages can be added to.
func openDestination(s dial.Server, c auth.Credentials, connections int) (upload.Destination, error) {
	open := destinations[s.Protocol]
	if open == nil {
		return nil, &mail.Error{Kind: mail.KindUsage, Err: fmt.Errorf("messages cannot be added over %s", s.Protocol), Hint: "write imaps://USER@HOST"}
	}
	return open(s, c, connections), nil
}

// parallel is how many mailboxes are worked on at once: POP3 has one mailbox and
// one session.
func parallel(s dial.Server, connections int) int {
	if s.Protocol == "pop3" {
		return 1
	}
	return connections
}
