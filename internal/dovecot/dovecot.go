package dovecot

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"
)

// Password is the password of every user.
const Password = "correct-horse"

// RequireEnv is the environment variable that turns a missing program from a
// skip into a failure when it is 1.
const RequireEnv = "MAILHAUL_TEST_REQUIRE"

// Formats of mail storage at the server, for Options.MailLocation.
const (
	Maildir = "maildir:~/mail:LAYOUT=fs"
	SDBox   = "sdbox:~/mail"
	MDBox   = "mdbox:~/mail"
	MboxFS  = "mbox:~/mail:INBOX=~/mail/inbox"
)

// Options says what server is wanted. The zero value is a Maildir server with
// "/" between levels and no namespace prefix.
type Options struct {
	MailLocation string // "" means Maildir
	Separator    string // "" means "/"
	Prefix       string // personal namespace, for instance "INBOX."; ends with the separator
	Quota        string // storage limit in Dovecot's words ("10M"); "" for none
	Compress     bool   // offer COMPRESS=DEFLATE
	Extra        string // more configuration, appended as it is
}

// Server is one running Dovecot. Any user name is accepted with Password and
// has mailboxes of its own.
type Server struct {
	Dir  string // everything the server reads and writes
	Host string // 127.0.0.1

	IMAP, IMAPS, POP3, POP3S int // ports

	CAFile string // PEM of the authority that signed the certificate

	opts   Options
	conf   string
	proc   *process
	stop   sync.Once
	mailID [2]int // uid and gid that own the mail
}

// ErrMissing says that there is no usable Dovecot on this machine.
var ErrMissing = errors.New("no usable Dovecot")

// Start runs a server for the duration of a test and shows its log if the test
// fails. Without Dovecot the test is skipped, or fails where RequireEnv is 1.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s, err := Run("", o)
	if errors.Is(err, ErrMissing) {
		if os.Getenv(RequireEnv) == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("dovecot log:\n%s", s.Log())
		}
		if err := os.RemoveAll(s.Dir); err != nil {
			t.Errorf("remove the server's directory: %v", err)
		}
	})
	return s
}

// Run starts a server below parent ("" for the system's temporary directory) and
// returns when it answers. Whoever calls it calls Stop and removes Dir.
func Run(parent string, o Options) (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	// Not t.TempDir: Dovecot makes Unix sockets below it, whose paths are short.
	dir, err := os.MkdirTemp(parent, "dc")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, Host: "127.0.0.1", opts: o}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	// Between choosing a free port and using it somebody else may take it.
	for range 5 {
		if err = s.launch(bin); err == nil {
			return s, nil
		}
		if !strings.Contains(s.Log()+err.Error(), "ddress already in use") {
			break
		}
	}
	err = fmt.Errorf("start dovecot: %w\n%s", err, s.Log())
	return nil, errors.Join(err, os.RemoveAll(dir))
}

func find() (string, error) {
	for _, p := range []string{"dovecot", "/usr/sbin/dovecot", "/usr/local/sbin/dovecot"} {
		bin, err := exec.LookPath(p)
		if err != nil {
			continue
		}
		out, err := exec.Command(bin, "--version").Output()
		if err != nil {
			return "", fmt.Errorf("%w: %s --version: %v", ErrMissing, bin, err)
		}
		if !bytes.HasPrefix(out, []byte("2.3.")) {
			return "", fmt.Errorf("%w: %s is version %s, the configuration written here is for 2.3", ErrMissing, bin, bytes.TrimSpace(out))
		}
		return bin, nil
	}
	return "", fmt.Errorf("%w: the program dovecot is not installed (Debian: dovecot-imapd dovecot-pop3d)", ErrMissing)
}

func (s *Server) prepare() error {
	if err := os.Chmod(s.Dir, 0o755); err != nil {
		return err
	}
	mailDir := filepath.Join(s.Dir, "mail")
	if err := os.Mkdir(mailDir, 0o755); err != nil {
		return err
	}
	s.mailID = [2]int{os.Getuid(), os.Getgid()}
	if os.Getuid() == 0 { // Dovecot gives nobody mail as root
		u, err := user.Lookup("dovecot")
		if err != nil {
			return fmt.Errorf("%w: %v", ErrMissing, err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(mailDir, uid, gid)); err != nil {
			return err
		}
		s.mailID = [2]int{uid, gid}
	}
	ca, cert, key, err := certificate()
	if err != nil {
		return err
	}
	s.CAFile = filepath.Join(s.Dir, "ca.pem")
	return errors.Join(
		os.WriteFile(s.CAFile, ca, 0o644),
		os.WriteFile(filepath.Join(s.Dir, "cert.pem"), cert, 0o644),
		os.WriteFile(filepath.Join(s.Dir, "key.pem"), key, 0o600),
	)
}

func (s *Server) launch(bin string) error {
	ports, err := freePorts(4)
	if err != nil {
		return err
	}
	s.IMAP, s.IMAPS, s.POP3, s.POP3S = ports[0], ports[1], ports[2], ports[3]
	s.conf = filepath.Join(s.Dir, "dovecot.conf")
	if err := s.writeConfig(); err != nil {
		return err
	}
	if s.proc, err = startProcess(bin, "-F", "-c", s.conf); err != nil {
		return err
	}
	for _, port := range ports {
		if err := s.await(port); err != nil {
			s.proc.stop()
			return err
		}
	}
	return nil
}

// freePorts holds all listeners open until it has n, so the ports differ.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// await connects until somebody listens; the two plain services also greet.
func (s *Server) await(port int) error {
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := s.probe(port)
		if err == nil {
			return nil
		}
		if s.proc.ended() {
			return fmt.Errorf("dovecot ended: %w", err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("dovecot is not ready: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *Server) probe(port int) error {
	c, err := net.DialTimeout("tcp", s.Addr(port), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if port != s.IMAP && port != s.POP3 {
		return nil
	}
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

// Addr joins the host with one of the ports.
func (s *Server) Addr(port int) string { return net.JoinHostPort(s.Host, strconv.Itoa(port)) }

// Stop ends the server and all its processes; it may be called again. The
// directory stays.
func (s *Server) Stop() { s.stop.Do(s.proc.stop) }

// Restart stops the server and starts it again with the same mail on new ports.
func (s *Server) Restart(o Options) error {
	s.proc.stop()
	bin, err := find()
	if err != nil {
		return err
	}
	s.opts = o
	return s.launch(bin)
}

// Log returns what the server logged.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Home is the directory that holds a user's mail.
func (s *Server) Home(user string) string { return filepath.Join(s.Dir, "mail", user) }

// Doveadm runs the administration tool against this server.
func (s *Server) Doveadm(args ...string) ([]byte, error) {
	bin, err := exec.LookPath("doveadm")
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrMissing, err)
	}
	out, err := exec.Command(bin, append([]string{"-c", s.conf}, args...)...).CombinedOutput()
	if err != nil {
		return out, fmt.Errorf("doveadm %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return out, nil
}

func (s *Server) writeConfig() error {
	d := struct {
		*Server
		Options
		Root           bool
		User           string
		MailUID, GID   int
		MailLoc, Sep   string
		Plugins, IMAPP string
	}{Server: s, Options: s.opts, Root: os.Getuid() == 0, MailUID: s.mailID[0], GID: s.mailID[1]}
	d.MailLoc, d.Sep = s.opts.MailLocation, s.opts.Separator
	if d.MailLoc == "" {
		d.MailLoc = Maildir
	}
	if d.Sep == "" {
		d.Sep = "/"
	}
	if s.opts.Quota != "" {
		d.Plugins, d.IMAPP = "quota", "imap_quota"
	}
	if s.opts.Compress {
		d.IMAPP += " imap_zlib"
	}
	if !d.Root {
		u, err := user.Current()
		if err != nil {
			return err
		}
		d.User = u.Username
	}
	var b bytes.Buffer
	if err := configTemplate.Execute(&b, d); err != nil {
		return err
	}
	return os.WriteFile(s.conf, b.Bytes(), 0o644)
}

// The server need not survive a power cut, so it never syncs; many tests log in
// at once from one address, and a wrong password must not slow down the next.
var configTemplate = template.Must(template.New("dovecot.conf").Parse(`
base_dir = {{.Dir}}/run
state_dir = {{.Dir}}/state
log_path = {{.Dir}}/log
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{{.Dir}}/cert.pem
ssl_key = <{{.Dir}}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login scram-sha-256
auth_failure_delay = 0
mail_location = {{.MailLoc}}
mail_fsync = never
mail_max_userip_connections = 1000
imap_max_line_length = 64k
pop3_uidl_format = %08Xu%08Xv
first_valid_uid = 1
default_process_limit = 500
default_client_limit = 2000
mail_plugins = $mail_plugins {{.Plugins}}
{{- if not .Root}}
default_internal_user = {{.User}}
default_login_user = {{.User}}
service anvil {
  chroot =
}
{{- end}}
passdb {
  driver = static
  args = password={PLAIN}` + Password + `
}
userdb {
  driver = static
  args = uid={{.MailUID}} gid={{.GID}} home={{.Dir}}/mail/%u
}
namespace inbox {
  inbox = yes
  separator = {{.Sep}}
  prefix = {{.Prefix}}
  mailbox Drafts {
    special_use = \Drafts
  }
  mailbox Sent {
    special_use = \Sent
  }
  mailbox Trash {
    special_use = \Trash
  }
}
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  service_count = 0
{{- if not .Root}}
  chroot =
{{- end}}
  inet_listener imap {
    port = {{.IMAP}}
  }
  inet_listener imaps {
    port = {{.IMAPS}}
    ssl = yes
  }
}
service pop3-login {
  service_count = 0
{{- if not .Root}}
  chroot =
{{- end}}
  inet_listener pop3 {
    port = {{.POP3}}
  }
  inet_listener pop3s {
    port = {{.POP3S}}
    ssl = yes
  }
}
protocol imap {
  mail_plugins = $mail_plugins {{.IMAPP}}
}
{{- if .Quota}}
plugin {
  quota = count:User quota
  quota_rule = *:storage={{.Quota}}
  quota_vsizes = yes
}
{{- end}}
{{.Extra}}
`))

// Own gives everything in a user's home to the server, after something was put
// there from outside.
func (s *Server) Own(user string) error {
	return filepath.WalkDir(s.Home(user), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, s.mailID[0], s.mailID[1])
	})
}
