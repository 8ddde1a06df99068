package imapconn

import (
	"strings"
	"testing"
)

func TestUTF7(t *testing.T) {
	for _, tc := range []struct{ raw, text string }{
		{"INBOX", "INBOX"},
		{"Entw&APw-rfe &- Co", "Entwürfe & Co"},
		{"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"},
		{"&2D3eBA-", "😄"},
		{"", ""},
	} {
		if got, ok := decodeUTF7(tc.raw); !ok || got != tc.text {
			t.Errorf("decode %q: %q %v, want %q", tc.raw, got, ok, tc.text)
		}
		if got := encodeUTF7(tc.text); got != tc.raw {
			t.Errorf("encode %q: %q, want %q", tc.text, got, tc.raw)
		}
	}
	for _, raw := range []string{
		"A & B", "Entw&rfe", "Entw\xfcrfe", "Entwürfe", "&AOQA-", "a&AGE-", "&AC8-", "&AC4ALg-",
		"&", "&APw", "&APw-&APw-", "&2D0-", "a\x00", "\r\n", "a\x7f", "&AP/-", "&A-",
	} {
		if got, ok := decodeUTF7(raw); ok {
			t.Errorf("decode %q: %q taken for valid", raw, got)
		}
	}
}

func TestNames(t *testing.T) {
	slash := Names{Delim: '/'}
	courier := Names{Delim: '.', Prefix: "INBOX.", Others: []string{"shared."}}
	for _, tc := range []struct {
		n         Names
		raw, name string
	}{
		{slash, "inbox", "INBOX"},
		{slash, "INBOX/x", "INBOX/x"},
		{slash, "Inbox/x", "Inbox/x"},
		{slash, "Archive/2023", "Archive/2023"},
		{slash, "Entw&APw-rfe", "Entwürfe"},
		{slash, "Entwürfe", "Entw%C3%BCrfe"},
		{slash, "A & B", "A %26 B"},
		{slash, "A &- B", "A & B"},
		{slash, "100%", "100%"},
		{slash, "100%20", "100%2520"},
		{slash, "%", "%"},
		{slash, "../../etc", "../../etc"},
		{slash, "a&AC8-b", "a%26AC8-b"},
		{Names{}, "a/b", "a%2Fb"},
		{Names{Delim: '.'}, "INBOX.Sent", "INBOX/Sent"},
		{Names{Delim: '.'}, "a/b.c", "a%2Fb/c"},
		{courier, "INBOX", "INBOX"},
		{courier, "INBOX.Sent", "Sent"},
		{courier, "INBOX.Sent.2023/24", "Sent/2023%2F24"},
		{courier, "INBOX.INBOX", "INBOX/INBOX"},
		{courier, "INBOX.inbox.x", "INBOX/inbox/x"},
		{courier, "INBOX.shared.x", "INBOX/shared/x"},
		{courier, "shared.x", "shared/x"},
		{courier, "Sent", "%2E/Sent"},
		{courier, "inbox.Sent", "%2E/inbox/Sent"},
		{courier, "INBOX..x", "INBOX//x"},
		{Names{Delim: '/', Prefix: "Mail/"}, "Mail/Mail/INBOX", "Mail/Mail/INBOX"},
	} {
		got := tc.n.Archive(tc.raw)
		if got != tc.name {
			t.Errorf("%+v: %q became %q, want %q", tc.n, tc.raw, got, tc.name)
		}
		back, ok := tc.n.Raw(got)
		if !ok || back != tc.raw && !strings.EqualFold(tc.raw, "INBOX") {
			t.Errorf("%+v: %q came back as %q %v", tc.n, tc.raw, back, ok)
		}
	}
	for _, tc := range []struct {
		n    Names
		name string
	}{{Names{Delim: '.'}, "v1.2"}, {Names{}, "a/b"}, {slash, "\xff"}} {
		if raw, ok := tc.n.Raw(tc.name); ok {
			t.Errorf("%+v: %q taken for %q", tc.n, tc.name, raw)
		}
	}
}

// Every name comes back as it was, so no two share one.
func FuzzNames(f *testing.F) {
	for _, raw := range []string{"INBOX", "INBOX.Sent", "a/b.c", "A & B", "&AC8-", "%2E/x", "%2e", "%252E", "shared.x", "", ".", "..", "INBOX.", "Entw\xfcrfe", "&U,BTFw-"} {
		f.Add(raw, byte('.'), "INBOX.", "shared.")
		f.Add(raw, byte('/'), "", "")
		f.Add(raw, byte('A'), "xA", "")
		f.Add(raw, byte(0), "", "")
	}
	f.Fuzz(func(t *testing.T, raw string, delim byte, prefix, other string) {
		if delim >= 0x80 || prefix != "" && (delim == 0 || prefix[len(prefix)-1] != delim) {
			return // no such server: the delimiter is an ASCII character, and a prefix ends with it
		}
		n := Names{Delim: delim, Prefix: prefix, Others: []string{other}}
		name := n.Archive(raw)
		if strings.EqualFold(raw, "INBOX") {
			if name != "INBOX" {
				t.Fatalf("%q became %q", raw, name)
			}
			return
		}
		if back, ok := n.Raw(name); !ok || back != raw {
			t.Fatalf("%+v: %q became %q and came back as %q %v", n, raw, name, back, ok)
		}
	})
}
