// Package history remembers what the last runs of an account came to, and decides
// when somebody is to be told.
package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Run is what one run of a verb came to.
type Run struct {
	Account string           `json:"account"` // its name in the configuration, or its key
	Command string           `json:"command"`
	Began   time.Time        `json:"began"`
	Seconds float64          `json:"seconds"`
	Exit    int              `json:"exit"`
	Counts  map[string]int64 `json:"counts,omitempty"` // of the summary: archived, octets, deleted, …
	Told    []string         `json:"told,omitempty"`   // what was said about it, escaped
}

// Exit codes that pass by themselves, and those of a person's doing.
const (
	exitPartial   = 3
	exitTemporary = 75
	exitSIGINT    = 130
	exitSIGTERM   = 143
)

func (r Run) good() bool        { return r.Exit == 0 }
func (r Run) interrupted() bool { return r.Exit == exitSIGINT || r.Exit == exitSIGTERM }

// trouble tells whether what went wrong may pass by itself.
func (r Run) trouble() bool { return r.Exit == exitPartial || r.Exit == exitTemporary }

// State is what is remembered of an account.
type State struct {
	Version int                  `json:"version"`
	Last    map[string]Run       `json:"last"` // by command
	Good    map[string]time.Time `json:"good"` // by command: when the last good run began
	// Wrong counts the runs that went wrong since the last good one.
	Wrong    int       `json:"wrong"`
	ToldAt   time.Time `json:"told_at,omitzero"` // when somebody was told of it; zero if nobody
	ToldExit int       `json:"told_exit,omitempty"`
	Week     Week      `json:"week"`
	// Metrics is the textfile the account was last written to; "" for none.
	Metrics string `json:"metrics,omitempty"`
}

// Week is what happened since the last weekly summary.
type Week struct {
	Since  time.Time        `json:"since,omitzero"`
	Runs   int              `json:"runs"`
	Wrong  int              `json:"wrong"`
	Counts map[string]int64 `json:"counts,omitempty"`
}

const (
	version    = 1
	stateLimit = 1 << 20 // octets of a state file
	lockWait   = 10 * time.Second
	weekly     = 7*24*time.Hour - time.Hour // a run that begins a little earlier than the last time
	reminder   = 23 * time.Hour             // after which the same trouble is told again
	mostTold   = 40                         // lines kept of a run
)

// Occasions are why somebody is told.
const (
	Failure   = "failure"   // a person has to do something
	Trouble   = "trouble"   // what may pass did not, several times
	Weekly    = "weekly"    // a week is over
	Recovered = "recovered" // after one of the first two, all is well again
)

// Note adds a run and returns why somebody is to be told of it. after is how many
// runs in a row must have had trouble.
func (s *State) Note(r Run, after int) []string {
	if r.interrupted() {
		return nil
	}
	if len(r.Told) > mostTold {
		r.Told = append(r.Told[:mostTold:mostTold], fmt.Sprintf("… and %d more lines", len(r.Told)-mostTold))
	}
	if s.Last == nil {
		s.Last, s.Good = map[string]Run{}, map[string]time.Time{}
	}
	s.Last[r.Command] = r
	s.Week.add(r)
	var why []string
	switch {
	case r.good():
		s.Good[r.Command] = r.Began
		s.Wrong = 0
		if !s.ToldAt.IsZero() {
			why = append(why, Recovered)
		}
	default:
		s.Wrong++
		again := s.ToldAt.IsZero() || r.Exit != s.ToldExit || r.Began.Sub(s.ToldAt) >= reminder
		switch {
		case !again:
		case !r.trouble():
			why = append(why, Failure)
		case s.Wrong >= after:
			why = append(why, Trouble)
		}
	}
	if r.Began.Sub(s.Week.Since) >= weekly {
		why = append(why, Weekly)
	}
	return why
}

// Told notes that somebody was told.
func (s *State) Told(occasion string, r Run) {
	switch occasion {
	case Failure, Trouble:
		s.ToldAt, s.ToldExit = r.Began, r.Exit
	case Recovered:
		s.ToldAt, s.ToldExit = time.Time{}, 0
	case Weekly:
		s.Week = Week{Since: r.Began}
	}
}

func (w *Week) add(r Run) {
	if w.Since.IsZero() {
		w.Since = r.Began
	}
	if w.Counts == nil {
		w.Counts = map[string]int64{}
	}
	w.Runs++
	if !r.good() {
		w.Wrong++
	}
	for _, key := range []string{"archived", "deleted", "failed", "suspicious", "octets"} {
		w.Counts[key] += r.Counts[key]
	}
}

// Store keeps a state per account in a directory.
type Store struct{ Dir string }

func fileName(account string) string {
	var b strings.Builder
	for i := 0; i < len(account); i++ {
		switch c := account[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	name := b.String()
	return name[:min(len(name), 200)] + ".json"
}

// Update changes the state of an account under a lock; it is durable when Update
// returns nil. A file that cannot be read counts as none: what is remembered here
// decides nothing about mail.
func (st Store) Update(account string, change func(*State)) (State, error) {
	fsys, err := durable.MakeRoot(st.Dir)
	if err != nil {
		return State{}, diskError(err)
	}
	defer fsys.Close()
	lock, err := durable.LockFile(context.Background(), filepath.Join(st.Dir, ".lock"), lockWait)
	if err != nil {
		return State{}, diskError(err)
	}
	defer lock.Close()
	s := load(fsys, fileName(account))
	change(&s)
	s.Version = version
	b, err := json.MarshalIndent(s, "", " ")
	if err == nil {
		err = durable.WriteFileAtomic(fsys, fileName(account), append(b, '\n'))
	}
	return s, diskError(err)
}

// Get returns the state of an account; the zero State if nothing is remembered.
func (st Store) Get(account string) State {
	fsys, err := durable.OpenRoot(st.Dir)
	if err != nil {
		return State{}
	}
	defer fsys.Close()
	return load(fsys, fileName(account))
}

// All returns every state there is, in the order of the accounts' names.
func (st Store) All() ([]State, error) {
	fsys, err := durable.OpenRoot(st.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, diskError(err)
	}
	defer fsys.Close()
	list, err := fsys.ReadDir(".")
	if err != nil {
		return nil, diskError(err)
	}
	var all []State
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".json") && !strings.HasPrefix(e.Name(), ".") {
			if s := load(fsys, e.Name()); s.Last != nil {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// Forget removes what is remembered of an account.
func (st Store) Forget(account string) error {
	fsys, err := durable.OpenRoot(st.Dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return diskError(err)
	}
	defer fsys.Close()
	if err := fsys.Remove(fileName(account)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err)
	}
	return nil
}

func load(fsys durable.FS, name string) State {
	b, err := durable.ReadFile(fsys, name, stateLimit)
	if err != nil {
		return State{}
	}
	return parse(b)
}

func parse(b []byte) State {
	var s State
	if json.Unmarshal(b, &s) != nil || s.Version != version {
		return State{}
	}
	if s.Last == nil || s.Good == nil {
		s.Last, s.Good = nil, nil
	}
	return s
}

func diskError(err error) error {
	if err == nil {
		return nil
	}
	return &mail.Error{Kind: mail.KindDisk, Op: "remember how the run ended", Err: err}
}
