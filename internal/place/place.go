// Package place reads how a user writes down a server or an archive.
package place

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// Server is an account at a server, as written in a URL. It never holds a
// password.
type Server struct {
	Protocol string // "imap" or "pop3"
	Security dial.Security
	User     string // decoded; "" never
	Host     string // lower case; an IPv6 address without brackets
	Port     int    // 1 to 65535
}

// Archive is a directory and the format it was said to have.
type Archive struct {
	Format string // "maildir", "mbox", or "" where nothing was said
	Dir    string
}

type scheme struct {
	name     string
	protocol string
	security dial.Security
	port     int
}

// RFC 8314 section 3: implicit TLS has ports of its own.
var schemes = []scheme{
	{"imaps", "imap", dial.TLS, 993},
	{"pop3s", "pop3", dial.TLS, 995},
	{"imap", "imap", dial.StartTLS, 143},
	{"pop3", "pop3", dial.StartTLS, 110},
	{"imap+insecure", "imap", dial.Cleartext, 143},
	{"pop3+insecure", "pop3", dial.Cleartext, 110},
}

// Formats are the archive formats that can stand before a directory.
var Formats = []string{"maildir", "mbox"}

const serverHint = "write imaps://USER@HOST or pop3s://USER@HOST"

func usage(hint, format string, args ...any) error {
	return &mail.Error{Kind: mail.KindUsage, Err: fmt.Errorf(format, args...), Hint: hint}
}

// IsServer tells whether s is written as a server rather than as a directory or
// the name of an account.
func IsServer(s string) bool { return strings.Contains(s, "://") }

// ParseServer reads a URL of the form SCHEME://USER@HOST[:PORT]. USER may hold
// "@" (the last one splits) and percent-escapes. Errors are of mail.KindUsage
// and never repeat what may be a password.
func ParseServer(s string) (Server, error) {
	name, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Server{}, usage(serverHint, "the place of a server needs a scheme such as imaps://")
	}
	sc, err := findScheme(name)
	if err != nil {
		return Server{}, err
	}
	at := strings.LastIndexByte(rest, '@')
	if at < 0 {
		return Server{}, usage("write "+sc.name+"://USER@HOST", "the place %s://… names no user", sc.name)
	}
	user, err := parseUser(rest[:at], sc)
	if err != nil {
		return Server{}, err
	}
	host, port, err := parseHost(rest[at+1:], sc)
	if err != nil {
		return Server{}, err
	}
	return Server{Protocol: sc.protocol, Security: sc.security, User: user, Host: host, Port: port}, nil
}

func findScheme(name string) (scheme, error) {
	names := make([]string, len(schemes))
	for i, sc := range schemes {
		if strings.EqualFold(sc.name, name) {
			return sc, nil
		}
		names[i] = sc.name
	}
	hint := "known are " + strings.Join(names, ", ")
	if near := Nearest(name, names); near != "" {
		hint = "did you mean " + near + "://?"
	}
	return scheme{}, usage(hint, "unknown scheme %q", shorten(name))
}

func parseUser(raw string, sc scheme) (string, error) {
	if strings.ContainsRune(raw, ':') {
		return "", usage("put it into a file of mode 0600 and give --password-file FILE, or use --password-command CMD or MAILHAUL_PASSWORD (a colon that belongs to the user is written %3A)",
			"a place must not hold a password: others could read it in the process list and in the shell's history")
	}
	user, err := url.PathUnescape(raw)
	if err != nil {
		return "", usage("a percent sign in the user is written %25", "the user in %s://… has a bad percent-escape", sc.name)
	}
	return user, checkUser(user, sc)
}

func checkUser(user string, sc scheme) error {
	switch {
	case user == "":
		return usage("write "+sc.name+"://USER@HOST", "the place %s://… names no user", sc.name)
	case !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl):
		return usage("", "the user in %s://… holds a control character or is not UTF-8", sc.name)
	}
	return nil
}

func parseHost(s string, sc scheme) (string, int, error) {
	host, port := s, sc.port
	if strings.ContainsAny(s, "/?#") {
		return "", 0, usage("choose mailboxes with --mailbox", "nothing may follow the host in %s://…", sc.name)
	}
	var portText string
	var hasPort bool
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", 0, usage("", "the address after @ lacks its closing bracket")
		}
		addr, err := netip.ParseAddr(s[1:end])
		if err != nil || !addr.Is6() {
			return "", 0, usage("", "%q is no IPv6 address", shorten(s[1:end]))
		}
		host = addr.String()
		portText, hasPort = strings.CutPrefix(s[end+1:], ":")
		if !hasPort && s[end+1:] != "" {
			return "", 0, usage("", "only :PORT may follow the address in brackets")
		}
	} else {
		if strings.Count(s, ":") > 1 {
			return "", 0, usage("write an IPv6 address in brackets: "+sc.name+"://USER@[::1]", "%q is no host", shorten(s))
		}
		host, portText, hasPort = strings.Cut(s, ":")
		host = strings.ToLower(host)
		if err := checkHost(host); err != nil {
			return "", 0, err
		}
	}
	if hasPort {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 {
			return "", 0, usage("a port is a number from 1 to 65535", "%q is no port", shorten(portText))
		}
		port = int(n)
	}
	return host, port, nil
}

func checkHost(host string) error {
	if host == "" {
		return usage("", "the place names no host behind the @")
	}
	for _, r := range host {
		switch {
		case r >= 0x80:
			return usage("write it in its ASCII form, which begins with xn--", "the host %q is not ASCII", shorten(host))
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
		default:
			return usage("", "%q is no host", shorten(host))
		}
	}
	return nil
}

// String writes the place so that ParseServer reads it again; the port only
// where it is not the scheme's own.
func (s Server) String() string {
	var b strings.Builder
	port := 0
	for _, sc := range schemes {
		if sc.protocol == s.Protocol && sc.security == s.Security {
			b.WriteString(sc.name)
			port = sc.port
		}
	}
	b.WriteString("://")
	for i := 0; i < len(s.User); i++ {
		c := s.User[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`%:/?#[]`, c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
			continue
		}
		b.WriteByte(c)
	}
	b.WriteByte('@')
	if strings.Contains(s.Host, ":") {
		b.WriteString("[" + s.Host + "]")
	} else {
		b.WriteString(s.Host)
	}
	if s.Port != port {
		fmt.Fprintf(&b, ":%d", s.Port)
	}
	return b.String()
}

// Account returns the identity of the account.
func (s Server) Account() string { return mail.AccountKey(s.Protocol, s.User, s.Host) }

// ParseArchive reads DIR, maildir:DIR or mbox:DIR. Behind a format "~/" is the
// user's home, since no shell expands it there. A directory whose name looks
// like a format or a server is written ./NAME.
func ParseArchive(s string) (Archive, error) {
	if s == "" {
		return Archive{}, usage("write a directory, for example ~/Mail", "the archive has no name")
	}
	if s == "-" {
		return Archive{}, usage("write a directory, ./- if it is called so", "an archive is a directory: it cannot be - for standard input or output")
	}
	if strings.ContainsRune(s, 0) {
		return Archive{}, usage("", "the name of the archive holds a NUL")
	}
	if IsServer(s) {
		return Archive{}, usage("write a directory, maildir:DIR or mbox:DIR; --help shows what comes first",
			"an archive is a directory, and a server was given")
	}
	prefix, dir, ok := strings.Cut(s, ":")
	if !ok || strings.ContainsAny(prefix, `/\`) {
		return Archive{Dir: filepath.Clean(s)}, nil
	}
	for _, f := range Formats {
		if prefix != f {
			continue
		}
		if dir == "" {
			return Archive{}, usage("write "+f+":DIR", "behind %s: there is no directory", f)
		}
		if rest, ok := strings.CutPrefix(dir, "~/"); ok {
			home, err := os.UserHomeDir()
			if err != nil {
				return Archive{}, usage("write the directory in full", "the home directory is not known")
			}
			dir = filepath.Join(home, rest)
		}
		return Archive{Format: f, Dir: filepath.Clean(dir)}, nil
	}
	if near := Nearest(prefix, Formats); near != "" {
		return Archive{}, usage(fmt.Sprintf("did you mean %s:? A directory of that name is written ./%s", near, shorten(s)), "unknown archive format %q", shorten(prefix))
	}
	return Archive{Dir: filepath.Clean(s)}, nil
}

// Nearest returns the word of known that is at most two edits from s; "" if
// there is none.
func Nearest(s string, known []string) string {
	if len(s) > 32 {
		return ""
	}
	best, distance := "", 3
	for _, k := range known {
		if d := edits(strings.ToLower(s), k); d < distance && d < len(k)-1 {
			best, distance = k, d
		}
	}
	return best
}

// edits counts insertions, deletions, replacements and swaps of neighbours.
func edits(a, b string) int {
	before, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// shorten keeps an error to one line's worth of what was typed.
func shorten(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
