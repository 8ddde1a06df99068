package ledger

import "mailhaul/mail"

// Who a claim is gone by, as mail.Claim.GoneBy has it.
const (
	GoneByServer = "server" // a complete listing no longer showed it
	GoneByUs     = "us"     // deleted by an intent of ours
)

var goneBy = []string{"", GoneByServer, GoneByUs}

// States of a deletion or an upload; the numbers are in the file.
const (
	stateOpen   = 0 // intended; what came of it is not known
	stateDone   = 1 // deleted; uploaded
	stateVoid   = 2 // it did not happen
	stateUndone = 3 // deletions: done, and the message is back at the server
)

// dateSources are the values of mail.DateSource, by the number in the file.
var dateSources = []mail.DateSource{
	mail.DateUnknown, mail.DateInternal, mail.DateReceived, mail.DateHeader, mail.DateFetched, mail.DateFromFileTime,
}

// element returns list[i], the first one if i is out of range.
func element[T any](list []T, i int64) T {
	if i < 0 || i >= int64(len(list)) {
		return list[0]
	}
	return list[i]
}
