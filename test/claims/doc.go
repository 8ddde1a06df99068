// Package claims holds docs/reliability.md against the tests: each invariant, fault
// and attack has its row, and each test that a row names exists.
package claims
