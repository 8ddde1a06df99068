// Command mailhaul moves mail: it copies what is new at a POP3 or IMAP server
// into a local archive that other programs can open.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
