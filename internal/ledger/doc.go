// Package ledger remembers how far each message got, across runs and crashes:
// what an archive holds, which UID at which account each message answers to,
// what was about to be deleted or uploaded and what came of it.
//
// It is one SQLite file, ARCHIVE/.mailhaul/ledger.sqlite, written by one process
// at a time (the archive's lock sees to that). Rows may lag behind the archive
// and the servers, they never run ahead of them: everything handed to Record is
// already true. Places are relative, so an archive can be moved.
//
// The package does not touch message octets and knows no network.
package ledger
