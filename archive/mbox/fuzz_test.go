package mbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"mailhaul/mail"
)

// seeds are canonical octets, or nearly, that mbox writers are known to damage.
var seeds = []string{
	"", "\n", "\n\n", "a\n", "a\n\n\n", "From x\n", ">From x\n", ">>From x\n>From\n", "\r\n", "\r\n\r\n", "a\r\n\r\n", "a\r\r\n",
	"A: b\n\nFrom MAILER-DAEMON Tue Jan  2 03:04:05 2024\nA: b\n\n", "\nFrom x\n\n\nFrom y\n", "\x00\xff\n", ">\n", "From \n", ">>>>>>>From ",
	"Status: RO\nX-Status: A\nX-Keywords: x\n\n", "Return-Path: <a b@c>\n\n", "Return-Path: <a@b>\nContent-Length: 3\n\nabc\n",
}

// encoded returns what lies on disk of one message.
func encoded(t testing.TB, octets []byte, flags mail.Flags) []byte {
	t.Helper()
	var out bytes.Buffer
	e := encoder{out: &out}
	n, err := e.encode(context.Background(), bytes.NewReader(octets), when, flags)
	if err != nil || n != int64(len(octets)) {
		t.Fatalf("encode %q: %d, %v", octets, n, err)
	}
	return out.Bytes()
}

// decoded returns the octets of every message in an mbox.
func decoded(t testing.TB, file []byte) (list [][]byte, messages []message) {
	t.Helper()
	s := newScanner(bytes.NewReader(file), 0, int64(len(file)))
	for {
		err := s.next()
		if err == io.EOF {
			return list, messages
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		list, messages = append(list, b), append(messages, s.msg)
	}
}

func FuzzRoundTrip(f *testing.F) {
	for i, s := range seeds {
		f.Add([]byte(s), []byte(seeds[(i+1)%len(seeds)]), s)
	}
	f.Fuzz(func(t *testing.T, a, b []byte, flags string) {
		a, b = canonical(t, a), canonical(t, b)
		fl := mail.NewFlags(strings.Fields(flags)...)
		first := encoded(t, a, fl)
		file := append(bytes.Clone(first), encoded(t, b, "")...)
		got, messages := decoded(t, file)
		if len(got) != 2 || !bytes.Equal(got[0], a) || !bytes.Equal(got[1], b) {
			t.Fatalf("%q and %q came back as %q from\n%q", a, b, got, file)
		}
		if m := messages[1]; m.offset != int64(len(first)) || m.end != int64(len(file))-1 || !m.own || !m.from.date.Equal(when) {
			t.Errorf("second message: %+v", m)
		}
		if len(flags) < maxKeywords && messages[0].flags != fl.Without(mail.Deleted) {
			t.Errorf("flags %q came back as %q", fl, messages[0].flags)
		}
	})
}

func FuzzReader(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
		f.Add([]byte("From a@b Tue Jan  2 03:04:05 2024\n" + s))
	}
	f.Add([]byte("From a Tue Jan  2 03:04:05 2024\r\nA: b\r\n\r\nx\r\n\r\nFrom b Tue Jan  2 03:04 CET 2024\r\n\r\ny"))
	f.Fuzz(func(t *testing.T, file []byte) {
		got, messages := decoded(t, file)
		end, octets := int64(0), 0
		for i, m := range messages {
			if m.offset < end || m.end < m.offset || m.end > int64(len(file))+1 {
				t.Fatalf("message %d at %d to %d, the one before ends at %d", i, m.offset, m.end, end)
			}
			end = min(m.end, int64(len(file)))
			octets += len(got[i])
		}
		if octets > len(file)+1 {
			t.Errorf("%d octets out of %d", octets, len(file))
		}
		// What was read can be written so that it is read the same again.
		for _, b := range got {
			if again, _ := decoded(t, encoded(t, b, "")); len(again) != 1 || !bytes.Equal(again[0], b) {
				t.Errorf("%q came back as %q", b, again)
			}
		}
	})
}

func FuzzPlace(f *testing.F) {
	f.Add("INBOX.mbox#0+10")
	f.Add("a#b.mbox#9223372036854775807+9223372036854775807")
	f.Fuzz(func(t *testing.T, s string) {
		if file, offset, length, ok := parsePlace(s); ok {
			if f2, o2, l2, ok := parsePlace(place(file, offset, length)); !ok || f2 != file || o2 != offset || l2 != length {
				t.Errorf("%q came back as %q %d %d", s, f2, o2, l2)
			}
		}
	})
}

// TestBufferEdges moves lines that need quoting across every buffer there is.
func TestBufferEdges(t *testing.T) {
	for _, size := range []int{maxLine, 2 * maxLine} {
		for d := -7; d <= 2; d++ {
			for _, line := range []string{
				strings.Repeat(">", size+d) + "From x", strings.Repeat(">", size+d), strings.Repeat("x", size+d) + "\nFrom x",
				strings.Repeat("x", size+d) + "\n>From x\r", "From " + strings.Repeat("x", size+d), strings.Repeat("\n", size+d) + "From x",
			} {
				octets := []byte(line + "\n")
				got, _ := decoded(t, append(encoded(t, octets, ""), encoded(t, octets, "")...))
				if len(got) != 2 || !bytes.Equal(got[0], octets) || !bytes.Equal(got[1], octets) {
					t.Fatalf("%.10q with %d octets: %d messages", line, len(octets), len(got))
				}
			}
		}
	}
}

func TestNotCanonical(t *testing.T) {
	for _, s := range []string{"x", "a\nx", strings.Repeat("x", 3*maxLine), strings.Repeat(">", 3*maxLine)} {
		e := encoder{out: io.Discard}
		if _, err := e.encode(t.Context(), strings.NewReader(s), when, ""); !errors.Is(err, errNotCanonical) {
			t.Errorf("%.10q: %v", s, err)
		}
	}
}

// An endless line is neither kept in memory nor looked at twice.
func TestLongLineMemory(t *testing.T) {
	a, _ := newArchive(t, t.TempDir())
	const size = 16 << 20
	in := info("INBOX")
	allocated := testing.AllocsPerRun(1, func() {
		if err := a.Append(t.Context(), in, mail.NewCanonical(io.LimitReader(letters{}, size), nil)); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 1000 {
		t.Errorf("%v allocations for one line", allocated)
	}
	if g := commit(t, a); len(g.Receipts) != 2 || g.Receipts[0].Octets != size+1 {
		t.Errorf("receipts %+v", g.Receipts)
	}
}

// letters is a line without end.
type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}
