package dial_test

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"mailhaul/internal/dial"
)

// compressed returns a connection that compresses, and the server's end of it.
func compressed(t *testing.T) (*dial.Conn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	c := dial.NewConn(ours, dial.Server{Protocol: "imap", Host: "x", Security: dial.Cleartext, Timeout: 5 * time.Second})
	c.Compress()
	t.Cleanup(func() { c.Close(); theirs.Close() })
	return c, theirs
}

func TestCompress(t *testing.T) {
	c, peer := compressed(t)
	long := strings.Repeat("UID FETCH 1:500 (UID FLAGS) ", 5000)
	said := []string{"a\r\n", long, "b\r\n"}
	go func() {
		// The server echoes what it inflates, flushing at every piece.
		w, err := flate.NewWriter(peer, 1)
		if err != nil {
			return
		}
		r, buf := flate.NewReader(peer), make([]byte, 1000)
		for {
			n, err := r.Read(buf)
			if _, werr := w.Write(buf[:n]); werr != nil || w.Flush() != nil || err != nil {
				return
			}
		}
	}()
	for _, s := range said {
		var wrote sync.WaitGroup
		wrote.Go(func() {
			if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("wrote %d of %d, %v", n, len(s), err)
			}
		})
		got := make([]byte, len(s))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != s {
			t.Fatalf("read %d of %d octets, %v", len(got), len(s), err)
		}
		wrote.Wait()
	}
	if in := c.BytesIn(); in > int64(len(long))/10 {
		t.Errorf("%d octets came in: not compressed", in)
	}
	if !c.Compressed() {
		t.Error("says it does not compress")
	}
}

// What a server sends as compressed data never passes for more than it is.
func TestInflation(t *testing.T) {
	deflated := func(s string, end bool) string {
		var b bytes.Buffer
		w, err := flate.NewWriter(&b, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
		if end {
			err = w.Close()
		} else {
			err = w.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	hello := deflated("* OK hello\r\n", false)
	for name, tc := range map[string]struct {
		wire string
		want string // what is read, at most
		err  error  // nil for one of the connection
	}{
		"cut between":    {hello, "* OK hello\r\n", nil},
		"cut in a block": {deflated("* OK hello\r\n", true)[:8], "* OK hello\r\n", nil},
		"stream ends":    {deflated("* OK hello\r\n", true), "* OK hello\r\n", dial.ErrInflation},
		"not deflate":    {hello + "\xff\xff\xff\xff\xff\xff", "* OK hello\r\n", dial.ErrInflation},
		"clear text":     {"* OK in clear\r\n", "p", dial.ErrInflation},
		"bomb":           {deflated(strings.Repeat("\x00", 20<<20), false), "", dial.ErrInflation},
		"nothing":        {"", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			c, peer := compressed(t)
			go func() {
				if _, err := io.WriteString(peer, tc.wire); err == nil {
					peer.Close()
				}
			}()
			var got bytes.Buffer
			n, err := io.Copy(&got, onlyReader{c})
			if tc.err != nil && !errors.Is(err, tc.err) || tc.err == nil && errors.Is(err, dial.ErrInflation) {
				t.Errorf("%v, want %v", err, tc.err)
			}
			if name != "bomb" && !strings.HasPrefix(tc.want, got.String()) {
				t.Errorf("read %q", got.String())
			}
			if n > 19<<20 {
				t.Errorf("%d octets came out of %d", n, len(tc.wire))
			}
			if _, again := c.Read(make([]byte, 1)); again == nil {
				t.Error("reads on after the end")
			}
		})
	}
}

type onlyReader struct{ io.Reader }
