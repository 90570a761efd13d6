package flow

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the process lead a group of its own, and die with the process that started it: after a crash no
// tool runs on unseen beside its second attempt.
func ownGroup(process *exec.Cmd) {
	process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func endGroup(process *exec.Cmd) {
	_ = syscall.Kill(-process.Process.Pid, syscall.SIGTERM)
}

func killGroup(process *exec.Cmd) {
	// ESRCH, that nothing is left to kill, is the usual answer.
	_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
}
