package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"mailhaul/internal/dovecot"
)

// entrant is one program in one configuration.
type entrant struct {
	name  string
	floor string  // name of the entrant it is compared with
	slow  int     // if not 0 it runs once, with at most so many messages
	empty bool    // fetches nothing: what is counted is that
	bag   mailbag // instead of the section's
	keep  bool    // what it leaves is for adopt
	// prepare runs once, before the clock, for instance a first run that leaves
	// state; all runs then use the same directory.
	prepare func(p place) error
	// command makes the program to measure. It writes below p.dir.
	command func(p place) (*exec.Cmd, error)
}

// stepwise is how many messages a peer gets that waits a round trip or starts a
// process for each.
const stepwise = 500

type peer struct {
	program string
	entrant
}

func fastPeers(scheme string) []peer {
	if scheme == "pop3s" {
		return []peer{{"mpop", entrant{name: "mpop", command: mpop("on")}}}
	}
	return []peer{
		{"mbsync", entrant{name: "mbsync", command: mbsync("yes")}},
		{"mbsync", entrant{name: "mbsync, no fsync", command: mbsync("no")}},
	}
}

func stepwisePeers(scheme string) []peer {
	if scheme == "pop3s" {
		return []peer{
			{"fetchmail", entrant{name: "fetchmail", command: fetchmail, slow: stepwise}},
			{"getmail", entrant{name: "getmail6", command: getmail("SimplePOP3SSLRetriever"), slow: stepwise}},
		}
	}
	return []peer{
		{"offlineimap", entrant{name: "offlineimap3", command: offlineimap, slow: stepwise}},
		{"getmail", entrant{name: "getmail6", command: getmail("SimpleIMAPSSLRetriever"), slow: stepwise}},
	}
}

// kept is where entrants with keep left their archives, by name.
var kept = map[string]string{}

// adopt makes a prepare step that takes over what another entrant left.
func adopt(name string) func(place) error {
	return func(p place) error {
		if err := os.Remove(p.dir); err != nil {
			return err
		}
		return os.Rename(kept[name], p.dir)
	}
}

// first makes a prepare step of a command.
func first(command func(place) (*exec.Cmd, error)) func(place) error {
	return func(p place) error {
		cmd, err := command(p)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("first run: %w\n%s", err, out)
		}
		time.Sleep(1100 * time.Millisecond) // mbsync waits until a directory's mtime is a second old
		return nil
	}
}

func drain(mode string) func(place) (*exec.Cmd, error) {
	return func(p place) (*exec.Cmd, error) {
		return exec.Command(p.tools.self, "drain", p.scheme, p.address(), p.caFile, p.user, mode, p.dir), nil
	}
}

func (p place) address() string { return p.host + ":" + strconv.Itoa(p.port) }

// environment keeps the programs away from the configuration of whoever runs
// this.
func (p place) environment(more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir, "LC_ALL=C.UTF-8"}, more...)
}

func mailhaul(format string) func(place) (*exec.Cmd, error) {
	return func(p place) (*exec.Cmd, error) {
		cmd := exec.Command(p.tools.mailhaul, "backup", "-q", "--ca-file", p.caFile, "--format", format,
			fmt.Sprintf("%s://%s@%s", p.scheme, p.user, p.address()), filepath.Join(p.dir, "archive"))
		cmd.Env = p.environment("MAILHAUL_PASSWORD="+dovecot.Password, "XDG_STATE_HOME="+filepath.Join(p.dir, "state"))
		return cmd, nil
	}
}

// config writes a program's configuration with the place's values for HOST, PORT,
// CA, USER, PASSWORD and DIR. Some peers know no addresses in certificates, so
// all of them connect by name.
func (p place) config(name, text string) (string, error) {
	r := strings.NewReplacer("{HOST}", "localhost", "{PORT}", strconv.Itoa(p.port), "{CA}", p.caFile,
		"{USER}", p.user, "{PASSWORD}", dovecot.Password, "{DIR}", p.dir)
	path := filepath.Join(p.dir, name)
	return path, os.WriteFile(path, []byte(r.Replace(text)), 0o600)
}

func mkMaildir(path string) error {
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// mpop leaves the mail at the server ("on") or deletes it there ("off").
func mpop(keep string) func(place) (*exec.Cmd, error) {
	return func(p place) (*exec.Cmd, error) {
		conf, err := p.config("mpoprc", `account default
host {HOST}
port {PORT}
tls on
tls_starttls off
tls_trust_file {CA}
user {USER}
password {PASSWORD}
auth user
keep `+keep+`
uidls_file {DIR}/uidls
delivery maildir {DIR}/mail
`)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("mpop", "-C", conf, "-Q")
		cmd.Env = p.environment()
		return cmd, mkMaildir(filepath.Join(p.dir, "mail"))
	}
}

func fetchmail(p place) (*exec.Cmd, error) {
	conf, err := p.config("fetchmailrc", `set no bouncemail
set no syslog
poll {HOST} service {PORT} protocol pop3 auth password
  user "{USER}" password "{PASSWORD}" ssl sslcertck sslcertfile "{CA}"
  keep fetchall mda "cat >>{DIR}/mail"
`)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("fetchmail", "-f", conf, "-s", "--nodetach", "--idfile", filepath.Join(p.dir, "ids"), "--pidfile", filepath.Join(p.dir, "pid"))
	cmd.Env = p.environment("FETCHMAILHOME=" + p.dir)
	return cmd, nil
}

func getmail(retriever string) func(place) (*exec.Cmd, error) {
	return func(p place) (*exec.Cmd, error) {
		as := ""
		if os.Getuid() == 0 { // it does not deliver as root
			as = "user = nobody\n"
		}
		conf, err := p.config("getmailrc", `[retriever]
type = `+retriever+`
server = {HOST}
port = {PORT}
username = {USER}
password = {PASSWORD}
ca_certs = {CA}
[destination]
type = Maildir
path = {DIR}/mail/
`+as+`[options]
read_all = true
delete = false
delivered_to = false
received = false
verbose = 0
`)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("getmail", "--getmaildir", p.dir, "--rcfile", conf)
		cmd.Env = p.environment()
		return cmd, errors.Join(mkMaildir(filepath.Join(p.dir, "mail")), giveToNobody(p.dir))
	}
}

// giveToNobody lets an unprivileged user write below dir.
func giveToNobody(dir string) error {
	nobody, err := user.Lookup("nobody")
	if err != nil || os.Getuid() != 0 {
		return err
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	for _, sub := range []string{".", "cur", "new", "tmp"} {
		if err := os.Chown(filepath.Join(dir, "mail", sub), uid, -1); err != nil {
			return err
		}
	}
	return nil
}

func mbsync(fsync string) func(place) (*exec.Cmd, error) {
	return func(p place) (*exec.Cmd, error) {
		conf, err := p.config("mbsyncrc", `FSync `+fsync+`
IMAPStore far
Host {HOST}
Port {PORT}
User {USER}
Pass {PASSWORD}
SSLType IMAPS
CertificateFile {CA}

MaildirStore near
Path {DIR}/
Inbox {DIR}/mail

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState *
`)
		if err != nil {
			return nil, err
		}
		cmd := exec.Command("mbsync", "-q", "-c", conf, "all")
		cmd.Env = p.environment()
		return cmd, nil
	}
}

func offlineimap(p place) (*exec.Cmd, error) {
	conf, err := p.config("offlineimaprc", `[general]
accounts = a
metadata = {DIR}/meta
[Account a]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {DIR}/mail
[Repository far]
type = IMAP
remotehost = {HOST}
remoteport = {PORT}
remoteuser = {USER}
remotepass = {PASSWORD}
ssl = yes
sslcacertfile = {CA}
readonly = True
folderfilter = lambda name: name == 'INBOX'
`)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("offlineimap", "-o", "-u", "quiet", "-c", conf)
	cmd.Env = p.environment()
	return cmd, nil
}
