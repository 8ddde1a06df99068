package auth

import "regexp"

var connectionLimit = regexp.MustCompile(`(?i)(too many|max[a-z]*)[ a-z]{0,30} (connections|sessions)|connections? (limit|exceeded)`)

// ConnectionLimit tells whether a server's words mean that the account has too many
// connections. Servers say so in answer to a login, some under the code of a wrong
// password: it is none, and nobody should try another.
func ConnectionLimit(words string) bool { return connectionLimit.MatchString(words) }
