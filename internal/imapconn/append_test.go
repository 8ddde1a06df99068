package imapconn

import (
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"mailhaul/internal/testserver"
)

func TestParseSet(t *testing.T) {
	for set, want := range map[string][]uint32{
		"7": {7}, "7:9": {7, 8, 9}, "9:7": {7, 8, 9}, "3,7:8": {3, 7, 8},
		"": nil, "0": nil, "1:*": nil, "1:4294967295": nil, "4294967296": nil, "1,": nil, "x": nil, "1:5": nil,
	} {
		if got := parseSet(set, 4); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", set, got, want)
		}
	}
}

func TestHungUp(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}, true},
		{&net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ECONNRESET)}, true},
		{os.ErrDeadlineExceeded, false},
		{&handlerError{fmt.Errorf("%w: %w", ErrNotSent, syscall.ECONNRESET)}, false},
	} {
		if got := hungUp(tt.err); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}

// A server that hangs up while it is written to has said what it has until then.
func TestAnsweredBeforeHungUp(t *testing.T) {
	c := connect(t, &testserver.IMAP{})
	a := &appending{c: c}
	a.begin()
	err := c.streaming(func() error {
		if _, err := fmt.Fprintf(c.nc, "%s NOOP\r\n", a.tag); err != nil {
			t.Error(err)
		}
		return syscall.EPIPE
	}, func() error {
		for range 100 { // time for the writer to do harm
			if c.readError() != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		d, err := c.answer()
		if err != nil || d.tag != a.tag || !d.res.OK() {
			t.Errorf("the answer is lost: %+v, %v", d, err)
		}
		return err
	})
	if err != syscall.EPIPE {
		t.Errorf("writing failed, and %v is told", err)
	}
}
