// Package free holds tests that interrupt the freeing of a real server - engine,
// vault, ledger, archive and protocol drivers together, against Dovecot - at each of
// its steps: the process is killed at a line on the wire or a step of the ledger,
// the connection is cut after so many octets. After each, server and archive
// together hold every message; then the same is run again, and the server holds
// exactly what the rule leaves.
//
// A plain run of the tests tries a share of the steps. All of them:
//
//	MAILHAUL_CRASH=all go test -timeout 60m -v ./test/free
package free
