package dovecot

import (
	"os"
	"os/exec"
	"runtime"
	"time"
)

// process is a program in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func startProcess(bin string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(bin, args...), done: make(chan struct{})}
	p.cmd.SysProcAttr = ownGroup()
	started := make(chan error)
	go func() {
		// The death signal comes when the thread that started the child ends, not
		// the process: so this thread waits for it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the exit state of a server that is told to end says nothing
		}
	}()
	return p, <-started
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the program to end and kills its whole group if it does not.
func (p *process) stop() {
	if p == nil || p.ended() {
		return
	}
	terminate(p.cmd.Process)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
	}
	killGroup(p.cmd.Process)
	<-p.done
}

func terminate(p *os.Process) {
	if err := p.Signal(termSignal); err != nil {
		_ = p.Kill() // it may have ended meanwhile
	}
}
