package demo

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/device"
	"github.com/zhiyun-ops/zhiyun/internal/records"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	l5server "github.com/zhiyun-ops/zhiyun/l5/server"
	"github.com/zhiyun-ops/zhiyun/scale"
)

// serving returns the devices whose instances of the service are registered, with their shares.
func (s *story) serving() (map[string]int, error) {
	list, _, err := control.DecodeList[l5server.InstanceStatus](s.api.Registry.Instances(s.ctx, connect.NewRequest(&pb.ServiceRequest{Service: service})))
	shares := make(map[string]int)
	for _, i := range list {
		shares[i.Device] = i.Share
	}
	return shares, err
}

// seed waits until the decider has brought the module to the three devices that its manifest demands at least.
func (s *story) seed() error {
	s.report.phase = "first"
	idle, err := s.devices(cmdb.Idle)
	if err != nil {
		return err
	}
	if len(idle) != pool {
		return fmt.Errorf("%d of %d devices are idle", len(idle), pool)
	}
	// A rollout is judged on calls: they begin when there is somebody to call.
	err = s.until("the first instances are registered", func() (bool, error) {
		if err := s.look(); err != nil {
			return false, err
		}
		shares, err := s.serving()
		ready := len(shares) == inService
		for _, share := range shares {
			ready = ready && share > 0
		}
		return ready, err
	})
	if err != nil {
		return err
	}
	if err := s.startCallers("first", steadyRate); err != nil {
		return err
	}
	return s.until("three devices are in service at full weight", func() (bool, error) {
		if err := s.look(); err != nil {
			return false, err
		}
		served, err := s.devices(cmdb.InService)
		return len(served) >= inService && !s.open(), err
	})
}

// steady lets the callers call at a rate that three devices carry.
func (s *story) steady() error {
	s.report.phase = "steady"
	if err := s.setLoad("steady", steadyRate); err != nil {
		return err
	}
	s.say("", "%d caller processes, %.0f requests a second in all, route through the agent of %s", callers, steadyRate, callerDevice)
	if err := s.pause(5 * time.Second); err != nil {
		return err
	}
	counts, err := s.states()
	if err != nil {
		return err
	}
	s.report.DevicesStart = plain(counts)
	s.report.check(counts[cmdb.InService] == inService, "devices in service before the burst", "%d of %d", counts[cmdb.InService], pool)
	return nil
}

func plain(counts map[cmdb.State]int) map[string]int {
	out := make(map[string]int)
	for state, n := range counts {
		out[string(state)] = n
	}
	return out
}

// burst triples the load, and watches until what was ordered serves at full weight.
func (s *story) burst() error {
	s.report.phase = "burst"
	began := time.Now()
	if err := s.setLoad("burst", burstRate); err != nil {
		return err
	}
	s.say("", "%.0f requests a second: more than %d devices carry", burstRate, inService)
	var order scale.Order
	err := s.until("the decider orders devices", func() (bool, error) {
		orders, err := s.orders()
		s.decision()
		for _, o := range orders {
			if o.Direction == scale.Out && o.Created.After(began) {
				order = o
				return true, err
			}
		}
		return false, err
	})
	if err != nil {
		return err
	}
	s.report.OverloadToDecision = order.Created.Sub(began)
	s.report.Decision = order.Reason.String()
	var e flow.Execution
	err = s.until("the new devices serve at full weight", func() (bool, error) {
		if err := s.look(); err != nil {
			return false, err
		}
		orders, err := s.orders()
		if err != nil {
			return false, err
		}
		for _, o := range orders {
			if o.Key == order.Key && o.ID != "" {
				if e, err = s.execution(o.ID); err != nil {
					return false, err
				}
			}
		}
		return !e.Ended.IsZero() && !s.open() || e.State == flow.Stuck, nil
	})
	if err != nil {
		return err
	}
	if e.State != flow.Done {
		return fmt.Errorf("the expansion is %s: %v", e.State, e.Error)
	}
	s.report.OverloadToFullCapacity = e.Ended.Sub(began)
	for _, step := range e.Steps {
		s.report.Steps = append(s.report.Steps, step.Tool)
	}
	s.report.check(slices.Equal(s.report.Steps, steps), "the 23 steps, in their order", "%d steps", len(e.Steps))
	shares, err := s.serving()
	if err != nil {
		return err
	}
	full := 0
	for _, share := range shares {
		if share == 100 {
			full++
		}
	}
	s.report.check(full == len(shares) && full >= inService+order.Count, "every instance at full weight after the rollout", "%d of %d", full, len(shares))
	s.report.phase = "grown"
	if err := s.setLoad("grown", burstRate); err != nil {
		return err
	}
	s.say("", "the same load, on %d devices", full)
	return s.pause(3 * time.Second)
}

// steps are the tools of an expansion, in order.
var steps = []string{
	"flow.params", "notify.mute", "device.query", "name.lookup", "resource.manifest", "permission.request", "device.acquire", "alert.silence",
	"package.install", "file.sync", "config.params", "config.push", "script.run", "l5.caller.join", "package.start", "process.scan",
	"change.report", "permission.check", "test.run", "vip.add", "l5.callee.join", "alert.unsilence", "notify.unmute",
}

// kill ends a device as a power cut does: its agent and all its processes at once.
func (s *story) kill() error {
	served, err := s.devices(cmdb.InService)
	if err != nil {
		return err
	}
	// The largest: what is left does not carry the load.
	victim := slices.MaxFunc(served, func(a, b cmdb.Device) int { return strings.Compare(a.Type, b.Type) })
	s.dead = victim.Name
	address := net.JoinHostPort(victim.Addr, strconv.Itoa(victim.Port(9000)))
	s.report.phase = "dead device"
	if err := s.setLoad("dead-device", burstRate); err != nil {
		return err
	}
	killed := time.Now()
	count, err := s.killDevice(s.dead)
	if err != nil {
		return err
	}
	s.report.Killed = s.dead
	s.say("", "kill -9: %s, its agent and %d processes", s.dead, count-1)
	want := len(served)
	err = s.until("every caller has ejected it", func() (bool, error) {
		if err := s.look(); err != nil {
			return false, err
		}
		last, all := s.ejected(address, killed)
		if all {
			s.report.KillToEjected = last.Sub(killed)
		}
		return all, nil
	})
	if err != nil {
		return err
	}
	s.say("l5", "every caller has stopped calling %s, %s after the kill", address, s.report.KillToEjected.Round(time.Millisecond))
	err = s.until("it is marked faulty", func() (bool, error) {
		faulty, err := s.devices(cmdb.Faulty)
		for _, d := range faulty {
			if d.Name == s.dead {
				s.report.KillToFaulty = time.Since(killed)
				s.say("", "%s is faulty: %s", d.Name, d.Fault)
				return true, nil
			}
		}
		return false, err
	})
	if err != nil {
		return err
	}
	// Whether a replacement is needed is the decider's business: it is, if what is left does not carry the load.
	return s.until("its work is replaced", func() (bool, error) {
		if err := s.look(); err != nil {
			return false, err
		}
		statuses, _, err := control.DecodeList[scale.Status](s.api.Scale.Status(s.ctx, connect.NewRequest(&pb.ScaleRequest{Module: module})))
		if err != nil || len(statuses) == 0 {
			return false, err
		}
		served, err := s.devices(cmdb.InService)
		if err != nil {
			return false, err
		}
		settled := len(statuses[0].Orders) == 0 && statuses[0].Decision.Delta == 0 && statuses[0].Decision.At.After(killed.Add(4*time.Second))
		if !settled || s.open() {
			return false, nil
		}
		s.report.KillToReplaced = time.Since(killed)
		s.report.check(len(served) >= want, "the dead device's work is replaced", "%d devices in service, %d before the kill", len(served), want)
		return true, nil
	})
}

// open says whether an execution is under way.
func (s *story) open() bool {
	answer, err := s.api.Flows.List(s.ctx, connect.NewRequest(&pb.ListExecutionsRequest{Open: true}))
	return err != nil || len(answer.Msg.Items) > 0
}

// killDevice kills everything that belongs to a device: its agent, and all processes that it keeps, with their children.
func (s *story) killDevice(name string) (int, error) {
	agent, err := device.Dial(filepath.Join(s.environment.Root(name), "run", "device.sock"))
	if err != nil {
		return 0, err
	}
	defer agent.Close()
	kept, err := agent.List(s.ctx) // before the agent dies, which knows them
	if err != nil {
		return 0, err
	}
	pids := []int{s.environment.AgentPID(name)}
	for _, process := range kept {
		if process.PID > 0 {
			pids = append(pids, -process.PID) // its group
		}
	}
	for _, pid := range pids {
		if pid != 0 {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return len(pids), nil
}

// ejected says whether every caller has stopped calling the address since a moment, and when the last did.
func (s *story) ejected(address string, since time.Time) (last time.Time, all bool) {
	all = true
	for _, c := range s.callers {
		c.mu.Lock()
		i := slices.IndexFunc(c.health, func(h Health) bool {
			return h.Addr == address && h.At.After(since) && h.To == balance.Ejected.String()
		})
		if i >= 0 && c.health[i].At.After(last) {
			last = c.health[i].At
		}
		c.mu.Unlock()
		all = all && i >= 0
	}
	return last, all
}

// tamper writes into a configuration file of a live device.
func (s *story) tamper() error {
	served, err := s.devices(cmdb.InService)
	if err != nil {
		return err
	}
	device := names(served)[0]
	path := filepath.Join(s.environment.Root(device), "etc", "sample.yaml")
	good, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	tampered := time.Now()
	_, err = file.WriteString("rate: 1 # somebody was here\n")
	if err := file.Close(); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	s.say("", "somebody writes into etc/sample.yaml on %s", device)
	err = s.until("the file is as declared", func() (bool, error) {
		now, err := os.ReadFile(path)
		return err == nil && string(now) == string(good), nil
	})
	if err != nil {
		return err
	}
	s.report.TamperToRepaired = time.Since(tampered)
	return s.until("drift tells of it", func() (bool, error) {
		entries, err := s.auditLog("drift", tampered)
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			if strings.Contains(e.Object, device) && strings.Contains(e.Object, "sample.yaml") && s.report.TamperToFound == 0 {
				s.report.TamperToFound = min(e.At.Sub(tampered), s.report.TamperToRepaired)
			}
			if strings.Contains(e.Object, device) && e.Action == "finding.repaired" {
				s.say("drift", "%s was repaired %s after it was touched: %s", e.Object, s.report.TamperToRepaired.Round(time.Millisecond), e.Reason)
				return true, nil
			}
		}
		return false, nil
	})
}

// auditLog reads what an actor did since a moment, the oldest first.
func (s *story) auditLog(actor string, since time.Time) ([]records.Entry, error) {
	entries, _, err := control.DecodeList[records.Entry](s.api.Ops.Audit(s.ctx, connect.NewRequest(&pb.AuditRequest{Actor: actor, Page: &pb.Page{Limit: 1000}})))
	entries = slices.DeleteFunc(entries, func(e records.Entry) bool { return e.At.Before(since) })
	slices.SortFunc(entries, func(a, b records.Entry) int { return a.At.Compare(b.At) })
	return entries, err
}

// calm ends the burst, and watches the module shrink to where it was.
func (s *story) calm() error {
	s.report.phase = "calm"
	if err := s.setLoad("calm", steadyRate); err != nil {
		return err
	}
	began := time.Now()
	s.say("", "%.0f requests a second again", steadyRate)
	err := s.until("the module is back to where it was", func() (bool, error) {
		if err := s.look(); err != nil {
			return false, err
		}
		served, err := s.devices(cmdb.InService)
		return len(served) <= inService && !s.open(), err
	})
	if err != nil {
		return err
	}
	s.report.CalmToContracted = time.Since(began)
	return s.pause(time.Second)
}

// audit checks who did what.
func (s *story) audit() error {
	counts, err := s.states()
	if err != nil {
		return err
	}
	s.report.DevicesEnd = plain(counts)
	r := s.report
	r.check(counts[cmdb.InService] == inService && counts[cmdb.Faulty] == 1 && counts[cmdb.Idle] == pool-inService-1, "devices at the end",
		"%s", states(r.DevicesEnd))
	expansions, err := s.executions("expand")
	if err != nil {
		return err
	}
	contractions, err := s.executions("contract")
	if err != nil {
		return err
	}
	done := func(list []flow.Execution, actor string) int {
		n := 0
		for _, e := range list {
			if e.Actor == actor && e.State == flow.Done {
				n++
			}
		}
		return n
	}
	r.check(done(expansions, "scale") >= 1, "expansions ordered by scale and done", "%d", done(expansions, "scale"))
	r.check(done(contractions, "scale") >= 1, "contractions ordered by scale and done", "%d", done(contractions, "scale"))
	for _, who := range []struct{ actor, action string }{{"scale", "ordered"}, {"gray", "rollout.done"}, {"drift", "finding.repaired"}} {
		entries, err := s.auditLog(who.actor, s.began)
		if err != nil {
			return err
		}
		n := 0
		for _, e := range entries {
			if e.Action == who.action {
				n++
			}
		}
		r.check(n > 0, "the audit record names "+who.actor, "%s %d times", who.action, n)
	}
	return nil
}

// finish takes the callers' reports in, and checks them.
func (s *story) finish() {
	r := s.report
	all, err := s.stopCallers()
	r.check(err == nil, "every caller reported", "%d callers", len(s.callers))
	r.phases(all)
	phase := func(name string) PhaseReport {
		i := slices.IndexFunc(r.Phases, func(p PhaseReport) bool { return p.Name == name })
		if i < 0 {
			return PhaseReport{}
		}
		return r.Phases[i]
	}
	r.KillCost = phase("dead-device").Failed
	r.FailedWhileShrink = phase("calm").Failed
	r.check(phase("calm").Sent > 0 && phase("calm").Failed == 0, "no call failed while the module shrank", "%d of %d failed", phase("calm").Failed, phase("calm").Sent)
	r.check(phase("steady").Failed == 0, "no call failed under steady load", "%d of %d failed", phase("steady").Failed, phase("steady").Sent)
	r.check(phase("burst").Failed > 0, "the overload was real", "%d of %d failed; p99 %s in the burst, %s before", phase("burst").Failed, phase("burst").Sent,
		round(phase("burst").P99), round(phase("steady").P99))
	r.check(phase("grown").Sent > 0 && phase("grown").Failed*100 <= phase("grown").Sent, "the grown module carries the burst", "%d of %d failed; p99 %s",
		phase("grown").Failed, phase("grown").Sent, round(phase("grown").P99))
}
