package schedule

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Cron keeps lines in the crontab of the user.
type Cron struct{}

// Available tells whether there is a crontab.
func (Cron) Available(context.Context) error {
	if _, err := exec.LookPath("crontab"); err != nil {
		return errors.New("there is no crontab")
	}
	return nil
}

// Lines returns the lines of a job: one for the times, and one for a machine that
// was off at such a time, since cron forgets those. A run with nothing new asks
// the server once.
func (Cron) Lines(j Job) []string {
	host, _ := os.Hostname() // any text does
	command := cronCommand(j.Argv)
	end := fmt.Sprintf(" # %s%s", marker, j.Account)
	return []string{
		"# " + marker + j.Account + ": " + j.When.flag(),
		j.When.crontime(offset(host, j.Account)) + " " + command + end,
		"@reboot sleep 120; " + command + end,
	}
}

// cronCommand quotes a command for the shell, and the percent sign for cron, to
// which it is a line break.
func cronCommand(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		if strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=") != "" {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words[i] = strings.ReplaceAll(w, "%", `\%`)
	}
	return strings.Join(words, " ")
}

// read returns the crontab; "" if there is none.
func (Cron) read(ctx context.Context) (string, error) {
	text, err := run(ctx, "", "crontab", "-l")
	var exit *exec.ExitError
	if errors.As(err, &exit) && strings.Contains(strings.ToLower(err.Error()), "no crontab") {
		return "", nil
	}
	return text, err
}

// own tells whether a line was written for an account by this program.
func own(line, account string) bool {
	return strings.HasSuffix(line, " # "+marker+account) || strings.HasPrefix(line, "# "+marker+account+": ")
}

// without returns the crontab without the lines of an account, and whether it had
// any. Every other line stays as it is.
func without(text, account string) (string, bool) {
	var b strings.Builder
	found := false
	for line := range strings.Lines(text) {
		if own(strings.TrimRight(line, "\r\n"), account) {
			found = true
			continue
		}
		b.WriteString(line)
	}
	return b.String(), found
}

// Install writes the lines of a job; those it had before are replaced.
func (c Cron) Install(ctx context.Context, j Job) error {
	text, err := c.read(ctx)
	if err != nil {
		return err
	}
	text, _ = without(text, j.Account)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	_, err = run(ctx, text+strings.Join(c.Lines(j), "\n")+"\n", "crontab", "-")
	return err
}

// Find returns what is installed for an account; nil if nothing is.
func (c Cron) Find(ctx context.Context, account string) (*Installed, error) {
	if c.Available(ctx) != nil {
		return nil, nil
	}
	text, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	if _, found := without(text, account); !found {
		return nil, nil
	}
	in := &Installed{Kind: "cron"}
	for line := range strings.Lines(text) {
		if flag, ok := strings.CutPrefix(strings.TrimSpace(line), "# "+marker+account+": "); ok {
			in.When, in.Known = parseFlag(flag)
		}
	}
	return in, nil
}

// Remove removes the lines of an account.
func (c Cron) Remove(ctx context.Context, account string) error {
	text, err := c.read(ctx)
	if err != nil {
		return err
	}
	text, found := without(text, account)
	if !found {
		return nil
	}
	_, err = run(ctx, text, "crontab", "-")
	return err
}
