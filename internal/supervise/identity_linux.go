package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// stat is what /proc/PID/stat says, as far as it is needed.
type stat struct {
	state byte
	ppid  int
	pgrp  int
	start uint64 // clock ticks since boot
}

var errStat = errors.New("malformed stat line")

// parseStat reads a line of /proc/PID/stat. The command name may contain anything, so the fields are counted
// from its last closing parenthesis.
func parseStat(line []byte) (stat, error) {
	end := bytes.LastIndexByte(line, ')')
	if end < 0 {
		return stat{}, errStat
	}
	fields := strings.Fields(string(line[end+1:]))
	if len(fields) < 20 || len(fields[0]) != 1 { // fields[0] is the third of the line
		return stat{}, errStat
	}
	s := stat{state: fields[0][0]}
	var err, first error
	keep := func() {
		if first == nil {
			first = err
		}
	}
	s.ppid, err = strconv.Atoi(fields[1])
	keep()
	s.pgrp, err = strconv.Atoi(fields[2])
	keep()
	s.start, err = strconv.ParseUint(fields[19], 10, 64)
	keep()
	if first != nil {
		return stat{}, fmt.Errorf("%w: %w", errStat, first)
	}
	return s, nil
}

func readStat(pid int) (stat, error) {
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(line)
}

// StartTime is when the process started, in a unit that only tells processes of one pid apart. It fails for a
// process that is gone or has ended and only waits to be collected.
func StartTime(pid int) (uint64, error) {
	s, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	if s.state == 'Z' || s.state == 'X' {
		return 0, os.ErrProcessDone
	}
	return s.start, nil
}

// bootID tells boots of the machine apart.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

// groupMembers lists the live processes of a process group. marker, if not empty, must stand in the
// environment they were started with.
func groupMembers(pgrp int, marker string) []int {
	return processes(func(pid int, s stat) bool {
		return s.pgrp == pgrp && (marker == "" || hasEnv(pid, marker))
	})
}

// findMarked finds the leader of the group that was started with marker in its environment.
func findMarked(marker string) (pid int, ok bool) {
	found := processes(func(pid int, s stat) bool { return s.pgrp == pid && hasEnv(pid, marker) })
	if len(found) == 0 {
		return 0, false
	}
	return found[0], true
}

func processes(want func(pid int, s stat) bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		s, err := readStat(pid)
		if err != nil || s.state == 'Z' || s.state == 'X' {
			continue // gone meanwhile
		}
		if want(pid, s) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func hasEnv(pid int, entry string) bool {
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	for _, e := range bytes.Split(env, []byte{0}) {
		if string(e) == entry {
			return true
		}
	}
	return false
}

// openExe opens the executable that the process runs, even if its file was replaced or removed.
func openExe(pid int, _ string) (*os.File, error) {
	return os.Open(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
}

// parent is the process that started another, or that has taken it over.
func parent(pid int) (int, error) {
	s, err := readStat(pid)
	return s.ppid, err
}
