// Package mail is the vocabulary of mailhaul: messages, mailboxes, flags,
// digests, receipts and errors as plain values.
//
// It imports the standard library only and does no I/O of its own; every other
// package may import it.
package mail
