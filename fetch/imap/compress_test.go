package imap_test

import (
	"bufio"
	"compress/flate"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"mailhaul/fetch/imap"
	"mailhaul/internal/relay"
	"mailhaul/internal/testserver"
)

// deflating is a server's connection behind COMPRESS.
type deflating struct {
	net.Conn
	w *flate.Writer
}

func (d deflating) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err == nil {
		err = d.w.Flush()
	}
	return n, err
}

// compress answers COMPRESS and then compresses.
func compress(t *testing.T, c *testserver.IMAPConn, cmd string) bool {
	if cmd != "COMPRESS DEFLATE" {
		return false
	}
	c.OK("from now on")
	w, err := flate.NewWriter(c.Conn, 1)
	if err != nil {
		t.Error(err)
	}
	c.R = bufio.NewReader(flate.NewReader(c.R))
	c.Conn = deflating{c.Conn, w}
	return true
}

const compressing = "IMAP4rev1 SASL-IR AUTH=PLAIN LITERAL+ COMPRESS=DEFLATE"

func always(cfg *imap.Config) { cfg.Compress = imap.CompressAlways }

// A compressed connection lost anywhere, or a server that cannot compress after all,
// costs nothing but another connection.
func TestCompress(t *testing.T) {
	msgs := three()
	msgs[1].Octets = "Subject: big\r\n\r\n" + strings.Repeat("0123456789\r\n", 40_000)
	whole := line(1, msgs[0]) + line(2, msgs[1]) + line(3, msgs[2])
	for name, first := range map[string]func(c *testserver.IMAPConn, cmd string) bool{
		"well": nil,
		"refused": func(c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "COMPRESS") {
				c.NO("[COMPRESSIONACTIVE] TLS compresses already")
				return true
			}
			return false
		},
		"not compressed": func(c *testserver.IMAPConn, cmd string) bool {
			if strings.HasPrefix(cmd, "COMPRESS") {
				c.OK("ok")
				c.Send("* OK in clear\r\n* OK in clear\r\n")
				return true
			}
			return false
		},
		"bomb": func(c *testserver.IMAPConn, cmd string) bool {
			if strings.Contains(cmd, "BODY") {
				c.Send("* 1 FETCH (UID 3 BODY[] {30000000}\r\n")
				c.Send(strings.Repeat("\x00", 30_000_000))
				return true
			}
			return compress(t, c, cmd)
		},
		"cut": func(c *testserver.IMAPConn, cmd string) bool {
			if strings.Contains(cmd, "BODY") {
				c.Send(whole[:len(whole)/2])
				c.Close()
				return true
			}
			return compress(t, c, cmd)
		},
		"stream ended": func(c *testserver.IMAPConn, cmd string) bool {
			if strings.Contains(cmd, "BODY") {
				c.Send(whole[:len(whole)/2])
				c.Conn.(deflating).w.Close()
				return true
			}
			return compress(t, c, cmd)
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &testserver.IMAP{Messages: msgs, Capabilities: compressing}
			srv.Answer = func(c *testserver.IMAPConn, cmd string) bool {
				if c.No == 0 && first != nil {
					return first(c, cmd)
				}
				return compress(t, c, cmd)
			}
			c, err := fetched(t, serve(t, srv, always))
			if err != nil {
				t.Fatal(err)
			}
			complete(t, c, msgs)
			if sent(srv, "COMPRESS") == 0 {
				t.Error("never compressed")
			}
		})
	}
}

// On a slow line compression begins by itself, in the middle of a fetch.
func TestCompressSlowLine(t *testing.T) {
	var msgs []testserver.IMAPMessage
	for i := range 140 {
		msgs = append(msgs, testserver.IMAPMessage{
			UID: uint32(i + 1), Octets: fmt.Sprintf("Subject: %d\r\n\r\n", i) + strings.Repeat("the quick brown fox\r\n", 5000),
		})
	}
	srv := &testserver.IMAP{Messages: msgs, Capabilities: compressing}
	srv.Answer = func(c *testserver.IMAPConn, cmd string) bool { return compress(t, c, cmd) }
	s := serve(t, srv, func(cfg *imap.Config) {
		r, err := relay.Start(fmt.Sprint("127.0.0.1:", srv.Port()), relay.Options{Delay: 2 * time.Millisecond, Rate: 5 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		cfg.Server.Port, cfg.Connections = r.Port(), 1
	})
	c, err := fetched(t, s)
	if err != nil {
		t.Fatal(err)
	}
	complete(t, c, msgs)
	if n := sent(srv, "COMPRESS"); n != 1 {
		t.Errorf("COMPRESS sent %d times", n)
	}
}
