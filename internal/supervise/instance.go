package supervise

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zhiyun-ops/zhiyun/internal/uid"
)

// markerName is the environment variable by which a process is found whose start was not recorded.
const markerName = "ZHIYUN_SUPERVISED"

// instance is one process of a unit.
type instance struct {
	unit     string
	number   int
	machine  machine
	id       string // of the current or coming process, unique per start
	pid      int    // 0: none
	start    uint64 // tells pid apart from a later one
	child    bool   // ours to collect; an adopted one is not
	started  time.Time
	exit     string
	spawnErr error // of the first start, until it was told
	exe      string
	command  []string
}

func (s *Supervisor) newInstance(spec Spec, number int) *instance {
	return &instance{
		unit:    spec.Name,
		number:  number,
		machine: machine{state: Starting, since: time.Now(), delays: s.newDelays(), stable: s.config.Stable},
		exe:     spec.Command[0],
		command: spec.Command,
	}
}

func (i *instance) process(spec Spec) Process {
	return Process{
		Name: i.unit, Instance: i.number, PID: i.pid, State: i.machine.state, StartedAt: i.started,
		Restarts: i.machine.restarts, Exit: i.exit, Exe: i.exe, Command: spec.normal().Command,
	}
}

// reconcile looks at every process and does what is due.
func (s *Supervisor) reconcile(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, u := range s.units {
		stopped := true
		for _, i := range u.instances {
			s.observe(i, now)
			s.apply(i, now, evTick, 0)
			stopped = stopped && i.machine.state == Stopped
		}
		if u.stopping && stopped {
			if err := s.forget(name); err != nil {
				s.log.Error("cannot forget a stopped process; trying again", "process", name, "error", err)
				continue
			}
			delete(s.units, name)
			s.broadcast()
		}
	}
}

// observe turns what happened to the process into an event. The caller holds mu.
func (s *Supervisor) observe(i *instance, now time.Time) {
	if i.pid != 0 {
		s.rotate(i)
		how, ended := i.ended()
		if !ended {
			return
		}
		i.exit = how
		if i.machine.state == Running {
			s.apply(i, now, evEnded, 0)
			i.pid = 0
			s.record(i)
			return
		}
	}
	if i.machine.state != Stopping {
		return
	}
	// The leader is gone; the group may have others.
	if i.pid != 0 && len(i.members()) > 0 {
		return
	}
	i.pid = 0
	s.apply(i, now, evGone, 0)
}

// ended collects the process if it is our child, and looks for it otherwise.
func (i *instance) ended() (how string, ended bool) {
	if i.child {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(i.pid, &status, syscall.WNOHANG, nil)
		switch {
		case pid == i.pid:
			i.child = false
			if status.Signaled() {
				return "signal: " + status.Signal().String(), true
			}
			return "exit status " + strconv.Itoa(status.ExitStatus()), true
		case err == nil || errors.Is(err, syscall.EINTR):
			return "", false
		}
		i.child = false
	}
	if start, err := StartTime(i.pid); err == nil && start == i.start {
		return "", false
	}
	if i.exit != "" && i.machine.state == Stopping {
		return i.exit, true // collected before
	}
	return "ended while nobody could collect how", true
}

// members lists the live processes of the group.
func (i *instance) members() []int {
	if start, err := StartTime(i.pid); err == nil && start == i.start {
		return groupMembers(i.pid, "")
	}
	// Without its leader the number may belong to another group by now, so the mark counts.
	if unix.Kill(-i.pid, 0) == unix.ESRCH {
		return nil
	}
	return groupMembers(i.pid, markerName+"="+i.id)
}

// apply steps the machine and does what it says. The caller holds mu.
func (s *Supervisor) apply(i *instance, now time.Time, e event, grace time.Duration) {
	before := i.machine.state
	act := i.machine.step(now, e, grace)
	switch act {
	case actSpawn:
		if before == Waiting {
			s.restarts.Inc()
		}
		s.spawn(i, now) // tells its outcome by a step of its own
		return
	case actTerm:
		i.signal(unix.SIGTERM)
	case actKill:
		i.signal(unix.SIGKILL)
	}
	if after := i.machine.state; after != before {
		p := Process{Name: i.unit, Instance: i.number, PID: i.pid, State: after, StartedAt: i.started,
			Restarts: i.machine.restarts, Exit: i.exit, Exe: i.exe, Command: i.command}
		s.log.Info("process", "name", i.unit, "instance", i.number, "state", string(after), "pid", i.pid,
			"restarts", i.machine.restarts, "exit", i.exit)
		if s.config.OnChange != nil {
			s.pending = append(s.pending, p)
		}
		s.broadcast()
	}
}

// signal reaches every process of the group, and no other.
func (i *instance) signal(sig unix.Signal) {
	if i.pid == 0 {
		return
	}
	if start, err := StartTime(i.pid); err == nil && start == i.start || i.child {
		unix.Kill(-i.pid, sig)
		return
	}
	for _, pid := range i.members() {
		unix.Kill(pid, sig)
	}
}

// spawn starts the process; what happened goes back into the machine. The caller holds mu.
func (s *Supervisor) spawn(i *instance, now time.Time) {
	first := i.machine.restarts == 0 && i.started.IsZero()
	if err := s.launch(i); err != nil {
		i.exit = err.Error()
		if first {
			i.spawnErr = err
		}
		s.log.Error("cannot start a process", "name", i.unit, "instance", i.number, "error", err)
		s.apply(i, now, evFailed, 0)
		return
	}
	i.spawnErr = nil
	s.apply(i, now, evSpawned, 0)
}

func (s *Supervisor) launch(i *instance) error {
	u := s.units[i.unit]
	i.id, i.pid, i.start = uid.New(), 0, 0
	if err := s.save(u); err != nil { // before the fork, so that the mark can be looked for
		return err
	}
	log, err := os.OpenFile(s.logPath(i), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("supervise: log of %s: %w", i.unit, err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("supervise: input of %s: %w", i.unit, err)
	}
	defer null.Close()
	process, err := os.StartProcess(u.spec.Command[0], u.spec.Command, &os.ProcAttr{
		Dir:   u.spec.Dir,
		Env:   environment(u.spec, i),
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return &SpawnError{Name: i.unit, Exe: u.spec.Command[0], Err: err}
	}
	i.pid, i.child, i.started = process.Pid, true, time.Now()
	process.Release() // collected by number: only its parent can, and it stays a zombie until then
	if start, err := StartTime(i.pid); err == nil {
		i.start = start
	}
	return s.save(u)
}

func environment(spec Spec, i *instance) []string {
	env := append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, spec.Env...)
	if spec.Module != "" {
		env = append(env, "ZHIYUN_MODULE="+spec.Module)
	}
	return append(env, "ZHIYUN_INSTANCE="+strconv.Itoa(i.number), markerName+"="+i.id)
}

// record keeps the instance's state; a failure is logged, since the process is what counts and the next
// change tries again.
func (s *Supervisor) record(i *instance) {
	if err := s.save(s.units[i.unit]); err != nil {
		s.log.Error("cannot keep the state of a process", "name", i.unit, "error", err)
	}
}
