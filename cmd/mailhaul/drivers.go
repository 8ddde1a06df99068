package main

import (
	"mailhaul/archive"
	"mailhaul/archive/mbox"
	"mailhaul/fetch"
	"mailhaul/fetch/pop3"
	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/durable"
	"mailhaul/internal/vault"
)

// This file is the one place that names every driver.

// formats are the archive formats, by the names of place.Formats.
var formats = map[string]vault.Constructor{
	"mbox": func(fsys durable.FS, anchors archive.Anchors) (archive.Archive, error) {
		return mbox.New(fsys, anchors, mbox.Options{})
	},
}

// openSource makes the driver of a server's protocol. Nothing is connected yet.
func openSource(s dial.Server, c auth.Credentials, connections int) fetch.Source {
	return pop3.New(pop3.Config{Server: s, Credentials: c})
}

// parallel is how many mailboxes are worked on at once: POP3 has one mailbox and
// one session.
func parallel(s dial.Server, connections int) int {
	if s.Protocol == "pop3" {
		return 1
	}
	return connections
}
