package upload

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func repairedText(t testing.TB, s string) string {
	t.Helper()
	b, err := io.ReadAll(newRepair(strings.NewReader(s)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestRepair(t *testing.T) {
	long := strings.Repeat("x", 1000)
	words := strings.Repeat("word ", 300)
	for name, tc := range map[string]struct{ in, want string }{
		"nothing to do":       {"A: b\n\nbody\n", "A: b\n\nbody\n"},
		"NUL":                 {"A: b\n\nbo\x00dy\n", "A: b\n\nbo dy\n"},
		"bare CR":             {"A: b\n\nbo\rdy\n", "A: b\n\nbo\ndy\n"},
		"CR CR LF":            {"A: b\r\nC: d\r\r\n\nbody\r\n", "A: b\nC: d\n\nbody\n"},
		"empty lines of CRs":  {"A: b\n\na\r\rb\n", "A: b\n\na\n\nb\n"},
		"mbox line":           {"From ada Mon\nA: b\n\nFrom here\n", "X-Invalid: From ada Mon\nA: b\n\nFrom here\n"},
		"no colon":            {"A: b\nnonsense\n\nbody\n", "A: b\nX-Invalid: nonsense\n\nbody\n"},
		"space in the name":   {"A b: c\nSubject : d\n\n", "X-Invalid: A b: c\nSubject : d\n\n"},
		"begins with a space": {" x\nA: b\n c\n\n", "X-Invalid:  x\nA: b\n c\n\n"},
		"long line":           {"A: b\n\n" + long + "\n", "A: b\n\n" + long[:998] + "\n" + long[998:] + "\n"},
		"long header":         {"A: " + words + "\n\n", "A: " + words[:994] + "\n" + words[994:] + "\n\n"},
		"long word":           {"A:" + long + "\n\n", "A:" + long[:996] + "\n " + long[996:] + "\n\n"},
		"space before colon":  {"A :" + long + "\n\n", "A :" + long[:995] + "\n " + long[995:] + "\n\n"},
		"name of 997":         {long[:997] + ":ä\n\n", long[:997] + ":\n ä\n\n"},
		"name of 998":         {long[:998] + ":\n\n", "X-Invalid: " + long[:987] + "\n " + long[987:998] + ":\n\n"},
		"field behind a CR":   {long + long + long + long + "\rDate: now\n\n", "X-Invalid: " + long[:987] + "\n " + long[:997] + "\n " + long[:997] + "\n " + long[:997] + "\n " + long[:22] + "\nDate: now\n\n"},
		"characters":          {"A: b\n\nx" + strings.Repeat("ä", 1000) + "\n", "A: b\n\nx" + strings.Repeat("ä", 498) + "\n" + strings.Repeat("ä", 499) + "\n" + strings.Repeat("ä", 3) + "\n"},
		"nothing":             {"", "\n"},
	} {
		if got := repairedText(t, tc.in); got != tc.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, tc.want)
		}
	}
}

func FuzzRepair(f *testing.F) {
	for _, s := range []string{"", "\n", "\r", "A: b\n\nbo\x00\rdy\n", "From x\n y\n\r\r\n\n", strings.Repeat("ä", 1200) + "\n", "A:" + strings.Repeat(" w", 3000) + "\n\n\r", strings.Repeat("x", 1000) + ":\n", "A :" + strings.Repeat("x", 1000) + "\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := repairedText(t, s)
		slow, err := io.ReadAll(iotest.OneByteReader(newRepair(iotest.HalfReader(strings.NewReader(s)))))
		if err != nil || string(slow) != once {
			t.Fatalf("read in other pieces it is %q, %v, else %q", slow, err, once)
		}
		if strings.ContainsAny(once, "\x00\r") {
			t.Fatalf("%q", once)
		}
		for line := range bytes.Lines([]byte(once)) {
			if len(line) > longLine+1 {
				t.Fatalf("a line of %d octets", len(line))
			}
		}
		if twice := repairedText(t, once); twice != once {
			t.Fatalf("not done with: %q becomes %q", once, twice)
		}
	})
}
