package device

import "syscall"

// scriptAttr puts a script into its own process group, and has it killed when the tool is.
func scriptAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
