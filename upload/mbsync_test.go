package upload_test

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"mailhaul/upload"
	"mailhaul/upload/uploadtest"
)

const mark = "X-TUID: pE4kF9bzGiFM\n"

func TestUnmark(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for in, want := range map[string]string{
		"":                                    "",
		"A: 1\n" + mark + "\nbody\n":          "A: 1\n\nbody\n",
		mark + "A: 1\n\nbody\n":               "A: 1\n\nbody\n",
		mark + mark + "\nbody\n":              mark + "\nbody\n",
		"A: 1\n\n" + mark:                     "A: 1\n\n" + mark,
		"A: " + long + "\n" + mark + "\nbody": "A: " + long + "\n\nbody",
		long + mark + "\nbody\n":              long + mark + "\nbody\n",
		strings.Repeat("y", 4096) + mark:      strings.Repeat("y", 4096) + mark,
		"X-TUID: short\n\nbody\n":             "X-TUID: short\n\nbody\n",
		"A: 1\nno end":                        "A: 1\nno end",
		"\n" + mark:                           "\n" + mark,
	} {
		for _, r := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
			got, err := io.ReadAll(upload.Unmark(r))
			if err != nil || string(got) != want {
				t.Errorf("%.40q: %.60q, %v", in, got, err)
			}
		}
	}
}

// A destination that mbsync filled is not filled a second time.
func TestAdoptFromMbsync(t *testing.T) {
	marked := func(octets string) string { return strings.Replace(octets, "\n\n", "\n"+mark+"\n", 1) }
	m, s, l := &messages{}, uploadtest.New(), openLedger(t)
	want := []string{marked(letter(1, "a")), marked(letter(1, "b")), marked(letter(2, "twice")), letter(2, "twice"), letter(3, "plain")}
	for _, octets := range []string{letter(1, "a"), letter(1, "b"), letter(2, "twice"), letter(2, "twice"), letter(3, "plain"), letter(4, "new")} {
		m.add("INBOX", octets)
	}
	for _, octets := range want {
		s.Put("INBOX", octets, "")
	}
	// As long as ours with the line, and another message.
	s.Put("INBOX", letter(4, "new"+strings.Repeat(".", len(mark)-1)), "")
	if c := run(t, options(s, m, l)); c.Adopted != 5 || c.Uploaded != 1 {
		t.Errorf("%+v", c)
	}
	if c := run(t, options(s, m, l)); c.Skipped != 6 {
		t.Errorf("second run: %+v", c)
	}
	if got := s.Octets("INBOX"); len(got) != 7 {
		t.Errorf("%q", got)
	}
}
