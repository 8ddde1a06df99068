package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
)

func init() { parts["free"] = freeMain }

// freeMain measures copying and then deleting at the server:
//
//	go run ./bench free -n 2000 -runs 5
//
// Every run has an account and a directory of its own, filled before the clock starts;
// nothing is removed before the end, since ext4 is slow with inodes that were just
// freed. After each, the server must be empty and the copy complete.
func freeMain(args []string) (err error) {
	f := flag.NewFlagSet("free", flag.ContinueOnError)
	n := f.Int("n", 2000, "messages")
	runs := f.Int("runs", 5, "runs of each program; the median counts")
	delay := f.Duration("delay", 20*time.Millisecond, "delay each way of the slow link")
	binary := f.String("mailhaul", "", "binary to measure instead of a build of this checkout")
	if err := f.Parse(args); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "mailhaul-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	t, err := build(work, *binary)
	if err != nil {
		return err
	}
	s, err := dovecot.Run("", dovecot.Options{MailLocation: dovecot.MDBox})
	if err != nil {
		return err
	}
	defer func() { s.Stop(); err = errors.Join(err, os.RemoveAll(s.Dir)) }()
	var msgs []dovecot.Message
	for i := range *n {
		m := corpus.Generate(corpus.Small, i)
		msgs = append(msgs, dovecot.Message{Octets: m.Octets, Date: m.Date})
	}
	fmt.Printf("%d messages copied and deleted at the server, over TLS; medians of %d runs in turn, x = times mpop\n", *n, *runs)
	b := &freeBench{s: s, tools: t, work: work, msgs: msgs, runs: *runs}
	for _, d := range []time.Duration{0, *delay} {
		if err := b.link(d); err != nil {
			return err
		}
	}
	return nil
}

type freeBench struct {
	s     *dovecot.Server
	tools tools
	work  string
	msgs  []dovecot.Message
	runs  int
	users int
}

// freer is a program that copies and deletes.
type freer struct {
	name, scheme string
	prepare      func(p place) error
	command      func(p place) (*exec.Cmd, error)
}

func freers() []freer {
	all := []freer{
		{name: "mailhaul, Maildir", scheme: "pop3s", command: backupDelete("maildir")},
		{name: "mailhaul, mbox", scheme: "pop3s", command: backupDelete("mbox")},
		{name: "mailhaul, Maildir", scheme: "imaps", command: backupDelete("maildir")},
		{name: "mailhaul clean alone", scheme: "pop3s", prepare: first(mailhaul("maildir")), command: cleanAll},
		{name: "mailhaul clean alone", scheme: "imaps", prepare: first(mailhaul("maildir")), command: cleanAll},
	}
	if _, err := exec.LookPath("mpop"); err != nil {
		fmt.Fprintln(os.Stderr, "mpop is not installed")
		return all
	}
	return append([]freer{{name: "mpop", scheme: "pop3s", command: mpop("off")}}, all...)
}

func (b *freeBench) link(delay time.Duration) error {
	ports := map[string]int{"pop3s": b.s.POP3S, "imaps": b.s.IMAPS}
	if delay > 0 {
		for scheme, port := range ports {
			r, err := relay.Start(b.s.Addr(port), relay.Options{Delay: delay})
			if err != nil {
				return err
			}
			defer r.Close()
			ports[scheme] = r.Port()
		}
	}
	all := freers()
	seconds := make([][]float64, len(all))
	for range b.runs {
		for i, e := range all {
			took, err := b.once(e, ports[e.scheme])
			if err != nil {
				return fmt.Errorf("%s over %s: %w", e.name, e.scheme, err)
			}
			seconds[i] = append(seconds[i], took)
		}
	}
	fmt.Printf("\n%v round trip\n", 2*delay)
	base := 0.0
	for i, e := range all {
		slices.Sort(seconds[i])
		median := seconds[i][len(seconds[i])/2]
		if e.name == "mpop" {
			base = median
		}
		ratio := ""
		if base > 0 {
			ratio = fmt.Sprintf("%6.2fx", median/base)
		}
		fmt.Printf("  %-6s %-24s %7.2f s %s\n", e.scheme, e.name, median, ratio)
	}
	return nil
}

// once fills an account, runs the program, and looks at both sides.
func (b *freeBench) once(e freer, port int) (float64, error) {
	b.users++
	p := place{
		scheme: e.scheme, host: b.s.Host, port: port, caFile: b.s.CAFile, user: fmt.Sprint("free", b.users),
		count: len(b.msgs), dir: filepath.Join(b.work, fmt.Sprint("run", b.users)), tools: b.tools,
	}
	if err := errors.Join(os.MkdirAll(p.dir, 0o700), b.s.Append(p.user, "INBOX", b.msgs...)); err != nil {
		return 0, err
	}
	if e.prepare != nil {
		if err := e.prepare(p); err != nil {
			return 0, err
		}
	}
	cmd, err := e.command(p)
	if err != nil {
		return 0, err
	}
	settle()
	m, err := watched(p.tools.self, cmd)
	if err != nil {
		return 0, err
	}
	left, err := b.s.Count(p.user, "INBOX")
	if err != nil {
		return 0, err
	}
	have, err := messageIDs(p.dir)
	if err == nil && (left != 0 || have.distinct != p.count) {
		err = fmt.Errorf("%d messages left at the server, %d here", left, have.distinct)
	}
	return m.seconds, err
}

func backupDelete(format string) func(place) (*exec.Cmd, error) {
	return func(p place) (*exec.Cmd, error) {
		cmd, err := mailhaul(format)(p)
		if err == nil {
			cmd.Args = append(cmd.Args, "--delete")
		}
		return cmd, err
	}
}

func cleanAll(p place) (*exec.Cmd, error) {
	cmd := exec.Command(p.tools.mailhaul, "clean", "-q", "--ca-file", p.caFile, "--older-than", "0d", "--yes", "--max-delete", "100%",
		fmt.Sprintf("%s://%s@%s", p.scheme, p.user, p.address()), filepath.Join(p.dir, "archive"))
	cmd.Env = p.environment("MAILHAUL_PASSWORD="+dovecot.Password, "XDG_STATE_HOME="+filepath.Join(p.dir, "state"))
	return cmd, nil
}
