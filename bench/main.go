// Bench measures mailhaul against the floor and against its peers on this
// machine:
//
//	go run ./bench                        everything, about an hour
//	go run ./bench -list                  names the sections
//	go run ./bench -only small            those whose names begin so
//	go run ./bench -only new -runs 3
//	go run ./bench serve -n 5000          servers with mail, to try things out
//	go run ./bench free                   copying and deleting
//	go run ./bench migrate                from one account to another
//	go run ./bench upload                 from an archive to an account
//
// It starts a Dovecot on loopback, loads a deterministic corpus, and runs, in
// turn and several times: bare drains (what the wire and the disk allow), the
// mailhaul of this checkout, and those of mpop, mbsync, getmail6, fetchmail and
// offlineimap3 that are installed, at 0 ms and through a relay that adds
// 20 ms each way. After every run it counts what really arrived. Absolute times
// say something about the machine only; the ratios are what to look at, and each
// table ends with those that have a target.
//
// Put -dir on a real disk: in memory an fsync costs nothing.
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
)

// options are those of the whole program.
type options struct {
	runs   int
	delay  time.Duration
	peers  bool
	only   string
	list   bool
	dir    string
	binary string
	scale  float64
}

// parts are what this program runs itself as, so that each measurement is of a
// process of its own.
var parts = map[string]func(args []string) error{"drain": drainMain, "watch": watchMain, "migrate": migrateMain, "upload": uploadMain, "append": appendMain, "serve": serveMain}

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
	flag.IntVar(&o.runs, "runs", 5, "runs of each fast program; the median counts")
	flag.DurationVar(&o.delay, "delay", 20*time.Millisecond, "delay each way of the slow link")
	flag.BoolVar(&o.peers, "peers", true, "run other programs, too")
	flag.StringVar(&o.only, "only", "", "only sections whose names begin with one of these, separated by commas")
	flag.BoolVar(&o.list, "list", false, "list the sections")
	flag.StringVar(&o.dir, "dir", "", "where to write; default the temporary directory")
	flag.StringVar(&o.binary, "mailhaul", "", "binary to measure instead of a build of this checkout")
	flag.Float64Var(&o.scale, "scale", 1, "so many times the messages of each section, to try the bench itself")
	flag.Parse()
	if err := bench(o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (o options) wants(name string) bool {
	if o.only == "" {
		return true
	}
	for p := range strings.SplitSeq(o.only, ",") {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

type tools struct{ self, mailhaul string }

func bench(o options) (err error) {
	all := sections(o)
	if o.list {
		for _, s := range all {
			fmt.Printf("%-16s %s\n", s.name, s.title)
		}
		return nil
	}
	work, err := workDir(o.dir)
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
	w, err := newWorld(work)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Printf("over TLS from Dovecot on the same machine (%d CPUs, %s), medians of %d runs in turn\n", runtime.NumCPU(), runtime.Version(), o.runs)
	fmt.Printf("x floor: times the bare minimum of the same format; *: once, from fewer messages, scaled\n")
	var verdicts []string
	for _, s := range all {
		if !o.wants(s.name) {
			continue
		}
		v, err := w.run(s, o, t)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		verdicts = append(verdicts, v...)
	}
	if len(verdicts) > 0 {
		fmt.Printf("\nall targets\n%s", strings.Join(verdicts, ""))
	}
	return nil
}

// workDir makes a directory in dir, "" for the temporary one. Its path is absolute:
// the peers run in directories of their own.
func workDir(dir string) (string, error) {
	work, err := os.MkdirTemp(dir, "mailhaul-bench")
	if err != nil {
		return "", err
	}
	return filepath.Abs(work)
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
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return tools{self, binary}, cmd.Run()
}
