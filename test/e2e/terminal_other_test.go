//go:build !linux

package e2e

import "os/exec"

// onTerminal needs a pseudo terminal, which only Linux gives us here; elsewhere
// the program gets none.
func onTerminal(cmd *exec.Cmd) ([]byte, error) { return cmd.CombinedOutput() }
