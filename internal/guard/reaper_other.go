//go:build !linux

package guard

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// becomeReaper does nothing here: there is no subreaper.
func becomeReaper() error { return nil }

// commandAttr gives the command its own process group.
func commandAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killDescendants kills the command's process group.
func killDescendants(pid int) { unix.Kill(-pid, unix.SIGKILL) }

// alone tells whether the command's process group is empty.
func alone(pid int, _ bool) bool { return unix.Kill(-pid, 0) == unix.ESRCH }
