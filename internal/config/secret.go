// Package config finds what a run needs to know besides its command line: the
// accounts of the configuration file, and the password of an account.
package config

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mailhaul/internal/auth"
	"mailhaul/mail"
)

const (
	commandTimeout = time.Minute // a password manager may ask a person to touch a key
	maxSecret      = 64 << 10    // octets read from a file or a command
)

// Variables of the environment that hold passwords: of the one server, or of the
// destination where there are two.
const (
	Env     = "MAILHAUL_PASSWORD"
	DestEnv = "MAILHAUL_DEST_PASSWORD"
)

// Password says where the password of an account may come from. It is looked for
// in the order of the fields.
type Password struct {
	User, Host string
	Command    string      // --password-command
	File       string      // --password-file
	Env        string      // name of the variable: Env, DestEnv or another
	Given      auth.Secret // what that variable held, if it was read before
	Entry      Entry       // what the configuration says of the account
	// Keyring asks the system's keyring; nil where there is none. found is false
	// where it has nothing for the account.
	Keyring func(ctx context.Context) (s auth.Secret, found bool, err error)
	Netrc   string // path of a .netrc; "" for none
	// Prompt asks a person on the terminal; nil where there is none.
	Prompt func(question string) (string, error)
}

// Find returns the first password there is. What was asked for by name (a
// command, a file) and gives none is an error, not a reason to look further.
// Errors are of mail.KindAuth and never hold any part of a secret.
func (p Password) Find(ctx context.Context) (auth.Secret, error) {
	switch {
	case p.Command != "":
		return fromCommand(ctx, "password", p.Command)
	case p.File != "":
		return fromFile(p.File)
	}
	if s, ok := os.LookupEnv(p.Env); ok && p.Env != "" {
		// Children must not inherit it, nor /proc/PID/environ of them show it.
		if err := os.Unsetenv(p.Env); err != nil {
			return "", noPassword(fmt.Errorf("remove %s from the environment: %w", p.Env, err), "")
		}
		if s == "" {
			return "", noPassword(fmt.Errorf("%s is empty", p.Env), "unset it or put the password into it")
		}
		return auth.Secret(s), nil
	}
	if p.Given != "" {
		return p.Given, nil
	}
	if s, found, err := p.configured(ctx); err != nil || found {
		return s, err
	}
	if p.Netrc != "" {
		s, found, err := fromNetrc(p.Netrc, p.Host, p.User)
		if err != nil || found {
			return s, err
		}
	}
	if p.Prompt != nil {
		s, err := p.Prompt(fmt.Sprintf("Password of %s at %s: ", p.User, p.Host))
		if err != nil {
			return "", noPassword(fmt.Errorf("read the password: %w", err), "")
		}
		if s == "" {
			return "", noPassword(errors.New("no password was typed"), "")
		}
		return auth.Secret(s), nil
	}
	return "", noPassword(fmt.Errorf("%w for %s at %s", ErrNoPassword, p.User, p.Host),
		p.ways())
}

// ways tells a person how to give the password.
func (p Password) ways() string {
	prefix, variable := "--", Env
	if p.Env == DestEnv {
		prefix, variable = "--dest-", DestEnv
	}
	return fmt.Sprintf("give %spassword-command CMD or %spassword-file FILE, set %s, or add the host to ~/.netrc; without a terminal nothing is asked",
		prefix, prefix, variable)
}

// TakeEnvironment takes a password out of the environment, for several accounts
// to be Given; "" if there is none.
func TakeEnvironment(name string) (auth.Secret, error) {
	if _, ok := os.LookupEnv(name); !ok {
		return "", nil
	}
	return Password{Env: name}.Find(context.Background())
}

// configured looks where the configuration says, and into the keyring.
func (p Password) configured(ctx context.Context) (s auth.Secret, found bool, err error) {
	switch e := p.Entry; {
	case e.Password != "":
		return e.Password, true, nil
	case e.Command != "":
		s, err = fromCommand(ctx, "password", e.Command)
		return s, true, err
	case e.File != "":
		s, err = fromFile(e.File)
		return s, true, err
	}
	if p.Keyring != nil {
		s, found, err = p.Keyring(ctx)
		if !p.Entry.Keyring && err != nil && ctx.Err() == nil {
			return "", false, nil // nobody said that it is there: look further
		}
	}
	switch {
	case p.Entry.Keyring && p.Keyring == nil:
		err = noPassword(fmt.Errorf("the password of %s at %s is in the keyring, and there is no keyring in this session", p.User, p.Host),
			"run it in the session of a desktop; for runs from cron or a timer keep it in a file of mode 0600 (password-file in the configuration)")
	case p.Entry.Keyring && err == nil && !found:
		err = noPassword(fmt.Errorf("the keyring has no password for %s at %s", p.User, p.Host),
			"mailhaul setup stores it there; or give password-command or password-file in the configuration")
	}
	return s, found, err
}

// ErrNoPassword says that no place had a password.
var ErrNoPassword = errors.New("no password")

func noPassword(err error, hint string) error {
	return &mail.Error{Kind: mail.KindAuth, Err: err, Hint: hint}
}

// fromCommand runs the command without a shell: split sees to quotes, nothing
// else is special, so no name in it can become a second command. Who wants a
// shell writes sh -c '...'. kind is what it is to give. Its standard error goes nowhere: it may hold secrets.
func fromCommand(ctx context.Context, kind, command string) (auth.Secret, error) {
	argv, err := split(command)
	if err != nil {
		return "", &mail.Error{Kind: mail.KindUsage, Op: "--" + kind + "-command", Err: err, Hint: "quote it as for a shell, or write sh -c '…'"}
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	var out limited
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = os.Stdin // a password manager may ask for its own passphrase
	cmd.Stdout = &out
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "MAILHAUL_PASSWORD=") || strings.HasPrefix(kv, "MAILHAUL_DEST_PASSWORD=")
	})
	cmd.WaitDelay = time.Second // a child of it may hold the pipe open
	err = cmd.Run()
	what := fmt.Sprintf("the %s command %q", kind, argv[0])
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", noPassword(fmt.Errorf("%s did not end within %s", what, commandTimeout), "run it by hand to see what it waits for")
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", noPassword(fmt.Errorf("%s failed: %w", what, err), "run it by hand to see why; what it wrote is not shown, since it may hold secrets")
	}
	return firstLine(out.b.Bytes(), what, kind)
}

// limited keeps the first octets and takes the rest as written.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), maxSecret-l.b.Len())])
	return len(p), nil
}

func firstLine(b []byte, what, kind string) (auth.Secret, error) {
	line, _, _ := bytes.Cut(b, []byte{'\n'})
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if len(line) == 0 {
		return "", noPassword(fmt.Errorf("%s gave no %s in its first line", what, kind), "")
	}
	return auth.Secret(line), nil
}

func fromFile(name string) (auth.Secret, error) {
	b, err := readPrivate(name)
	if err != nil {
		return "", err
	}
	return firstLine(b, fmt.Sprintf("the password file %q", name), "password")
}

// readPrivate reads a file that nobody but its owner may read. The mode is that
// of the open file, so it cannot be swapped in between.
func readPrivate(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, noPassword(err, "")
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, noPassword(err, "")
	}
	if st.IsDir() {
		return nil, noPassword(fmt.Errorf("%q is a directory", name), "")
	}
	// Pipes and /dev/fd are how shells hand over a secret; their mode says nothing.
	if st.Mode().IsRegular() && st.Mode().Perm()&0o077 != 0 && !foreignModes {
		return nil, noPassword(fmt.Errorf("%q can be read by others (mode %04o)", name, st.Mode().Perm()), fmt.Sprintf("run chmod 600 %s", name))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return nil, noPassword(err, "")
	}
	return b, nil
}

// fromNetrc looks for the host, and the user where the entry names one. A file
// others can read is an error only if it has the password that is wanted.
func fromNetrc(name, host, user string) (secret auth.Secret, found bool, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", false, nil
		}
		return "", false, noPassword(err, "")
	}
	password, ok := parseNetrc(string(b), host, user)
	if !ok {
		return "", false, nil
	}
	if _, err := readPrivate(name); err != nil {
		return "", false, err
	}
	return auth.Secret(password), true, nil
}

// parseNetrc reads the format of ftp(1): tokens between white space, optionally
// in double quotes. macdef runs to the next empty line.
func parseNetrc(text, host, user string) (password string, found bool) {
	var login, pass string
	var matches, hasPass bool
	end := func() bool { return matches && hasPass && (login == "" || login == user) }
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxSecret)
	var words []string
	for inMacro := false; lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if inMacro {
			inMacro = line != ""
			continue
		}
		for _, w := range netrcWords(line) {
			if w == "macdef" {
				inMacro = true
				break
			}
			words = append(words, w)
		}
	}
	for i := 0; i < len(words); i++ {
		next := func() string {
			if i+1 < len(words) {
				i++
				return words[i]
			}
			return ""
		}
		switch words[i] {
		case "machine", "default":
			if end() {
				return pass, true
			}
			matches = words[i] == "default" || strings.EqualFold(next(), host)
			login, pass, hasPass = "", "", false
		case "login":
			login = next()
		case "password":
			pass, hasPass = next(), true
		case "account":
			next()
		}
	}
	return pass, end()
}

func netrcWords(line string) []string {
	var words []string
	for line != "" {
		line = strings.TrimLeft(line, " \t\r")
		switch {
		case line == "" || line[0] == '#':
			return words
		case line[0] == '"':
			var b strings.Builder
			i := 1
			for ; i < len(line) && line[i] != '"'; i++ {
				if line[i] == '\\' && i+1 < len(line) {
					i++
				}
				b.WriteByte(line[i])
			}
			words = append(words, b.String())
			line = line[min(i+1, len(line)):]
		default:
			end := strings.IndexAny(line, " \t\r")
			if end < 0 {
				end = len(line)
			}
			words = append(words, line[:end])
			line = line[end:]
		}
	}
	return words
}

// SplitCommand takes a command apart into words, as for a password command.
func SplitCommand(s string) ([]string, error) { return split(s) }

// split takes a command apart into words: white space separates, '…' is taken as
// it is, in "…" and outside \ takes the next character as it is.
func split(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t' || r == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	switch {
	case quote != 0:
		return nil, errors.New("a quote is not closed")
	case escaped:
		return nil, errors.New("it ends in a backslash")
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 || words[0] == "" {
		return nil, errors.New("it names no command")
	}
	if rest, ok := strings.CutPrefix(words[0], "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		words[0] = filepath.Join(home, rest)
	}
	return words, nil
}
