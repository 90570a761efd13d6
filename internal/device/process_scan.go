package device

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zhiyun-ops/zhiyun/internal/supervise"
)

// ProcessScanIn is what process.scan takes.
type ProcessScanIn struct {
	Processes []ProcessSpec `json:"processes,omitempty" doc:"names and counts that must run"`
	Ports     []int         `json:"ports,omitempty" doc:"TCP ports that must accept connections on the device's address, as the manifest numbers them"`
	Addr      string        `json:"addr,omitempty" doc:"instead of the device's address"`
	Exact     bool          `json:"exact,omitempty" doc:"nothing else may run under the supervisor"`
	Timeout   string        `json:"timeout,omitempty" doc:"how long to wait until all is ready; default 10s"`
}

// ProcessScanOut is what process.scan tells.
type ProcessScanOut struct {
	Processes []StartedProcess `json:"processes" doc:"what runs, of what is declared"`
	Extra     []string         `json:"extra" doc:"supervised processes that are not declared"`
	Ports     []ScannedPort    `json:"ports"`
}

// ScannedPort is one port of ProcessScanOut.
type ScannedPort struct {
	Port int `json:"port"`
	PID  int `json:"pid,omitempty" doc:"who listens, where the system tells"`
}

// ProcessScan compares what runs and listens with what is declared, and waits until it is so. It changes
// nothing. Codes: process.missing, process.extra, port.closed, port.foreign.
func ProcessScan(ctx context.Context, env Env, in ProcessScanIn) (ProcessScanOut, error) {
	out, err := processScan(ctx, env, in)
	if err != nil {
		return ProcessScanOut{}, named(err)
	}
	return out, nil
}

func processScan(ctx context.Context, env Env, in ProcessScanIn) (out ProcessScanOut, err error) {
	if env, err = env.check(false); err != nil {
		return out, err
	}
	limit, err := duration("timeout", in.Timeout, 10*time.Second)
	if err != nil {
		return out, err
	}
	if in.Addr != "" {
		env.Addr = in.Addr
	}
	if len(in.Ports) > 0 && env.Addr == "" {
		return out, fail("env.missing", "no address to look for ports on; set ZHIYUN_ADDR")
	}
	if err := need(env.Processes != nil, "supervisor", "set ZHIYUN_AGENT to the agent's device.sock"); err != nil {
		return out, err
	}
	wait, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		// A look is not cut short by the limit: its reason would be the limit.
		if out, err = env.scan(ctx, in); err == nil {
			return out, nil
		}
		select {
		case <-wait.Done():
			if ctx.Err() != nil {
				return out, fmt.Errorf("%w; last: %w", ctx.Err(), err)
			}
			return out, err
		case <-tick.C:
		}
	}
}

// scan looks once.
func (e Env) scan(ctx context.Context, in ProcessScanIn) (ProcessScanOut, error) {
	out := ProcessScanOut{Processes: []StartedProcess{}, Extra: []string{}, Ports: []ScannedPort{}}
	list, err := e.Processes.List(ctx)
	if err != nil {
		return out, err
	}
	groups := map[int]bool{}
	running := map[string]int{}
	for _, p := range list {
		declared := slices.ContainsFunc(in.Processes, func(s ProcessSpec) bool { return s.Name == p.Name })
		switch {
		case !declared && !slices.Contains(out.Extra, p.Name):
			out.Extra = append(out.Extra, p.Name)
		case declared && p.State == supervise.Running && alive(p.PID):
			out.Processes = append(out.Processes, StartedProcess{p.Name, p.Instance, p.PID, p.ExeDigest})
			running[p.Name]++
			groups[p.PID] = true
		}
	}
	for _, want := range in.Processes {
		if count := max(want.Count, 1); running[want.Name] != count {
			return out, later("process.missing", "process %s: %d of %d run%s", want.Name, running[want.Name], count, why(list, want.Name))
		}
	}
	if in.Exact && len(out.Extra) > 0 {
		return out, fail("process.extra", "not declared, but running: %s", strings.Join(out.Extra, ", "))
	}
	for _, port := range in.Ports {
		scanned, err := e.port(ctx, port, groups)
		if err != nil {
			return out, err
		}
		out.Ports = append(out.Ports, scanned)
	}
	return out, nil
}

// alive looks itself: the supervisor may not have noticed yet.
func alive(pid int) bool {
	_, err := supervise.StartTime(pid)
	return err == nil
}

func why(list []supervise.Process, name string) string {
	for _, p := range list {
		if p.Name == name && p.Exit != "" {
			return " (last ended: " + p.Exit + ")"
		}
	}
	return ""
}

// port connects, and looks whether it is one of the declared processes that listens.
func (e Env) port(ctx context.Context, port int, groups map[int]bool) (ScannedPort, error) {
	port += e.PortOffset
	addr := net.JoinHostPort(e.Addr, strconv.Itoa(port))
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return ScannedPort{}, later("port.closed", "nothing accepts connections on %s: %v", addr, err)
	}
	conn.Close()
	pid, group := listener(e.Addr, port)
	if pid != 0 && len(groups) > 0 && !groups[group] && pid != os.Getpid() {
		return ScannedPort{}, fail("port.foreign", "%s is held by process %d, which is none of those declared", addr, pid)
	}
	return ScannedPort{Port: port, PID: pid}, nil
}
