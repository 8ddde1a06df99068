//go:build !unix

package config

import "io/fs"

func ownedByUs(fs.FileInfo) bool { return true }
