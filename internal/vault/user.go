package vault

// SameUser tells whether two accounts (mail.AccountKey) are taken for those of one
// person: the same user by another protocol or at another host.
func SameUser(a, b string) bool { return sameUser(a, b) }
