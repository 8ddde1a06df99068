package headline

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRead(t *testing.T) {
	tests := []struct {
		name, header string
		want         Headline
	}{
		{"plain", "From: Ada <Ada@Example.ORG>\nSubject: Hi\nMessage-ID: <1@x>\nDate: today\n\nFrom: body\n",
			Headline{"Ada", "ada@example.org", "Hi", "<1@x>", "today"}},
		{"wire form, folded", "Subject: one\r\n two\r\nfrom: ada@example.org\r\n\r\n", Headline{"", "ada@example.org", "one two", "", ""}},
		{"encoded", "From: =?iso-8859-1?Q?J=F6rg?= <j@example.org>\nSubject: =?utf-8?B?w6TDtg==?=\n\n", Headline{"Jörg", "j@example.org", "äö", "", ""}},
		{"several authors", "From: a@x.example, b@x.example\n\n", Headline{"", "a@x.example", "", "", ""}},
		{"against the rules", "From: Shop, Inc. <News@Shop.Example>\n\n", Headline{"Shop, Inc. <News@Shop.Example>", "news@shop.example", "", "", ""}},
		{"no address", "From: undisclosed\n\n", Headline{"undisclosed", "", "", "", ""}},
		{"first counts", "Subject: a\nSubject: b\n\n", Headline{Subject: "a"}},
		{"nothing", "", Headline{}},
	}
	for _, tt := range tests {
		if got := Read(strings.NewReader(tt.header)); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if got := (Headline{Address: "a@x"}).From(); got != "a@x" {
		t.Errorf("an author without name is %q", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("From: a <b@c>\r\nSubject: =?x?Q?=?=\r\n\r\n")
	f.Add("From:\n\t@\n <")
	f.Fuzz(func(t *testing.T, s string) {
		if a := Read(strings.NewReader(s)).Address; strings.ContainsAny(a, " \n") && utf8.ValidString(a) && !strings.Contains(s, `"`) {
			t.Errorf("an address with white space: %q", a)
		}
	})
}
