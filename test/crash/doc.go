// Package crash holds tests that interrupt a whole backup - engine, vault, ledger
// and the real archive drivers - at each of its steps: an operation of the file
// system fails, the process is killed, the power goes. After each the same backup
// is run again, and every message must be there exactly once.
//
// A plain run of the tests tries a share of the steps. All of them:
//
//	MAILHAUL_CRASH=all go test -timeout 60m -v ./test/crash
package crash
