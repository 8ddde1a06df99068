package schedule

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailhaul/internal/dovecot"
)

func TestWhen(t *testing.T) {
	for _, tt := range []struct {
		typed, calendar, cron, words string
	}{
		{"--at 03:15", "*-*-* 03:15:00", "22 3 * * *", "every day at 03:15, up to 15 minutes later"},
		{"--at 23:55", "*-*-* 23:55:00", "2 0 * * *", "every day at 23:55, up to 15 minutes later"},
		{"--every 5m", "*:0/5", "0-59/5 * * * *", "every 5 minutes"},
		{"--every 30m", "*:0/30", "0-59/30 * * * *", "every 30 minutes"},
		{"--every 1h", "hourly", "7 * * * *", "every hour"},
		{"--every 6h", "*-*-* 00/6:00:00", "7 */6 * * *", "every 6 hours"},
		{"--every 24h", "*-*-* 00:00:00", "7 0 * * *", "every 24 hours"},
	} {
		w, ok := parseFlag(tt.typed)
		if !ok || w.flag() != tt.typed {
			t.Errorf("%s: %+v, %v, %s", tt.typed, w, ok, w.flag())
		}
		if got := w.calendar(); got != tt.calendar {
			t.Errorf("%s: calendar %q, want %q", tt.typed, got, tt.calendar)
		}
		if got := w.crontime(7 * time.Minute); got != tt.cron {
			t.Errorf("%s: crontab %q, want %q", tt.typed, got, tt.cron)
		}
		if got := w.String(); got != tt.words {
			t.Errorf("%s: %q, want %q", tt.typed, got, tt.words)
		}
	}
	for _, bad := range []string{"--at 3", "--at 24:00", "--at 03:15:10", "--every 7m", "--every 5h", "--every 1m", "--every 48h", "--every 90m", "--every soon", "--daily", ""} {
		if w, ok := parseFlag(bad); ok {
			t.Errorf("%q is %v", bad, w)
		}
	}
}

func job(account string) Job {
	return Job{Account: account, Argv: []string{"/bin/true", "backup", account, "--config", `/a b/100%/$HOME/"x"\'.toml`}, When: Daily}
}

// The units are what systemd itself takes for right.
func TestUnitsAreRight(t *testing.T) {
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv(dovecot.RequireEnv) == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for _, s := range []Systemd{{}, {System: true}} {
		for _, when := range []string{"--at 03:15", "--every 5m", "--every 1h", "--every 6h", "--every 24h"} {
			dir := t.TempDir()
			j := job("ada@example.org")
			j.When, _ = parseFlag(when)
			args := []string{"verify", "--man=no"}
			if !s.System {
				args = append(args, "--user")
			}
			for name, text := range s.Units(j) {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append(args, path)
			}
			cmd := exec.Command(tool, args...)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
			out, err := cmd.CombinedOutput()
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, dir) || strings.Contains(line, "mailhaul") {
					t.Errorf("%s", line)
				}
			}
			if err != nil {
				t.Errorf("system %v, %s: %v\n%s", s.System, when, err, out)
			}
		}
		if out, err := exec.Command(tool, "calendar", Daily.calendar(), "*-*-* 00/6:00:00", "*:0/15").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func TestUnits(t *testing.T) {
	got := Systemd{}.Units(job("a@b"))
	timer, service := got[`mailhaul-a\x40b.timer`], got[`mailhaul-a\x40b.service`]
	for _, want := range []string{"OnCalendar=*-*-* 03:15:00\n", "RandomizedDelaySec=900\n", "Persistent=true\n", "WantedBy=timers.target\n", "# --at 03:15\n"} {
		if !strings.Contains(timer, want) {
			t.Errorf("no %q in\n%s", want, timer)
		}
	}
	for _, want := range []string{`ExecStart="/bin/true" "backup" "a@b" "--config" "/a b/100%%/$$HOME/\"x\"\\'.toml"` + "\n", "Type=oneshot\n", "UMask=0077\n"} {
		if !strings.Contains(service, want) {
			t.Errorf("no %q in\n%s", want, service)
		}
	}
	if strings.Contains(service, "network-online") || strings.Contains(service, "User=") {
		t.Errorf("a user's unit cannot have\n%s", service)
	}
}

func TestCronLines(t *testing.T) {
	lines := Cron{}.Lines(job("home"))
	want := []*regexp.Regexp{
		regexp.MustCompile(`^# mailhaul schedule home: --at 03:15$`),
		regexp.MustCompile(`^[0-9]+ 3 \* \* \* /bin/true backup home --config '/a b/100\\%/\$HOME/"x"\\'\\''\.toml' # mailhaul schedule home$`),
		regexp.MustCompile(`^@reboot sleep 120; /bin/true backup home .* # mailhaul schedule home$`),
	}
	for i, re := range want {
		if !re.MatchString(lines[i]) {
			t.Errorf("%q does not match %s", lines[i], re)
		}
	}
	// What the shell makes of it, after cron took the backslash from the percent.
	out, err := exec.Command("sh", "-c", "printf '%s\\n' "+strings.ReplaceAll(cronCommand(job("home").Argv), `\%`, "%")).Output()
	if err != nil || string(out) != strings.Join(job("home").Argv, "\n")+"\n" {
		t.Errorf("%s, %v", out, err)
	}
}

// tool puts a program into PATH, which runs a script and notes its arguments.
func tool(t *testing.T, name, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := "#!/bin/sh\ncd " + dir + "\necho \"$*\" >>calls\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func TestCron(t *testing.T) {
	dir := tool(t, "crontab", `case $1 in
-l) if [ -f tab ]; then cat tab; else echo "no crontab for ada" >&2; exit 1; fi;;
-) cat >tab;;
esac`)
	c, ctx := Cron{}, t.Context()
	if err := c.Available(ctx); err != nil {
		t.Fatal(err)
	}
	if in, err := c.Find(ctx, "home"); in != nil || err != nil {
		t.Fatalf("%+v, %v", in, err)
	}
	if err := c.Install(ctx, job("home")); err != nil {
		t.Fatal(err)
	}
	tab := func() string {
		b, err := os.ReadFile(filepath.Join(dir, "tab"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	// Others' lines stay, one that has no line break at its end, too.
	mine := "MAILTO=ada\n" + tab() + "0 1 * * * echo mailhaul schedule home # not ours"
	if err := os.WriteFile(filepath.Join(dir, "tab"), []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	again := job("home")
	again.When = When{Every: 6 * time.Hour}
	for _, j := range []Job{job("homework"), again, again} {
		if err := c.Install(ctx, j); err != nil {
			t.Fatal(err)
		}
	}
	want := "MAILTO=ada\n0 1 * * * echo mailhaul schedule home # not ours\n" +
		strings.Join(c.Lines(job("homework")), "\n") + "\n" + strings.Join(c.Lines(again), "\n") + "\n"
	if diff := cmp.Diff(want, tab()); diff != "" {
		t.Error(diff)
	}
	if in, err := c.Find(ctx, "home"); err != nil || in == nil || !in.Known || in.When != again.When || in.Kind != "cron" {
		t.Errorf("%+v, %v", in, err)
	}
	for _, name := range []string{"homework", "home", "home"} {
		if err := c.Remove(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if got := tab(); got != "MAILTO=ada\n0 1 * * * echo mailhaul schedule home # not ours\n" {
		t.Errorf("%q", got)
	}
	// A crontab that cannot be read is not replaced.
	tool(t, "crontab", `echo "you are not allowed" >&2; exit 1`)
	if err := c.Install(ctx, job("home")); err == nil || !strings.Contains(err.Error(), "you are not allowed") {
		t.Error(err)
	}
}

func TestSystemd(t *testing.T) {
	dir := tool(t, "systemctl", "")
	s := Systemd{Dir: filepath.Join(t.TempDir(), "systemd", "user")}
	ctx := t.Context()
	if err := s.Available(ctx); err != nil {
		t.Fatal(err)
	}
	if in, err := s.Find(ctx, "home"); in != nil || err != nil {
		t.Fatalf("%+v, %v", in, err)
	}
	j := job("home")
	j.When = When{Every: 30 * time.Minute}
	for range 2 {
		if err := s.Install(ctx, j); err != nil {
			t.Fatal(err)
		}
	}
	in, err := s.Find(ctx, "home")
	if err != nil || in == nil || !in.Known || in.When != j.When || in.Name != "mailhaul-home.timer" {
		t.Errorf("%+v, %v", in, err)
	}
	if err := s.Remove(ctx, "home"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(s.Dir); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "calls"))
	install := "--user daemon-reload\n--user enable mailhaul-home.timer\n--user restart mailhaul-home.timer\n"
	want := "--user show --property=Version\n" + install + install + "--user disable --now mailhaul-home.timer\n--user daemon-reload\n"
	if diff := cmp.Diff(want, string(b)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	tool(t, "systemctl", `echo "System has not been booted with systemd" >&2; exit 1`)
	if err := s.Available(ctx); err == nil || !strings.Contains(err.Error(), "not been booted") {
		t.Error(err)
	}
}

func FuzzWithout(f *testing.F) {
	f.Add("a\n# mailhaul schedule home: --at 03:15\nb # mailhaul schedule home\r\n", "home")
	f.Fuzz(func(t *testing.T, text, account string) {
		if strings.ContainsAny(account, "\r\n") {
			return
		}
		left, found := without(text, account)
		if !found && left != text {
			t.Fatalf("%q became %q", text, left)
		}
		if again, found := without(left, account); found || again != left {
			t.Fatalf("%q keeps lines of %q", left, account)
		}
	})
}
