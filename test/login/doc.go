// Package login holds tests of logging in: every mechanism, over both protocols, to
// a real Dovecot and to servers that lie.
package login
