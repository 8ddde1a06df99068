package testserver

import (
	"errors"
	"net"
)

// Refusing is a port where connections are refused until it is closed: the client's
// end of a connection. A port that was merely closed may be somebody else's by the
// time it is tried.
type Refusing struct {
	l net.Listener
	c net.Conn
}

// NewRefusing takes a port of 127.0.0.1.
func NewRefusing() (*Refusing, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Refusing{l, c}, nil
}

// Port returns the port.
func (r *Refusing) Port() int { return r.c.LocalAddr().(*net.TCPAddr).Port }

// Close gives the port back.
func (r *Refusing) Close() error { return errors.Join(r.c.Close(), r.l.Close()) }
