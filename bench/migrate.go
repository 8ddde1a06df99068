package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
)

// imapsyncEnv is where the path of imapsync is taken from, which no distribution
// packages.
const imapsyncEnv = "IMAPSYNC"

// moving is what the sections about migrate have in common: accounts of one Dovecot,
// an old and a new one for each run.
type moving struct {
	s     *dovecot.Server
	relay *relay.Relay
	work  string
	tools tools
	runs  int
	want  map[string]int // messages of the old accounts
}

// mover is one program in one configuration.
type mover struct {
	name string
	slow bool // runs once
	// command moves the account from to the account to; dir is where it keeps its
	// state.
	command func(m *moving, port int, from, to, dir string) (*exec.Cmd, error)
}

// migrateMain measures moving between two accounts:
//
//	go run ./bench migrate
//	go run ./bench migrate -runs 1 -only delta
func migrateMain(args []string) (err error) {
	f := flag.NewFlagSet("migrate", flag.ContinueOnError)
	runs := f.Int("runs", 5, "runs of each program; the median counts")
	delay := f.Duration("delay", 20*time.Millisecond, "delay each way of the slow line")
	only := f.String("only", "", "only sections whose name begins so: pass-0, pass-slow, delta-0, delta-slow, big")
	peers := f.Bool("peers", true, "run mbsync, and imapsync if "+imapsyncEnv+" says where it is")
	binary := f.String("mailhaul", "", "binary to measure instead of a build of this checkout")
	scale := f.Float64("scale", 1, "so many times the messages, to try the bench itself")
	if err := f.Parse(args); err != nil {
		return err
	}
	m := &moving{runs: *runs, want: map[string]int{}}
	if m.work, err = os.MkdirTemp("", "mailhaul-bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(m.work)) }()
	if m.tools, err = build(m.work, *binary); err != nil {
		return err
	}
	// It syncs what it has taken, as Dovecot does unless told otherwise.
	if m.s, err = dovecot.Run("", dovecot.Options{MailLocation: dovecot.MDBox, Extra: "mail_fsync = optimized\n"}); err != nil {
		return err
	}
	defer func() { m.s.Stop(); err = errors.Join(err, os.RemoveAll(m.s.Dir)) }()
	if m.relay, err = relay.Start(m.s.Addr(m.s.IMAPS), relay.Options{Delay: *delay}); err != nil {
		return err
	}
	defer m.relay.Close()
	n := func(count int) int { return max(10, int(float64(count)**scale)) }
	programs := []mover{{name: "mailhaul", command: mailhaulMigrate}}
	if *peers {
		programs = append(programs, movers()...)
	}
	for _, sec := range []struct {
		name, title string
		port        int
		account     func() (string, error)
		programs    []mover
		delta       bool
	}{
		{"pass-0", "first pass, 0 ms round trip", m.s.IMAPS, func() (string, error) { return m.mixed(n(2000), n(500)) }, programs, false},
		{"pass-slow", fmt.Sprintf("first pass, %v round trip", 2**delay), m.relay.Port(), func() (string, error) { return m.mixed(n(2000), n(500)) }, programs, false},
		{"delta-0", "nothing new, 0 ms round trip", m.s.IMAPS, func() (string, error) { return m.mixed(n(20_000), 0) }, programs[:min(2, len(programs))], true},
		{"delta-slow", fmt.Sprintf("nothing new, %v round trip", 2**delay), m.relay.Port(), func() (string, error) { return m.mixed(n(20_000), 0) }, programs[:min(2, len(programs))], true},
		{"big", "one message of 200 MB among others", m.s.IMAPS, func() (string, error) { return m.withBig(n(200)) }, programs[:1], false},
	} {
		if !strings.HasPrefix(sec.name, *only) {
			continue
		}
		user, err := sec.account()
		if err != nil {
			return err
		}
		if err := m.section(sec.name, sec.title, sec.port, user, sec.programs, sec.delta); err != nil {
			return err
		}
	}
	return nil
}

// movingBoxes are the mailboxes of the old accounts.
var movingBoxes = []string{"INBOX", "Sent", "Archive/2023", "Archive/2024", "Lists/go", "Lists/imap", "Receipts"}

// mixed fills an account: so many messages of 2-8 KB and so many of a realistic
// mix, spread over the mailboxes.
func (m *moving) mixed(small, realistic int) (string, error) {
	user := fmt.Sprintf("old%d-%d", small, realistic)
	if m.want[user] > 0 {
		return user, nil
	}
	c, err := m.s.Dial(user)
	if err != nil {
		return "", err
	}
	defer c.Close()
	for b, box := range movingBoxes {
		var list []dovecot.Message
		for i := b; i < small; i += len(movingBoxes) {
			g := corpus.Generate(corpus.Small, i)
			list = append(list, dovecot.Message{Octets: g.Octets, Date: g.Date})
		}
		for i := b; i < realistic; i += len(movingBoxes) {
			g := corpus.Generate(corpus.Real, i)
			list = append(list, dovecot.Message{Octets: g.Octets, Date: g.Date})
		}
		if err := c.Append(box, list...); err != nil {
			return "", err
		}
	}
	m.want[user] = small + realistic
	return user, nil
}

// withBig fills an account with small messages and one of 200 MB.
func (m *moving) withBig(small int) (string, error) {
	c, err := m.s.Dial("big")
	if err != nil {
		return "", err
	}
	defer c.Close()
	g := corpus.Generate(corpus.Real, 199)
	for len(g.Octets) < 200<<20 {
		g.Octets = append(g.Octets, g.Octets[len(g.Octets)-min(len(g.Octets), 1<<20):]...)
	}
	if err := c.Append("INBOX", dovecot.Message{Octets: g.Octets, Date: g.Date}); err != nil {
		return "", err
	}
	var list []dovecot.Message
	for i := range small {
		g := corpus.Generate(corpus.Small, i)
		list = append(list, dovecot.Message{Octets: g.Octets, Date: g.Date})
	}
	m.want["big"] = small + 1
	return "big", c.Append("INBOX", list...)
}

// section measures some programs in turn and prints a table.
func (m *moving) section(name, title string, port int, from string, programs []mover, delta bool) error {
	results := make([][]measured, len(programs))
	for run := range m.runs {
		for i, p := range programs {
			if p.slow && run > 0 {
				continue
			}
			to := fmt.Sprintf("new-%s-%s-%d", name, strings.Fields(p.name)[0], run)
			if delta {
				to = fmt.Sprintf("new-%s-%s", name, strings.Fields(p.name)[0])
			}
			dir := filepath.Join(m.work, to)
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			cmd, err := p.command(m, port, from, to, dir)
			if err != nil {
				return err
			}
			if delta && run == 0 {
				first, err := p.command(m, m.s.IMAPS, from, to, dir)
				if err != nil {
					return err
				}
				if out, err := first.CombinedOutput(); err != nil {
					return fmt.Errorf("%s: first pass: %w\n%s", p.name, err, out)
				}
			}
			got, err := watched(m.tools.self, cmd)
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s, %s: %v\n", name, p.name, err)
				got.wrong = "failed"
			} else if n, err := m.count(to); err != nil || n != m.want[from] {
				got.wrong = fmt.Sprintf("%d messages, want %d %v", n, m.want[from], err)
			}
			results[i] = append(results[i], got)
		}
	}
	m.print(name, title, from, programs, results)
	return nil
}

// count is how many messages an account holds.
func (m *moving) count(user string) (n int, err error) {
	for _, box := range movingBoxes {
		k, err := m.s.Count(user, box)
		if err != nil && box == "INBOX" {
			return n, err
		}
		n += k
	}
	return n, nil
}

func (m *moving) print(name, title, from string, programs []mover, results [][]measured) {
	fmt.Printf("\nmigrate, %s: %s, %d messages in %d mailboxes\n", name, title, m.want[from], len(movingBoxes))
	fmt.Printf("  %-12s %9s %15s %10s %8s %9s\n", "", "seconds", "least-most", "x mailhaul", "CPU s", "peak MiB")
	took := func(x measured) float64 { return x.seconds }
	ours := median(results[0], took)
	for i, p := range programs {
		runs := results[i]
		by := func(a, b measured) int { return cmp.Compare(a.seconds, b.seconds) }
		fmt.Printf("  %-12s %9.3f %15s %10.2f %8.2f %9.1f", p.name, median(runs, took),
			fmt.Sprintf("%.3f-%.3f", slices.MinFunc(runs, by).seconds, slices.MaxFunc(runs, by).seconds), median(runs, took)/ours,
			median(runs, func(x measured) float64 { return x.cpu }), median(runs, func(x measured) float64 { return x.peak }))
		for _, r := range runs {
			if r.wrong != "" {
				fmt.Printf("  WRONG: %s", r.wrong)
				break
			}
		}
		fmt.Println()
	}
}

// movers are the programs that are installed.
func movers() []mover {
	var all []mover
	if _, err := exec.LookPath("mbsync"); err == nil {
		all = append(all, mover{name: "mbsync", command: mbsyncMove})
	} else {
		fmt.Fprintln(os.Stderr, "mbsync is not installed")
	}
	if path := os.Getenv(imapsyncEnv); path != "" {
		all = append(all, mover{name: "imapsync", slow: true, command: imapsyncMove(path)})
	} else {
		fmt.Fprintln(os.Stderr, imapsyncEnv+" does not say where imapsync is")
	}
	return all
}

func movingEnv(dir string, more ...string) []string {
	return append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8"}, more...)
}

func mailhaulMigrate(m *moving, port int, from, to, dir string) (*exec.Cmd, error) {
	at := m.s.Host + ":" + strconv.Itoa(port)
	cmd := exec.Command(m.tools.mailhaul, "migrate", "-q", "--ca-file", m.s.CAFile, "imaps://"+from+"@"+at, "imaps://"+to+"@"+at)
	cmd.Env = movingEnv(dir, "MAILHAUL_PASSWORD="+dovecot.Password, "MAILHAUL_DEST_PASSWORD="+dovecot.Password, "XDG_STATE_HOME="+filepath.Join(dir, "state"))
	return cmd, nil
}

func mbsyncMove(m *moving, port int, from, to, dir string) (*exec.Cmd, error) {
	var b strings.Builder
	for _, store := range []struct{ name, user string }{{"old", from}, {"new", to}} {
		fmt.Fprintf(&b, "IMAPStore %s\nHost localhost\nPort %d\nUser %s\nPass %s\nSSLType IMAPS\nCertificateFile %s\n\n",
			store.name, port, store.user, dovecot.Password, m.s.CAFile)
	}
	fmt.Fprintf(&b, "Channel all\nFar :old:\nNear :new:\nPatterns *\nCreate Near\nSync Pull\nCopyArrivalDate yes\nSyncState %s/state/\n", dir)
	conf := filepath.Join(dir, "mbsyncrc")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "state"), 0o700), os.WriteFile(conf, []byte(b.String()), 0o600)); err != nil {
		return nil, err
	}
	cmd := exec.Command("mbsync", "-q", "-c", conf, "all")
	cmd.Env = movingEnv(dir)
	return cmd, nil
}

func imapsyncMove(path string) func(m *moving, port int, from, to, dir string) (*exec.Cmd, error) {
	return func(m *moving, port int, from, to, dir string) (*exec.Cmd, error) {
		p := strconv.Itoa(port)
		cmd := exec.Command(path, "--host1", "localhost", "--port1", p, "--user1", from, "--password1", dovecot.Password, "--ssl1",
			"--host2", "localhost", "--port2", p, "--user2", to, "--password2", dovecot.Password, "--ssl2", "--nolog", "--tmpdir", dir)
		cmd.Env = movingEnv(dir)
		return cmd, nil
	}
}
