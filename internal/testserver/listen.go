package testserver

import (
	"net"
	"sync"
)

// listener serves connections until it is closed, and knows them all.
type listener struct {
	ln net.Listener

	mu    sync.Mutex
	conns map[net.Conn]bool
	done  bool
	wg    sync.WaitGroup
	made  int
}

// listen starts to serve at addr, "127.0.0.1:0" if it is empty.
func listen(addr string, serve func(net.Conn)) (*listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &listener{ln: ln, conns: make(map[net.Conn]bool)}
	l.wg.Add(1)
	go l.accept(serve)
	return l, nil
}

func (l *listener) accept(serve func(net.Conn)) {
	defer l.wg.Done()
	for {
		c, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		if l.done {
			l.mu.Unlock()
			c.Close()
			return
		}
		l.conns[c] = true
		l.made++
		l.wg.Add(1)
		l.mu.Unlock()
		go func() {
			defer l.wg.Done()
			serve(c)
			c.Close()
			l.mu.Lock()
			delete(l.conns, c)
			l.mu.Unlock()
		}()
	}
}

// Addr is where the server listens.
func (l *listener) Addr() string { return l.ln.Addr().String() }

// Port is the port of Addr.
func (l *listener) Port() int { return l.ln.Addr().(*net.TCPAddr).Port }

// Connections returns how many connections were accepted.
func (l *listener) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made
}

// Close ends all connections and waits until nothing runs any more.
func (l *listener) Close() error {
	err := l.ln.Close()
	l.mu.Lock()
	l.done = true
	for c := range l.conns {
		c.Close()
	}
	l.mu.Unlock()
	l.wg.Wait()
	return err
}
