// Package metrics writes what runs came to as a textfile of Prometheus, for
// node_exporter and others to pick up.
package metrics

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"mailhaul/internal/history"
	"mailhaul/mail"
)

// mode lets the collector, which is another user, read the file.
const mode = 0o644

// Write replaces the file by the metrics of some accounts. A reader sees the old
// or the new file, whole; after a power cut there may be none until the next run.
func Write(path string, accounts []history.State) error {
	err := replace(path, []byte(Text(accounts)))
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "write the metrics", Err: err, Hint: "the directory of --metrics must exist, and be writable"}
	}
	return nil
}

func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

type metric struct {
	name, help string
	lines      []string
}

func (m *metric) add(value string, labels ...string) {
	var b strings.Builder
	for i := 0; i < len(labels); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s="%s"`, labels[i], labelValue.Replace(labels[i+1]))
	}
	m.lines = append(m.lines, fmt.Sprintf("%s{%s} %s\n", m.name, b.String(), value))
}

var labelValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// Text returns the metrics in the text format, version 0.0.4.
func Text(accounts []history.State) string {
	exit := &metric{name: "mailhaul_run_exit_code", help: "Exit code of the last run."}
	began := &metric{name: "mailhaul_run_timestamp_seconds", help: "When the last run began."}
	good := &metric{name: "mailhaul_run_success_timestamp_seconds", help: "When the last run began that ended with exit code 0."}
	took := &metric{name: "mailhaul_run_duration_seconds", help: "How long the last run took."}
	messages := &metric{name: "mailhaul_run_messages", help: "Messages of the last run, by what became of them."}
	octets := &metric{name: "mailhaul_run_octets", help: "Octets archived, uploaded, freed or read back by the last run."}
	wrong := &metric{name: "mailhaul_runs_wrong_in_a_row", help: "Runs that went wrong since the last good one."}
	seconds := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	for _, s := range accounts {
		name := ""
		for _, command := range slices.Sorted(maps.Keys(s.Last)) {
			r := s.Last[command]
			name = r.Account
			labels := []string{"account", r.Account, "command", command}
			exit.add(strconv.Itoa(r.Exit), labels...)
			began.add(strconv.FormatInt(r.Began.Unix(), 10), labels...)
			if at, ok := s.Good[command]; ok {
				good.add(strconv.FormatInt(at.Unix(), 10), labels...)
			}
			took.add(seconds(r.Seconds), labels...)
			for _, key := range slices.Sorted(maps.Keys(r.Counts)) {
				if key == "octets" {
					octets.add(strconv.FormatInt(r.Counts[key], 10), labels...)
					continue
				}
				messages.add(strconv.FormatInt(r.Counts[key], 10), append(slices.Clip(labels), "result", key)...)
			}
		}
		if name != "" {
			wrong.add(strconv.Itoa(s.Wrong), "account", name)
		}
	}
	var b strings.Builder
	for _, m := range []*metric{exit, began, good, took, messages, octets, wrong} {
		if len(m.lines) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", m.name, m.help, m.name)
		for _, line := range m.lines {
			b.WriteString(line)
		}
	}
	return b.String()
}
