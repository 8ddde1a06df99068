package history

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var monday = time.Date(2026, 11, 23, 3, 15, 0, 0, time.UTC)

// Who is told of what, run by run: one a day, with three in a row for trouble.
func TestNote(t *testing.T) {
	const day = 24 * time.Hour
	for name, steps := range map[string][]struct {
		after time.Duration
		exit  int
		want  string
	}{
		"all well":               {{0, 0, ""}, {day, 0, ""}},
		"failure, each day once": {{0, 77, "failure"}, {time.Hour, 77, ""}, {time.Hour, 74, "failure"}, {day, 74, "failure"}, {day, 0, "recovered"}, {day, 0, ""}},
		"trouble passes":         {{0, 75, ""}, {day, 75, ""}, {day, 0, ""}, {day, 75, ""}, {day, 75, ""}},
		"trouble stays":          {{0, 75, ""}, {day, 3, ""}, {day, 75, "trouble"}, {time.Hour, 75, ""}, {day, 75, "trouble"}, {day, 0, "recovered"}},
		"interrupted":            {{0, 75, ""}, {day, 130, ""}, {day, 143, ""}, {day, 75, ""}, {day, 75, "trouble"}},
		"weekly":                 {{0, 0, ""}, {6 * day, 0, ""}, {day - time.Minute, 0, "weekly"}, {day, 0, ""}, {6 * day, 77, "failure weekly"}},
	} {
		t.Run(name, func(t *testing.T) {
			var s State
			at := monday
			for i, step := range steps {
				at = at.Add(step.after)
				r := Run{Account: "home", Command: "backup", Began: at, Exit: step.exit, Counts: map[string]int64{"archived": 2}}
				why := s.Note(r, 3)
				if got := strings.Join(why, " "); got != step.want {
					t.Errorf("run %d: %q, want %q", i, got, step.want)
				}
				for _, w := range why {
					s.Told(w, r)
				}
			}
		})
	}
}

// What could not be delivered is told by the next run.
func TestNoteUntold(t *testing.T) {
	var s State
	for range 3 {
		if got := s.Note(Run{Command: "backup", Began: monday, Exit: 77}, 3); !cmp.Equal(got, []string{Failure}) {
			t.Error(got)
		}
	}
	if s.Wrong != 3 || len(s.Good) != 0 || s.Week.Wrong != 3 {
		t.Errorf("%+v", s)
	}
}

func TestStore(t *testing.T) {
	st := Store{Dir: filepath.Join(t.TempDir(), "state", "runs")}
	if all, err := st.All(); all != nil || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if err := st.Forget("home"); err != nil {
		t.Error(err)
	}
	for _, account := range []string{"home", "imap:ada@h/../x", ".hidden"} {
		want, err := st.Update(account, func(s *State) {
			s.Note(Run{Account: account, Command: "backup", Began: monday, Told: []string{"a"}}, 1)
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, st.Get(account)); diff != "" || want.Last["backup"].Account != account {
			t.Error(diff)
		}
	}
	all, err := st.All()
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v", all, err)
	}
	files, err := os.ReadDir(st.Dir)
	if err != nil || len(files) != 4 { // and the lock
		t.Errorf("%v, %v", files, err)
	}
	// A damaged file, and one of a later version, count as none.
	for _, text := range []string{"{", `{"version": 99, "last": {}}`, ""} {
		if err := os.WriteFile(filepath.Join(st.Dir, "home.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s := st.Get("home"); s.Version != 0 {
			t.Errorf("%q: %+v", text, s)
		}
	}
	if err := st.Forget(".hidden"); err != nil {
		t.Fatal(err)
	}
	if all, err := st.All(); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestManyLinesAreCut(t *testing.T) {
	var s State
	s.Note(Run{Command: "backup", Began: monday, Told: make([]string, 100)}, 1)
	if got := s.Last["backup"].Told; len(got) != mostTold+1 || got[mostTold] != "… and 60 more lines" {
		t.Errorf("%d lines, %q", len(got), got[mostTold])
	}
}

func TestCompose(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	var s State
	s.Note(Run{Account: "home", Command: "backup", Began: monday.Add(-48 * time.Hour), Counts: map[string]int64{"archived": 5, "octets": 1000}}, 3)
	bad := Run{Account: "home", Command: "backup", Began: monday, Exit: 77, Told: []string{"error: ada@h: login refused", "hint: check the password"}}
	s.Note(bad, 3)
	got := Compose([]Notice{{Failure, bad, s}, {Weekly, bad, s}}, "box")
	want := Message{
		Subject: "mailhaul: home: backup failed; home: the week",
		Body: `home: backup failed.
mailhaul backup on box, begun 2026-11-23 03:15 UTC, exit code 77.
  error: ada@h: login refused
  hint: check the password
The last good run began 2026-11-21 03:15 UTC; 1 went wrong since.

home: the week since 2026-11-21: 2 runs, 1 of them went wrong.
archived 5, deleted 0, failed 0, suspicious 0; 1.0 kB in all.
The last good backup began 2026-11-21 03:15 UTC.

-- 
mailhaul on box. Who is told of what stands below [notify] in the configuration.
`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	many := make([]Notice, 5)
	for i := range many {
		many[i] = Notice{Occasion: Recovered, Run: Run{Account: "a", Command: "backup"}}
	}
	if got := Compose(many, "box").Subject; got != "mailhaul: a: all is well again; a: all is well again; a: all is well again; and 2 more" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"last":{"backup":{"account":"a","exit":77}},"good":{},"week":{}}`))
	f.Add([]byte(`{"version":1,"last":{"backup":null},"good":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := parse(b)
		s.Note(Run{Command: "backup", Began: monday, Exit: 77}, 3)
		s.Note(Run{Command: "backup", Began: monday}, 3)
		if s.Wrong != 0 {
			t.Fatalf("%+v", s)
		}
		Compose([]Notice{{Weekly, s.Last["backup"], s}}, "box")
	})
}
