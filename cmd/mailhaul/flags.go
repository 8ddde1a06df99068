package main

import (
	"errors"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"mailhaul/internal/dial"
	"mailhaul/mail"
)

// globalFlags are those of every verb.
type globalFlags struct {
	quiet, verbose, json, version bool
	logLevel                      string
	config                        string
	caFile, fingerprint           string
	allowCleartext                bool
	trace, metrics                string
	timeout, maxTime, lockWait    time.Duration
	timeoutTyped                  bool
}

func (g *globalFlags) register(root *cobra.Command) {
	f := root.PersistentFlags()
	f.BoolVarP(&g.quiet, "quiet", "q", false, "print nothing when all went well")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "print more than needed")
	f.BoolVar(&g.json, "json", false, "print one JSON object per line on standard output; the last is the summary")
	f.StringVar(&g.logLevel, "log-level", "", "log from this `LEVEL` on to standard error: debug, info, warn or error (default warn, info with -v)")
	f.StringVar(&g.config, "config", "", "read the accounts from this `FILE` (default ~/.config/mailhaul/config.toml)")
	f.StringVar(&g.caFile, "ca-file", "", "trust the certificate authorities in this PEM `FILE`, too")
	f.StringVar(&g.fingerprint, "tls-fingerprint", "", "trust the server by the `SHA256` of its certificate instead of chain and name")
	f.BoolVar(&g.allowCleartext, "allow-cleartext", false, "let +insecure places reach beyond this machine")
	f.StringVar(&g.trace, "trace", "", "append the protocol to this `FILE`, secrets and message octets left out")
	f.StringVar(&g.metrics, "metrics", "", "write how the run ended to this `FILE`, for Prometheus")
	f.DurationVar(&g.timeout, "timeout", dial.DefaultTimeout, "give a connection up after this `DURATION` of silence")
	f.DurationVar(&g.maxTime, "max-time", 0, "end the run after this `DURATION` (50m); what was fetched is safe (0: no limit)")
	f.DurationVar(&g.lockWait, "lock-wait", 0, "wait this `DURATION` (5m) for another run to leave the archive")
	root.Flags().BoolVar(&g.version, "version", false, "print the version")
	root.PersistentFlags().BoolP("help", "h", false, "explain the verb, with examples")
}

func (g *globalFlags) check() error {
	if g.fingerprint != "" {
		if _, err := dial.ParseFingerprint(g.fingerprint); err != nil {
			return usage("write it as openssl x509 -fingerprint -sha256 prints it", "--tls-fingerprint is no SHA-256")
		}
	}
	if g.quiet && g.verbose {
		return usage("leave one of them out", "--quiet and --verbose exclude each other")
	}
	if g.timeout <= 0 || g.maxTime < 0 || g.lockWait < 0 {
		return usage("write a duration such as 30s or 5m", "a time must be above 0")
	}
	if g.logLevel != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(g.logLevel)); err != nil {
			return usage("write debug, info, warn or error", "there is no log level %q", g.logLevel)
		}
	}
	return nil
}

func (g *globalFlags) level() slog.Level {
	level := slog.LevelWarn
	if g.verbose {
		level = slog.LevelInfo
	}
	if g.quiet {
		level = slog.LevelError
	}
	if g.logLevel != "" {
		_ = level.UnmarshalText([]byte(g.logLevel)) // checked
	}
	return level
}

// secretFlags say where a password comes from, and how to log in.
type secretFlags struct {
	command, file string
	login         loginFlags
}

func (s *secretFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	s.login.register(cmd, "", "the server")
	f.StringVar(&s.command, "password-command", "", "run `CMD` (no shell) and take the first line of its output as the password")
	f.StringVar(&s.file, "password-file", "", "read the password from this `FILE`, which others must not be able to read")
}

// selectionFlags narrow what a verb works on. Values are read as they are parsed;
// selection puts them together.
type selectionFlags struct {
	mailboxes, exclude                  []string
	since, before, olderThan, newerThan time.Time
	larger, smaller                     int64
	flagged, noFlagged, seen, noSeen    bool
	now                                 time.Time
}

func (s *selectionFlags) register(cmd *cobra.Command) {
	s.now = time.Now()
	f := cmd.Flags()
	f.StringArrayVar(&s.mailboxes, "mailbox", nil, "only mailboxes that match this `GLOB` (repeatable; * stops at /, ** does not)")
	f.StringArrayVar(&s.exclude, "exclude", nil, "no mailboxes that match this `GLOB` (repeatable)")
	f.Func("since", "only messages from this `DATE` on (2024-12-31, or RFC 3339)", func(v string) (err error) {
		s.since, err = parseDate(v)
		return err
	})
	f.Func("before", "only messages before this `DATE`", func(v string) (err error) {
		s.before, err = parseDate(v)
		return err
	})
	f.Func("older-than", "only messages older than this `AGE` (90d, 6m, 2y)", func(v string) (err error) {
		s.olderThan, err = parseAge(v, s.now)
		return err
	})
	f.Func("newer-than", "only messages younger than this `AGE`", func(v string) (err error) {
		s.newerThan, err = parseAge(v, s.now)
		return err
	})
	f.Func("larger", "only messages of more than this `SIZE` (10M)", func(v string) (err error) {
		s.larger, err = parseSize(v)
		return err
	})
	f.Func("smaller", "only messages of less than this `SIZE`", func(v string) (err error) {
		s.smaller, err = parseSize(v)
		return err
	})
	f.BoolVar(&s.flagged, "flagged", false, "only flagged messages")
	f.BoolVar(&s.noFlagged, "no-flagged", false, "only messages that are not flagged")
	f.BoolVar(&s.seen, "seen", false, "only messages that were read")
	f.BoolVar(&s.noSeen, "no-seen", false, "only messages that were not read")
}

func (s *selectionFlags) selection() (mail.Selection, error) {
	sel := mail.Selection{
		Mailboxes: s.mailboxes, Exclude: s.exclude, Since: s.since, Before: s.before, Larger: s.larger, Smaller: s.smaller,
		Flagged: either(s.flagged, s.noFlagged), Seen: either(s.seen, s.noSeen),
	}
	if s.flagged && s.noFlagged || s.seen && s.noSeen {
		return sel, usage("leave one of them out", "a flag and its --no- twin select nothing")
	}
	if s.newerThan.After(sel.Since) {
		sel.Since = s.newerThan
	}
	if !s.olderThan.IsZero() && (sel.Before.IsZero() || s.olderThan.Before(sel.Before)) {
		sel.Before = s.olderThan
	}
	if !sel.Since.IsZero() && !sel.Before.IsZero() && !sel.Since.Before(sel.Before) {
		return sel, usage("--since and --newer-than give the beginning, --before and --older-than the end", "these dates select nothing: the span ends before it begins")
	}
	if sel.Smaller > 0 && sel.Larger >= sel.Smaller {
		return sel, usage("", "these sizes select nothing")
	}
	for _, g := range append(s.mailboxes, s.exclude...) {
		if g == "" {
			return sel, usage("mailhaul backup --verbose names the mailboxes", "a mailbox has no empty name")
		}
	}
	return sel, nil
}

func either(yes, no bool) *bool {
	switch {
	case yes:
		return new(true)
	case no:
		return new(false)
	}
	return nil
}

// parseDate reads a day, which begins at local midnight, or an instant.
func parseDate(s string) (time.Time, error) {
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	return time.Time{}, errors.New("a date is written 2024-12-31 or 2024-12-31T18:00:00Z")
}

// parseAge returns the instant that long before now: days of 24 hours, calendar
// months and years. The 31st less one month is the last day of that month.
func parseAge(s string, now time.Time) (time.Time, error) {
	bad := errors.New("an age is written 0d, 90d, 6m or 2y")
	if len(s) < 2 {
		return time.Time{}, bad
	}
	n, err := strconv.ParseUint(s[:len(s)-1], 10, 16)
	if err != nil {
		return time.Time{}, bad
	}
	switch s[len(s)-1] {
	case 'd':
		return now.Add(-time.Duration(n) * 24 * time.Hour), nil
	case 'm':
		return monthsBefore(now, int(n)), nil
	case 'y':
		return monthsBefore(now, 12*int(n)), nil
	}
	return time.Time{}, bad
}

func monthsBefore(t time.Time, months int) time.Time {
	moved := t.AddDate(0, -months, 0)
	if moved.Day() != t.Day() { // the month is shorter, and the rest ran over
		moved = moved.AddDate(0, 0, -moved.Day())
	}
	return moved
}

// parseSize reads octets; K, M and G are powers of 1024.
func parseSize(s string) (int64, error) {
	bad := errors.New("a size is written 500, 64K, 10M or 2G")
	digits := strings.TrimRight(s, "KMGkmg")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || len(s)-len(digits) > 1 {
		return 0, bad
	}
	if len(s) == len(digits) {
		return n, nil
	}
	shift := map[byte]uint{'K': 10, 'M': 20, 'G': 30}[s[len(s)-1]&^0x20]
	if n > math.MaxInt64>>shift {
		return 0, bad
	}
	return n << shift, nil
}

// parseRate reads octets per second.
func parseRate(s string) (*rate.Limiter, error) {
	n, err := parseSize(strings.TrimSuffix(s, "/s"))
	if err != nil {
		return nil, errors.New("a rate is written 64K or 2M (octets per second)")
	}
	// A burst is what may pass at once: a quarter of a second's worth.
	return rate.NewLimiter(rate.Limit(n), int(max(1<<10, min(n/4, 1<<20)))), nil
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	for line := range strings.Lines(cmd.Flags().FlagUsages() + cmd.InheritedFlags().FlagUsages()) {
		if _, rest, ok := strings.Cut(line, "--"); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}
