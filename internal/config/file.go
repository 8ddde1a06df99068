package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"mailhaul/internal/auth"
	"mailhaul/internal/dial"
	"mailhaul/internal/place"
	"mailhaul/mail"
)

// fileLimit is the longest configuration that is read, in octets.
const fileLimit = 4 << 20

// File is a configuration, checked as a whole.
type File struct {
	// Path is where it was read from, absolute; where there is no file yet, where
	// it would be.
	Path string
	// Exists tells whether there is a file. Without one there are no accounts.
	Exists   bool
	Accounts []*Account // in the order of the file

	AccountsAtOnce     int    // how many accounts --all works on at once
	ConnectionsPerHost int    // the most connections to one host that accounts share
	Metrics            string // path of the Prometheus textfile; "" for none
	Notify             Notify // who is told
}

// Account is one account of the configuration.
type Account struct {
	Name    string
	Line    int // of its table; 0 if not known
	Server  place.Server
	Archive place.Archive // Dir is absolute; "" where none is set
	Entry   Entry         // where its password is

	CAFile, Fingerprint   string // as --ca-file and --tls-fingerprint
	ClientCert, ClientKey string // PEM files; the key may be in the same one
	AllowCleartext        bool
	Timeout               time.Duration // 0 where the flag's default holds

	// Flags are those that several verbs have, such as connections, and Verbs
	// those of single verbs: backup and clean. What is typed goes before.
	Flags []Setting
	Verbs map[string][]Setting

	Notify Notify // that of the file with what the account changes
}

// Entry says where an account keeps its password. At most one is set.
type Entry struct {
	Command  string      // as --password-command
	File     string      // as --password-file; absolute
	Password auth.Secret // the password itself: the file must be private
	Keyring  bool        // in the system's keyring
}

// Check says what is wrong with the value of a verb's flag; nil if nothing is. A
// nil Check takes every value.
type Check func(verb, flag, value string) error

const (
	defaultAtOnce  = 4
	defaultPerHost = 16
	maxAtOnce      = 200
	maxConnections = 1000
)

// Keys that are flags of the same name.
var (
	selectionKeys = []string{
		"mailbox", "exclude", "since", "before", "older-than", "newer-than", "larger", "smaller", "flagged", "seen",
	}
	commonKeys = []string{"connections", "limit-rate", "max-time", "lock-wait", "auth", "login-as", "token-command"}
	// VerbKeys are those of the tables [account.NAME.VERB].
	VerbKeys = map[string][]string{
		"backup": append(slices.Clip(selectionKeys), "delete", "keep", "max-delete", "daily-limit"),
		"clean":  append(slices.Clip(selectionKeys), "free", "until-quota", "include-flagged", "trash", "max-delete"),
	}
)

// DefaultPath returns $XDG_CONFIG_HOME/mailhaul/config.toml or
// ~/.config/mailhaul/config.toml; "" if the user has no home.
func DefaultPath() string {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "mailhaul", "config.toml")
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".config", "mailhaul", "config.toml")
}

// Load reads the configuration at path; "" stands for DefaultPath, where there
// may be none. Errors are of mail.KindConfig, one for each line that is wrong,
// and hold no secret.
func Load(path string, check Check) (*File, error) {
	f := &File{Path: path, AccountsAtOnce: defaultAtOnce, ConnectionsPerHost: defaultPerHost}
	if path == "" {
		f.Path = DefaultPath()
		if f.Path == "" {
			return f, nil
		}
	}
	if abs, err := filepath.Abs(f.Path); err == nil {
		f.Path = abs
	}
	text, info, err := readConfig(f.Path)
	if err != nil {
		if path == "" && errors.Is(err, fs.ErrNotExist) {
			return f, nil
		}
		e := &mail.Error{Kind: mail.KindConfig, Op: "read the configuration", Err: err}
		if errors.Is(err, fs.ErrNotExist) {
			e.Hint = "check the path after --config; mailhaul setup ADDRESS --config FILE makes one"
		}
		return nil, e
	}
	f.Exists = true
	if err := f.parse(text, check); err != nil {
		return nil, err
	}
	if err := f.guard(info); err != nil {
		return nil, err
	}
	return f, nil
}

func readConfig(path string) (string, fs.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", nil, err
	}
	if info.IsDir() {
		return "", nil, fmt.Errorf("%s is a directory", path)
	}
	b, err := io.ReadAll(io.LimitReader(file, fileLimit+1))
	if err == nil && len(b) > fileLimit {
		err = fmt.Errorf("%s is longer than %d octets", path, fileLimit)
	}
	return string(b), info, err
}

// guard refuses a file that others can change, since it names programs to run,
// and one that others can read if it holds a secret.
func (f *File) guard(info fs.FileInfo) error {
	if foreignModes || !info.Mode().IsRegular() {
		return nil
	}
	mode := info.Mode().Perm()
	refuse := func(text, hint string) error {
		return &mail.Error{Kind: mail.KindConfig, Op: f.Path, Err: errors.New(text), Hint: hint}
	}
	switch holder := f.secretIn(); {
	case !ownedByUs(info):
		return refuse("the file belongs to another user, who could have programs run as you", "copy it, or run as its owner")
	case mode&0o022 != 0:
		return refuse(fmt.Sprintf("the file can be changed by others (mode %04o), and it names programs to run", mode), "run chmod 600 "+f.Path)
	case holder != "" && mode&0o077 != 0:
		return refuse(fmt.Sprintf("the file can be read by others (mode %04o), and %s holds a secret", mode, holder),
			"run chmod 600 "+f.Path+", and change that password if others may have read it")
	}
	return nil
}

// secretIn names the first table with a secret in clear; "" if there is none.
func (f *File) secretIn() string {
	for _, a := range f.Accounts {
		if a.Entry.Password != "" {
			return "[account." + a.Name + "]"
		}
		if a.Notify.Entry.Password != "" {
			return "[account." + a.Name + ".notify]"
		}
	}
	if f.Notify.Entry.Password != "" {
		return "[notify]"
	}
	return ""
}

// parse reads the text into f.
func (f *File) parse(text string, check Check) error {
	text = strings.TrimPrefix(text, "\ufeff") // some editors begin a file so
	if check == nil {
		check = func(string, string, string) error { return nil }
	}
	r := &reader{name: f.Path, check: check}
	top := &section{r: r}
	md, err := toml.Decode(text, &top.keys)
	if err != nil {
		return syntaxError(f.Path, err)
	}
	r.md = md
	if n, _ := top.number("accounts-at-once", 1, maxAtOnce); n > 0 {
		f.AccountsAtOnce = int(n)
	}
	if n, _ := top.number("connections-per-host", 1, maxConnections); n > 0 {
		f.ConnectionsPerHost = int(n)
	}
	f.Metrics, _ = f.file(top, "metrics")
	if s, _, ok := top.table("notify"); ok {
		f.Notify = f.notify(s, Notify{})
	}
	if accounts, _, ok := top.table("account"); ok {
		f.accounts(accounts)
	}
	top.belongs = func(key string) string {
		if slices.Contains(accountKeys, key) {
			return "it belongs below a line [account.NAME]"
		}
		return ""
	}
	top.end()
	return r.err()
}

func syntaxError(path string, err error) error {
	e := &mail.Error{Kind: mail.KindConfig, Op: path, Err: err}
	var pe toml.ParseError
	if errors.As(err, &pe) {
		// Without the line itself, which may hold a secret.
		e.Op, e.Err = fmt.Sprintf("%s line %d", path, pe.Position.Line), errors.New("this is no TOML")
		e.Hint = "a text stands in quotes, a table in brackets: archive = \"~/Mail\", [account.home]"
		if strings.Contains(pe.Message, "has already been defined") {
			e.Err, e.Hint = fmt.Errorf("%q is there twice", pe.LastKey), "leave one of them out"
		}
	}
	return e
}

// accountKeys are the keys of [account.NAME], for hints.
var accountKeys = append([]string{
	"server", "user", "archive", "format", "password", "password-command", "password-file", "keyring", "ca-file",
	"tls-fingerprint", "client-cert", "client-key", "allow-cleartext", "timeout",
}, commonKeys...)

func (f *File) accounts(s *section) {
	for name := range s.keys {
		sub, line, ok := s.table(name)
		if !ok {
			continue
		}
		if err := CheckName(name); err != nil {
			s.r.fail(line, mail.HintOf(err), "%w", err)
			continue
		}
		f.Accounts = append(f.Accounts, f.account(sub, name, line))
	}
	slices.SortStableFunc(f.Accounts, func(a, b *Account) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// CheckName refuses names that could be taken for something else where a place
// is typed.
func CheckName(name string) error {
	hint := "use letters, digits, - and _, for example home"
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.', r == '@', r == '+':
		default:
			return &mail.Error{Kind: mail.KindConfig, Err: fmt.Errorf("%q cannot be the name of an account", name), Hint: hint}
		}
	}
	if name == "" || len(name) > 100 || strings.HasPrefix(name, "-") || strings.HasPrefix(name, ".") {
		return &mail.Error{Kind: mail.KindConfig, Err: fmt.Errorf("%q cannot be the name of an account", name), Hint: hint}
	}
	return nil
}

// account reads one account.
func (f *File) account(s *section, name string, line int) *Account {
	a := &Account{Name: name, Line: line, Verbs: map[string][]Setting{}}
	f.server(s, a)
	f.archive(s, a)
	a.Entry = f.entry(s)
	a.CAFile, _ = f.file(s, "ca-file")
	if pin, at := s.text("tls-fingerprint"); pin != "" {
		if _, err := dial.ParseFingerprint(pin); err != nil {
			s.r.fail(at, "write it as openssl x509 -fingerprint -sha256 prints it", "tls-fingerprint is no SHA-256")
		}
		a.Fingerprint = pin
	}
	var keyLine int
	a.ClientCert, _ = f.file(s, "client-cert")
	a.ClientKey, keyLine = f.file(s, "client-key")
	if a.ClientKey != "" && a.ClientCert == "" {
		s.r.fail(keyLine, "add client-cert", "client-key without a certificate")
	}
	a.AllowCleartext, _ = s.bool("allow-cleartext")
	if t, at := s.text("timeout"); t != "" {
		d, err := time.ParseDuration(t)
		if err != nil || d <= 0 {
			s.r.fail(at, "write a duration such as 30s or 5m", "timeout = %q is no time", t)
		}
		a.Timeout = d
	}
	a.Flags = s.settings("backup", commonKeys)
	for _, verb := range []string{"backup", "clean"} {
		if sub, _, ok := s.table(verb); ok {
			a.Verbs[verb] = sub.settings(verb, VerbKeys[verb])
			sub.end()
		}
	}
	a.Notify = f.Notify
	if sub, _, ok := s.table("notify"); ok {
		a.Notify = f.notify(sub, f.Notify)
	}
	s.belongs = func(key string) string {
		for _, verb := range []string{"backup", "clean"} {
			if slices.Contains(VerbKeys[verb], key) {
				return fmt.Sprintf("it belongs below a line [account.%s.%s]", name, verb)
			}
		}
		return ""
	}
	s.end()
	return a
}

func (f *File) server(s *section, a *Account) {
	server, line := s.text("server")
	user, userLine := s.text("user")
	if server == "" {
		if line == 0 {
			s.r.fail(a.Line, `write server = "imaps://USER@HOST"`, "the account %q has no server", a.Name)
		}
		return
	}
	p, err := place.WithUser(server, user)
	if err != nil {
		s.r.fail(max(line, userLine), mail.HintOf(err), "%w", err)
		return
	}
	a.Server = p
}

func (f *File) archive(s *section, a *Account) {
	text, line := s.text("archive")
	format, formatLine := s.text("format")
	if text != "" {
		p, err := place.ParseArchive(text)
		if err != nil {
			s.r.fail(line, mail.HintOf(err), "%w", err)
			return
		}
		p.Dir = f.resolve(p.Dir)
		a.Archive = p
	}
	switch {
	case format == "":
	case !slices.Contains(place.Formats, format):
		s.r.fail(formatLine, `write format = "maildir" or format = "mbox"`, "there is no archive format %q", format)
	case a.Archive.Format != "" && a.Archive.Format != format:
		s.r.fail(formatLine, "leave one of them out", "archive says one format and format another")
	default:
		a.Archive.Format = format
	}
}

// entry reads where a password is.
func (f *File) entry(s *section) Entry {
	var e Entry
	var n, last int
	count := func(set bool, line int) {
		if set {
			n, last = n+1, max(last, line)
		}
	}
	password, line := s.text("password")
	count(line > 0, line)
	e.Password = auth.Secret(password)
	e.Command, line = s.text("password-command")
	count(line > 0, line)
	if e.Command != "" {
		if _, err := split(e.Command); err != nil {
			s.r.fail(line, "quote it as for a shell, or write sh -c '…'", "password-command: %w", err)
		}
	}
	e.File, line = f.file(s, "password-file")
	count(line > 0, line)
	e.Keyring, line = s.bool("keyring")
	count(e.Keyring, line)
	if n > 1 {
		s.r.fail(last, "keep one of password-command, password-file, keyring and password", "%s says more than once where its password is", s.title)
	}
	return e
}

// file reads a path.
func (f *File) file(s *section, key string) (string, int) {
	text, line := s.text(key)
	if text == "" {
		return "", line
	}
	return f.resolve(text), line
}

// resolve makes a path absolute: ~/ is the user's home, and what is relative
// stands beside the file, wherever a run is started.
func (f *File) resolve(path string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok || path == "~" {
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, rest)
		}
	}
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(f.Path), path)
}

// Account returns the account of that name; nil if there is none.
func (f *File) Account(name string) *Account {
	for _, a := range f.Accounts {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// Names returns the names of all accounts, in the order of the file.
func (f *File) Names() []string {
	var names []string
	for _, a := range f.Accounts {
		names = append(names, a.Name)
	}
	return names
}
