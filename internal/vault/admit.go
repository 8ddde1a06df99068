package vault

import (
	"context"
	"fmt"
	"strings"

	"mailhaul/mail"
)

// Admit tells whether mail of an account (mail.AccountKey) may come into this
// archive: not that of another user than the one whose mail is there, unless
// merge is set. The same user by another protocol or at another host is the same.
func (v *Vault) Admit(account string, merge bool) error {
	if merge {
		return nil
	}
	held, err := v.Ledger.Accounts(context.Background())
	if err != nil || len(held) == 0 {
		return err
	}
	for _, h := range held {
		if sameUser(h, account) {
			return nil
		}
	}
	return &mail.Error{Kind: mail.KindUsage, Ref: mail.Ref{Account: account}, Op: "open archive",
		Err:  fmt.Errorf("%s holds the mail of %s", v.path, mail.AccountLabel(held[0])),
		Hint: "choose another directory, or use --merge to keep both in one archive"}
}

// sameUser compares the users of two account keys, without regard to case; "ada"
// is "ada@example.org", whatever the domain, since many servers take either.
func sameUser(a, b string) bool {
	a, b = userOf(a), userOf(b)
	if a == b {
		return true
	}
	localA, _, domainA := strings.Cut(a, "@")
	localB, _, domainB := strings.Cut(b, "@")
	return localA == localB && domainA != domainB
}

func userOf(account string) string {
	_, who, _ := strings.Cut(account, ":")
	if i := strings.LastIndexByte(who, '@'); i >= 0 {
		who = who[:i]
	}
	return strings.ToLower(who)
}
