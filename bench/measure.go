package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// measured is one run of one program.
type measured struct {
	seconds float64
	cpu     float64 // seconds, user and system
	peak    float64 // MiB of resident memory
	wrong   string  // what did not arrive; "" if all is well
}

func (m *measured) scale(by float64) { m.seconds, m.cpu = m.seconds*by, m.cpu*by }

// limit is the longest a single run may take.
const limit = 30 * time.Minute

// measure runs the entrant once in an empty directory and counts what arrived.
func (e entrant) measure(p place, dir string) (m measured, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return m, err
	}
	p.dir = dir
	if e.prepare != nil {
		if err := e.prepare(p); err != nil {
			return m, err
		}
	}
	cmd, err := e.command(p)
	if err != nil {
		return m, err
	}
	before, err := messageIDs(dir)
	if err != nil {
		return m, err
	}
	settle()
	if m, err = watched(p.tools.self, cmd); err != nil {
		return m, err
	}
	after, err := messageIDs(dir)
	if err != nil {
		return m, err
	}
	want := p.count
	if e.empty {
		want = before.total
	}
	if after.total != want || after.distinct != want {
		m.wrong = fmt.Sprintf("%d messages, %d different, want %d", after.total, after.distinct, want)
	}
	return m, nil
}

// watched runs the program under a small process, since the largest resident size
// of a process also counts what its parent had when it was started.
func watched(self string, cmd *exec.Cmd) (m measured, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	watch := exec.CommandContext(ctx, self, append([]string{"watch", cmd.Path}, cmd.Args[1:]...)...)
	watch.Env, watch.Dir, watch.WaitDelay = cmd.Env, cmd.Dir, time.Second
	r, w, err := os.Pipe()
	if err != nil {
		return m, err
	}
	defer r.Close()
	watch.ExtraFiles = []*os.File{w}
	out, err := watch.CombinedOutput()
	if err := w.Close(); err != nil {
		return m, err
	}
	if err != nil {
		return m, fmt.Errorf("%w: ...%s", err, out[max(0, len(out)-300):])
	}
	_, err = fmt.Fscan(r, &m.seconds, &m.cpu, &m.peak)
	return m, err
}

// watchMain is the small process: it runs a program and writes seconds, seconds of
// CPU and MiB to descriptor 3.
func watchMain(args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return err
	}
	seconds := time.Since(begin).Seconds()
	st := cmd.ProcessState
	_, err := fmt.Fprintln(os.NewFile(3, "result"), seconds, (st.UserTime() + st.SystemTime()).Seconds(), peak(st))
	return err
}

type arrived struct{ total, distinct int }

// messageIDs counts the Message-ID lines below dir: the corpus has exactly one in
// each message, all different, whatever format it is kept in.
func messageIDs(dir string) (arrived, error) {
	seen := map[string]bool{}
	total := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(path, "/.mailhaul/") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		r := bufio.NewReaderSize(f, 64<<10)
		for {
			l, err := r.ReadSlice('\n')
			if bytes.HasPrefix(l, []byte("Message-ID: <")) {
				total++
				seen[string(bytes.TrimSpace(l))] = true
			}
			if err == io.EOF {
				return nil
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return err
			}
		}
	})
	return arrived{total, len(seen)}, err
}

// print writes one table.
func print(scheme string, rtt time.Duration, entrants []entrant, results [][]measured) {
	floors := map[string]float64{}
	for i, e := range entrants {
		floors[e.name] = median(results[i], func(m measured) float64 { return m.seconds })
	}
	fmt.Printf("\n%s, %d ms round trip\n", scheme, rtt.Milliseconds())
	fmt.Printf("  %-34s %9s %15s %8s %8s %9s\n", "", "seconds", "least-most", "x floor", "CPU s", "peak MiB")
	for i, e := range entrants {
		runs := results[i]
		get := func(f func(measured) float64) float64 { return median(runs, f) }
		seconds := func(m measured) float64 { return m.seconds }
		mark, ratio := " ", ""
		if e.slow {
			mark = "*"
		}
		if e.floor != "" {
			ratio = fmt.Sprintf("%.2f", floors[e.name]/floors[e.floor])
		}
		least := slices.MinFunc(runs, func(a, b measured) int { return cmp.Compare(a.seconds, b.seconds) })
		most := slices.MaxFunc(runs, func(a, b measured) int { return cmp.Compare(a.seconds, b.seconds) })
		fmt.Printf("  %-34s %8.3f%s %15s %8s %8.2f %9.1f", e.name, get(seconds), mark,
			fmt.Sprintf("%.3f-%.3f", least.seconds, most.seconds), ratio,
			get(func(m measured) float64 { return m.cpu }), get(func(m measured) float64 { return m.peak }))
		for _, m := range runs {
			if m.wrong != "" {
				fmt.Printf("  WRONG: %s", m.wrong)
				break
			}
		}
		fmt.Println()
	}
}

func median(runs []measured, f func(measured) float64) float64 {
	values := make([]float64, len(runs))
	for i, m := range runs {
		values[i] = f(m)
	}
	slices.Sort(values)
	n := len(values)
	if n == 0 {
		return 0
	}
	return (values[(n-1)/2] + values[n/2]) / 2
}
