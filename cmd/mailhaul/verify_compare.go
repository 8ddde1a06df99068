package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mailhaul/compare"
	"mailhaul/fetch"
	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/durable"
	"mailhaul/internal/ledger"
	"mailhaul/internal/place"
	"mailhaul/internal/ui"
	"mailhaul/internal/vault"
	"mailhaul/mail"
	"mailhaul/migrate"
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
	trace, closeTrace, err := w.a.openTrace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeTrace()) }()
	server, err := w.isServer(left, right)
	if err != nil {
		return err
	}
	if server {
		return w.servers(ctx, left, right, trace)
	}
	return w.archive(ctx, left, right, trace)
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

// servers compares two servers.
func (w *verifying) servers(ctx context.Context, left, right string, trace *dial.Trace) (err error) {
	if w.o.repair || w.o.accept {
		return usage("name an archive", "--repair and --accept are about an archive")
	}
	from, err := w.a.account(ctx, left, w.o.secret, w.o.limit, trace)
	if err != nil {
		return err
	}
	w.o.dest.limit = w.o.limit
	to, err := w.a.destination(ctx, right, w.o.dest, trace)
	if err != nil {
		return err
	}
	to.secret.Env = config.DestEnv // the source's is no guess to make
	if w.o.dest.fingerprint == "" && w.a.flags.fingerprint != "" {
		to.server.Fingerprint = ""
	}
	w.s.Source, w.s.Dest, w.label = from.key(), to.key(), from.label()
	if from.key() == to.key() && from.server.Addr() == to.server.Addr() {
		return usage("", "both places are the same account")
	}
	src, err := w.open(ctx, from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := w.open(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	fit, closeFit, err := w.fit(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeFit()) }()
	w.rep.begin("Comparison of two accounts", src.Account(), dst.Account())
	o := compare.Options{
		Left: checked{compare.Server(src), src}, Right: checked{compare.Server(dst), dst},
		Map: w.mapping(fit, func(string) bool { return false }),
	}
	if o.Left, err = w.migrated(ctx, o.Left, dst); err != nil {
		return err
	}
	if from.server.Protocol == "pop3" || to.server.Protocol == "pop3" {
		o.Only = func(right string) bool { return right == "INBOX" }
	}
	res, err := w.compare(ctx, o)
	return w.conclude(res, err)
}

// migrated adds what the ledger of a migration between the two servers says of
// messages that were sent in another form. Without one nothing is known.
func (w *verifying) migrated(ctx context.Context, left compare.Side, dst fetch.Source) (compare.Side, error) {
	dir, err := migrationDir(left.Account(), dst.Account(), w.s.Source+" "+w.s.Dest)
	if err != nil {
		return left, nil
	}
	lock, err := durable.LockFile(ctx, filepath.Join(dir, "lock"), w.a.flags.lockWait)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return left, nil
	case err == nil:
		defer lock.Close()
	case !errors.Is(err, durable.ErrLocked): // a disk that cannot be written to: then nobody else does
		err = nil
	}
	var l *ledger.Ledger
	if err == nil {
		l, err = ledger.OpenReadOnly(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return left, nil
	}
	if err != nil {
		w.a.ui.Warn(fmt.Errorf("the ledger of the migration cannot be read, so repaired copies are not known as such: %w", err))
		return left, nil
	}
	defer l.Close()
	boxes, err := dst.Mailboxes(ctx)
	if err != nil {
		return nil, err
	}
	m := &compare.Migrated{Side: left, Ledger: l, Destination: migrate.AccountOf(dst.Account())}
	return m, m.Learn(ctx, boxes)
}

// checked is a side that refuses, once it can be known, to be read.
type checked struct {
	compare.Side
	src fetch.Source
}

func (c checked) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	list, err := c.Side.Mailboxes(ctx)
	if err == nil {
		err = consumes(c.src)
	}
	return list, err
}

// Find implements compare.Finder.
func (c checked) Find(ctx context.Context, name string) (mb mail.Mailbox, there bool, err error) {
	if f, ok := c.Side.(compare.Finder); ok {
		return f.Find(ctx, name)
	}
	return mb, false, nil
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
			d.Hint = "mailhaul upload puts it there; if it was removed there on purpose, the next backup records that"
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

// archive compares an archive with a server.
func (w *verifying) archive(ctx context.Context, left, right string, trace *dial.Trace) (err error) {
	ac, err := w.a.account(ctx, right, w.o.secret, w.o.limit, trace)
	if err != nil {
		return err
	}
	if w.o.dest.caFile != "" {
		ac.server.CAFile = w.o.dest.caFile
	}
	if w.o.dest.fingerprint != "" {
		ac.server.Fingerprint = w.o.dest.fingerprint
	}
	if s := w.o.dest.secret; s.command != "" || s.file != "" {
		ac.secret.Command, ac.secret.File = s.command, s.file
	}
	if os.Getenv(config.DestEnv) != "" {
		ac.secret.Env = config.DestEnv
	}
	w.s.Dest, w.label = ac.key(), ac.label()
	v, err := w.a.openToVerify(ctx, left, w.o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	w.s.Archive = v.Path()
	src, err := w.open(ctx, ac)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	boxes, err := src.Mailboxes(ctx) // before an hour of reading
	if err == nil {
		err = consumes(src)
	}
	if err != nil {
		return err
	}
	w.rep.begin("Comparison of an archive and an account", v.Path(), src.Account())
	m := w.a.mender(v, w.o, w.rep)
	sum, err := w.a.verifyVault(ctx, v, w.ofArchive(), w.o.share, m)
	if err != nil {
		return err
	}
	if w.o.accept {
		if err := m.accept(ctx); err != nil {
			return err
		}
	}
	res, err := w.against(ctx, v, src, boxes, ac, m)
	if err == nil && w.o.repair {
		err = m.fetchAgain(ctx, src, boxes)
	}
	err = w.conclude(res, err)
	damaged := int64(len(m.damaged))
	w.s.Verified, w.s.Damaged = &sum.Verified, &damaged
	if w.o.repair {
		w.s.Repaired = &m.repaired
	}
	if err == nil {
		err = m.verdict(sum)
	}
	return err
}

// ofArchive is the part of the selection that an archive is verified by.
func (w *verifying) ofArchive() mail.Selection {
	return mail.Selection{Mailboxes: w.selection.Mailboxes, Exclude: w.selection.Exclude}
}

// against compares an archive that was read back with a server.
func (w *verifying) against(ctx context.Context, v *vault.Vault, src fetch.Source, boxes []mail.Mailbox, ac account, m *mender) (compare.Result, error) {
	accounts, err := v.Ledger.Accounts(ctx)
	if err != nil {
		return compare.Result{}, err
	}
	side := &compare.Archive{Ledger: v.Ledger, Open: v.Archive.Open, Path: v.Path()}
	mapped := len(w.o.maps) > 0 || w.o.prefix != "" // then it is meant as a destination
	for _, held := range accounts {
		if vault.SameUser(held, src.Account()) && !mapped {
			side.Accounts, side.Source = append(side.Accounts, held), true
		}
	}
	if !slices.Contains(side.Accounts, src.Account()) {
		side.Accounts = append(side.Accounts, src.Account())
	}
	if side.Boxes, err = boxNames(ctx, v, boxes); err != nil {
		return compare.Result{}, err
	}
	o := compare.Options{Left: side, Right: compare.Server(src), Both: side.Source, Matched: m.located}
	if ac.server.Protocol == "pop3" {
		o.Only = func(right string) bool { return right == "INBOX" }
	} else if !side.Source {
		fit, closeFit, err := w.fit(ctx, ac)
		if err != nil {
			return compare.Result{}, err
		}
		defer closeFit()
		o.Map = w.mapping(fit, func(name string) bool { return claimed(ctx, v, src.Account(), name) })
	}
	return w.compare(ctx, o)
}

// boxNames are the mailboxes that the ledger may know something of at a server.
func boxNames(ctx context.Context, v *vault.Vault, boxes []mail.Mailbox) ([]string, error) {
	names, err := v.Ledger.Mailboxes(ctx)
	for _, b := range boxes {
		names = append(names, b.Name)
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

var errEnough = errors.New("enough")

// claimed tells whether the ledger knows of a message in a mailbox at a server.
func claimed(ctx context.Context, v *vault.Vault, account, mailbox string) bool {
	err := v.Ledger.Claims(ctx, account, mailbox, func(mail.Claim) error { return errEnough })
	return errors.Is(err, errEnough)
}

// located is told where the server has a message of the archive.
func (m *mender) located(left, right mail.Ref, d mail.Digest) {
	if !m.o.repair || len(m.damaged) == 0 || right.UID == "" {
		return
	}
	id, ok := ledgerID(left.UID)
	f, damaged := m.damaged[id]
	if !ok || !damaged || f.Held.Receipt.Digest != d {
		return
	}
	if m.at == nil {
		m.at = make(map[string]map[string]int64)
	}
	if m.at[right.Mailbox] == nil {
		m.at[right.Mailbox] = make(map[string]int64)
	}
	m.at[right.Mailbox][right.UID] = id
}

// fetchAgain fetches what is damaged in the archive and was found at the server.
func (m *mender) fetchAgain(ctx context.Context, src fetch.Source, boxes []mail.Mailbox) error {
	for _, mb := range boxes {
		at := m.at[mb.Name]
		if len(at) == 0 {
			continue
		}
		wants := make([]mail.Want, 0, len(at))
		for uid, id := range at {
			wants = append(wants, mail.Want{UID: uid, Size: m.damaged[id].Held.Receipt.Wire})
		}
		var mu sync.Mutex
		err := src.Fetch(ctx, mb, wants, func(in mail.Info, r io.Reader, err error) error {
			mu.Lock()
			defer mu.Unlock()
			id, asked := at[in.Ref.UID]
			f, damaged := m.damaged[id]
			if err != nil || !asked || !damaged {
				return nil // it stays damaged, and was told
			}
			reader := &watched{Reader: r}
			err = m.v.Mend(ctx, f.Held, mail.NewCanonical(reader, nil))
			switch {
			case reader.err != nil || errors.Is(err, mail.ErrAltered): // not received whole, or another one
				return nil
			case err != nil:
				return err
			}
			delete(m.damaged, id)
			m.repaired++
			m.a.ui.Note("%s: message of %s, SHA-256 %.12s: fetched again", mb.Name, f.Held.Receipt.Info.InternalDate.UTC().Format("2006-01-02 15:04"), f.Held.Receipt.Digest)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// watched remembers what reading said.
type watched struct {
	io.Reader
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}
