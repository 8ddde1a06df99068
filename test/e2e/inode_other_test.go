//go:build !unix

package e2e

import "io/fs"

func inode(fs.FileInfo) uint64 { return 0 }
