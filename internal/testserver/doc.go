// Package testserver has mail servers that run inside the program: a small real
// POP3 server for tests and the demonstration, and scripted ones that say whatever
// a test wants a server to say. They listen on loopback addresses only.
package testserver
