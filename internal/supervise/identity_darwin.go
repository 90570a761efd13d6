package supervise

import (
	"os"

	"golang.org/x/sys/unix"
)

// bootID is not known here; the start time is wall-clock time and tells boots apart by itself.
func bootID() string { return "" }

// groupMembers cannot look into a group here: it names the leader while the group has any process.
func groupMembers(pgrp int, marker string) []int {
	if marker != "" || unix.Kill(-pgrp, 0) == unix.ESRCH {
		return nil
	}
	return []int{pgrp}
}

// findMarked cannot read another process's environment here: a process started in the instant before the
// supervisor was killed is not found again.
func findMarked(string) (int, bool) { return 0, false }

func openExe(_ int, path string) (*os.File, error) { return os.Open(path) }

// zombie is SZOMB of sys/proc.h.
const zombie = 5

// StartTime is when the process started, in a unit that only tells processes of one pid apart. It fails for a
// process that is gone or has ended and only waits to be collected.
func StartTime(pid int) (uint64, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return 0, err
	}
	if int(info.Proc.P_pid) != pid || info.Proc.P_stat == zombie {
		return 0, os.ErrProcessDone
	}
	t := info.Proc.P_starttime
	return uint64(t.Sec)*1_000_000 + uint64(t.Usec), nil
}

// parent is the process that started another, or that has taken it over.
func parent(pid int) (int, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return 0, err
	}
	return int(info.Eproc.Ppid), nil
}
