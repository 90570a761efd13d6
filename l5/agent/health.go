package agent

import (
	"context"
	"sync"
	"time"

	"github.com/zhiyun-ops/zhiyun/l5"
	"github.com/zhiyun-ops/zhiyun/l5/balance"
	"github.com/zhiyun-ops/zhiyun/l5/internal/view"
	"github.com/zhiyun-ops/zhiyun/l5/l5pb"
)

// healthTick is the pace at which juries look at the clock; they exist only for services of which somebody has doubts.
const healthTick = 50 * time.Millisecond

// maxProbes bounds the probes under way.
const maxProbes = 64

// health is the shell around the juries: it carries doubts to them, probes for them, and tells what they decide.
type health struct {
	agent *Agent
	slots chan struct{} // one per probe under way
	wake  chan struct{} // signals a first jury

	mu     sync.Mutex
	ctx    context.Context           // guarded by mu; of run, nil outside
	juries map[string]*jury          // guarded by mu; by service
	bar    map[string]map[string]int // guarded by mu; by service and party: the streams that call it
	probes sync.WaitGroup            // Add under mu while ctx is set; run waits
}

func newHealth(a *Agent) *health {
	return &health{agent: a, slots: make(chan struct{}, maxProbes), wake: make(chan struct{}, 1), juries: make(map[string]*jury), bar: make(map[string]map[string]int)}
}

// run lets time go by for the juries until ctx ends, and then waits for the probes.
func (h *health) run(ctx context.Context) error {
	h.mu.Lock()
	h.ctx = ctx
	h.mu.Unlock()
	defer h.probes.Wait()
	defer func() {
		h.mu.Lock()
		h.ctx = nil
		h.mu.Unlock()
	}()
	ticker := time.NewTicker(healthTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.wake:
			ticker.Reset(healthTick)
		case <-ticker.C:
			if !h.tick(h.agent.now()) {
				ticker.Stop() // nobody doubts anybody: the device is not to be woken for it
			}
		}
	}
}

// tick lets time go by, and reports whether a jury is left.
func (h *health) tick(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for service, j := range h.juries {
		h.carryOut(service, j, j.tick(now))
		if j.idle(now) {
			delete(h.juries, service)
		}
	}
	return len(h.juries) > 0
}

// attend counts a stream of a party that calls a service, and leave uncounts it.
func (h *health) attend(service, party string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.bar[service] == nil {
		h.bar[service] = make(map[string]int, 1)
	}
	h.bar[service][party]++
}

func (h *health) leave(service, party string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if parties := h.bar[service]; parties[party] > 1 {
		parties[party]--
	} else if delete(parties, party); len(parties) == 0 {
		delete(h.bar, service)
	}
}

// doubt takes a process's doubts.
func (h *health) doubt(who juror, doubts []*l5pb.Doubt) {
	now := h.agent.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range doubts {
		h.agent.metrics.doubts.Inc()
		j := h.juries[d.GetService()]
		if j == nil {
			v, ok := h.agent.hub.View(d.GetService())
			if !ok {
				continue
			}
			j = newJury(h.agent.config.Balance)
			j.replace(now, membersOf(v))
			h.juries[d.GetService()] = j
			select {
			case h.wake <- struct{}{}:
			default:
			}
		}
		h.carryOut(d.GetService(), j, j.doubt(now, who, len(h.bar[d.GetService()]), d))
	}
}

// update takes a new state of a service.
func (h *health) update(v view.View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if j := h.juries[v.Service]; j != nil {
		h.carryOut(v.Service, j, j.replace(h.agent.now(), membersOf(v)))
	}
}

// forget drops a service.
func (h *health) forget(service string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.juries, service)
}

func membersOf(v view.View) balance.Members {
	members := make(balance.Members, 0, len(v.Instances))
	for _, p := range v.Instances {
		members = append(members, balance.Member{Addr: p.GetAddr(), Weight: l5.InstanceFromProto(p).EffectiveWeight(), Gray: 1, Suspect: p.GetSuspect()})
	}
	return members
}

// carryOut does what a jury's step asks for. Callers hold mu.
func (h *health) carryOut(service string, j *jury, s sentence) {
	for _, m := range s.moved {
		h.agent.config.Logger.Info("l5/agent: instance", "service", service, "addr", m.Addr, "from", m.From.String(), "to", m.To.String(), "reason", m.Reason)
		if m.To == balance.Ejected && m.From != balance.Probing {
			h.agent.metrics.ejections.Inc()
		}
	}
	if s.reweighed {
		if err := h.agent.hub.SetHealth(&l5pb.Health{Service: service, Down: j.downs()}); err != nil {
			h.agent.config.Logger.Error("l5/agent: health is not passed on", "service", service, "error", err)
		}
		h.agent.lookups.change(service)
	}
	for _, addr := range s.probes {
		h.probe(service, addr)
	}
}

// probe probes an instance in a goroutine that run waits for. Callers hold mu.
func (h *health) probe(service, addr string) {
	ctx := h.ctx
	if ctx == nil {
		return
	}
	var labels map[string]string
	if v, ok := h.agent.hub.View(service); ok {
		labels = v.Find(addr).GetLabels()
	}
	h.probes.Go(func() {
		select {
		case h.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		limited, cancel := context.WithTimeout(ctx, h.agent.config.ProbeTimeout)
		err := h.agent.config.Probe(limited, addr, labels)
		cancel()
		<-h.slots
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			h.agent.metrics.probes.WithLabelValues("ok").Inc()
		} else {
			h.agent.metrics.probes.WithLabelValues("failed").Inc()
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if j := h.juries[service]; j != nil {
			h.carryOut(service, j, j.probed(h.agent.now(), addr, err))
		}
	})
}

// explain puts a service's health into an explanation.
func (h *health) explain(out *l5pb.ExplainResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j := h.juries[out.GetService()]
	if j == nil {
		return
	}
	downs := make(map[string]string)
	for _, d := range j.downs() {
		downs[d.GetAddr()] = d.GetReason()
	}
	for _, i := range out.GetInstances() {
		if reason, ok := downs[i.GetInstance().GetAddr()]; ok {
			i.Reason = "not called from this device: " + reason + "; " + i.GetReason()
		}
	}
}

// apply puts a service's health into a view for those who look it up.
func (h *health) apply(v *View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	j := h.juries[v.Service]
	if j == nil {
		return
	}
	v.Panic = j.group.Panic()
	statuses := make(map[string]balance.Status, len(v.Members))
	for _, status := range j.group.Statuses() {
		statuses[status.Addr] = status
	}
	for i := range v.Members {
		if status, ok := statuses[v.Members[i].Addr]; ok && status.Health != balance.Up {
			v.Members[i].Weight, v.Members[i].Health, v.Members[i].Reason = status.Weight, status.Health, status.Reason
		}
	}
}
