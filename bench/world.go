package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
)

// world is the server, the mail on it, and the lines to it.
type world struct {
	s      *dovecot.Server
	work   string
	octets map[string]int // of the accounts that are filled
	relays map[string]*relay.Relay
}

func newWorld(work string) (*world, error) {
	// The peers log in with PLAIN or LOGIN; SCRAM would cost mailhaul alone two round
	// trips and the hashing.
	s, err := dovecot.Run("", dovecot.Options{MailLocation: dovecot.MDBox, Extra: "auth_mechanisms = plain login\n"})
	if err != nil {
		return nil, err
	}
	return &world{s: s, work: work, octets: map[string]int{}, relays: map[string]*relay.Relay{}}, nil
}

func (w *world) close() error {
	for _, r := range w.relays {
		r.Close()
	}
	w.s.Stop()
	return os.RemoveAll(w.s.Dir)
}

// port is where a protocol is served over a line with that delay each way.
func (w *world) port(scheme string, delay time.Duration) (int, error) {
	port := w.s.POP3S
	if scheme == "imaps" {
		port = w.s.IMAPS
	}
	if delay == 0 {
		return port, nil
	}
	key := fmt.Sprint(scheme, delay)
	if w.relays[key] == nil {
		r, err := relay.Start(w.s.Addr(port), relay.Options{Delay: delay})
		if err != nil {
			return 0, err
		}
		w.relays[key] = r
	}
	return w.relays[key].Port(), nil
}

// mailbag is what an account holds.
type mailbag struct {
	kind  string // "small" (2-8 KB), "real" (up to 12 MB), "boxes" (a mailbox for each message), "big" (one message)
	count int
}

// bigMessage is the size of the message of a "big" bag, in octets.
const bigMessage = 200 << 20

// account fills an account with a bag, once, and returns its user.
func (w *world) account(b mailbag) (user string, err error) {
	user = fmt.Sprint(b.kind, b.count)
	if _, ok := w.octets[user]; ok {
		return user, nil
	}
	fmt.Fprintf(os.Stderr, "\r\x1b[Kfilling %s", user)
	c, err := w.s.Dial(user)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	total, size := 0, 0
	var batch []dovecot.Message
	for i := range b.count {
		m := b.message(i)
		mailbox := "INBOX"
		if b.kind == "boxes" {
			mailbox = fmt.Sprintf("box %05d", i)
		}
		batch = append(batch, m)
		size += len(m.Octets)
		if size > 8<<20 || i == b.count-1 || b.kind == "boxes" {
			if err := c.Append(mailbox, batch...); err != nil {
				return "", err
			}
			total, size, batch = total+size, 0, nil
		}
	}
	w.octets[user] = total
	return user, nil
}

func (b mailbag) message(i int) dovecot.Message {
	mix := corpus.Small
	if b.kind == "real" {
		mix = corpus.Real
	}
	m := corpus.Generate(mix, i)
	for b.kind == "big" && len(m.Octets) < bigMessage {
		m.Octets = append(m.Octets, m.Octets[len(m.Octets)-1000:]...)
	}
	return dovecot.Message{Octets: m.Octets, Date: m.Date}
}

// serveMain serves one account until it is interrupted.
func serveMain(args []string) (err error) {
	f := flag.NewFlagSet("serve", flag.ContinueOnError)
	b := mailbag{}
	f.StringVar(&b.kind, "kind", "small", "small (2-8 KB), real (up to 12 MB), boxes (a mailbox for each message) or big (one message of 200 MB)")
	f.IntVar(&b.count, "n", 5000, "messages")
	delay := f.Duration("delay", 0, "delay each way")
	if err := f.Parse(args); err != nil {
		return err
	}
	w, err := newWorld("")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	user, err := w.account(b)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	for _, scheme := range []string{"pop3s", "imaps"} {
		port, err := w.port(scheme, *delay)
		if err != nil {
			return err
		}
		fmt.Printf("%s://%s@%s:%d\n", scheme, user, w.s.Host, port)
	}
	fmt.Printf("password %s, --ca-file %s\n", dovecot.Password, w.s.CAFile)
	<-stop
	return nil
}

// place is where a program connects and writes.
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

func (w *world) place(s section, bag mailbag, t tools) (place, error) {
	user, err := w.account(bag)
	if err != nil {
		return place{}, err
	}
	port, err := w.port(s.scheme, s.delay)
	return place{scheme: s.scheme, host: w.s.Host, port: port, caFile: w.s.CAFile, user: user, count: bag.count, tools: t}, err
}

// run measures one section and prints it, and returns what it says of targets.
func (w *world) run(s section, o options, t tools) ([]string, error) {
	results := make([][]measured, len(s.entrants))
	runs := o.runs
	if s.runs > 0 {
		runs = min(runs, s.runs)
	}
	for run := range runs {
		for i, e := range s.entrants {
			if run > 0 && e.slow > 0 {
				continue
			}
			bag := s.bag
			if e.bag.count > 0 {
				bag = e.bag
			}
			if e.slow > 0 {
				bag.count = min(e.slow, bag.count)
			}
			p, err := w.place(s, bag, t)
			if err != nil {
				return nil, err
			}
			// What runs leave is only removed at the end: for a minute ext4 passes
			// over each inode freed, which makes the next run's files cost many
			// times as much.
			p.dir = filepath.Join(w.work, fmt.Sprintf("%s-%d-%d", s.name, i, run))
			if e.prepare != nil {
				p.dir = filepath.Join(w.work, fmt.Sprintf("%s-%d", s.name, i))
			}
			m, err := e.measure(p, run == 0)
			if err != nil {
				fmt.Fprintf(os.Stderr, "\r\x1b[K%s, %s: %v\n", s.name, e.name, err)
				m.wrong = "failed"
			}
			if e.slow > 0 {
				m.scale(float64(s.bag.count) / float64(bag.count))
			}
			results[i] = append(results[i], m)
			fmt.Fprintf(os.Stderr, "\r\x1b[K%s: run %d, %s: %.2f s", s.name, run+1, e.name, m.seconds)
		}
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	return s.print(results, w.octets), nil
}
