package dovecot

import (
	"os"
	"syscall"
)

var termSignal os.Signal = syscall.SIGTERM

func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // usually nobody is left
}
