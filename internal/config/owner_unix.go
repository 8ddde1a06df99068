//go:build unix

package config

import (
	"io/fs"
	"os"
	"syscall"
)

// ownedByUs tells whether a file is this user's or root's.
func ownedByUs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || st.Uid == 0 || int(st.Uid) == os.Getuid()
}
