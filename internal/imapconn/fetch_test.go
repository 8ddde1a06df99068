package imapconn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestParseDate(t *testing.T) {
	for in, want := range map[string]string{
		"17-Jul-1996 02:44:25 -0700":      "1996-07-17T09:44:25Z",
		" 7-Jul-1996 02:44:25 +0530":      "1996-07-06T21:14:25Z",
		"7-jul-1996 02:44:25 +0000":       "1996-07-07T02:44:25Z",
		"01-Jan-70 00:00:00 +0000":        "1970-01-01T00:00:00Z",
		"Mon, 01 Jan 1990 00:00:00 +0000": "1990-01-01T00:00:00Z",
		"01-Jan-1990 00:00:00 GMT":        "1990-01-01T00:00:00Z",
		"31-Dec-1999 23:59:60 +0000":      "2000-01-01T00:00:00Z",
		"2020-01-02T03:04:05Z":            "2020-01-02T03:04:05Z",
		"00-Jan-1970 00:00:00 +0000":      "",
		"31-Feb-1990 00:00:00 +0000":      "",
		"01-Jan-0001 00:00:00 +0000":      "",
		"01-Jan-9999 00:00:00 +0000":      "",
		"17-Xxx-1996 02:44:25 -0700":      "",
		"1x-Jul-1996 02:44:25 -0700":      "",
		"":                                "",
		"nonsense":                        "",
	} {
		got := ""
		if d := parseDate([]byte(in)); !d.IsZero() {
			got = d.Format(time.RFC3339)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestSet(t *testing.T) {
	var s Set
	for _, n := range []uint32{1, 2, 3, 7, 9, 10, 4294967294, 4294967295} {
		if !s.Add(n) {
			t.Fatal("full")
		}
	}
	if got := s.String(); got != "1:3,7,9:10,4294967294:4294967295" || s.Len() != 8 {
		t.Error(got, s.Len())
	}
	var sparse Set
	n := uint32(4000000001)
	for sparse.Add(n) {
		n += 2
	}
	if l := len(sparse.String()); l > maxSet || l < maxSet*9/10 {
		t.Errorf("split at %d octets", l)
	}
}

// collect keeps all sections, and reads them in small pieces.
type collect struct {
	out    []string
	bodies []string
	whole  bool
}

func (c *collect) Body(f *Fetch, b *Body) error {
	var r io.Reader = b
	if c.whole {
		r = b.Whole(nil)
	}
	got, err := io.ReadAll(iotest.OneByteReader(r))
	if b.Nil() {
		got = []byte("NIL")
	}
	if err != nil {
		c.bodies = append(c.bodies, fmt.Sprintf("[%s]:%v", b.Section, err))
		return nil
	}
	c.bodies = append(c.bodies, fmt.Sprintf("[%s]=%s", b.Section, got))
	return nil
}

func (c *collect) End(f *Fetch) error {
	c.out = append(c.out, fmt.Sprintf("#%d UID %d (%s) %d %d %s %s", f.Seq, f.UID, f.Flags, f.Size, f.ModSeq, f.ObjectID, strings.Join(c.bodies, " ")))
	c.bodies = nil
	return nil
}

// parse reads FETCH responses as a connection does.
func parse(in string, h FetchHandler) error {
	s := newScanner(strings.NewReader(in), 1<<20)
	p := newFetchParser(s)
	for {
		if err := s.next(); err != nil {
			return err
		}
		if !s.accept('*') || !s.accept(' ') {
			continue
		}
		seq, _ := s.number32()
		s.spaces()
		if upper(s.atom()) != "FETCH" {
			continue
		}
		err := p.response(seq, h)
		if errors.Is(err, errSyntax) {
			err = s.skipRest()
		}
		if err != nil {
			return err
		}
	}
}

func TestFetchParser(t *testing.T) {
	for name, tc := range map[string]struct{ in, want string }{
		"all":       {"* 1 FETCH (UID 2 FLAGS (\\Seen x) INTERNALDATE \"17-Jul-1996 02:44:25 -0700\" RFC822.SIZE 5 MODSEQ (77) EMAILID (M1) BODY[] {5}\r\na\r\nbc)\r\n", `#1 UID 2 (\Seen x) 5 77 M1 []=` + "a\r\nbc"},
		"no items":  {"* 1 FETCH ()\r\n", "#1 UID 0 () -1 0  "},
		"sections":  {"* 1 FETCH (BODY[HEADER] {2}\r\nab BODY[TEXT] NIL BODY[1.MIME] \"q\\\"\" RFC822.HEADER x BODY (\"a\" NIL))\r\n", ""},
		"sections2": {"* 1 FETCH (BODY[HEADER] {2}\r\nab BODY[TEXT] NIL BODY[1.MIME] \"q\\\"\" BODYSTRUCTURE ((\"a\" NIL) {1}\r\n)) UID 3)\r\n", `#1 UID 3 () -1 0  [HEADER]=ab [TEXT]=NIL [1.MIME]=q"`},
		"Gmail":     {"* 1 FETCH (X-GM-THRID 1 X-GM-MSGID 1278455344230334865 X-GM-LABELS (\"\\\\Inbox\" [Mailbox] \"a b\") UID 1)\r\n", "#1 UID 1 () -1 0 1278455344230334865 "},
		"next":      {"* 1 FETCH (UID x)\r\n* 2 FETCH (UID 1 FLAGS (a\r\n* 3 FETCH (UID 1 XX {3}\r\n(((\r\n* 4 FETCH (UID 4)\r\n", "#4 UID 4 () -1 0  "},
		"LF only":   {"* 1 FETCH (UID 2)\n", "#1 UID 2 () -1 0  "},
	} {
		h := new(collect)
		err := parse(tc.in, h)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(h.out, "|"); got != tc.want {
			t.Errorf("%s:\ngot  %q\nwant %q", name, got, tc.want)
		}
	}
}

// Whole does not end well unless the response does.
func TestWhole(t *testing.T) {
	for in, want := range map[string]string{
		"* 1 FETCH (BODY[] {2}\r\nab UID 3)\r\n":            "[]=ab",
		"* 1 FETCH (BODY[] {2}\r\nabc UID 3)\r\n* OK\r\n":   "no proper end",
		"* 1 FETCH (BODY[] {12}\r\nab UID 3)\r\n* OK\r\n":   "no proper end",
		"* 1 FETCH (BODY[] {2}\r\nab":                       "unexpected EOF",
		"* 1 FETCH (BODY[] {9}\r\nab":                       "unexpected EOF",
		"* 1 FETCH (BODY[] {2}\r\nab BODY[1] {1}\r\nx)\r\n": "[]=ab",
	} {
		h := &collect{whole: true}
		err := parse(in, h)
		got := strings.Join(append(h.out, h.bodies...), "|")
		if !strings.Contains(got, want) {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// No input panics, hangs or makes the reader allocate what it did not get; and what
// was framed well before is not taken back.
func FuzzFetch(f *testing.F) {
	for _, s := range []string{
		"* 1 FETCH (UID 2 FLAGS (\\Seen) RFC822.SIZE 5 BODY[] {5}\r\na\r\nbc)\r\n",
		"* 1 FETCH (BODY[HEADER.FIELDS (A B)]<0> ~{1+}\r\nx UID 9 MODSEQ (1) X ((NIL) \"\\\"\"))\r\n",
		"* 1 FETCH (BODY[] {1048577}\r\n", "* 1 FETCH (FLAGS (\"a\" {1}\r\nb))\r\n", "* 1 FETCH ((((((((", "{99999999999999999999}\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, whole := range []bool{false, true} {
			if err := parse(in, &collect{whole: whole}); err == nil {
				t.Fatal("no error at the end of the input")
			}
			h := new(collect)
			good := "* 7 FETCH (UID 7 BODY[] {1}\r\nx)\r\n"
			_ = parse(good+in, h)
			if len(h.out) == 0 || h.out[0] != "#7 UID 7 () -1 0  []=x" {
				t.Fatalf("%q", h.out)
			}
		}
	})
}

func FuzzList(f *testing.F) {
	for _, s := range []string{
		`(\HasNoChildren) "/" INBOX`, `() NIL "a \" b" ("CHILDINFO" ("x"))`, "(\\x) \".\" {3}\r\nabc\r\n",
		`x (MESSAGES 1 UIDNEXT 2 UIDVALIDITY 3 MAILBOXID (F1))`, `(("" "/")) NIL (("a" NIL "X" ("y")))`, "((((",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		for _, read := range []func(*scanner) error{
			func(s *scanner) error { _, err := s.list(); return err },
			func(s *scanner) error { _, err := s.status(); return err },
			func(s *scanner) error { _, err := s.namespaces(); return err },
		} {
			s := newScanner(strings.NewReader(in), 1<<20)
			if s.next() != nil {
				return
			}
			if err := read(s); err != nil && !errors.Is(err, errSyntax) {
				if _, ok := errors.AsType[*wireError](err); !ok {
					t.Fatalf("%v", err)
				}
			}
		}
		if r, ok := parseResult([]byte(in)); ok && r.Condition == "" {
			t.Fatal("result without condition")
		}
	})
}

type drain struct{ buf []byte }

func (d *drain) Body(_ *Fetch, b *Body) error {
	_, err := io.ReadFull(b, d.buf[:b.Size()])
	return err
}
func (d *drain) End(*Fetch) error { return nil }

func BenchmarkFetch(b *testing.B) {
	for _, size := range []int{0, 5000, 200_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var in bytes.Buffer
			for i := range 1000 {
				fmt.Fprintf(&in, "* %d FETCH (UID %d FLAGS (\\Seen $Forwarded) INTERNALDATE \"17-Jul-2024 02:44:25 +0200\" RFC822.SIZE %d", i+1, 2*i+1, size)
				if size > 0 {
					fmt.Fprintf(&in, " BODY[] {%d}\r\n%s", size, strings.Repeat("x", size))
				}
				in.WriteString(")\r\n")
			}
			b.SetBytes(int64(in.Len()))
			b.ReportAllocs()
			r := bytes.NewReader(nil)
			s := newScanner(r, 1<<30)
			p := newFetchParser(s)
			d := &drain{buf: make([]byte, size)}
			for b.Loop() {
				r.Reset(in.Bytes())
				s.br = bufio.NewReaderSize(r, readBuffer)
				for range 1000 {
					if err := s.next(); err != nil {
						b.Fatal(err)
					}
					s.pos = 2
					seq, _ := s.number32()
					s.spaces()
					s.atom()
					if err := p.response(seq, d); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
