package relay

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// echo sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.Copy(c, c); err == nil {
					return
				}
			}()
		}
	}()
	return l.Addr().String()
}

func start(t *testing.T, o Options) (*Relay, net.Conn) {
	t.Helper()
	r, err := Start(echo(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return r, c
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A megabyte through 30 ms each way arrives whole, no earlier than one round
// trip and with all of it in flight at once.
func TestDelay(t *testing.T) {
	const delay = 30 * time.Millisecond
	r, c := start(t, Options{Delay: delay})
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	begin := time.Now()
	go func() {
		if _, err := c.Write(want); err != nil {
			t.Error(err)
		}
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 2*delay {
		t.Errorf("took %v, the delay was not applied", took)
	}
	if !bytes.Equal(got, want) {
		t.Error("octets differ")
	}
	if up, down := r.Octets(); up != int64(len(want)) || down != up || r.Connections() != 1 {
		t.Errorf("%d up, %d down, %d connections", up, down, r.Connections())
	}
}

func TestCut(t *testing.T) {
	for name, o := range map[string]Options{
		"down":       {CutDown: 1000},
		"up":         {CutUp: 1000},
		"down reset": {CutDown: 1000, Reset: true},
	} {
		t.Run(name, func(t *testing.T) {
			r, c := start(t, o)
			if _, err := c.Write(make([]byte, 5000)); err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, c)
			if n > 1000 || (!o.Reset && err == nil && o.CutUp == 0 && n != 1000) {
				t.Errorf("%d octets, %v", n, err)
			}
			if up, down := r.Octets(); o.CutUp == 1000 && up != 1000 || o.CutDown == 1000 && down != 1000 {
				t.Errorf("%d up, %d down", up, down)
			}
		})
	}
}

func TestStall(t *testing.T) {
	_, c := start(t, Options{CutDown: 10, Stall: true})
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d octets, %v; want silence", n, err)
	}
}

// Only the first connection is broken.
func TestBroken(t *testing.T) {
	r, c := start(t, Options{CutDown: 10, Broken: 1})
	if _, err := c.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if n, _ := io.Copy(io.Discard, c); n != 10 {
		t.Errorf("%d octets on the first connection", n)
	}
	second, err := net.Dial("tcp", r.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(second, make([]byte, 100)); err != nil {
		t.Error(err)
	}
}

// A rate holds octets back, and loses none.
func TestRate(t *testing.T) {
	const rate, n = 4 << 20, 1 << 20
	_, c := start(t, Options{Rate: rate})
	sent := bytes.Repeat([]byte("0123456789abcdef"), n/16)
	began := time.Now()
	go func() {
		if _, err := c.Write(sent); err != nil {
			t.Error(err)
		}
	}()
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("came back changed: %v", err)
	}
	if took := time.Since(began); took < n*time.Second/rate*9/10 {
		t.Errorf("%d octets in %v: faster than the rate allows", n, took)
	}
}
