// Package e2e drives the built program as a user does, as a process, against
// real servers. It holds tests only: what they expect of octets and exit codes
// is worked out here, without the program's own packages.
package e2e
