// Package move holds tests that interrupt a whole migration between two real
// servers: the process is killed at each step of its ledger, connections are cut on
// either side. After each the same migration is run again, and every message must be
// at the destination exactly once, and nothing may have been deleted that is not.
//
// A plain run of the tests tries a share of the steps. All of them:
//
//	MAILHAUL_CRASH=all go test -timeout 60m -v ./test/move
package move
