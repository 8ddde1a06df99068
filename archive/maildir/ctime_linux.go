package maildir

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime is when anything of a file changed last, its times included.
func changeTime(st fs.FileInfo) (time.Time, bool) {
	s, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(s.Ctim.Unix()), true
}
