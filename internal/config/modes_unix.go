//go:build unix

package config

// foreignModes says that file modes do not tell who may read a file.
const foreignModes = false
