package metrics

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"mailhaul/internal/history"
	"mailhaul/mail"
)

var began = time.Unix(1795403700, 0)

func states() []history.State {
	var home, odd history.State
	home.Note(history.Run{Account: "home", Command: "backup", Began: began, Seconds: 14.5, Counts: map[string]int64{"archived": 12, "skipped": 3, "octets": 88}}, 3)
	home.Note(history.Run{Account: "home", Command: "verify", Began: began, Exit: 65}, 3)
	odd.Note(history.Run{Account: "a\"b\\c\nd", Command: "backup", Began: began, Exit: 77}, 3)
	return []history.State{home, odd}
}

func TestText(t *testing.T) {
	want := `# HELP mailhaul_run_exit_code Exit code of the last run.
# TYPE mailhaul_run_exit_code gauge
mailhaul_run_exit_code{account="home",command="backup"} 0
mailhaul_run_exit_code{account="home",command="verify"} 65
mailhaul_run_exit_code{account="a\"b\\c\nd",command="backup"} 77
# HELP mailhaul_run_timestamp_seconds When the last run began.
# TYPE mailhaul_run_timestamp_seconds gauge
mailhaul_run_timestamp_seconds{account="home",command="backup"} 1795403700
mailhaul_run_timestamp_seconds{account="home",command="verify"} 1795403700
mailhaul_run_timestamp_seconds{account="a\"b\\c\nd",command="backup"} 1795403700
# HELP mailhaul_run_success_timestamp_seconds When the last run began that ended with exit code 0.
# TYPE mailhaul_run_success_timestamp_seconds gauge
mailhaul_run_success_timestamp_seconds{account="home",command="backup"} 1795403700
# HELP mailhaul_run_duration_seconds How long the last run took.
# TYPE mailhaul_run_duration_seconds gauge
mailhaul_run_duration_seconds{account="home",command="backup"} 14.5
mailhaul_run_duration_seconds{account="home",command="verify"} 0
mailhaul_run_duration_seconds{account="a\"b\\c\nd",command="backup"} 0
# HELP mailhaul_run_messages Messages of the last run, by what became of them.
# TYPE mailhaul_run_messages gauge
mailhaul_run_messages{account="home",command="backup",result="archived"} 12
mailhaul_run_messages{account="home",command="backup",result="skipped"} 3
# HELP mailhaul_run_octets Octets archived, uploaded, freed or read back by the last run.
# TYPE mailhaul_run_octets gauge
mailhaul_run_octets{account="home",command="backup"} 88
# HELP mailhaul_runs_wrong_in_a_row Runs that went wrong since the last good one.
# TYPE mailhaul_runs_wrong_in_a_row gauge
mailhaul_runs_wrong_in_a_row{account="home"} 1
mailhaul_runs_wrong_in_a_row{account="a\"b\\c\nd"} 1
`
	got := Text(states())
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	line := regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{([a-z]+="([^"\\]|\\["\\n])*",?)+\} [0-9.]+)$`)
	for l := range strings.Lines(got) {
		if !line.MatchString(strings.TrimSuffix(l, "\n")) {
			t.Errorf("%q", l)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "mailhaul.prom")
	for range 2 {
		if err := Write(path, states()); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || string(b) != Text(states()) {
		t.Errorf("%s, %v", b, err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o644 {
		t.Errorf("%v: another user collects it", st.Mode())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	if err := Write(filepath.Join(dir, "no", "x.prom"), nil); mail.KindOf(err) != mail.KindDisk || mail.HintOf(err) == "" {
		t.Error(err)
	}
}
