package free

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/mail"
)

// The clock jumps back and forth at each look at it, while mail is deleted and while
// it is put back: nothing is lost, nothing comes twice. What is old enough to go is
// worked out before.
func TestClockJumps(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{})
	for n, v := range []variant{
		{"imaps", "maildir", mail.ModeExpunge}, {"imaps", "mbox", mail.ModeTrash}, {"pop3s", "mbox", mail.ModeExpunge},
	} {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			var looks atomic.Int64
			w := v.fresh(t, s, 1<<30+n)
			defer os.RemoveAll(w.Root)
			w.now = func() time.Time {
				years := []int{0, -1, 30, -56, 8000}
				return time.Now().AddDate(years[looks.Add(1)%int64(len(years))], 0, 0)
			}
			if _, err := w.run(); err != nil {
				t.Error(err)
			}
			w.together(t, s, "deleted")
			w.complete(t, s, "deleted")
			if looks.Load() == 0 {
				t.Error("nobody looked at the clock")
			}
			if _, err := w.undo(); err != nil {
				t.Error(err)
			}
			w.undone(t, s, "undone")
		})
	}
}
