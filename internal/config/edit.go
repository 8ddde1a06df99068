package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Key is one line to be written into the file.
type Key struct {
	Table   string // below [account.NAME]: "clean" for [account.NAME.clean]; "" for the account itself
	Name    string
	Value   any    // string, bool, int64 or []string
	Comment string // stands above it; "" for none
}

// Add adds an account at the end of the file at path, which it makes if there is
// none; what is there stays as it is, comments too. The account must be new.
// Nothing is written unless the whole file is right afterwards.
func Add(path, name string, keys []Key, check Check) error {
	return edit(path, check, func(d *draft) error {
		if err := CheckName(name); err != nil {
			return err
		}
		if d.has("account", name) {
			return &mail.Error{Kind: mail.KindConfig, Op: path, Err: fmt.Errorf("there is an account %q already", name),
				Hint: "choose another name, or change or remove that one"}
		}
		if len(d.lines) == 0 {
			d.lines = []string{"# Accounts of mailhaul. Keep this file to yourself: chmod 600.", "# Every key is the flag of the same name; mailhaul account show NAME explains."}
		}
		return d.appendTables("account."+quoteKey(name), keys)
	})
}

// Remove takes an account with all its tables out of the file, and leaves every
// other line as it is.
func Remove(path, name string, check Check) error {
	return edit(path, check, func(d *draft) error {
		if !d.has("account", name) {
			return &mail.Error{Kind: mail.KindConfig, Op: path, Err: fmt.Errorf("there is no account %q", name)}
		}
		return d.remove(name)
	})
}

// editWait is how long an edit waits for another one.
const editWait = 5 * time.Second

// edit changes the file under a lock. What change leaves must be a right
// configuration; only then is the file replaced, and durably.
func edit(path string, check Check, change func(*draft) error) error {
	path, err := target(path)
	if err != nil {
		return &mail.Error{Kind: mail.KindConfig, Op: "find the configuration", Err: err}
	}
	fsys, err := durable.MakeRoot(filepath.Dir(path))
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "make " + filepath.Dir(path), Err: err}
	}
	defer fsys.Close()
	lock, err := durable.LockFile(context.Background(), filepath.Join(filepath.Dir(path), ".lock"), editWait)
	if err != nil {
		return &mail.Error{Kind: mail.KindTemporary, Op: "lock the configuration", Err: err, Hint: "another mailhaul is changing it; try again"}
	}
	defer lock.Close()
	text, info, err := readConfig(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return &mail.Error{Kind: mail.KindConfig, Op: "read the configuration", Err: err}
	default:
		f := &File{Path: path}
		if err := f.parse(text, check); err != nil {
			return err
		}
		if err := f.guard(info); err != nil {
			return err
		}
	}
	d, err := newDraft(path, text)
	if err != nil {
		return err
	}
	if err := change(d); err != nil {
		return err
	}
	if err := (&File{Path: path}).parse(d.text(), check); err != nil {
		return err
	}
	if err := durable.WriteFileAtomic(fsys, filepath.Base(path), []byte(d.text())); err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "write " + path, Err: err}
	}
	return nil
}

// target is the file behind symbolic links: dotfiles are often kept elsewhere.
func target(path string) (string, error) {
	if path == "" {
		if path = DefaultPath(); path == "" {
			return "", errors.New("there is no home directory")
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		return path, nil
	}
	return real, err
}

// draft is a file being changed line by line. Whether a change did what was meant
// is found out by reading the whole again.
type draft struct {
	path  string
	lines []string
	doc   document
}

// document is what a text says: the keys of every level, and their lines.
type document struct {
	md   toml.MetaData
	tree map[string]any
	keys map[string]toml.Primitive
}

func read(text string) (document, error) {
	var d document
	if _, err := toml.Decode(text, &d.tree); err != nil {
		return d, err
	}
	var err error
	d.md, err = toml.Decode(text, &d.keys)
	return d, err
}

func newDraft(path, text string) (*draft, error) {
	d := &draft{path: path}
	if text = strings.TrimSuffix(text, "\n"); text != "" {
		d.lines = strings.Split(text, "\n")
	}
	var err error
	if d.doc, err = read(d.text()); err != nil {
		return nil, syntaxError(path, err)
	}
	return d, nil
}

func (d *draft) text() string {
	if len(d.lines) == 0 {
		return ""
	}
	return strings.Join(d.lines, "\n") + "\n"
}

// byHand says that a file is written in a way this program does not change.
func (d *draft) byHand(what string) error {
	return &mail.Error{Kind: mail.KindConfig, Op: d.path, Err: errors.New("the file is written in a way that mailhaul does not change"),
		Hint: "change it with an editor: " + what}
}

// at returns what a key path leads to.
func (d *draft) at(path ...string) (any, bool) {
	var v any = d.doc.tree
	for _, key := range path {
		table, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = table[key]; !ok {
			return nil, false
		}
	}
	return v, true
}

func (d *draft) has(path ...string) bool {
	_, ok := d.at(path...)
	return ok
}

// line returns the index of the line in which a key or a table header stands; -1
// if there is none of its own.
func (d *draft) line(path ...string) int {
	keys := d.doc.keys
	var p toml.Primitive
	for i, key := range path {
		var ok bool
		if p, ok = keys[key]; !ok {
			return -1
		}
		if i < len(path)-1 {
			keys = nil
			if err := d.doc.md.PrimitiveDecode(p, &keys); err != nil {
				return -1
			}
		}
	}
	return (&reader{md: d.doc.md}).line(p) - 1
}

// replace puts other lines in the place of some, if the text then is right and
// says what wanted accepts.
func (d *draft) replace(from, to int, with []string, wanted func(tree map[string]any) bool) bool {
	lines := slices.Concat(d.lines[:from], with, d.lines[to:])
	next := &draft{path: d.path, lines: lines}
	doc, err := read(next.text())
	if err != nil || !wanted(doc.tree) {
		return false
	}
	d.lines, d.doc = lines, doc
	return true
}

// opens tells whether a line is the header of a table.
func (d *draft) opens(line int) bool {
	return line >= 0 && strings.HasPrefix(strings.TrimSpace(d.lines[line]), "[")
}

// span returns the lines of an account: from the comments directly above its
// header to the last line before what belongs to the next table.
func (d *draft) span(name string) (from, to int) {
	from = d.line("account", name)
	if v, ok := d.at("account", name); ok {
		for key, value := range v.(map[string]any) {
			if _, isTable := value.(map[string]any); isTable {
				if at := d.line("account", name, key); d.opens(at) && (from < 0 || at < from) {
					from = at
				}
			}
		}
	}
	if !d.opens(from) {
		return -1, -1
	}
	to = len(d.lines)
	own := "[account." + quoteKey(name)
	for i := from + 1; i < len(d.lines); i++ {
		line := strings.ReplaceAll(strings.TrimSpace(d.lines[i]), " ", "")
		if strings.HasPrefix(line, "[") && !strings.HasPrefix(line, own+"]") && !strings.HasPrefix(line, own+".") && d.isHeader(i) {
			to = i
			break
		}
	}
	for to > from+1 && to < len(d.lines) && strings.HasPrefix(strings.TrimSpace(d.lines[to-1]), "#") {
		to-- // what stands above the next header speaks of it
	}
	for to > from+1 && strings.TrimSpace(d.lines[to-1]) == "" {
		to--
	}
	return from, to
}

// isHeader tells whether a line that begins with a bracket is a table header
// rather than part of a value: cut there, both halves can be read.
func (d *draft) isHeader(i int) bool {
	_, err := read(strings.Join(d.lines[:i], "\n") + "\n")
	return err == nil
}

func (d *draft) remove(name string) error {
	from, to := d.span(name)
	hint := "take out [account." + quoteKey(name) + "] and what is below it"
	if from < 0 {
		return d.byHand(hint)
	}
	for from > 0 && strings.HasPrefix(strings.TrimSpace(d.lines[from-1]), "#") {
		from--
	}
	want := copyTree(d.doc.tree)
	accounts := want["account"].(map[string]any)
	delete(accounts, name)
	if len(accounts) == 0 {
		delete(want, "account")
	}
	for to < len(d.lines) && strings.TrimSpace(d.lines[to]) == "" {
		to++
	}
	if !d.replace(from, to, nil, func(tree map[string]any) bool { return equal(tree, want) }) {
		return d.byHand(hint)
	}
	return nil
}

// appendTables writes a table and those below it.
func (d *draft) appendTables(title string, keys []Key) error {
	var tables []string
	for _, k := range keys {
		if !slices.Contains(tables, k.Table) {
			tables = append(tables, k.Table)
		}
	}
	if !slices.Contains(tables, "") {
		tables = append([]string{""}, tables...)
	}
	slices.SortStableFunc(tables, func(a, b string) int { return min(len(a), 1) - min(len(b), 1) })
	for _, table := range tables {
		header := title
		if table != "" {
			header += "." + quoteKey(table)
		}
		d.lines = append(d.lines, "", "["+header+"]")
		for _, k := range keys {
			if k.Table != table {
				continue
			}
			lines, err := k.lines()
			if err != nil {
				return err
			}
			d.lines = append(d.lines, lines...)
		}
	}
	return nil
}

// lines writes the key, below its comment.
func (k Key) lines() ([]string, error) {
	b, err := toml.Marshal(map[string]any{k.Name: k.Value})
	if err != nil {
		return nil, &mail.Error{Kind: mail.KindConfig, Op: "write " + k.Name, Err: err}
	}
	var lines []string
	if k.Comment != "" {
		for line := range strings.Lines(k.Comment) {
			lines = append(lines, "# "+strings.TrimRight(line, "\r\n"))
		}
	}
	return append(lines, strings.TrimSuffix(string(b), "\n")), nil
}

func quoteKey(key string) string { return toml.Key{key}.String() }

func copyTree(tree map[string]any) map[string]any {
	out := make(map[string]any, len(tree))
	for k, v := range tree {
		if t, ok := v.(map[string]any); ok {
			v = copyTree(t)
		}
		out[k] = v
	}
	return out
}

func equal(a, b map[string]any) bool {
	x, errX := toml.Marshal(a)
	y, errY := toml.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
