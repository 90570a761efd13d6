//go:build !linux

package device

import "syscall"

// scriptAttr puts a script into its own process group. It outlives a tool that is killed; the key's lock, which
// it holds, keeps the next call waiting until it ends.
func scriptAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
