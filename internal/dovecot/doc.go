// Package dovecot runs private Dovecot servers for tests and benchmarks: on
// 127.0.0.1, on free ports, with everything they write in one directory, and
// with a certificate authority of their own. Any number may run at once.
//
// Client is a small IMAP client that shares no code with the product's drivers,
// so that what it loads and drains can be held against what they do.
package dovecot
