// Package faultfs is the file system for tests that fails on purpose: FS wraps
// another one and fails, shortens, dies or kills at its N-th operation; Mem holds
// a whole disk in memory and forgets, at a crash, what was not synced.
//
// Together they try every step: run with N = 1, 2, ... until a run goes through
// without the fault, and look at what is left each time.
package faultfs
