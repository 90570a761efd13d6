package drift

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Proc returns a lister of the processes that belong to the device with the given root folder: those whose
// executable or working directory lies in it. It reads /proc, so on systems without one it sees nothing and says so.
// Zombies and threads are no processes to it. With root "/" every process belongs.
func Proc(root string) ProcessLister { return &procLister{proc: "/proc", root: root} }

type procLister struct{ proc, root string }

// clockTicks is USER_HZ, in which /proc/PID/stat counts: 100 on every Linux.
const clockTicks = 100

// Processes implements ProcessLister.
func (l *procLister) Processes(ctx context.Context) (ProcessList, error) {
	text, err := os.ReadFile(filepath.Join(l.proc, "stat"))
	if err != nil {
		return ProcessList{}, fmt.Errorf("drift: read processes: %w (%s): give drift.Processes a lister of your own, such as the supervisor's", err, runtime.GOOS)
	}
	boot, err := parseBootTime(text)
	if err != nil {
		return ProcessList{}, err
	}
	root, err := filepath.EvalSymlinks(l.root)
	if err != nil {
		return ProcessList{}, fmt.Errorf("drift: resolve the device's root folder: %w", err)
	}
	dir, err := os.Open(l.proc)
	if err != nil {
		return ProcessList{}, fmt.Errorf("drift: read processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	dir.Close()
	if err != nil {
		return ProcessList{}, fmt.Errorf("drift: read processes: %w", err)
	}
	list := ProcessList{Via: "procfs"}
	hidden := 0
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return ProcessList{}, err
		}
		p, ok, err := l.read(pid, root, boot)
		switch {
		case errors.Is(err, fs.ErrPermission):
			hidden++
		case err == nil && ok:
			list.Processes = append(list.Processes, p)
		} // any other error: it ended while it was looked at
	}
	if hidden > 0 {
		list.Gaps = append(list.Gaps, Gap{What: fmt.Sprintf("%d processes", hidden),
			Why: "they belong to other users; run with CAP_SYS_PTRACE to see whether they are the device's"})
	}
	return list, nil
}

// read returns the process and whether it belongs to the root.
func (l *procLister) read(pid int, root string, boot time.Time) (Process, bool, error) {
	dir := filepath.Join(l.proc, strconv.Itoa(pid))
	exe, err := os.Readlink(filepath.Join(dir, "exe"))
	if err != nil {
		return Process{}, false, err // a kernel thread has none
	}
	exe = strings.TrimSuffix(exe, " (deleted)")
	within, inside := under(exe, root)
	if !inside {
		cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
		if err != nil {
			return Process{}, false, err
		}
		if _, inside := under(cwd, root); !inside {
			return Process{}, false, nil
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Process{}, false, err
	}
	state, ticks, err := parseStat(text)
	if err != nil || state == 'Z' || state == 'X' {
		return Process{}, false, err
	}
	cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return Process{}, false, err
	}
	started := boot.Add(time.Duration(ticks) * (time.Second / clockTicks))
	return Process{Exe: filepath.ToSlash(within), Argv: parseCmdline(cmdline), Count: 1, PID: pid, Started: started, Stopped: state == 'T' || state == 't'}, true, nil
}

// under returns name relative to root, or as it is if it lies outside, and whether it lies inside.
func under(name, root string) (string, bool) {
	if root == "/" {
		return name, true
	}
	if name == root {
		return ".", true
	}
	if rest, ok := strings.CutPrefix(name, root+"/"); ok {
		return rest, true
	}
	return name, false
}

// parseStat reads the state and the start time, in ticks since boot, from the text of /proc/PID/stat. The second
// field, the program's name in brackets, may itself hold blanks and brackets.
func parseStat(text []byte) (state byte, ticks uint64, err error) {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return 0, 0, fmt.Errorf("drift: /proc/PID/stat has no name in brackets: %.40q", text)
	}
	fields := bytes.Fields(text[end+1:])
	if len(fields) < 20 || len(fields[0]) != 1 {
		return 0, 0, fmt.Errorf("drift: /proc/PID/stat has %d fields after the name, expected 20 or more", len(fields))
	}
	ticks, err = strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("drift: /proc/PID/stat has a start time that is no number: %w", err)
	}
	if ticks > uint64(1<<63-1)/uint64(time.Second/clockTicks) {
		return 0, 0, fmt.Errorf("drift: /proc/PID/stat has a start time out of range: %d", ticks)
	}
	return fields[0][0], ticks, nil
}

// parseBootTime reads the time of boot from the text of /proc/stat.
func parseBootTime(text []byte) (time.Time, error) {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("btime ")); ok {
			seconds, err := strconv.ParseInt(string(bytes.TrimSpace(rest)), 10, 64)
			if err != nil {
				return time.Time{}, fmt.Errorf("drift: /proc/stat has a btime that is no number: %w", err)
			}
			return time.Unix(seconds, 0), nil
		}
	}
	return time.Time{}, errors.New("drift: /proc/stat has no btime")
}

// parseCmdline splits the text of /proc/PID/cmdline. A process may overwrite it with anything.
func parseCmdline(text []byte) []string {
	text = bytes.TrimRight(text, "\x00")
	if len(text) == 0 {
		return nil
	}
	return strings.Split(string(text), "\x00")
}
