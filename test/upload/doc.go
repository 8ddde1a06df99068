// Package upload has tests of whole uploads with the built program and real servers:
// what arrives, what comes back, kills at every step. Nothing here is part of the
// program.
//
// A sample of all steps is tried; with MAILHAUL_CRASH=all every one of them.
package upload
