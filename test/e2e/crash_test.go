package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
)

func through(t *testing.T, s *dovecot.Server, scheme string, o relay.Options) *relay.Relay {
	t.Helper()
	port := map[string]int{"imaps": s.IMAPS, "pop3s": s.POP3S}[scheme]
	r, err := relay.Start(s.Addr(port), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// running is a run that is still on.
type running struct {
	result func() result
	signal func(os.Signal)
}

func (h *host) start(args ...string) running {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	h.t.Cleanup(cancel)
	cmd := h.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	return running{
		result: func() result { return h.wait(cmd, &stdout, &stderr, begin) },
		signal: func(sig os.Signal) {
			if err := cmd.Process.Signal(sig); err != nil && err != os.ErrProcessDone {
				h.t.Error(err)
			}
		},
	}
}

// await waits until the relay has passed so many octets down.
func await(t *testing.T, r *relay.Relay, octets int64) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, down := r.Octets(); down >= octets {
			return
		}
	}
	_, down := r.Octets()
	t.Fatalf("%d octets came, waited for %d", down, octets)
}

// SIGTERM in the middle of a transfer: exit 143 soon, nothing half in the
// archive, and the same command again completes it.
func TestSignal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	s := server(t)
	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, format := range formats {
			for sig, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGINT: 130} {
				t.Run(fmt.Sprintf("%s-%s-%d", scheme, format, code), func(t *testing.T) {
					t.Parallel()
					user := fmt.Sprintf("signal-%s-%s-%d", scheme, format, code)
					load(t, s, user, "INBOX", ordinary(200, 0)...)
					h := newHost(t, s)
					archive := filepath.Join(h.home, "archive")
					r := through(t, s, scheme, relay.Options{CutDown: 400_000, Stall: true})
					run := h.start("backup", "--json", at(scheme, user, "127.0.0.1", r.Port()), archive, "--format", format)
					await(t, r, 400_000)
					begin := time.Now()
					run.signal(sig)
					res := run.result()
					if res.code != code || time.Since(begin) > 10*time.Second {
						t.Fatalf("%v after the signal: %v", time.Since(begin), res)
					}
					sum := h.complete(place(scheme, s, user), archive)
					same(t, "INBOX", wanted(t, s, user, "INBOX"), held(t, format, archive, "INBOX"))
					if sum.Listed != 200 {
						t.Errorf("%+v", sum)
					}
					h.must(0, "verify", archive)
				})
			}
		}
	}
}

// Killed at random moments, again and again, then run once more: every message
// is there exactly once.
func TestKill(t *testing.T) {
	s := server(t)
	const messages, kills = 1500, 20
	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, format := range formats {
			t.Run(scheme+"-"+format, func(t *testing.T) {
				user := "kill-" + scheme + "-" + format
				load(t, s, user, "INBOX", ordinary(messages, 0)...)
				load(t, s, user, "INBOX", ordinary(1, 0)...) // a twin
				h := newHost(t, s)
				bin, err := plain()
				if err != nil {
					t.Fatal(err)
				}
				h.bin = bin
				seed := uint64(time.Now().UnixNano())
				t.Logf("seed %d", seed)
				random := rand.New(rand.NewPCG(seed, 0))
				archive := filepath.Join(h.home, "archive")
				killed := 0
				for i := range kills {
					run := h.start("backup", "--json", place(scheme, s, user), archive, "--format", format, "--connections", "2")
					// Later and later: when one run is through, the next have nothing left to be killed at.
					time.Sleep(time.Duration(random.IntN(12*(i+1))) * time.Millisecond)
					run.signal(os.Kill)
					if run.result().code == -1 {
						killed++
					}
				}
				if killed == 0 {
					t.Error("no run was killed before its end")
				}
				t.Logf("%d of %d runs killed", killed, kills)
				h.complete(place(scheme, s, user), archive, "--format", format)
				same(t, "INBOX", wanted(t, s, user, "INBOX"), held(t, format, archive, "INBOX"))
				h.must(0, "verify", archive)
				before := snapshot(t, archive)
				if sum := h.complete(place(scheme, s, user), archive); sum.Archived+sum.Adopted != 0 {
					t.Errorf("once more: %+v", sum)
				}
				unchanged(t, before, snapshot(t, archive))
			})
		}
	}
}

// Every connection is cut at one place, cleanly or by RST: nothing half is
// archived. The run gets through by new connections, or ends with 75, or with 3
// where the same message broke it again and again; the next one completes.
func TestCut(t *testing.T) {
	s := server(t)
	for _, scheme := range []string{"imaps", "pop3s"} {
		user := "cut-" + scheme
		load(t, s, user, "INBOX", ordinary(60, 0)...)
		want := wanted(t, s, user, "INBOX")
		for i, format := range []string{"maildir", "mbox", "maildir", "mbox", "maildir", "mbox"} {
			at0 := []int64{700, 2_000, 5_000, 40_000, 150_000, 290_000}[i]
			t.Run(fmt.Sprintf("%s-%s-%d", scheme, format, at0), func(t *testing.T) {
				t.Parallel()
				h := newHost(t, s)
				archive := filepath.Join(h.home, "archive")
				r := through(t, s, scheme, relay.Options{CutDown: at0, Reset: i%2 == 1})
				res := h.run("backup", "--json", at(scheme, user, "127.0.0.1", r.Port()), archive, "--format", format, "--max-time", "3s")
				if res.code != 75 && res.code != 0 && res.code != 3 || at0 <= 2_000 && res.code != 75 {
					t.Errorf("cut after %d: %v", at0, res)
				}
				if res.code == 0 {
					same(t, "after exit 0", want, held(t, format, archive, "INBOX"))
				}
				h.complete(place(scheme, s, user), archive, "--format", format)
				same(t, "INBOX", want, held(t, format, archive, "INBOX"))
				h.must(0, "verify", archive)
			})
		}
	}
}

// A connection that falls silent ends by the deadline, with 75, or with 3 if it
// always was the same message.
func TestSilence(t *testing.T) {
	s := server(t)
	for _, scheme := range []string{"imaps", "pop3s"} {
		for _, octets := range []int64{1, 3_000, 60_000} {
			t.Run(fmt.Sprintf("%s-%d", scheme, octets), func(t *testing.T) {
				t.Parallel()
				user := fmt.Sprintf("silence-%s-%d", scheme, octets)
				load(t, s, user, "INBOX", ordinary(40, 0)...)
				h := newHost(t, s)
				archive := filepath.Join(h.home, "archive")
				r := through(t, s, scheme, relay.Options{CutDown: octets, Stall: true})
				res := h.run("backup", at(scheme, user, "127.0.0.1", r.Port()), archive, "--timeout", "1s", "--max-time", "4s")
				if res.code != 75 && !(res.code == 3 && octets > 1) || res.took > 30*time.Second {
					t.Errorf("%v: %v", res.took, res)
				}
				h.complete(place(scheme, s, user), archive)
				same(t, "INBOX", wanted(t, s, user, "INBOX"), held(t, "maildir", archive, "INBOX"))
			})
		}
	}
}

// Two runs at once on one archive: one works, the other ends at once with 75.
func TestTwoRuns(t *testing.T) {
	s := server(t)
	load(t, s, "two", "INBOX", ordinary(200, 0)...)
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	r := through(t, s, "imaps", relay.Options{CutDown: 300_000, Stall: true})
	first := h.start("backup", at("imaps", "two", "127.0.0.1", r.Port()), archive)
	await(t, r, 300_000)
	h.must(75, "backup", place("imaps", s, "two"), archive)
	first.signal(os.Kill)
	first.result()
	h.complete(place("imaps", s, "two"), archive)
	same(t, "INBOX", wanted(t, s, "two", "INBOX"), held(t, "maildir", archive, "INBOX"))
}

// Mail that comes while a run goes on is fetched then or next time, and nothing is
// mixed up.
func TestMailArrivesMeanwhile(t *testing.T) {
	s := server(t)
	for _, scheme := range []string{"imaps", "pop3s"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			user := "meanwhile-" + scheme
			load(t, s, user, "INBOX", ordinary(300, 0)...)
			h := newHost(t, s)
			archive := filepath.Join(h.home, "archive")
			r := through(t, s, scheme, relay.Options{Delay: 20 * time.Millisecond})
			run := h.start("backup", "--json", at(scheme, user, "127.0.0.1", r.Port()), archive)
			await(t, r, 20_000)
			load(t, s, user, "INBOX", ordinary(20, 5000)...)
			if scheme == "imaps" {
				if err := s.Expunge(user, "INBOX", "1:5"); err != nil {
					t.Fatal(err)
				}
			}
			if res := run.result(); res.code != 0 && res.code != 3 {
				t.Error(res)
			}
			h.complete(place(scheme, s, user), archive)
			got, want := held(t, "maildir", archive, "INBOX"), wanted(t, s, user, "INBOX")
			for d := range want {
				if got[d] != 1 {
					t.Errorf("a message is held %d times", got[d])
				}
			}
			if extra := got.size() - want.size(); extra < 0 || extra > 5 {
				t.Errorf("%d held, %d at the server", got.size(), want.size())
			}
		})
	}
}
