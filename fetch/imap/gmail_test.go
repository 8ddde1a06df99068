package imap_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

// gmail plays Gmail: messages with labels, a mailbox for each, and All Mail.
type gmail struct {
	boxes    []string            // "ATTRIBUTES NAME", as LIST has them
	messages map[string][]uint32 // UIDs, by mailbox
	labels   map[uint32]string   // of All Mail's UIDs
}

func (g *gmail) server() *testserver.IMAP {
	selected := ""
	return &testserver.IMAP{
		Capabilities: "IMAP4rev1 SASL-IR AUTH=PLAIN X-GM-EXT-1 UIDPLUS",
		Answer: func(c *testserver.IMAPConn, cmd string) bool {
			verb, rest, _ := strings.Cut(cmd, " ")
			switch verb {
			case "LIST":
				for _, b := range g.boxes {
					attributes, name, _ := strings.Cut(b, " ")
					c.Send(fmt.Sprintf("* LIST (%s) \"/\" \"%s\"\r\n", strings.ReplaceAll(attributes, ",", " "), name))
				}
			case "STATUS":
				name := strings.Trim(rest[:strings.LastIndex(rest, " (")], `"`)
				c.Send(fmt.Sprintf("* STATUS \"%s\" (MESSAGES %d UIDNEXT 100 UIDVALIDITY 1)\r\n", name, len(g.messages[name])))
			case "EXAMINE", "SELECT":
				selected = strings.Trim(rest, `"`)
				c.Send(fmt.Sprintf("* %d EXISTS\r\n* OK [UIDVALIDITY 1] ok\r\n* OK [UIDNEXT 100] ok\r\n", len(g.messages[selected])))
			case "UID":
				for i, uid := range g.messages[selected] {
					labels := ""
					if strings.Contains(cmd, "X-GM-LABELS") {
						labels = " X-GM-LABELS (" + g.labels[uid] + ")"
					}
					m := testserver.IMAPMessage{UID: uid, Octets: "x"}
					c.Send(fmt.Sprintf("* %d FETCH (X-GM-MSGID %d%s %s)\r\n", i+1, 1000+uid, labels, m.Meta()))
				}
			default:
				return false
			}
			c.OK("done")
			return true
		},
	}
}

func TestGmail(t *testing.T) {
	g := &gmail{
		boxes: []string{
			`\HasNoChildren INBOX`, `\HasNoChildren Work`, `\HasNoChildren Entw&APw-rfe/x`, `\HasChildren,\Noselect [Gmail]`,
			`\All,\HasNoChildren [Gmail]/All Mail`, `\Drafts [Gmail]/Drafts`, `\Sent [Gmail]/Sent Mail`, `\Flagged [Gmail]/Starred`,
			`\Important [Gmail]/Important`, `\Junk [Gmail]/Spam`, `\Trash [Gmail]/Trash`,
		},
		messages: map[string][]uint32{
			"[Gmail]/All Mail": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, "INBOX": {1}, "Work": {5}, "[Gmail]/Starred": {2}, "[Gmail]/Spam": {20}, "[Gmail]/Trash": {21},
		},
		labels: map[uint32]string{
			1: `"\\Inbox"`, 2: `"\\Starred" "\\Important"`, 3: ``, 4: `"\\Sent"`, 5: `"\\Important" Work`, 6: `"Hidden from IMAP"`,
			7: `"Entw&APw-rfe/x"`, 8: `"\\Draft"`, 9: `[Work]`, 10: "{4}\r\nWork",
		},
	}
	everything := []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}
	for name, tt := range map[string]struct {
		sel  mail.Selection
		want []string // UIDs of All Mail
		gone []string // views
	}{
		"all mailboxes":     {mail.Selection{}, []string{"2", "3", "6", "9"}, []string{"[Gmail]/Starred", "[Gmail]/Important"}},
		"without one":       {mail.Selection{Exclude: []string{"Work"}}, []string{"2", "3", "5", "6", "9", "10"}, []string{"[Gmail]/Starred", "[Gmail]/Important"}},
		"All Mail only":     {mail.Selection{Mailboxes: []string{"[Gmail]/All Mail"}}, everything, []string{"[Gmail]/Starred", "[Gmail]/Important"}},
		"a view, by name":   {mail.Selection{Mailboxes: []string{"[Gmail]/Starred"}}, everything, []string{"[Gmail]/Important"}},
		"since a day":       {mail.Selection{Larger: 1}, []string{"2", "3", "6", "9"}, nil},
		"a label, All Mail": {mail.Selection{Mailboxes: []string{"Work", "[Gmail]/All*"}}, []string{"1", "2", "3", "4", "6", "7", "8", "9"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, g.server())
			s.Select(tt.sel)
			boxes, err := s.Mailboxes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, mb := range boxes {
				names = append(names, mb.Name)
				if mb.SpecialUse == `\All` {
					var uids []string
					infos, _ := listAll(t, s, mb)
					for _, in := range infos {
						uids = append(uids, in.Ref.UID)
						if in.ObjectID == "" {
							t.Errorf("UID %s has no X-GM-MSGID", in.Ref.UID)
						}
					}
					if !slices.Equal(uids, tt.want) {
						t.Errorf("All Mail shows %v, want %v", uids, tt.want)
					}
				}
				if mb.Name == "Work" {
					if infos, _ := listAll(t, s, mb); len(infos) != 1 {
						t.Errorf("Work shows %d messages", len(infos))
					}
				}
			}
			for _, gone := range tt.gone {
				if slices.Contains(names, gone) {
					t.Errorf("%s is shown: %v", gone, names)
				}
			}
			if !slices.Contains(names, "[Gmail]/Spam") || !slices.Contains(names, "Entwürfe/x") {
				t.Errorf("%v", names)
			}
		})
	}

	// Where All Mail is hidden from IMAP, a view may be all there is of a message.
	g.boxes = slices.DeleteFunc(g.boxes, func(b string) bool { return strings.HasPrefix(b, `\All`) })
	boxes, err := serve(t, g.server()).Mailboxes(t.Context())
	if err != nil || !slices.ContainsFunc(boxes, func(mb mail.Mailbox) bool { return mb.Name == "[Gmail]/Starred" }) {
		t.Errorf("%v, %v", boxes, err)
	}
}
