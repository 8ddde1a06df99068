package disk

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"mailhaul/test/rig"
)

// Memory runs out: the program may not grow beyond so many MiB, or the system gives
// it none from its n-th question on. Whatever becomes of the run, what is gone at
// the server is archived, and the next run completes.
func TestOutOfMemory(t *testing.T) {
	need(t, "bash")
	need(t, "strace")
	for _, format := range rig.Formats {
		t.Run(format+" limit", func(t *testing.T) {
			t.Parallel()
			a := newAccount(t, 40)
			archive := join(t.TempDir(), "archive")
			died := 0
			for mib := 100; ; mib += 100 {
				when := fmt.Sprintf("%d MiB", mib)
				code := a.starved([]string{"bash", "-c", `ulimit -v "$0"; exec "$@"`, fmt.Sprint(mib << 10)}, archive, format)
				a.nothingLost(archive, format, when)
				if code == 0 || code == 3 {
					break
				}
				died++
				if mib > 8000 || t.Failed() {
					t.Fatalf("%s: still exit %d", when, code)
				}
			}
			if died == 0 {
				t.Error("memory was always enough")
			}
			a.exactlyOnce(archive, format, "with enough")
			t.Logf("%d runs had too little", died)
		})
		t.Run(format+" refused", func(t *testing.T) {
			t.Parallel()
			a := newAccount(t, 40)
			archive := join(t.TempDir(), "archive")
			step, died := 7, 0
			if rig.All() {
				step = 1
			}
			for n := 1; ; n += step {
				when := fmt.Sprintf("none from call %d on", n)
				wrap := []string{"strace", "-f", "-qq", "--seccomp-bpf", "-o", join(t.TempDir(), "trace"), "-e", "trace=mmap", "-e", fmt.Sprintf("inject=mmap:error=ENOMEM:when=%d+", n)}
				code := a.starved(wrap, archive, format)
				a.nothingLost(archive, format, when)
				if code == 0 || code == 3 {
					break
				}
				died++
				if n > 3000 || t.Failed() {
					t.Fatalf("%s: still exit %d", when, code)
				}
			}
			if died == 0 {
				t.Error("memory was never refused")
			}
			a.exactlyOnce(archive, format, "with enough")
			t.Logf("%d runs were refused memory", died)
		})
	}
}

// starved runs backup --delete, which may die of it.
func (a *account) starved(wrap []string, archive, format string) int {
	a.t.Helper()
	cmd := a.user.Command(limited(a.t), "backup", a.place(a.port), archive, "--format", format, "--delete", "--max-time", "20s")
	path, err := exec.LookPath(wrap[0])
	if err != nil {
		a.t.Fatal(err)
	}
	cmd.Path, cmd.Args = path, append(append([]string(nil), wrap...), cmd.Args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // the exit code tells
	if strings.Contains(out.String(), password) {
		a.t.Errorf("the password is printed: %s", out.String())
	}
	return cmd.ProcessState.ExitCode()
}

// nothingLost checks that archive and server together hold every message.
func (a *account) nothingLost(archive, format, when string) {
	a.t.Helper()
	held, _ := rig.Held(format, archive) // a run that died leaves halves
	held = held.Plain()
	for _, m := range a.server.Messages() {
		held[rig.Message{Mailbox: "INBOX", Digest: rig.Digest(rig.Canonical(m.Octets))}]++
	}
	for m := range a.want {
		if held[m] == 0 {
			a.t.Errorf("%s: LOST: %s is neither at the server nor in the archive", when, m.Digest)
		}
	}
}
