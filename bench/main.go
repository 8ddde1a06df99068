// Bench measures mailhaul against the floor and against its peers on this
// machine:
//
//	go run ./bench                  everything, about half an hour
//	go run ./bench -runs 1 -peers none
//
// It starts a Dovecot on loopback, loads a deterministic corpus, and runs, in
// turn and several times: bare drains (what the wire and the disk allow), the
// mailhaul of this checkout, and those of mpop, mbsync, getmail6, fetchmail and
// offlineimap3 that are installed, at 0 ms and through a relay that adds
// 20 ms each way. After every run it counts what really arrived. Absolute times
// say something about the machine only; the ratios are what to look at.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
)

// slowCount is how many messages a peer gets that waits a round trip or a
// process start for each; its time is scaled and marked.
const slowCount = 500

type options struct {
	messages int
	runs     int
	delay    time.Duration
	peers    string
	only     string
	mix      string
	dir      string
	binary   string
}

// parts are what this program runs itself as, so that each measurement is of a
// process of its own.
var parts = map[string]func(args []string) error{"drain": drainMain, "watch": watchMain, "migrate": migrateMain}

func main() {
	if len(os.Args) > 1 {
		if part, ok := parts[os.Args[1]]; ok {
			if err := part(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	var o options
	flag.IntVar(&o.messages, "n", 5000, "messages")
	flag.IntVar(&o.runs, "runs", 5, "runs of each fast program; the median counts")
	flag.DurationVar(&o.delay, "delay", 20*time.Millisecond, "delay each way of the slow link")
	flag.StringVar(&o.peers, "peers", "all", "all, fast (those that need no scaling) or none")
	flag.StringVar(&o.only, "only", "", "one table only, for instance pop3s-0 or imaps-slow")
	flag.StringVar(&o.mix, "mix", "small", "small (2-8 KB) or real (up to 12 MB)")
	flag.StringVar(&o.dir, "dir", "", "where to write; default the temporary directory")
	flag.StringVar(&o.binary, "mailhaul", "", "binary to measure instead of a build of this checkout")
	flag.Parse()
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// place is where one table's programs connect and write.
type place struct {
	scheme string // "pop3s" or "imaps"
	host   string
	port   int
	caFile string
	user   string
	count  int    // messages of that user
	dir    string // empty before each run
	tools  tools
}

type tools struct{ self, mailhaul string }

func bench(o options) (err error) {
	work, err := os.MkdirTemp(o.dir, "mailhaul-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := os.Chmod(work, 0o711); err != nil { // getmail6 delivers as another user than root
		return err
	}
	t, err := build(work, o.binary)
	if err != nil {
		return err
	}
	s, err := dovecot.Run("", dovecot.Options{MailLocation: dovecot.MDBox})
	if err != nil {
		return err
	}
	defer func() { s.Stop(); err = errors.Join(err, os.RemoveAll(s.Dir)) }()
	octets, err := load(s, o)
	if err != nil {
		return err
	}
	fmt.Printf("%d messages, %.1f MB, over TLS from Dovecot on the same machine (%d CPUs, %s)\n", o.messages, float64(octets)/1e6, runtime.NumCPU(), runtime.Version())
	fmt.Printf("medians of %d runs in turn; x = times the floor of the same row's format; * from %d messages, scaled\n", o.runs, slowCount)
	for _, link := range []struct {
		name  string
		delay time.Duration
	}{{"0", 0}, {"slow", o.delay}} {
		for _, scheme := range []string{"pop3s", "imaps"} {
			if o.only != "" && o.only != scheme+"-"+link.name {
				continue
			}
			if err := table(s, o, t, work, scheme, link.delay); err != nil {
				return err
			}
		}
	}
	return nil
}

func build(work, binary string) (tools, error) {
	self, err := os.Executable()
	if err != nil {
		return tools{}, err
	}
	if binary != "" {
		binary, err = filepath.Abs(binary)
		return tools{self, binary}, err
	}
	binary = filepath.Join(work, "mailhaul")
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "mailhaul/cmd/mailhaul")
	cmd.Stderr = os.Stderr
	return tools{self, binary}, cmd.Run()
}

func load(s *dovecot.Server, o options) (octets int, err error) {
	mix := corpus.Small
	if o.mix == "real" {
		mix = corpus.Real
	}
	for _, user := range []struct {
		name  string
		count int
	}{{"all", o.messages}, {"few", min(slowCount, o.messages)}} {
		c, err := s.Dial(user.name)
		if err != nil {
			return 0, err
		}
		octets = 0
		var batch []dovecot.Message
		size := 0
		for i := range user.count {
			m := corpus.Generate(mix, i)
			batch = append(batch, dovecot.Message{Octets: m.Octets, Date: m.Date})
			size += len(m.Octets)
			if size > 8<<20 || i == user.count-1 {
				if err := c.Append("INBOX", batch...); err != nil {
					return 0, err
				}
				octets, size, batch = octets+size, 0, nil
			}
		}
		if err := c.Close(); err != nil {
			return 0, err
		}
		if user.name == "all" {
			defer func(n int) { octets = n }(octets)
		}
	}
	return octets, nil
}

// table measures one protocol over one link and prints it.
func table(s *dovecot.Server, o options, t tools, work, scheme string, delay time.Duration) error {
	port := s.POP3S
	if scheme == "imaps" {
		port = s.IMAPS
	}
	if delay > 0 {
		r, err := relay.Start(s.Addr(port), relay.Options{Delay: delay})
		if err != nil {
			return err
		}
		defer r.Close()
		port = r.Port()
	}
	base := place{scheme: scheme, host: s.Host, port: port, caFile: s.CAFile, tools: t}
	entrants := field(scheme, o.peers)
	results := make([][]measured, len(entrants))
	for run := range o.runs {
		for i, e := range entrants {
			if run > 0 && e.slow {
				continue
			}
			p := base
			p.user, p.count = "all", o.messages
			if e.slow {
				p.user, p.count = "few", min(slowCount, o.messages)
			}
			// What runs leave is only removed at the end: for a minute ext4 passes
			// over each inode freed, which makes the next run's files cost many
			// times as much.
			m, err := e.measure(p, filepath.Join(work, fmt.Sprintf("%s-%v-%d-%d", scheme, delay, run, i)))
			if err != nil {
				fmt.Fprintf(os.Stderr, "\r\x1b[K%s, %s: %v\n", scheme, e.name, err)
				m.wrong = "failed"
			}
			if e.slow {
				m.scale(float64(o.messages) / float64(p.count))
			}
			results[i] = append(results[i], m)
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s %v: run %d, %s: %.2f s", scheme, 2*delay, run+1, e.name, m.seconds)
		}
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	print(strings.ToUpper(scheme), 2*delay, entrants, results)
	return nil
}
