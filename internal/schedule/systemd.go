package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"mailhaul/internal/durable"
)

// Systemd keeps units of the user, or of the system.
type Systemd struct {
	System bool   // units of the system, which root may make
	Dir    string // where unit files lie
}

// UserUnits returns the directory of the user's own units; "" without a home.
func UserUnits() string {
	if dir := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "systemd", "user")
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".config", "systemd", "user")
}

// SystemUnits is where an administrator's units lie.
const SystemUnits = "/etc/systemd/system"

func (s Systemd) control(ctx context.Context, args ...string) error {
	if !s.System {
		args = append([]string{"--user"}, args...)
	}
	_, err := run(ctx, "", "systemctl", args...)
	return err
}

// Available tells whether there is a service manager to talk to.
func (s Systemd) Available(ctx context.Context) error {
	if s.Dir == "" {
		return errors.New("there is no home directory")
	}
	err := s.control(ctx, "show", "--property=Version")
	var tool *toolError
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return errors.New("there is no systemd")
	case errors.As(err, &tool):
		return fmt.Errorf("systemd cannot be reached (%s)", cmp.Or(tool.said, tool.err.Error()))
	}
	return err
}

// unitName is the name of an account's units without their ending.
func unitName(account string) string {
	var b strings.Builder
	b.WriteString("mailhaul-")
	for i := 0; i < len(account); i++ {
		switch c := account[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default: // as systemd-escape(1) writes it: an @ would make it a template
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// Units returns the files of a job by their names. systemd starts a unit that
// still runs no second time.
func (s Systemd) Units(j Job) map[string]string {
	name := unitName(j.Account)
	service := fmt.Sprintf(`# %s%s
[Unit]
Description=mailhaul backup of %s
Documentation=man:mailhaul-backup(1)
`, marker, j.Account, j.Account)
	if s.System {
		service += "Wants=network-online.target\nAfter=network-online.target\n"
	}
	service += fmt.Sprintf(`
[Service]
Type=oneshot
%sExecStart=%s
NotifyAccess=main
TimeoutStartSec=infinity
KillSignal=SIGTERM
TimeoutStopSec=30
UMask=0077
Nice=10
IOSchedulingClass=idle
NoNewPrivileges=yes
`, s.user(), execLine(j.Argv))
	timer := fmt.Sprintf(`# %s%s
# %s
[Unit]
Description=mailhaul backup of %s, %s

[Timer]
OnCalendar=%s
RandomizedDelaySec=%d
Persistent=true

[Install]
WantedBy=timers.target
`, marker, j.Account, j.When.flag(), j.Account, j.When, j.When.calendar(), int(j.When.jitterOf().Seconds()))
	return map[string]string{name + ".service": service, name + ".timer": timer}
}

// user has the system set HOME, which it does for units with a user only.
func (s Systemd) user() string {
	if s.System {
		return "User=root\n"
	}
	return ""
}

// execLine writes a command as systemd.service(5) reads it.
func execLine(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		w = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "$", "$$", "\n", `\n`, "\t", `\t`).Replace(w)
		words[i] = `"` + w + `"`
	}
	return strings.Join(words, " ")
}

// Install writes the units and starts the timer; what was there before is
// replaced.
func (s Systemd) Install(ctx context.Context, j Job) error {
	fsys, err := durable.MakeRoot(s.Dir)
	if err != nil {
		return failed("make "+s.Dir, err, "")
	}
	defer fsys.Close()
	for name, text := range s.Units(j) {
		if err := durable.WriteFileAtomic(fsys, name, []byte(text)); err != nil {
			return failed("write "+filepath.Join(s.Dir, name), err, "")
		}
	}
	if err := s.control(ctx, "daemon-reload"); err != nil {
		return err
	}
	timer := unitName(j.Account) + ".timer"
	if err := s.control(ctx, "enable", timer); err != nil {
		return err
	}
	return s.control(ctx, "restart", timer) // one that runs takes up its new time
}

// Find returns what is installed for an account; nil if nothing is.
func (s Systemd) Find(_ context.Context, account string) (*Installed, error) {
	if s.Dir == "" {
		return nil, nil
	}
	name := unitName(account)
	path := filepath.Join(s.Dir, name+".timer")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("look for the timer", err, "")
	}
	in := &Installed{Kind: "systemd", Name: name + ".timer", Files: []string{path, filepath.Join(s.Dir, name+".service")}}
	for line := range strings.Lines(string(b)) {
		if w, ok := parseFlag(strings.TrimSpace(strings.TrimPrefix(line, "# "))); ok {
			in.When, in.Known = w, true
		}
	}
	return in, nil
}

// Remove stops the timer and removes the units. A run that is on goes on.
func (s Systemd) Remove(ctx context.Context, account string) error {
	in, err := s.Find(ctx, account)
	if err != nil || in == nil {
		return err
	}
	if err := s.control(ctx, "disable", "--now", in.Name); err != nil {
		return err
	}
	for _, f := range in.Files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return failed("remove "+f, err, "")
		}
	}
	return s.control(ctx, "daemon-reload")
}

// Lingers tells whether the user's units run while nobody is logged in.
func Lingers(user string) bool {
	_, err := os.Stat(filepath.Join("/var/lib/systemd/linger", user))
	return err == nil
}
