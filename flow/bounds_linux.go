package flow

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bounds keeps the resources of one process.
type bounds struct {
	kept    string   // how, for Ran.Limits
	groups  []string // folders of control groups made for it
	back    []string // groups to which this thread returns
	memory  uint64   // for prlimit; 0 is none
	unified *os.File // the group to start in, version 2
}

var groupNumber atomic.Int64

// confine prepares bounds for a process that this thread is about to start: a control group of version 2 if one can be made, else
// groups of version 1, else a limit of its address space. The process is in its groups from its first instruction on.
func confine(process *exec.Cmd, r Resources) (*bounds, error) {
	b := &bounds{}
	if r == (Resources{}) {
		return b, nil
	}
	name := fmt.Sprintf("zhiyun-tool-%d-%d", os.Getpid(), groupNumber.Add(1))
	own := ownGroups()
	if err := b.unifiedGroup(own, name, r, process); err == nil {
		b.kept = "cgroup2"
		return b, nil
	}
	b.release()
	process.SysProcAttr.UseCgroupFD = false
	var missing []string
	for _, want := range r.controllers() {
		if err := b.group(own[want.controller], name, want); err != nil {
			missing = append(missing, want.what)
		}
	}
	if len(b.groups) > 0 {
		b.kept = "cgroup1"
	}
	if len(missing) > 0 && missing[0] == "memory" {
		b.memory, missing = uint64(r.Memory), missing[1:]
		b.kept = strings.TrimPrefix(b.kept+", rlimit for memory", ", ")
	}
	if len(missing) > 0 {
		b.kept = strings.TrimPrefix(b.kept+"; not bounded: "+strings.Join(missing, ", "), "; ")
	}
	return b, nil
}

// setting is one bound as version 1 writes it.
type setting struct{ controller, what, file, value string }

func (r Resources) controllers() []setting {
	var out []setting
	if r.Memory > 0 {
		out = append(out, setting{"memory", "memory", "memory.limit_in_bytes", strconv.FormatInt(r.Memory, 10)})
	}
	if r.CPU > 0 {
		out = append(out, setting{"cpu", "cpu", "cpu.cfs_quota_us", strconv.FormatInt(max(1000, int64(r.CPU*100_000)), 10)})
	}
	if r.Processes > 0 {
		out = append(out, setting{"pids", "processes", "pids.max", strconv.Itoa(r.Processes)})
	}
	return out
}

// ownGroups returns the folder of this process's group by controller; "" is version 2.
var ownGroups = sync.OnceValue(func() map[string]string {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	roots := map[string]string{}
	for _, line := range strings.Split(string(mounts), "\n") {
		// 31 23 0:26 / /sys/fs/cgroup/cpu rw,... - cgroup cgroup rw,cpu
		left, right, found := strings.Cut(line, " - ")
		fields, kind := strings.Fields(left), strings.Fields(right)
		if !found || len(fields) < 5 || len(kind) < 3 || fields[3] != "/" {
			continue
		}
		switch kind[0] {
		case "cgroup2":
			roots[""] = fields[4]
		case "cgroup":
			for _, option := range strings.Split(kind[2], ",") {
				roots[option] = fields[4]
			}
		}
	}
	own, _ := os.ReadFile("/proc/self/cgroup")
	out := map[string]string{}
	for _, line := range strings.Split(string(own), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			if root := roots[controller]; root != "" {
				out[controller] = filepath.Join(root, parts[2])
			}
		}
	}
	return out
})

// tell writes to a file that a control group has.
func tell(dir, file, value string) error {
	control, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = control.WriteString(value)
	return errors.Join(err, control.Close())
}

// unifiedGroup makes a group of version 2 beside this process's own, or below it: wherever the controllers may be switched on.
func (b *bounds) unifiedGroup(own map[string]string, name string, r Resources, process *exec.Cmd) error {
	at := own[""]
	if at == "" {
		return errors.New("no version 2")
	}
	values := map[string]string{}
	var enable []string
	for _, want := range r.controllers() {
		enable = append(enable, "+"+want.controller)
		switch want.controller {
		case "memory":
			values["memory.max"], values["memory.swap.max"] = want.value, "0"
		case "cpu":
			values["cpu.max"] = want.value + " 100000"
		case "pids":
			values["pids.max"] = want.value
		}
	}
	var fault error
	for _, parent := range []string{filepath.Dir(at), at} {
		if fault = tell(parent, "cgroup.subtree_control", strings.Join(enable, " ")); fault != nil {
			continue
		}
		dir := filepath.Join(parent, name)
		if fault = os.Mkdir(dir, 0o755); fault != nil {
			continue
		}
		b.groups = append(b.groups, dir)
		for file, value := range values {
			err := tell(dir, file, value)
			if err != nil && file != "memory.swap.max" { // absent where there is no swap
				return err
			}
		}
		var err error
		if b.unified, err = os.Open(dir); err != nil {
			return err
		}
		process.SysProcAttr.UseCgroupFD, process.SysProcAttr.CgroupFD = true, int(b.unified.Fd())
		return nil
	}
	return fault
}

// group makes a group of version 1 and moves this thread into it: what it starts next begins there.
func (b *bounds) group(own, name string, want setting) error {
	if own == "" {
		return errors.New("no such controller")
	}
	dir := filepath.Join(own, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	err := tell(dir, want.file, want.value)
	if err == nil {
		err = tell(dir, "tasks", strconv.Itoa(syscall.Gettid()))
	}
	if err != nil {
		_ = os.Remove(dir) // empty
		return err
	}
	b.groups, b.back = append(b.groups, dir), append(b.back, own)
	return nil
}

// started is called by the same thread once the process runs.
func (b *bounds) started(pid int) {
	b.home()
	if b.unified != nil {
		b.unified.Close()
		b.unified = nil
	}
	if b.memory > 0 {
		limit := unix.Rlimit{Cur: b.memory, Max: b.memory}
		if err := unix.Prlimit(pid, unix.RLIMIT_AS, &limit, nil); err != nil {
			b.kept = "none: " + err.Error()
		}
	}
}

// home takes this thread out of the process's groups.
func (b *bounds) home() {
	for _, own := range b.back {
		_ = tell(own, "tasks", strconv.Itoa(syscall.Gettid())) // where it came from
	}
	b.back = nil
}

// verdict says whether the process was killed for its memory.
func (b *bounds) verdict() string {
	for _, dir := range b.groups {
		for _, file := range []string{"memory.events", "memory.oom_control"} {
			data, _ := os.ReadFile(filepath.Join(dir, file))
			for _, line := range bytes.Split(data, []byte("\n")) {
				if count, found := bytes.CutPrefix(line, []byte("oom_kill ")); found && string(count) != "0" {
					return "it was killed for taking more memory than its manifest allows"
				}
			}
		}
	}
	return ""
}

// release removes the groups, after killing what is left in them: a process can leave its process group, but not its control group.
func (b *bounds) release() {
	b.home()
	if b.unified != nil {
		b.unified.Close()
		b.unified = nil
	}
	for _, dir := range b.groups {
		for range 100 {
			pids, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			for _, field := range strings.Fields(string(pids)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 {
					_ = syscall.Kill(pid, syscall.SIGKILL)
				}
			}
			if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
				break
			}
			time.Sleep(time.Millisecond) // until the kernel has done away with what was killed
		}
	}
	b.groups = nil
}
