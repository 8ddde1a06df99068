package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"mailhaul/internal/place"
	sheet "mailhaul/internal/report"
	"mailhaul/internal/ui"
	"mailhaul/mail"
	"mailhaul/size"
)

type sizeFlags struct {
	secret    secretFlags
	selection selectionFlags
	html      string
	noSenders bool
}

func newSize(a *app) *cobra.Command {
	var o sizeFlags
	cmd := &cobra.Command{
		Use:   "size SERVER|ARCHIVE|ACCOUNT",
		Short: "Where the space is: by mailbox, year, sender, size",
		Long: `size lists an account or an archive and shows where its space is: by mailbox, year,
sender and size of message, and what a rule of clean would free (flagged mail left
out, as clean does). The selection flags are those of clean, so a rule can be tried
here first. Nothing is changed and no message is marked as read.

At a server the senders take a look at every header, over POP3 the dates, too;
--no-senders does without. The name of an account means its server. --html writes a
page that asks for nothing from anywhere.`,
		Example: `  mailhaul size imaps://ada@example.org
  mailhaul size imaps://ada@example.org --older-than 2y --larger 1M
  mailhaul size ~/Mail --html mail.html
  mailhaul size ~/Mail --mailbox 'Lists/**' --json`,
		Args: arguments(1, 1, "a SERVER or an ARCHIVE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.size(cmd.Context(), args[0], o) },
	}
	o.secret.register(cmd)
	o.selection.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.html, "html", "", "write a page to this `FILE`")
	f.BoolVar(&o.noSenders, "no-senders", false, "do not look at headers for senders")
	return cmd
}

func (a *app) size(ctx context.Context, typed string, o sizeFlags) (err error) {
	ctx, cancel := a.limit(ctx)
	defer cancel()
	began := time.Now()
	selection, err := o.selection.selection()
	if err != nil {
		return err
	}
	if ext := strings.ToLower(filepath.Ext(o.html)); o.html != "" && ext != ".html" && ext != ".htm" {
		return usage("write --html FILE.html", "--html %s is no page", o.html)
	}
	page, err := newPageFile(o.html)
	if err != nil {
		return err
	}
	defer page.drop()
	so := size.Options{Selection: selection, Senders: !o.noSenders, Now: began}
	named, err := a.named(typed)
	if err != nil {
		return err
	}
	var s *size.Sizes
	name, side := "", "archive"
	if named != nil || place.IsServer(typed) {
		side = "source"
		s, name, err = a.sizeOfServer(ctx, typed, o, so)
	} else {
		s, name, err = a.sizeOfArchive(ctx, typed, so)
	}
	if err != nil {
		return err
	}
	label := name
	if side == "source" {
		label = mail.AccountLabel(name)
	}
	a.showSizes(label, s)
	a.ui.Object(map[string]any{
		"type": "summary", "command": "size", side: name, "place": name, "mailboxes": len(s.Mailboxes), "messages": s.Total.Messages, "octets": s.Total.Octets,
		"unsized": s.Unsized, "seconds": time.Since(began).Seconds(), "exit": exitDone,
	})
	if page != nil {
		return page.finish(sizePage(label, s, began).WriteHTML)
	}
	return nil
}

func (a *app) sizeOfServer(ctx context.Context, typed string, o sizeFlags, so size.Options) (s *size.Sizes, name string, err error) {
	ac, err := a.account(ctx, typed, o.secret, nil)
	if err != nil {
		return nil, "", err
	}
	credentials, err := ac.credentials(ctx)
	if err != nil {
		return nil, "", err
	}
	src, err := a.openSource(ac.server, credentials, 1)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	run, end := a.show(ac.label())
	defer end()
	so.Notify = run.Notify
	s, err = size.Server(ctx, src, so)
	return s, ac.key(), err
}

func (a *app) sizeOfArchive(ctx context.Context, typed string, so size.Options) (s *size.Sizes, name string, err error) {
	v, err := a.openToRead(ctx, typed)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	open := v.Archive.Open
	if together, ok := v.Opener(); ok {
		var closeAll func() error
		open, closeAll = together.Together()
		defer func() { err = errors.Join(err, closeAll()) }()
	}
	run, end := a.show("size")
	defer end()
	so.Notify = run.Notify
	s, err = size.Archive(ctx, v.Ledger, open, so)
	return s, v.Path(), err
}

const (
	shownSenders   = 20
	shownMailboxes = 40
)

// chart is one way to group.
type chart struct {
	kind, title string
	groups      []size.Group
	unknown     string // what the group without name is called
	most        int
}

func charts(s *size.Sizes) []chart {
	all := []chart{
		{"mailbox", "By mailbox", s.Mailboxes, "", shownMailboxes},
		{"year", "By year", s.Years, "no date", 0},
	}
	if s.WithSenders {
		all = append(all, chart{"sender", "By sender", s.Senders, "no sender", shownSenders})
	}
	return append(all, chart{"class", "By size of message", s.Classes, "", 0})
}

// rows are the groups that are shown, and what is left out in words.
func (c chart) rows() (rows []ui.BarRow, more string) {
	n := len(c.groups)
	if c.most > 0 {
		n = min(n, c.most)
	}
	for _, g := range c.groups[:n] {
		rows = append(rows, ui.BarRow{Name: cmp.Or(g.Name, c.unknown), Messages: g.Messages, Octets: g.Octets})
	}
	var rest size.Sum
	for _, g := range c.groups[n:] {
		rest.Messages, rest.Octets = rest.Messages+g.Messages, rest.Octets+g.Octets
	}
	if rest.Messages > 0 {
		more = "and " + ui.Count(int64(len(c.groups)-n)) + " more with " + ui.Plural(rest.Messages, "message") + ", " + ui.Octets(rest.Octets)
	}
	return rows, more
}

// showSizes prints charts, or with --json an object for each group.
func (a *app) showSizes(name string, s *size.Sizes) {
	columns, plain := a.ui.Columns(), !localeIsUTF8()
	for _, c := range charts(s) {
		rows, more := c.rows()
		a.ui.Bars(ui.Bars{Title: c.title, Rows: rows, More: more}, columns, plain)
		for _, g := range c.groups {
			a.ui.Object(map[string]any{"type": c.kind, "name": g.Name, "messages": g.Messages, "octets": g.Octets})
		}
	}
	var rules []ui.BarRow
	for _, r := range s.Rules {
		rules = append(rules, ui.BarRow{Name: r.Flags, Messages: r.Messages, Octets: r.Octets})
		a.ui.Object(map[string]any{"type": "rule", "name": r.Flags, "messages": r.Messages, "octets": r.Octets})
	}
	a.ui.Bars(ui.Bars{Title: "What mailhaul clean would free with", Rows: rules}, columns, plain)
	a.ui.Result("%s: %s, %s, in %s", name, ui.Plural(s.Total.Messages, "message"), ui.Octets(s.Total.Octets), ui.Plural(int64(len(s.Mailboxes)), "mailbox"))
}

// columnsOf returns the width of a terminal, 0 for anything else.
func columnsOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// localeIsUTF8 tells whether the terminal shows more than ASCII, so far as POSIX
// lets one know.
func localeIsUTF8() bool {
	l := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")))
	return strings.Contains(l, "utf-8") || strings.Contains(l, "utf8")
}

// sizePage is the page of --html.
func sizePage(name string, s *size.Sizes, now time.Time) sheet.Page {
	p := sheet.Page{
		Title: "Where the space is", Subtitle: name, Made: now, Program: "mailhaul " + versionText(),
		Facts: []sheet.Fact{
			{Name: "messages", Value: ui.Count(s.Total.Messages)}, {Name: "size", Value: ui.Octets(s.Total.Octets)},
			{Name: "mailboxes", Value: ui.Count(int64(len(s.Mailboxes)))},
		},
	}
	if s.Total.Messages > 0 {
		p.Facts = append(p.Facts, sheet.Fact{Name: "average", Value: ui.Octets(s.Total.Octets / s.Total.Messages)})
	}
	if s.WithSenders {
		p.Facts = append(p.Facts, sheet.Fact{Name: "senders", Value: ui.Count(int64(len(s.Senders)))})
	}
	for _, c := range charts(s) {
		rows, more := c.rows()
		p.Sections = append(p.Sections, barSection(c.title, more, rows, sheet.Plain))
	}
	var rules []ui.BarRow
	for _, r := range s.Rules {
		rules = append(rules, ui.BarRow{Name: r.Flags, Messages: r.Messages, Octets: r.Octets})
	}
	free := barSection("What a rule would free", "", rules, sheet.Good)
	free.Note = "Of all messages shown here; flagged ones stay. mailhaul clean deletes at the server only what the archive provably holds."
	p.Sections = append(p.Sections, free)
	return p
}

func barSection(title, note string, rows []ui.BarRow, color sheet.Color) sheet.Section {
	s := sheet.Section{Title: title, Note: note}
	largest := int64(1)
	for _, r := range rows {
		largest = max(largest, r.Octets)
	}
	for _, r := range rows {
		s.Bars = append(s.Bars, sheet.Bar{
			Label: r.Name, Text: ui.Octets(r.Octets) + ", " + ui.Plural(r.Messages, "message"),
			Parts: []sheet.Part{{Share: float64(r.Octets) / float64(largest), Color: color}},
		})
	}
	return s
}

// pageFile is a file that appears, whole, when it is finished. The methods of a nil
// pageFile do nothing.
type pageFile struct {
	path string
	temp *os.File
}

// newPageFile begins a file; nil for no path.
func newPageFile(path string) (*pageFile, error) {
	if path == "" {
		return nil, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".report-*")
	if err != nil {
		return nil, pageError(err)
	}
	return &pageFile{path, temp}, nil
}

func pageError(err error) error {
	return &mail.Error{Kind: mail.KindDisk, Op: "write the report", Err: err}
}

// drop takes away what was not finished.
func (p *pageFile) drop() {
	if p == nil || p.temp == nil {
		return
	}
	_ = p.temp.Close()
	_ = os.Remove(p.temp.Name())
	p.temp = nil
}

// finish has write write the rest and puts the file in its place.
func (p *pageFile) finish(write func(io.Writer) error) error {
	defer p.drop()
	if err := errors.Join(write(p.temp), p.temp.Sync()); err != nil {
		return pageError(err)
	}
	name := p.temp.Name()
	if err := p.temp.Close(); err != nil {
		return pageError(err)
	}
	if err := os.Rename(name, p.path); err != nil {
		return pageError(err)
	}
	p.temp = nil
	return nil
}
