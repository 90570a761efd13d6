package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// ProcessSpec is one process of a package.
type ProcessSpec struct {
	Name    string            `json:"name" doc:"how the supervisor knows it"`
	Command []string          `json:"command,omitempty" doc:"executable in the package, and arguments; {root}, {addr}, {device} and {package} are replaced; the port of {addr}:PORT is that of the device, which may have an offset, and an IPv6 address stands there in brackets"`
	Count   int               `json:"count,omitempty" doc:"instances; default 1"`
	Env     map[string]string `json:"env,omitempty"`
}

// PackageStartIn is what package.start takes.
type PackageStartIn struct {
	Package   string        `json:"package" doc:"the package whose current version is started"`
	Processes []ProcessSpec `json:"processes"`
	Module    string        `json:"module,omitempty" doc:"the module whose processes they are: routes are given to them as that one"`
	Settle    string        `json:"settle,omitempty" doc:"how long each must run without ending; default 300ms"`
	Grace     string        `json:"grace,omitempty" doc:"how long a process that is stopped may take; default 10s"`
}

// PackageStartOut is what package.start tells.
type PackageStartOut struct {
	Processes []StartedProcess `json:"processes"`
}

// StartedProcess is one instance of PackageStartOut.
type StartedProcess struct {
	Name      string `json:"name"`
	Instance  int    `json:"instance"`
	PID       int    `json:"pid"`
	ExeDigest string `json:"exe_digest,omitempty"`
}

// PackageStart has the agent's supervisor run a package's processes, and returns when each has run for a
// while. A process of the same name from another version is replaced. Codes: package.not_installed,
// script.not_found, process.spawn, process.exited, agent.unreachable.
func PackageStart(ctx context.Context, env Env, in PackageStartIn) (PackageStartOut, error) {
	return perform(ctx, env, "package.start", in, func(ctx context.Context, c *call) (out PackageStartOut, err error) {
		out.Processes = []StartedProcess{}
		settle, err := duration("settle", in.Settle, 300*time.Millisecond)
		if err != nil {
			return out, err
		}
		specs, err := c.specs(in)
		if err != nil {
			return out, err
		}
		if err := c.noteProcesses(ctx, specs, in.Grace); err != nil {
			return out, err
		}
		for _, spec := range specs {
			if err := c.Processes.Start(ctx, spec); err != nil {
				return out, err
			}
		}
		return out, c.settle(ctx, specs, settle, &out)
	})
}

// specs makes what the supervisor is asked for. The executable is named by its version's folder, not by
// "current", so that another version is another spec.
func (c *call) specs(in PackageStartIn) ([]supervise.Spec, error) {
	var specs []supervise.Spec
	for _, p := range in.Processes {
		if len(p.Command) == 0 {
			return nil, fail("input.invalid", "process %q has no command", p.Name)
		}
		exe, err := c.executable(in.Package, p.Command[0])
		if err != nil {
			return nil, err
		}
		version, err := c.current(in.Package)
		if err != nil {
			return nil, err
		}
		fill := strings.NewReplacer("{root}", c.Root, "{addr}", c.Addr, "{device}", c.Device,
			"{package}", filepath.Join(c.Root, filepath.FromSlash(version)))
		spec := supervise.Spec{Name: p.Name, Command: []string{exe}, Dir: c.Root, Count: p.Count, Module: in.Module}
		for _, arg := range p.Command[1:] {
			spec.Command = append(spec.Command, fill.Replace(c.shift(arg)))
		}
		// Not the execution that started it: the same process is the same wish, whoever asks.
		bare := c.Env
		bare.Vars = slices.DeleteFunc(slices.Clone(c.Vars), func(v string) bool {
			return strings.HasPrefix(v, "ZHIYUN_EXECUTION=") || strings.HasPrefix(v, "ZHIYUN_STEP=")
		})
		values := map[string]string{}
		for k, v := range p.Env {
			if k == ListenVar {
				v = c.shiftPorts(v)
			}
			values[k] = fill.Replace(c.shift(v))
		}
		spec.Env = bare.environment(values)
		if err := spec.Validate(); err != nil {
			return nil, fail("input.invalid", "%v", err)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

// ListenVar is the variable of a process that names the TCP ports on which it serves, with commas in between: the agent
// gives the name service notice when one of them serves nobody.
const ListenVar = "ZHIYUN_LISTEN"

// endpoint is a port of the manifest at the device's address, as commands write it.
var endpoint = regexp.MustCompile(`\{addr\}:([0-9]{1,5})\b`)

// shift makes each "{addr}:PORT" the device's: its port, and brackets about an address that has colons.
func (c *call) shift(text string) string {
	addr := "{addr}"
	if strings.Contains(c.Addr, ":") {
		addr = "[{addr}]"
	}
	return endpoint.ReplaceAllStringFunc(text, func(found string) string {
		return addr + ":" + c.shiftPorts(strings.TrimPrefix(found, "{addr}:"))
	})
}

// shiftPorts makes a list of ports the device's. What is none stays.
func (c *call) shiftPorts(list string) string {
	if c.PortOffset == 0 {
		return list
	}
	ports := strings.Split(list, ",")
	for i, text := range ports {
		if port, err := strconv.Atoi(text); err == nil {
			ports[i] = strconv.Itoa(port + c.PortOffset)
		}
	}
	return strings.Join(ports, ",")
}

// processNote is what ran under the names before.
type processNote struct {
	Names  []string         `json:"names"`
	Before []supervise.Spec `json:"before"`
	Grace  time.Duration    `json:"grace_ns"`
}

func (c *call) noteProcesses(ctx context.Context, specs []supervise.Spec, grace string) error {
	if err := need(c.Processes != nil, "supervisor", "set ZHIYUN_AGENT to the agent's device.sock"); err != nil {
		return err
	}
	note := processNote{}
	var err error
	if note.Grace, err = duration("grace", grace, 10*time.Second); err != nil {
		return err
	}
	running, err := c.Processes.Specs(ctx)
	if err != nil {
		return err
	}
	for _, spec := range specs {
		note.Names = append(note.Names, spec.Name)
		for _, r := range running {
			if r.Name == spec.Name {
				note.Before = append(note.Before, r)
			}
		}
	}
	return c.journal.note(note)
}

// settle waits until every instance has run for a while, and fails when one ends before.
func (c *call) settle(ctx context.Context, specs []supervise.Spec, settle time.Duration, out *PackageStartOut) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		list, err := c.Processes.List(ctx)
		if err != nil {
			return err
		}
		settled := true
		var started []StartedProcess
		for _, p := range list {
			if !slices.ContainsFunc(specs, func(s supervise.Spec) bool { return s.Name == p.Name }) {
				continue
			}
			if p.State == supervise.Waiting {
				words, _ := c.Processes.Log(ctx, p.Name, p.Instance) // the failure is told with or without them
				words = strings.TrimSpace(words)
				return fail("process.exited", "process %s (instance %d) ended at once: %s; last words: %s", p.Name, p.Instance, p.Exit, words[max(0, len(words)-400):])
			}
			settled = settled && p.State == supervise.Running && time.Since(p.StartedAt) >= settle
			started = append(started, StartedProcess{p.Name, p.Instance, p.PID, p.ExeDigest})
		}
		if settled {
			out.Processes = append(out.Processes, started...)
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the processes to settle: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// PackageStopIn is what package.stop takes.
type PackageStopIn struct {
	PackageStartIn
	Done  *PackageStartOut `json:"done,omitempty" doc:"the output of package.start, when it is undone"`
	Purge bool             `json:"purge,omitempty" doc:"stop the named processes, whoever started them; their command does not count"`
}

// PackageStop undoes the package.start of the same key: what it started is stopped, and what ran under those
// names before runs again. With Purge it stops the named processes, which device.restore undoes. A process
// gets SIGTERM and, after the grace, SIGKILL with its whole group.
func PackageStop(ctx context.Context, env Env, in PackageStopIn) (Undone, error) {
	if !in.Purge {
		return undo(ctx, env, "package.start")
	}
	in.Done = nil
	return perform(ctx, env, "package.stop", in, func(ctx context.Context, c *call) (Undone, error) {
		var specs []supervise.Spec
		for _, p := range in.Processes {
			specs = append(specs, supervise.Spec{Name: p.Name})
		}
		if err := c.noteProcesses(ctx, specs, in.Grace); err != nil {
			return Undone{}, err
		}
		grace, err := duration("grace", in.Grace, 10*time.Second)
		if err != nil {
			return Undone{}, err
		}
		for _, spec := range specs {
			if err := c.Processes.Stop(ctx, spec.Name, grace); err != nil {
				return Undone{}, err
			}
		}
		return Undone{State: "removed"}, nil
	})
}

// restoreProcesses has run what ran before, and nothing else under those names.
func restoreProcesses(ctx context.Context, c *call) error {
	if c.journal.rec.Note == nil {
		return nil // it was not begun
	}
	var note processNote
	if err := json.Unmarshal(c.journal.rec.Note, &note); err != nil {
		return fail("journal.damaged", "%s: %v", c.journal.dir, err)
	}
	if err := need(c.Processes != nil, "supervisor", "set ZHIYUN_AGENT to the agent's device.sock"); err != nil {
		return err
	}
	var faults []error
	for _, name := range note.Names {
		i := slices.IndexFunc(note.Before, func(s supervise.Spec) bool { return s.Name == name })
		if i >= 0 {
			faults = append(faults, c.Processes.Start(ctx, note.Before[i]))
		} else {
			faults = append(faults, c.Processes.Stop(ctx, name, note.Grace))
		}
	}
	return errors.Join(faults...)
}
