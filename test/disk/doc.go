// Package disk holds tests of what disks do to a running program: full ones, ones
// that fail, that are taken away, swapped or set read-only, and power cuts of real
// file systems. The built program runs against a POP3 server in the test's process.
//
//	MAILHAUL_CRASH=all go test -timeout 60m -v ./test/disk
//
// tries more fault points and cuts than a plain run.
package disk
