//go:build !linux

package dovecot

import (
	"os"
	"syscall"
)

var termSignal os.Signal = os.Interrupt

func ownGroup() *syscall.SysProcAttr { return nil }

func killGroup(p *os.Process) {
	_ = p.Kill() // usually nobody is left
}
