//go:build linux

package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"github.com/zhiyun-ops/zhiyun/cmdb"
	"github.com/zhiyun-ops/zhiyun/flow"
	"github.com/zhiyun-ops/zhiyun/internal/control"
	pb "github.com/zhiyun-ops/zhiyun/internal/control/controlpb"
	"github.com/zhiyun-ops/zhiyun/internal/demo"
	"github.com/zhiyun-ops/zhiyun/internal/dev"
)

// The 23 steps of an expansion, and those of a contraction.
var (
	expansion = []string{
		"flow.params", "notify.mute", "device.query", "name.lookup", "resource.manifest", "permission.request", "device.acquire", "alert.silence",
		"package.install", "file.sync", "config.params", "config.push", "script.run", "l5.caller.join", "package.start", "process.scan",
		"change.report", "permission.check", "test.run", "vip.add", "l5.callee.join", "alert.unsilence", "notify.unmute",
	}
	contraction = []string{
		"device.pick", "notify.mute", "name.lookup", "resource.manifest", "alert.silence", "device.hold", "l5.drain", "vip.remove", "l5.callee.leave",
		"package.stop", "l5.caller.leave", "config.restore", "file.restore", "script.run", "package.remove", "permission.revoke", "change.report", "device.release",
		"alert.unsilence", "notify.unmute",
	}
	compensation = []string{ // of an expansion that was cancelled while gray took its time
		"l5.callee.leave", "vip.remove", "change.withdraw", "package.stop", "l5.caller.leave", "script.undo", "config.restore", "file.restore",
		"package.remove", "alert.unsilence", "device.release", "permission.revoke", "notify.unmute",
	}
)

// long says whether everything is to be tried, or a sample.
func long() bool { return os.Getenv("ZHIYUN_LONG") != "" }

// aimed makes an aim at a step.
func (w *world) aimed(target, moment, tool, device string) aim {
	most := 120 * time.Millisecond
	if tool == "l5.callee.join" || tool == "l5.drain" || tool == "l5.callee.leave" {
		most = 2 * time.Second // these take their time
	}
	return aim{
		tool: tool, moment: moment, target: target, device: device,
		delay: w.between(0, most), down: w.between(0, 600*time.Millisecond),
	}
}

// run starts a flow for a device with traps set, waits for its end, and checks what is left.
func (w *world) run(name, device string, aims ...aim) flow.Execution {
	w.t.Helper()
	began, failed := time.Now(), w.heard().Failed
	w.aimAt(aims...)
	e := w.finish(w.start(name, device))
	left := w.over(e, device, began, failed)
	if e.State == flow.Done && len(left) > 0 {
		w.t.Errorf("every step of %s was done, and these traps did not go off: %v", e.ID, left)
	}
	return e
}

// over checks what an execution, and what was killed meanwhile, left behind. It returns the aims that did not go off.
func (w *world) over(e flow.Execution, device string, began time.Time, failed int64) []aim {
	w.t.Helper()
	sprung, left := w.struck()
	w.log(e, began, sprung)
	serving := []string{resident}
	if (e.Flow == "expand") == (e.State == flow.Done) {
		serving = append(serving, device)
	}
	w.settled(e, serving...)
	// Calls need neither server nor agents; those that a killed instance had taken are lost with it.
	now := w.heard().Failed
	if died := slices.ContainsFunc(sprung, func(s string) bool { return strings.HasPrefix(s, smpl) }); now != failed && !died {
		w.t.Errorf("%d calls failed, and no instance was killed", now-failed)
	}
	return left
}

// heard waits for the next word of the callers.
func (w *world) heard() demo.Progress {
	w.t.Helper()
	asked := time.Now()
	w.until("the callers tell how it goes", func() error {
		if p := w.traffic.progress(); p.At.Before(asked) {
			return fmt.Errorf("last heard at %s", p.At)
		}
		return nil
	})
	return w.traffic.progress()
}

func (w *world) log(e flow.Execution, began time.Time, sprung []string) {
	why := ""
	if e.Error != nil {
		why = ": " + e.Error.Error()
	}
	w.t.Logf("%s %s in %s, kills: %s%s", e.Flow, e.State, time.Since(began).Round(10*time.Millisecond), strings.Join(sprung, "; "), why)
}

// back takes the device away from the module again.
func (w *world) back(device string) {
	w.t.Helper()
	if e := w.run("contract", device); e.State != flow.Done {
		w.t.Fatalf("contraction without any kill is %s: %v", e.State, e.Error)
	}
}

// part is one kind of harm.
type part struct {
	name string
	do   func(*world)
}

func parts() []part {
	out := []part{{"an agent alone", agentAlone}}
	if !long() {
		out = append(out, part{"some steps", someSteps})
	}
	for _, target := range targets {
		for _, moment := range moments {
			if long() {
				out = append(out, part{target + " " + moment + " each step", func(w *world) { eachStep(w, target, moment) }})
			}
		}
	}
	return append(out, part{"contraction", contractions}, part{"compensation", compensations}, part{"a step that a person skips", skipped}, part{"seeds", seeds})
}

// TestE2E kills processes of a whole Zhiyun and looks at what comes of it. The parts of the sample share one world;
// where everything is tried each has its own.
func TestE2E(t *testing.T) {
	var shared *world
	if !long() {
		shared = newWorld(t, 1)
	}
	for i, p := range parts() {
		ok := t.Run(p.name, func(t *testing.T) {
			w := shared
			if w == nil {
				w = newWorld(t, uint64(i))
			}
			defer func(of *testing.T) { w.t = of }(w.t)
			w.t = t
			p.do(w)
			t.Logf("kills so far: %v; calls: %d, failed: %d", w.kills, w.traffic.progress().Sent, w.traffic.progress().Failed)
		})
		if !ok && shared != nil {
			break // the world is not what the next part expects
		}
	}
}

// visitor is the device that comes and goes in the i-th run.
func visitor(i int) string { return pool[1+i%(len(pool)-1)] }

// eachStep aims at all 23 steps in a moment, at steps that lie apart in one expansion.
func eachStep(w *world, target, moment string) {
	const apart = 8
	for i := range apart {
		var aims []aim
		for n := i; n < len(expansion); n += apart {
			aims = append(aims, w.aimed(target, moment, expansion[n], visitor(i)))
		}
		if e := w.run("expand", visitor(i), aims...); e.State == flow.Done {
			w.back(visitor(i))
		}
	}
}

// someSteps is a sample of eachStep: steps of each stage, each moment and each target.
func someSteps(w *world) {
	for i, aims := range [][]aim{
		{w.aimed(server, after, "device.acquire", visitor(0)), w.aimed(agent, during, "package.install", visitor(0)), w.aimed(server, during, "l5.callee.join", visitor(0))},
		{w.aimed(server, before, "notify.mute", visitor(1)), w.aimed(agent, after, "package.start", visitor(1)), w.aimed(smpl, before, "test.run", visitor(1))},
	} {
		if e := w.run("expand", visitor(i), aims...); e.State == flow.Done {
			w.back(visitor(i))
		}
	}
}

// contractions kills server and agent while a device leaves.
func contractions(w *world) {
	step, moments, targets := len(contraction), []string{during}, []string{server}
	if long() {
		step, moments, targets = 4, []string{before, during, after}, []string{server, agent}
	}
	run := 0
	for _, target := range targets {
		for _, moment := range moments {
			for i := range min(step, len(contraction)) {
				device := visitor(run)
				run++
				if e := w.run("expand", device); e.State != flow.Done {
					w.t.Fatalf("expansion without any kill is %s: %v", e.State, e.Error)
				}
				var aims []aim
				for n := i; n < len(contraction); n += step {
					aims = append(aims, w.aimed(target, moment, contraction[n], device))
				}
				if !long() {
					aims = []aim{w.aimed(server, during, "l5.drain", device), w.aimed(server, after, "package.stop", device)}
				}
				if e := w.run("contract", device, aims...); e.State != flow.Done {
					w.back(device)
				}
				if !long() {
					return
				}
			}
		}
	}
}

// compensations cancels an expansion in its last steps, and kills server and agent while it is taken back.
func compensations(w *world) {
	apart, moments, targets := 4, moments, []string{server, agent}
	if !long() {
		moments, targets = []string{after}, []string{server}
	}
	run := 0
	for _, target := range targets {
		for _, moment := range moments {
			for i := range apart {
				device := visitor(run)
				run++
				aims := []aim{{tool: "l5.callee.join", moment: during, target: cancel, delay: w.between(0, time.Second)}}
				for n := i; n < len(compensation); n += apart {
					aims = append(aims, w.aimed(target, moment, compensation[n], device))
				}
				if e := w.run("expand", device, aims...); e.State != flow.Cancelled {
					w.t.Errorf("the expansion that was cancelled is %s", e.State)
				}
				if !long() {
					return
				}
			}
		}
	}
}

// skipped has a person skip the step that would put the device into service: nobody is left to give it back, and it is
// cleaned all the same, or stays where callers are sent to it already.
func skipped(w *world) {
	device, began, failed := visitor(0), time.Now(), w.heard().Failed
	w.aimAt(aim{tool: "l5.callee.join", moment: before, target: skip})
	e := w.finish(w.start("expand", device))
	sprung, _ := w.struck()
	w.log(e, began, sprung)
	if e.State != flow.Done {
		w.t.Errorf("the expansion whose last step was skipped is %s", e.State)
	}
	var now cmdb.Device
	w.until("the device is in nobody's hands", func() (err error) {
		now, err = ask(func(ctx context.Context) (cmdb.Device, error) {
			return control.Decode[cmdb.Device](w.api.Resources.Get(ctx, connect.NewRequest(&pb.GetResourceRequest{Kind: string(cmdb.KindDevice), Name: device})))
		})
		if err == nil && now.State != cmdb.Idle && now.State != cmdb.InService {
			err = fmt.Errorf("it is %s: holder %q, fault %q", now.State, now.Holder, now.Fault)
		}
		return err
	})
	serving := []string{resident}
	if now.State == cmdb.InService {
		serving = append(serving, device)
	}
	w.settled(e, serving...)
	if lost := w.heard().Failed - failed; lost != 0 {
		w.t.Errorf("%d calls failed", lost)
	}
	if now.State == cmdb.InService {
		w.back(device)
	}
}

// seeds kills whom and when chance says. ZHIYUN_SEED is the first seed, default 1.
func seeds(w *world) {
	first, n := uint64(1), uint64(1)
	if long() {
		n = 20
	}
	if text := os.Getenv("ZHIYUN_SEED"); text != "" {
		given, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			w.t.Fatalf("ZHIYUN_SEED: %v", err)
		}
		first = given
	}
	for seed := first; seed < first+n; seed++ {
		w.t.Logf("seed %d", seed)
		w.seed(seed)
		device := visitor(w.draw(len(pool) - 1))
		e := w.chance("expand", device)
		if e.State == flow.Done {
			if e = w.chance("contract", device); e.State != flow.Done {
				w.back(device)
			}
		}
	}
}

// chance runs a flow while one to three kills happen at moments of their own.
func (w *world) chance(name, device string) flow.Execution {
	w.t.Helper()
	began, failed := time.Now(), w.heard().Failed
	var blows []aim
	for range 1 + w.draw(3) {
		blows = append(blows, aim{
			tool: "(chance)", target: targets[w.draw(len(targets))], device: []string{device, device, resident}[w.draw(3)],
			delay: w.between(0, 8*time.Second), down: w.between(0, 2*time.Second),
		})
	}
	w.aimAt()
	id := w.start(name, device)
	for _, a := range blows {
		a.moment = fmt.Sprintf("after %s in", a.delay.Round(time.Millisecond))
		w.revive.Go(func() {
			pause(a.delay)
			w.kill(a)
		})
	}
	e := w.finish(id)
	w.over(e, device, began, failed)
	return e
}

// agentAlone kills an agent: what it ran lives on, takes calls, and is kept by the next agent.
func agentAlone(w *world) {
	t := w.t
	was := w.processes(resident)
	if len(was) != 1 {
		t.Fatalf("%d processes run on %s: %v", len(was), resident, was)
	}
	failed, sent := w.traffic.progress().Failed, w.traffic.progress().Sent
	done := w.environment.AgentDone(resident)
	syscall.Kill(w.environment.AgentPID(resident), syscall.SIGKILL)
	<-done
	w.kills[agent]++
	w.until("callers call on without the agent", func() error {
		if now := w.traffic.progress().Sent; now < sent+2*rate {
			return fmt.Errorf("%d calls", now-sent)
		}
		return nil
	})
	if now := w.processes(resident); !slices.Equal(now, was) {
		t.Fatalf("without the agent %v run, not %v", now, was)
	}
	if err := w.environment.StartAgent(dev.Device{Name: resident, Addr: address(resident)}); err != nil {
		t.Fatal(err)
	}
	w.until("the world is settled again", func() error {
		if err := w.registered([]string{resident}); err != nil {
			return err
		}
		return w.running([]string{resident})
	})
	if now := w.processes(resident); !slices.Equal(now, was) {
		t.Errorf("with the next agent %v run, not %v", now, was)
	}
	if now := w.traffic.progress().Failed; now != failed {
		t.Errorf("%d calls failed", now-failed)
	}
	// Whoever adopted the process restarts it.
	w.kill(aim{target: smpl, device: resident, tool: "(none)"})
	w.until("the next agent restarts what it adopted", func() error {
		if now := w.processes(resident); len(now) != 1 || now[0] == was[0] {
			return fmt.Errorf("%v run", now)
		}
		return w.registered([]string{resident})
	})
}

// seed begins the draws anew.
func (w *world) seed(seed uint64) {
	w.killing.Lock()
	defer w.killing.Unlock()
	w.random = rand.New(rand.NewPCG(seed, 1))
}

// draw is a number below n.
func (w *world) draw(n int) int {
	w.killing.Lock()
	defer w.killing.Unlock()
	return w.random.IntN(n)
}
