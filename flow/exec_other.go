//go:build unix && !linux

package flow

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the process lead a group of its own.
func ownGroup(process *exec.Cmd) { process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func endGroup(process *exec.Cmd) {
	_ = syscall.Kill(-process.Process.Pid, syscall.SIGTERM)
}

func killGroup(process *exec.Cmd) {
	// ESRCH, that nothing is left to kill, is the usual answer.
	_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
}
