package imap_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/internal/testserver"
	"mailhaul/mail"
)

// told is changes in short: UID, size, flags.
func told(changed []mail.Info) string {
	var all []string
	for _, in := range changed {
		all = append(all, fmt.Sprintf("%s/%d/%s", in.Ref.UID, in.Size, in.Flags))
	}
	return strings.Join(all, " ")
}

// Whatever a server answers, changes are either told completely or not at all.
func TestChanges(t *testing.T) {
	msgs := three()
	fresh := fmt.Sprintf("* 3 FETCH (%s MODSEQ (12))\r\n", msgs[2].Meta())
	for name, tc := range map[string]struct {
		since    string // "" for a good one
		caps     string
		noModSeq bool
		validity string
		first    string // answer to what is new
		second   string // answer to what changed
		want     string
		ok       bool
	}{
		"one came":           {first: fresh, want: `9/22/\Seen`, ok: true},
		"nothing":            {ok: true},
		"last comes anyway":  {first: "* 2 FETCH (" + msgs[1].Meta() + ")\r\n", want: `4/-1/\Seen`, ok: true},
		"flags":              {second: "* 1 FETCH (UID 3 FLAGS (\\Flagged) MODSEQ (11))\r\n", want: `3/-1/\Flagged`, ok: true},
		"flags twice":        {second: "* 1 FETCH (UID 3 FLAGS (\\Flagged))\r\n* 1 FETCH (UID 3 FLAGS ())\r\n", want: `3/-1/`, ok: true},
		"news before":        {first: "* 3 FETCH (UID 9 FLAGS ())\r\n* 3 FETCH (FLAGS ())\r\n" + fresh, want: `9/22/\Seen`, ok: true},
		"refused":            {second: "NO"},
		"not understood":     {second: "BAD"},
		"new refused":        {first: "NO"},
		"no CONDSTORE":       {caps: "IMAP4rev1 SASL-IR AUTH=PLAIN"},
		"no mod-sequences":   {noModSeq: true},
		"other UIDVALIDITY":  {validity: "8"},
		"state of another":   {since: "digest:abc"},
		"state of long ago":  {since: "2:5:2:10"},
		"state with more":    {since: "1:5:2:10:3"},
		"state out of range": {since: "1:99999999999:2:10"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tc.caps == "" {
				tc.caps = "IMAP4rev1 SASL-IR AUTH=PLAIN CONDSTORE"
			}
			srv := &testserver.IMAP{Messages: msgs, Capabilities: tc.caps, UIDValidity: tc.validity}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				answer := tc.first
				switch {
				case strings.HasPrefix(cmd, "EXAMINE"):
					if !tc.noModSeq {
						c.Send("* OK [HIGHESTMODSEQ 12] ok\r\n")
					}
					return false
				case strings.HasPrefix(cmd, "UID FETCH 5:* "):
				case cmd == "UID FETCH 1:4 (UID FLAGS) (CHANGEDSINCE 10)":
					answer = tc.second
				default:
					return false
				}
				if answer == "NO" || answer == "BAD" {
					c.Send(c.Tag + " " + answer + " will not\r\n")
					return true
				}
				c.Send(answer)
				c.OK("done")
				return true
			}
			s := serve(t, srv)
			mb := inbox(t, s, "INBOX")
			mb.UIDValidity = 1
			if tc.since == "" {
				tc.since = "1:5:2:10"
			}
			changed, exists, ok, err := s.Changes(t.Context(), mb, tc.since)
			if err != nil || ok != tc.ok || told(changed) != tc.want || ok && exists != 3 {
				t.Errorf("%q, %d messages, %v, %v; want %q, %v", told(changed), exists, ok, err, tc.want, tc.ok)
			}
		})
	}
}

func TestChangesDovecot(t *testing.T) {
	srv := dovecot.Start(t, dovecot.Options{})
	if err := srv.Append("ada", "INBOX", made(10)...); err != nil {
		t.Fatal(err)
	}
	s := sourceOf(srv, "ada", srv.IMAPS)
	defer s.Close()
	before := inbox(t, s, "INBOX")
	if changed, exists, ok, err := s.Changes(t.Context(), before, before.State); !ok || err != nil || exists != 10 || strings.Contains(told(changed), "/2") {
		t.Errorf("%s, %d, %v, %v", told(changed), exists, ok, err)
	}
	c := dovecot.Message{Octets: []byte("Subject: new\r\n\r\nnew\r\n"), Date: time.Unix(1700000000, 0)}
	if err := srv.Append("ada", "INBOX", c); err != nil {
		t.Fatal(err)
	}
	after := inbox(t, s, "INBOX")
	changed, exists, ok, err := s.Changes(t.Context(), after, before.State)
	if err != nil || !ok || exists != 11 {
		t.Fatalf("%s, %d, %v, %v", told(changed), exists, ok, err)
	}
	var fresh []mail.Info
	for _, in := range changed {
		if in.Size >= 0 {
			fresh = append(fresh, in)
		}
	}
	infos, _ := listAll(t, s, after)
	if len(fresh) != 1 || fresh[0] != infos[10] || fresh[0].Size != int64(len(c.Octets)) {
		t.Errorf("new: %+v, listed %+v", fresh, infos[10])
	}
}
