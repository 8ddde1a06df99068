package place

import (
	"strings"

	"mailhaul/internal/dial"
)

// WithUser reads a server whose user may stand apart: SCHEME://HOST[:PORT] and
// user, or SCHEME://USER@HOST[:PORT] and "". Errors are those of ParseServer.
func WithUser(server, user string) (Server, error) {
	name, rest, ok := strings.Cut(server, "://")
	if !ok || user == "" {
		return ParseServer(server)
	}
	sc, err := findScheme(name)
	if err != nil {
		return Server{}, err
	}
	host, port, err := hostAlone(sc, rest)
	if err != nil {
		return Server{}, err
	}
	if err := checkUser(user, sc); err != nil {
		return Server{}, err
	}
	return Server{Protocol: sc.protocol, Security: sc.security, User: user, Host: host, Port: port}, nil
}

// hostAlone reads what follows a scheme where the user stands apart.
func hostAlone(sc scheme, rest string) (host string, port int, err error) {
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		if _, err := parseUser(rest[:at], sc); err != nil {
			return "", 0, err
		}
		return "", 0, usage("leave it out of the server, or leave out user", "the user is there twice")
	}
	return parseHost(rest, sc)
}

// Submission is where mail is handed in (RFC 6409); the zero value is nowhere.
type Submission struct {
	Security dial.Security // TLS or StartTLS; never without
	User     string
	Host     string // as in Server
	Port     int
}

// RFC 8314 section 3.3 and RFC 6409 section 3.1.
var submissions = []scheme{
	{"smtps", "smtp", dial.TLS, 465},
	{"smtp", "smtp", dial.StartTLS, 587},
}

// ParseSubmission reads smtps://USER@HOST[:PORT] (TLS from the first octet) or
// smtp://USER@HOST[:PORT] (STARTTLS before anything else). The user may stand
// apart, as for WithUser; it is required, since mail is handed in after a login.
// Errors are of mail.KindUsage.
func ParseSubmission(server, user string) (Submission, error) {
	const hint = "write smtps://USER@HOST (port 465) or smtp://USER@HOST (port 587, STARTTLS)"
	name, rest, ok := strings.Cut(server, "://")
	if !ok {
		return Submission{}, usage(hint, "the server for reports needs a scheme such as smtps://")
	}
	for _, sc := range submissions {
		if !strings.EqualFold(sc.name, name) {
			continue
		}
		var err error
		if user == "" {
			at := strings.LastIndexByte(rest, '@')
			if at < 0 {
				return Submission{}, usage(hint+", or give user", "the server %s://… names no user; reports are handed in after a login", sc.name)
			}
			if user, err = parseUser(rest[:at], sc); err != nil {
				return Submission{}, err
			}
			rest = rest[at+1:]
		} else if err := checkUser(user, sc); err != nil {
			return Submission{}, err
		}
		host, port, err := hostAlone(sc, rest)
		if err != nil {
			return Submission{}, err
		}
		return Submission{Security: sc.security, User: user, Host: host, Port: port}, nil
	}
	return Submission{}, usage(hint, "unknown scheme %q for reports", shorten(name))
}
