package main

import (
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// standingEvery is how often the service manager is told where a run stands.
const standingEvery = 10 * time.Second

// tellManager tells the service manager that waits for it (sd_notify(3)) that the
// program has started, where its runs stand, that it is alive, and with the
// function it returns that it ends, with which exit code.
func (a *app) tellManager() (stop func(code int)) {
	address := os.Getenv("NOTIFY_SOCKET")
	watchdog, _ := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // not for the commands we run
	}
	if address == "" {
		return func(int) {}
	}
	if rest, ok := strings.CutPrefix(address, "@"); ok { // of the abstract namespace
		address = "\x00" + rest
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return func(int) {} // nobody waits after all
	}
	send := func(state string) { _, _ = io.WriteString(conn, state) }
	send("READY=1\nSTATUS=started")
	every := standingEvery
	if half := time.Duration(watchdog) * time.Microsecond / 2; half > 0 && half < every {
		every = half
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				send("WATCHDOG=1\nSTATUS=" + a.standing())
			}
		}
	})
	return func(code int) {
		close(done)
		wg.Wait()
		send("STOPPING=1\nSTATUS=ended with exit code " + strconv.Itoa(code))
		_ = conn.Close()
	}
}

// standing says in one line where the runs stand.
func (a *app) standing() string {
	a.shared.mu.Lock()
	defer a.shared.mu.Unlock()
	var all []string
	for _, r := range a.shared.runs {
		all = append(all, r.Standing())
	}
	if len(all) == 0 {
		return "nothing is being transferred at the moment"
	}
	return strings.Join(all, "; ")
}
