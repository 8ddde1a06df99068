// Package fetch copies what is new at a source into an archive.
//
// Source is the contract every protocol driver fulfils; the suite that holds it
// to that is fetch/fetchtest. Run is the engine; it knows neither protocols nor
// file formats nor the terminal.
//
// What Run does with a mailbox whose state is not that of its last complete run:
//
//   - claims are what the ledger knows: under which UIDs this account showed which
//     messages of the archive.
//   - A listing holds what the server has now against the claims. Messages are known,
//     gone, or wanted. What changed can be asked for instead (ChangeSource), and where
//     nothing is known yet, all is swept in without a listing (Sweeper).
//   - The book has the messages of the archive that no claim stands on. What is wanted
//     and found there, by size and header or by its octets, is adopted: claimed, and not
//     stored again.
//   - A take fetches what is still wanted. What another mailbox has, too, comes last, as
//     a copy of what is archived by then.
//   - The pipeline, one for all mailboxes, writes what comes and makes it durable a group
//     at a time. Only then is it recorded, and counts.
package fetch
