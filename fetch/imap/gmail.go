package imap

import (
	"crypto/sha256"
	"fmt"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// Gmail shows a message once in the mailbox of each of its labels, and once more in
// All Mail; Starred and Important are views of others. Each message is wanted once
// for each mailbox a person sees it in, so All Mail is for those that are in no other.

// labels are the mailboxes of an account at Gmail by the names of X-GM-LABELS.
type labels map[string]bool

// withoutDoubles takes the views out of a list of mailboxes, and returns the labels
// whose messages All Mail need not show. Only mailboxes that are there count: a
// label that is hidden from IMAP has none, and its messages stay in All Mail, and so
// do those of a mailbox that the run leaves out.
func withoutDoubles(all []mail.Mailbox, sel mail.Selection) ([]mail.Mailbox, labels) {
	var kept []mail.Mailbox
	shown, everything := labels{}, false
	for _, mb := range all {
		switch {
		case mb.SpecialUse == `\Flagged`, mb.SpecialUse == `\Important`:
			if len(sel.Mailboxes) > 0 && sel.MatchMailbox(mb.Name) {
				kept = append(kept, mb) // asked for by name
			}
			continue
		case mb.SpecialUse != `\All` && !sel.MatchMailbox(mb.Name):
			kept = append(kept, mb)
			continue
		}
		switch mb.SpecialUse {
		case `\All`:
			everything = true
			mb.Messages, mb.Octets = -1, -1 // fewer than there are
		case `\Sent`:
			shown[`\Sent`] = true
		case `\Drafts`:
			shown[`\Draft`], shown[`\Drafts`] = true, true
		default:
			shown[mb.Raw] = true
		}
		if mb.Name == "INBOX" {
			shown[`\Inbox`] = true
		}
		kept = append(kept, mb)
	}
	if !everything { // hidden from IMAP: then the views may be all there is of a message
		return all, nil
	}
	dependOnAll(kept)
	return kept, shown
}

// dependOnAll makes the states of All Mail change with those of all mailboxes: what it
// is to show does, since a message that leaves one of them may be in no other.
func dependOnAll(all []mail.Mailbox) {
	states, known := sha256.New(), true
	for _, mb := range all {
		fmt.Fprintf(states, "%q %s\n", mb.Name, mb.State)
		known = known && mb.State != ""
	}
	for i := range all {
		if mb := &all[i]; mb.SpecialUse == `\All` {
			mb.State = ""
			if known {
				mb.State = fmt.Sprintf("%x", states.Sum(nil))
			}
		}
	}
}

// elsewhere tells whether a message of All Mail is in another mailbox, too.
func (l labels) elsewhere(f *imapconn.Fetch) bool {
	for _, name := range f.Labels {
		if l[name] {
			return true
		}
	}
	return false
}

// Select tells which mailboxes the run works on, where that is not all of them. At
// Gmail, All Mail then shows what is in none of those. It is called before Mailboxes.
func (s *Source) Select(sel mail.Selection) { s.selection = sel }

// labelsIn returns what is not to be listed of a mailbox; nil for nothing.
func (s *Source) labelsIn(mb mail.Mailbox) labels {
	if mb.SpecialUse != `\All` {
		return nil
	}
	s.gmailMu.Lock()
	defer s.gmailMu.Unlock()
	return s.gmail
}
