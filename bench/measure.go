package main

import (
	"bufio"
	"bytes"
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
	count   int     // messages of the account
	wrong   string  // what did not arrive; "" if all is well
}

func (m *measured) scale(by float64) { m.seconds, m.cpu = m.seconds*by, m.cpu*by }

// limit is the longest a single run may take.
const limit = 30 * time.Minute

// measure runs the entrant once in p.dir, which is empty unless the entrant
// prepares it the first time, and counts what arrived.
func (e entrant) measure(p place, firstTime bool) (m measured, err error) {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return m, err
	}
	if e.prepare != nil && firstTime {
		if err := e.prepare(p); err != nil {
			return m, err
		}
	}
	cmd, err := e.command(p)
	if err != nil {
		return m, err
	}
	before, err := messageIDs(p.dir)
	if err != nil {
		return m, err
	}
	settle()
	if m, err = watched(p.tools.self, cmd); err != nil {
		return m, err
	}
	m.count = p.count
	after, err := messageIDs(p.dir)
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
	if e.keep {
		kept[e.name] = p.dir
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
