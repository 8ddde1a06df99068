package main

import (
	"context"
	"errors"
	"time"

	"mailhaul/compare"
	"mailhaul/fetch"
	"mailhaul/internal/auth"
	"mailhaul/internal/place"
	"mailhaul/internal/ui"
	"mailhaul/mail"
	"mailhaul/upload"
)

// errIncomplete says that findings were told.
var errIncomplete = &mail.Error{Kind: mail.KindIntegrity, Err: errors.New("not complete")}

// maxNotes is how many findings that are no errors are mentioned without --verbose.
const maxNotes = 100

// verifying compares two places.
type verifying struct {
	a         *app
	o         verifyFlags
	selection mail.Selection
	rep       *report
	s         *ui.Compared
	label     string
	notes     int
	hinted    map[compare.Kind]bool
	secrets   map[string]auth.Credentials
}

func (a *app) verifyWith(ctx context.Context, left, right string, selection mail.Selection, o verifyFlags, rep *report) error {
	began := time.Now()
	w := &verifying{a: a, o: o, selection: selection, rep: rep, s: &ui.Compared{Command: "verify"}, label: "mailhaul"}
	err := w.run(ctx, left, right)
	w.s.Seconds = time.Since(began).Seconds()
	w.s.Exit = a.code(ctx, err)
	done := err == nil || told(err)
	if !done {
		a.ui.Error(asInterrupted(ctx, err))
	} else if w.s.Unreadable > 0 {
		w.s.Exit = worse(w.s.Exit, exitPartial)
	}
	w.s.Complete = w.s.Exit == exitDone
	if done {
		err = errors.Join(err, rep.finish(*w.s))
	}
	a.ui.Compared(w.label, *w.s, done)
	a.exit.Store(int32(w.s.Exit))
	if err == nil && w.s.Exit == exitDone {
		return nil
	}
	return errSaid
}

// run decides which two places are meant.
func (w *verifying) run(ctx context.Context, left, right string) (err error) {
	server, err := w.isServer(left, right)
	if err != nil {
		return err
	}
	if server {
		return w.servers(ctx, left, right)
	}
	return w.archive(ctx, left, right)
}

// isServer tells whether the first of two places is a server. The name of an
// account is its server, unless it is named twice: then archive and server of the
// account are compared.
func (w *verifying) isServer(left, right string) (bool, error) {
	if place.IsServer(left) {
		return true, nil
	}
	named, err := w.a.named(left)
	return named != nil && left != right, err
}

// open connects to one of the places.
func (w *verifying) open(ctx context.Context, ac account) (fetch.Source, error) {
	credentials, err := w.credentials(ctx, ac)
	if err != nil {
		return nil, err
	}
	return w.a.openSource(ac.server, credentials, w.o.connections)
}

// credentials finds the password of an account once: it may have been asked for,
// or taken out of the environment.
func (w *verifying) credentials(ctx context.Context, ac account) (auth.Credentials, error) {
	key := ac.key() + " " + ac.server.Addr()
	if c, ok := w.secrets[key]; ok {
		return c, nil
	}
	c, err := ac.credentials(ctx)
	if err == nil {
		if w.secrets == nil {
			w.secrets = make(map[string]auth.Credentials)
		}
		w.secrets[key] = c
	}
	return c, err
}

// consumes refuses a server where reading may use messages up.
func consumes(src fetch.Source) error {
	if c, ok := src.(fetch.Consumer); ok && c.Consumes() {
		c.Abandon()
		return &mail.Error{Kind: mail.KindLacking, Ref: mail.Ref{Account: src.Account()},
			Err: errors.New("this server may delete messages that are read"), Hint: "verify the archive alone, or use imaps://"}
	}
	return nil
}

// fit returns the names that mailboxes can have at a destination.
func (w *verifying) fit(ctx context.Context, to account) (func(string) string, func() error, error) {
	same := func(name string) string { return name }
	if to.server.Protocol != "imap" {
		return same, func() error { return nil }, nil
	}
	credentials, err := w.credentials(ctx, to)
	if err != nil {
		return nil, nil, err
	}
	d, err := openDestination(to.server, credentials, 1)
	if err != nil {
		return nil, nil, err
	}
	_, err = d.Mailboxes(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, d.Close())
	}
	return d.Fit, d.Close, nil
}

// mapping maps mailboxes as upload does.
func (w *verifying) mapping(fit func(string) string, used func(string) bool) func(left, right []mail.Mailbox) []string {
	m := upload.Mapping{Rules: w.o.maps, Prefix: w.o.prefix, NoSpecialUse: w.o.noSpecialUse}
	return func(left, right []mail.Mailbox) []string {
		names := make([]string, 0, len(left))
		for _, t := range m.Plan(left, right, fit, used) {
			names = append(names, t.To)
		}
		return names
	}
}

// compare runs the engine with a live line.
func (w *verifying) compare(ctx context.Context, o compare.Options) (compare.Result, error) {
	run, end := w.a.show(w.label)
	defer end()
	o.Selection, o.Share, o.Notify = w.selection, w.o.share, run.Notify
	o.Found = w.found
	return compare.Run(ctx, o)
}

// conclude tells what was found.
func (w *verifying) conclude(res compare.Result, err error) error {
	c := res.Counts
	s := w.s
	s.Mailboxes = int64(len(res.Mailboxes))
	s.Listed, s.ListedOctets, s.DestListed, s.DestOctets = c.Left.Messages, c.Left.Octets, c.Right.Messages, c.Right.Octets
	s.Compared, s.Unsampled, s.Same, s.Octets = c.Compared, c.Unsampled, c.Same, c.Octets
	s.Known, s.Altered, s.Moved, s.Missing = c.Known, c.Altered, c.Moved, c.Missing
	s.Explained, s.Deleted, s.Extra, s.Unarchived = c.Explained, c.Deleted, c.Extra, c.Unarchived
	s.Unreadable, s.Vanished = c.Unreadable, c.Vanished
	boxes := make([]ui.ComparedMailbox, len(res.Mailboxes))
	for i, m := range res.Mailboxes {
		boxes[i] = ui.ComparedMailbox{
			Mailbox: m.Right, From: m.Left, Exists: m.Here,
			Listed: m.Counts.Left.Messages, Octets: m.Counts.Left.Octets, DestListed: m.Counts.Right.Messages, DestOctets: m.Counts.Right.Octets,
			Compared: m.Compared, Same: m.Same, Known: m.Known, Altered: m.Altered, Moved: m.Moved, Missing: m.Missing,
			Explained: m.Explained, Deleted: m.Deleted, Extra: m.Extra, Unarchived: m.Unarchived, Unreadable: m.Unreadable,
		}
	}
	if err != nil {
		return err
	}
	left := "archive"
	if s.Archive == "" {
		left = "source"
	}
	right := "server"
	if s.Archive == "" {
		right = "destination"
	}
	if extra := w.notes - maxNotes; extra > 0 && !w.a.flags.verbose {
		w.a.ui.Note("and %s more that are no errors; --verbose and --report name them", ui.Count(int64(extra)))
	}
	w.a.ui.ComparedMailboxes(left, right, boxes)
	w.rep.mailboxes(left, right, boxes)
	if !c.Complete() {
		return errIncomplete
	}
	return nil
}

// found tells one finding.
func (w *verifying) found(f compare.Finding) {
	d := ui.Difference{
		Kind: string(f.Kind), Account: f.Ref.Account, Mailbox: f.Ref.Mailbox, UID: f.Ref.UID, Other: f.Other.Mailbox,
		Date: f.Date, Octets: max(f.Size, 0), From: f.From, Subject: f.Subject,
	}
	if !f.Digest.IsZero() {
		d.Digest = f.Digest.String()
	}
	right := mail.AccountLabel(w.s.Dest)
	switch f.Kind {
	case compare.Missing:
		d.Wrong, d.Reason = true, "missing at "+right
		d.Hint = "mailhaul migrate sends it"
		if w.s.Archive != "" {
			d.Hint = "mailhaul upload puts it there; if it was removed there on purpose, the next backup records that (where the whole mailbox went, leave it out with --exclude)"
		}
	case compare.Unarchived:
		d.Wrong, d.Reason, d.Hint = true, "not in the archive", "mailhaul backup copies it"
	case compare.Altered:
		d.Wrong, d.Reason = true, "altered at "+right+": "+f.What+" is another"
	case compare.Unreadable:
		d.Wrong, d.Reason = true, "unreadable: "+f.What
	case compare.Known:
		d.Reason = "altered at " + right + " as servers are known to: " + f.What
		if f.What == compare.Repaired {
			d.Reason = "repaired at " + right + ": " + f.What
		}
	case compare.Moved:
		d.Reason = "at " + right + " in " + f.Other.Mailbox
	case compare.Extra:
		d.Reason = "only at " + right
		if f.What != "" {
			d.Reason += ": " + f.What
		}
	}
	ref := f.Ref
	if w.s.Archive != "" && ref.Account == w.s.Archive { // its numbers are the ledger's own
		ref, d.UID, d.Account = mail.Ref{Mailbox: ref.Mailbox}, "", ""
	}
	w.rep.difference(d)
	if !d.Wrong && !w.a.flags.json {
		if w.notes++; w.notes > maxNotes && !w.a.flags.verbose {
			return
		}
	}
	if w.hinted[f.Kind] && !w.a.flags.json { // once is enough for a person
		d.Hint = ""
	}
	if w.hinted == nil {
		w.hinted = make(map[compare.Kind]bool)
	}
	w.hinted[f.Kind] = true
	w.a.ui.Difference(ref, d)
}
