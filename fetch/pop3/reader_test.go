package pop3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestBody(t *testing.T) {
	tests := []struct {
		name, wire, want string
		rest             string
		err              error
	}{
		{"plain", "a\r\nb\r\n.\r\n", "a\r\nb\r\n", "", nil},
		{"empty", ".\r\n", "", "", nil},
		{"one empty line", "\r\n.\r\n", "\r\n", "", nil},
		{"stuffed", "..\r\n...x\r\na.\r\n.\r\n", ".\r\n..x\r\na.\r\n", "", nil},
		{"one dot before text is kept", ".x\r\n.\r\n", ".x\r\n", "", nil},
		{"bare LF before dot", "a\n.\r\nb\n..c\r\n.\r\n", "a\n.\r\nb\n..c\r\n", "", nil},
		{"bare CR before dot", "a\r.\r\n.\r\n", "a\r.\r\n", "", nil},
		{"CR CR LF dot", "a\r\r\n..b\r\n.\r\n", "a\r\r\n.b\r\n", "", nil},
		{"LF ends nothing", "a\n.\nb\r\n.\nc\r\n.\r\n", "a\n.\nb\r\n.\nc\r\n", "", nil},
		{"dot CR text", ".\rx\r\n.\r\n", ".\rx\r\n", "", nil},
		{"NUL and 8 bit", "\x00\xff\r\n.\r\n", "\x00\xff\r\n", "", nil},
		{"next answer is left", "a\r\n.\r\n+OK next\r\n", "a\r\n", "+OK next\r\n", nil},
		{"cut", "a\r\n", "a\r\n", "", io.ErrUnexpectedEOF},
		{"cut in the terminator", "a\r\n.\r", "a\r\n", "", io.ErrUnexpectedEOF},
		{"nothing", "", "", "", io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		for name, src := range map[string]io.Reader{
			"whole": strings.NewReader(tt.wire), "by one": iotest.OneByteReader(strings.NewReader(tt.wire)), "halves": iotest.HalfReader(strings.NewReader(tt.wire)),
		} {
			for _, size := range []int{1, 2, 3, 4096} {
				r := newReader(src)
				if size > 1 && name != "whole" {
					continue // the source is used up
				}
				if name == "whole" {
					r = newReader(strings.NewReader(tt.wire))
				}
				var b body
				b.reset(r, 0)
				got, err := readBy(&b, size)
				if string(got) != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("%s, %s, reads of %d: %q, %v; want %q, %v", tt.name, name, size, got, err, tt.want, tt.err)
				}
				if tt.err == nil && name == "whole" && string(r.buffered()) != tt.rest {
					t.Errorf("%s: left %q, want %q", tt.name, r.buffered(), tt.rest)
				}
				if b.n != int64(len(tt.want)) {
					t.Errorf("%s: %d octets counted, want %d", tt.name, b.n, len(tt.want))
				}
			}
		}
	}
}

func readBy(r io.Reader, size int) (got []byte, err error) {
	p := make([]byte, size)
	for {
		n, err := r.Read(p)
		got = append(got, p[:n]...)
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

func TestLine(t *testing.T) {
	r := newReader(iotest.HalfReader(strings.NewReader("+OK\r\nbare\n\r\n" + strings.Repeat("x", bufferSize-2) + "\r\ntail")))
	for _, want := range []string{"+OK", "bare", "", strings.Repeat("x", bufferSize-2)} {
		if got, err := r.line(); err != nil || string(got) != want {
			t.Fatalf("%.40q, %v; want %.40q", got, err, want)
		}
	}
	if _, err := r.line(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a line without end: %v", err)
	}
	r = newReader(strings.NewReader(strings.Repeat("x", 2*bufferSize)))
	if _, err := r.line(); !errors.Is(err, errLineTooLong) {
		t.Errorf("an endless line: %v", err)
	}
}

func TestParseReply(t *testing.T) {
	for _, tt := range []struct {
		line string
		ok   bool
		text string
		bad  bool
	}{
		{"+OK", true, "", false}, {"+ok fine", true, "fine", false}, {"+OK\tx", true, "x", false}, {"-ERR [IN-USE] no", false, "[IN-USE] no", false}, {"-err\tx", false, "x", false},
		{"", false, "", true}, {"+OKAY", false, "", true}, {"+ ", false, "", true}, {"OK", false, "", true}, {"ERR", false, "", true}, {" +OK", false, "", true},
	} {
		r, err := parseReply([]byte(tt.line), func(s string) string { return s })
		if r.ok != tt.ok || r.text != tt.text || (err != nil) != tt.bad {
			t.Errorf("%q: %+v, %v", tt.line, r, err)
		}
	}
}

// stuff is RFC 1939 section 3 from the server's side.
func stuff(b []byte) []byte {
	var out []byte
	for len(b) > 0 {
		if b[0] == '.' {
			out = append(out, '.')
		}
		n := len(b)
		if i := bytes.Index(b, []byte("\r\n")); i >= 0 {
			n = i + 2
		}
		out = append(out, b[:n]...)
		b = b[n:]
	}
	return append(out, ".\r\n"...)
}

func FuzzBody(f *testing.F) {
	for _, s := range []string{"", "a\r\n", ".\r\n", "..\r\n.\r\n", "a\n.\r\n", "\r\r\n.\r\n", "\r\n.\r", "a\r.\r\n"} {
		f.Add([]byte(s), byte(3), byte(5))
	}
	f.Fuzz(func(t *testing.T, msg []byte, in, out byte) {
		msg = append(msg, "\r\n"...)
		wire := append(stuff(msg), "+OK"...)
		var b body
		b.reset(newReader(&chopped{wire, int(in)%7 + 1}), 0)
		got, err := readBy(&b, int(out)%9+1)
		if err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("%q came back as %q, %v", msg, got, err)
		}
		if b.n+b.dots != int64(len(wire)-len(".\r\n+OK")) {
			t.Fatalf("%d octets and %d dots of %d", b.n, b.dots, len(wire))
		}
		// Arbitrary octets: no panic, no success without a terminator.
		b.reset(newReader(&chopped{msg, int(in)%7 + 1}), 0)
		if _, err := readBy(&b, 4); err == nil && !bytes.HasPrefix(msg, []byte(".\r\n")) && !bytes.Contains(msg, []byte("\r\n.\r\n")) {
			t.Fatalf("%q was taken for a whole answer", msg)
		}
	})
}

// chopped reads n octets at a time.
type chopped struct {
	b []byte
	n int
}

func (c *chopped) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.b[:min(len(c.b), c.n)])
	c.b = c.b[n:]
	return n, nil
}

func FuzzListing(f *testing.F) {
	f.Add([]byte("1 a\n2 b\n3 c"), []byte("1 10\n2 20"), byte(3))
	f.Add([]byte("1 a\n1 a\n9 z\n2 \n3 a"), []byte("x\n1 -1\n2 99999999999999999999"), byte(3))
	f.Fuzz(func(t *testing.T, uidl, sizes []byte, count byte) {
		l := &listing{count: int(count)}
		u := newUIDLParser(l)
		for line := range bytes.SplitSeq(uidl, []byte{'\n'}) {
			if u.line(line) != nil {
				return
			}
		}
		u.finish()
		p := newListParser(l)
		for line := range bytes.SplitSeq(sizes, []byte{'\n'}) {
			if p.line(line) != nil {
				return
			}
		}
		p.finish()
		seen := make(map[string]bool)
		for seq := uint32(1); seq <= uint32(count); seq++ {
			uid := l.uid(seq)
			if uid != "" && (seen[uid] || l.find(uid, 0) != seq || !usableUIDL([]byte(uid))) {
				t.Fatalf("UIDL %q of message %d is not its own", uid, seq)
			}
			seen[uid] = true
			if l.size(seq) < -1 {
				t.Fatalf("size %d", l.size(seq))
			}
			if uid == "" && l.state() != "" {
				t.Fatal("a state, though a message has no UIDL")
			}
		}
	})
}

func BenchmarkBody(b *testing.B) {
	msg := bytes.Repeat([]byte("An ordinary line of text with seventy-two octets and its CRLF at the e\r\n"), 1<<14)
	wire := stuff(msg)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	p := make([]byte, 32<<10)
	r := newReader(nil)
	for b.Loop() {
		src := bytes.NewReader(wire)
		*r = reader{src: src, buf: r.buf}
		var bd body
		bd.reset(r, 0)
		for {
			if _, err := bd.Read(p); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
