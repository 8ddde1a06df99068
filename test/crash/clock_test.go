package crash

import (
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/test/rig"
)

// clock is one that is wrong.
type clock struct {
	name string
	now  func() time.Time
}

// clocks are wrong in every way. The last one jumps at each look at it.
func clocks() (all []clock) {
	wrong := []struct {
		name string
		at   time.Time
	}{
		{"back by a year", time.Now().AddDate(-1, 0, 0)}, {"forward by 30 years", time.Now().AddDate(30, 0, 0)},
		{"1970", time.Unix(0, 0)}, {"before 1970", time.Unix(-1, 0)}, {"2038", time.Unix(1<<31, 0)},
		{"9999", time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)},
	}
	for _, w := range wrong {
		all = append(all, clock{w.name, func() time.Time { return w.at }})
	}
	var looks atomic.Int64
	return append(all, clock{"another at each look", func() time.Time { return wrong[looks.Add(1)%int64(len(wrong))].at }})
}

// The clock is another one in each run, or jumps during the run: each message is
// archived exactly once, and a run with nothing new changes nothing.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	everyStart(t, func(t *testing.T, st start, fresh func(t *testing.T) place) {
		first := clocks()
		for i, c := range first {
			p := fresh(t)
			if _, err := p.backup(later(), run{now: c.now}); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			then := clocks()
			if !rig.All() {
				then = then[(i+1)%len(then) : (i+1)%len(then)+1]
			}
			for _, d := range then {
				p.now = d.now
				if !p.complete(t, later(), c.name+", then "+d.name, st.more...) {
					return
				}
			}
		}
	})
}
