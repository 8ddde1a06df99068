package main

import (
	"os"
	"syscall"
)

// peak is the largest resident size a program that ended ever had, in MiB.
func peak(p *os.ProcessState) float64 {
	if u, ok := p.SysUsage().(*syscall.Rusage); ok {
		return float64(u.Maxrss) / 1024 // ru_maxrss is in KiB on Linux
	}
	return 0
}

// settle writes out what earlier runs left, so that nobody pays for another.
func settle() { syscall.Sync() }
