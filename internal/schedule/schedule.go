// Package schedule has the system run a backup again and again: by a systemd
// timer, or by a line in the user's crontab.
package schedule

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"mailhaul/mail"
)

// When says how often and when, in local time.
type When struct {
	Hour, Minute int           // of a daily run
	Every        time.Duration // 0 for daily; else it divides the hour or the day
}

// jitterOf is how much later than said a run may begin, so that many machines do
// not ask a server at the same second.
func (w When) jitterOf() time.Duration {
	const most = 15 * time.Minute
	if w.Every == 0 {
		return most
	}
	return min(most, w.Every/4).Truncate(time.Minute)
}

// Daily is what --daily stands for.
var Daily = When{Hour: 3, Minute: 15}

// ParseAt reads the time of a daily run, 03:15.
func ParseAt(s string) (When, error) {
	t, err := time.Parse("15:04", s)
	if err != nil {
		return When{}, fmt.Errorf("a time of day is written 03:15")
	}
	return When{Hour: t.Hour(), Minute: t.Minute()}, nil
}

// ParseEvery reads a period that divides the hour or the day: so every run has a
// fixed time, and one that was missed can be known.
func ParseEvery(s string) (When, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
	case d >= 5*time.Minute && d < time.Hour && time.Hour%d == 0 && d%time.Minute == 0:
		return When{Every: d}, nil
	case d >= time.Hour && d <= 24*time.Hour && (24*time.Hour)%d == 0 && d%time.Hour == 0:
		return When{Every: d}, nil
	}
	return When{}, fmt.Errorf("a period is written 15m, 30m, 1h, 2h, 3h, 4h, 6h, 8h, 12h or 24h")
}

// String says it to a person.
func (w When) String() string {
	switch {
	case w.Every == 0:
		return fmt.Sprintf("every day at %02d:%02d, up to %d minutes later", w.Hour, w.Minute, int(w.jitterOf().Minutes()))
	case w.Every < time.Hour:
		return fmt.Sprintf("every %d minutes", int(w.Every.Minutes()))
	case w.Every == time.Hour:
		return "every hour"
	}
	return fmt.Sprintf("every %d hours", int(w.Every.Hours()))
}

// flag is how it is typed, and kept in what is installed.
func (w When) flag() string {
	if w.Every == 0 {
		return fmt.Sprintf("--at %02d:%02d", w.Hour, w.Minute)
	}
	return "--every " + shortDuration(w.Every)
}

func shortDuration(d time.Duration) string {
	if d%time.Hour == 0 {
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Minutes())) + "m"
}

func parseFlag(s string) (When, bool) {
	name, value, _ := strings.Cut(s, " ")
	var w When
	var err error
	switch name {
	case "--at":
		w, err = ParseAt(value)
	case "--every":
		w, err = ParseEvery(value)
	default:
		return w, false
	}
	return w, err == nil
}

// Job is one account and the command that backs it up.
type Job struct {
	Account string
	Argv    []string // absolute path of the program, then its arguments
	When    When
}

// Installed is a job that the system runs.
type Installed struct {
	When  When
	Known bool   // When could be read
	Kind  string // "systemd" or "cron"
	Name  string // of the timer unit; "" with cron
	Files []string
}

// marker stands in what this program installs, and says of which account it is.
const marker = "mailhaul schedule "

// calendar is the time as systemd.time(7) writes it.
func (w When) calendar() string {
	switch {
	case w.Every == 0:
		return fmt.Sprintf("*-*-* %02d:%02d:00", w.Hour, w.Minute)
	case w.Every < time.Hour:
		return fmt.Sprintf("*:0/%d", int(w.Every.Minutes()))
	case w.Every == 24*time.Hour:
		return "*-*-* 00:00:00"
	case w.Every == time.Hour:
		return "hourly"
	}
	return fmt.Sprintf("*-*-* 00/%d:00:00", int(w.Every.Hours()))
}

// crontime is the time as crontab(5) writes it. cron has no jitter: offset, which
// differs from account to account and machine to machine, takes its place.
func (w When) crontime(offset time.Duration) string {
	late := int((offset % max(w.jitterOf(), time.Minute)).Minutes())
	switch {
	case w.Every == 0:
		minutes := w.Hour*60 + w.Minute + late
		return fmt.Sprintf("%d %d * * *", minutes%60, minutes/60%24)
	case w.Every < time.Hour:
		return fmt.Sprintf("%d-59/%d * * * *", late, int(w.Every.Minutes()))
	case w.Every == time.Hour:
		return fmt.Sprintf("%d * * * *", late)
	case w.Every == 24*time.Hour:
		return fmt.Sprintf("%d 0 * * *", late)
	}
	return fmt.Sprintf("%d */%d * * *", late, int(w.Every.Hours()))
}

// offset is a number of minutes that stays the same for an account of a machine.
func offset(parts ...string) time.Duration {
	h := fnv.New32a()
	for _, p := range parts {
		fmt.Fprintf(h, "%s\x00", p)
	}
	return time.Duration(h.Sum32()%60) * time.Minute
}

func failed(op string, err error, hint string) error {
	return &mail.Error{Op: op, Err: err, Hint: hint}
}
