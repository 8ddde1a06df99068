//go:build !unix

package config

// foreignModes says that file modes do not tell who may read a file: here access
// lists do, and Go reports 0666.
const foreignModes = true
