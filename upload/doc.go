// Package upload appends to a server what it lacks.
//
// Destination is the contract every protocol driver fulfils; upload/uploadtest has
// one in memory. Run is the engine; it knows neither protocols nor file formats nor
// the terminal. Each message arrives exactly once: what is about to be sent is on
// record before it is sent, and whenever it is not known what came of that, the
// destination is looked at before anything is sent again.
//
// A job is one mailbox of the destination and the mailboxes that go there by the Mapping;
// a box is a job under way:
//
//   - survey recalls from the ledger what has arrived and what is open, that is, sent
//     without its result on record, and sorts out what is to be sent.
//   - settle finds out by looking at the destination what became of what is open.
//   - adopt finds what is there already, by size and header, and by octets where there is
//     doubt.
//   - The loader reads messages ahead, in groups. The sender records the intent, sends a
//     group, and records what the server says of it; what it refuses may be sent repaired.
//
// A Stream does the same with messages that are still being fetched: they are given to it
// a few at a time, and what an earlier run left comes at its end.
package upload
